"""The demo: index Python's standard library with the plain loop and in parallel, and compare.

Both loops run the same iteration, `index_file`. They differ in the tables (plain dicts or
`ame.Dict`s) and in the loop itself (`for` or `ame.for_each`). The results must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import itertools
import json
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ame
from ame._demo_index import Index, SourceFile, find_files, index_file, standard_library
from ame._workers import gil_enabled, worker_count

__all__ = ["DemoReport", "add_parser", "format_report", "run_demo"]

_TOP = 10
_GC_THRESHOLD = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What one run of the demo found and measured. Times are in seconds."""

    python: str
    gil: bool
    workers: int
    folder: str
    files: int
    skipped: int
    lines: int
    serial_seconds: float
    parallel_seconds: float
    transactions: int
    attempts: int
    conflicts: int
    conflicts_by_cause: Mapping[str, int]
    protected: int
    seconds_lost: float
    top_symbols: tuple[tuple[str, int], ...]
    top_imported: tuple[tuple[str, int], ...]

    @property
    def speed_up(self) -> float:
        """How many times faster the parallel loop was than the plain one."""
        return self.serial_seconds / max(self.parallel_seconds, 1e-9)


def run_demo(
    folder: Path,
    files: list[SourceFile],
    *,
    workers: int,
    say: Callable[[str], object] = lambda text: None,
) -> DemoReport:
    """Index `files`, found in `folder`, with both loops; return what came out.

    `say` is called with a line about each step. Raises `SystemExit` with a message when the two
    results differ.
    """
    for file in files:  # so that only memory is read in both loops, not the disk in the first one
        with contextlib.suppress(OSError):
            file.path.read_bytes()
    with _fewer_collections():
        say(f"indexing {len(files):,} files with the plain loop ...")
        plain, serial_seconds = _run_serial(files)
        say(f"indexing them in parallel, {_many(workers, 'worker')} ...")
        shared, parallel_seconds, stats = _run_parallel(files, workers)
    _check_equal(plain, shared)
    return DemoReport(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        gil=gil_enabled(),
        workers=workers,
        folder=str(folder),
        files=len(files),
        skipped=len(plain.skipped),
        lines=sum(module.lines for module in plain.modules.values()),
        serial_seconds=serial_seconds,
        parallel_seconds=parallel_seconds,
        transactions=stats.commits,
        attempts=stats.attempts,
        conflicts=stats.conflicts,
        conflicts_by_cause={
            cause.name.lower(): count for cause, count in stats.aborts_by_cause.items() if count
        },
        protected=stats.protected,
        seconds_lost=stats.seconds_lost,
        top_symbols=_top(plain.symbols),
        top_imported=_top(Counter(itertools.chain.from_iterable(plain.imports.values()))),
    )


@contextlib.contextmanager
def _fewer_collections() -> Iterator[None]:
    """Have the garbage collector look only once per 20,000 new objects, for both loops alike.

    Syntax trees are many objects without cycles: there is nothing for it to find. It costs the
    plain loop some 3 % and the parallel one some 10 %, as on free-threaded Python it stops all
    threads.
    """
    before = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run_serial(files: list[SourceFile]) -> tuple[Index, float]:
    """Index `files` one after the other into plain dicts; return them and the seconds it took."""
    index = Index({}, {}, {}, {})
    gc.collect()
    start = time.perf_counter()
    for file in files:
        index_file(index, file)
    return index, time.perf_counter() - start


def _run_parallel(files: list[SourceFile], workers: int) -> tuple[Index, float, ame.Stats]:
    """Index `files` in parallel, one transaction each; return result, seconds and statistics."""
    index = Index(ame.Dict(), ame.Dict(), ame.Dict(), ame.Dict())
    gc.collect()
    before = ame.stats()
    start = time.perf_counter()
    # One file per transaction: together they would hold what the first file read from the shared
    # tables while the next one is parsed, and conflict far more often.
    ame.for_each(
        functools.partial(index_file, index), files, workers=workers, chunk=1, label="index_file"
    )
    seconds = time.perf_counter() - start
    return index, seconds, ame.stats() - before


def _check_equal(plain: Index, shared: Index) -> None:
    """Exit with a message that names the first difference, if there is one."""
    for field in dataclasses.fields(Index):
        expected: Mapping[str, object] = getattr(plain, field.name)
        found = dict(getattr(shared, field.name).items())
        if found == expected:
            continue
        keys = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        key = min(keys)
        raise SystemExit(
            f"the results differ: {field.name}[{key!r}] is {found.get(key)!r} from the parallel "
            f"loop, but {expected.get(key)!r} from the plain loop ({len(keys)} keys in all). "
            "Did a file change meanwhile? If not, this is a bug in ame: please report it"
        )


