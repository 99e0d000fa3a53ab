"""What `import ame` costs a program that has no atomic blocks.

    python benchmarks/import_cost.py [--rounds N]

Two things could be noticed: the import itself, and the function watcher (3.12+) that looks at every
function when it is created.  Each is measured in processes of its own, with and without `ame` in
turn, and shown as the best and the median of the rounds; bytecode is cached, as in an installation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FUNCTIONS = """
import gc, sys, time
gc.disable()  # a collection looks at all objects, those of imported modules too
if sys.argv[1] == "ame":
    import ame
source = "import os, re\\n" + "".join(f'''
def function{n}(first, second=1, *more, **named):
    for each in more:
        if os.path.join(str(each), second) and re.match(first, str(each)):
            return [len(part) for part in each]
    return sorted(named, key=lambda key: key.upper())
class Class{n}:
    def method(self, value):
        self.value = value
        return isinstance(value, int) and self.other(value)
    def other(self, value):
        return max(value, 1)
''' for n in range(500))
code = compile(source, "module.py", "exec")
def closures(count):
    for _ in range(count):
        def inner():
            pass
def best(body, *arguments):
    times = []
    for _ in range(9):
        began = time.perf_counter()
        body(*arguments)
        times.append(time.perf_counter() - began)
    return min(times)
print(best(exec, code, {"__name__": "module"}) / 1500 * 1e9, best(closures, 100_000) / 1e5 * 1e9)
"""

CASES = {  # name: (program, its argument, unit)
    "start, nothing imported": ("pass", "", "ms"),
    "start, typing and threading imported": ("import typing, threading, re", "", "ms"),
    "start, ame imported": ("import ame", "", "ms"),
}


def run(program: str, argument: str, environment: dict[str, str]) -> tuple[float, str]:
    """Run a program; return its seconds and what it printed."""
    import time

    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, argument],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return time.perf_counter() - began, done.stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What `import ame` costs other programs.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = max(1, parser.parse_args(arguments).rounds)
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        starts: dict[str, list[float]] = {name: [] for name in CASES}
        created: dict[str, list[list[float]]] = {"plain": [], "ame": []}
        for number in range(rounds + 1):
            for name, (program, argument, _) in CASES.items():
                seconds, _ = run(program, argument, environment)
                if number:  # the first round fills the caches
                    starts[name].append(seconds * 1e3)
            for kind, values in created.items():
                if number and number <= max(1, rounds // 3):
                    values.append([float(x) for x in run(FUNCTIONS, kind, environment)[1].split()])
    for name, times in starts.items():
        print(f"{name:40}{min(times):8.1f} ms  (median {statistics.median(times):.1f})")
    for index, what in enumerate(("a function or class of a module", "a closure")):
        plain, with_ame = (min(values[index] for values in created[kind]) for kind in created)
        print(
            f"creating {what:31}{plain:8.0f} ns without ame, {with_ame:.0f} ns with it "
            f"({with_ame / plain:.2f} x)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