def _top(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Return the ten largest entries, largest first, equal ones by name."""
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOP])


def _many(count: int, noun: str) -> str:
    """Return `count` with its noun in the right number."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_report(report: DemoReport) -> str:
    """Return `report` as the text that the command prints."""
    lost = f"{_share_lost(report):.1f} % of all workers"
    rows = [
        ("files", f"{report.files:,}", f"{report.skipped:,} of them skipped: they do not parse"),
        ("lines", f"{report.lines:,}", ""),
        ("plain loop", f"{report.serial_seconds:.2f} s", "for, dict"),
        ("parallel loop", f"{report.parallel_seconds:.2f} s", "ame.for_each, ame.Dict"),
        ("gc threshold", f"{_GC_THRESHOLD:,}", "in both loops"),
        ("speed-up", f"{report.speed_up:.2f} x", ""),
        ("results", "equal", ""),
        ("transactions", f"{report.transactions:,}", "one per file"),
        ("attempts", f"{report.attempts:,}", ""),
        ("conflicts", f"{report.conflicts:,}", _causes(report.conflicts_by_cause)),
        ("protected", f"{report.protected:,}", "ran so that they could not lose again"),
        ("time lost", f"{report.seconds_lost:.2f} s", lost),
    ]
    lines = [_heading(report), ""]
    lines += [f"  {name:<14}{value:>12}   {note}".rstrip() for name, value, note in rows]
    symbols = _column(("top symbols", "mentions"), report.top_symbols)
    modules = _column(("most imported", "by files"), report.top_imported)
    modules += [""] * (len(symbols) - len(modules))
    symbols += [" " * len(symbols[0])] * (len(modules) - len(symbols))
    lines.append("")
    lines += [f"  {left}    {right}".rstrip() for left, right in zip(symbols, modules, strict=True)]
    return "\n".join(lines)


def _column(head: tuple[str, str], entries: tuple[tuple[str, int], ...]) -> list[str]:
    """Return one line for the head and one per entry, all of the same width."""
    width = max(len(name) for name, _ in [head, *entries])
    lines = [f"{head[0]:<{width}}  {head[1]:>9}"]
    return lines + [f"{name:<{width}}  {count:>9,}" for name, count in entries]


def _heading(report: DemoReport) -> str:
    """Return the lines that say what ran where, with a notice when it can't be fast there."""
    build = "with the GIL" if report.gil else "free-threaded"
    lines = [f"{report.python} {build}, {_many(report.workers, 'worker')}, {report.folder}"]
    if report.gil:
        lines.append(
            "This Python has a GIL: one thread runs at a time, so the parallel loop cannot be "
            "faster here.\nUse free-threaded Python (python3.14t) to see it use all processors."
        )
    elif report.workers == 1:
        lines.append("With one worker the parallel loop cannot be faster than the plain one.")
    return "\n".join(lines)


def _causes(by_cause: Mapping[str, int]) -> str:
    """Return the causes of the conflicts, the most frequent first."""
    ordered = sorted(by_cause.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{cause} {count:,}" for cause, count in ordered)


def _share_lost(report: DemoReport) -> float:
    """Return the percentage of the workers' time that went into attempts that lost."""
    available = report.parallel_seconds * report.workers
    return 100.0 * report.seconds_lost / max(available, 1e-9)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the `demo` command to the command line."""
    parser = commands.add_parser(
        "demo",
        help="index the Python standard library in parallel and compare with the plain loop",
        description="Index the Python standard library's source files, once with a plain loop and "
        "once in parallel with one transaction per file; check that the results are equal.",
    )
    parser.add_argument("--workers", type=_positive, metavar="N", help="number of threads")
    parser.add_argument("--files", type=_positive, metavar="N", help="index only N of the files")
    parser.add_argument(
        "--dir", type=Path, metavar="PATH", help="index the Python files below PATH instead"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=_command)


def _positive(text: str) -> int:
    """Return `text` as a number of at least 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _command(options: argparse.Namespace) -> int:
    """Run the demo as the command line asks and print its report; return the exit status."""
    # Parsing warns of dubious literals in other people's files, from whichever thread parses.
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    folder = options.dir or standard_library()
    try:
        files = find_files(folder, limit=options.files)
        workers = worker_count(options.workers, where="ame demo")
    except (OSError, ValueError) as error:
        print(f"ame demo: {error}", file=sys.stderr)
        return 2
    say = functools.partial(print, file=sys.stderr, flush=True)
    report = run_demo(folder, files, workers=workers, say=say)
    if options.json:
        figures = dataclasses.asdict(report) | {"speed_up": report.speed_up}
        print(json.dumps(figures, indent=2))
    else:
        print(format_report(report))
    return 0
