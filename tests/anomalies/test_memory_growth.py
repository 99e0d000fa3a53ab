"""What is repeated often must not make the process grow: each end of a block, each compilation.

The memory of a process is noisy, so each program measures several rounds after a warm-up, and the
smallest growth counts: a leak grows in every round.
"""

from __future__ import annotations

import pytest

from support import run_script

BOUND = 150  # bytes per call; what leaks is a list of 50 or a record, far more

COMMON = """
import gc, sys, threading
import psutil
import ame, stm
from stm.testing import forced_aborts, lose

gc.collect()
gc.freeze()  # so that collections are fast
process = psutil.Process()
r, q, d = ame.Ref(0), ame.Ref(None), ame.Dict()
r.value = ame.run(lambda: 0)  # this thread's record is there before the first collection

def measure(act, count, rounds=4):
    for _ in range(count):
        act()
        assert not ame.in_transaction()
    growth = []
    for _ in range(rounds):
        gc.collect()
        before = process.memory_info().rss
        for _ in range(count):
            act()
        gc.collect()
        growth.append((process.memory_info().rss - before) / count)
    print(min(growth), growth)

def body():
    q.value = [1] * 50
    ame.on_commit(len, [1] * 50)
    ame.on_abort(len, [1] * 50)

def expect(kind, act, *arguments):
    try:
        act(*arguments)
    except kind:
        return
    raise SystemExit("no " + kind.__name__)

def in_thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()

class Cycle:
    def __init__(self, act):
        self.act, self.me = act, self

    def __del__(self):
        self.act()

def leave_open():
    ame.atomic().__enter__()
    body()
"""

MANY, SOME, FEW = 2000, 200, 150  # calls per round: of blocks, with threads, with collections

CASES = {
    "an exception": (
        MANY,
        """
def fails():
    r.value += 1
    body()
    raise ValueError

def act():
    expect(ValueError, ame.run, fails)
""",
    ),
    "nested blocks that fail": (
        MANY,
        """
def inner():
    body()
    d["k"] = [2] * 50
    raise ValueError

def outer():
    q.value = [0] * 50
    for _ in range(3):
        expect(ValueError, ame.run, inner)

def act():
    ame.run(outer)
""",
    ),
    "a timeout": (
        MANY,
        """
def waits():
    r.value
    body()
    ame.retry(timeout=0)

def act():
    expect(ame.TransactionTimeout, ame.run, waits)
""",
    ),
    "alternatives": (
        MANY,
        """
def waits():
    body()
    ame.retry()

def act():
    ame.run(ame.or_else, waits, waits, lambda: 1)
""",
    ),
    "split": (
        MANY,
        """
def halves():
    body()
    ame.split()
    body()
    raise ValueError

def act():
    expect(ValueError, ame.run, halves)
""",
    ),
    "unprotected": (
        MANY,
        """
def leaves():
    body()
    with ame.unprotected():
        q.value = [3] * 50

def act():
    ame.run(leaves)
""",
    ),
    "unprotected that is not left": (
        MANY,
        """
def leaves():
    body()
    ame.unprotected().__enter__()

def act():
    expect(ame.OpenBlockError, ame.run, leaves)
""",
    ),
    "a with block": (
        MANY,
        """
def act():
    x = [1] * 50
    with ame.atomic(label="w"):
        q.value = x
        x = [2] * 50
""",
    ),
    "a with block that loses": (
        MANY,
        """
def block():
    x = [1] * 50
    with ame.atomic(label="w"):
        body()
        x = [2] * 50

def act():
    with forced_aborts(2):
        block()
""",
    ),
    "a with block that fails": (
        MANY,
        """
def block():
    with ame.atomic(timeout=3, commit_on=KeyError):
        body()
        raise ValueError

def act():
    expect(ValueError, block)
""",
    ),
    "used up attempts": (
        MANY,
        """
@ame.atomic(max_attempts=2)
def loses():
    body()
    lose()

def act():
    expect(ame.AttemptLimit, loses)
""",
    ),
    "a block left open in a function": (
        MANY,
        """
def act():
    expect(ame.OpenBlockError, ame.run, leave_open)
""",
    ),
    "a thread": (
        SOME,
        """
def act():
    in_thread(lambda: ame.run(body))
""",
    ),
    "a thread that leaves its block open": (
        SOME,
        """
def act():
    in_thread(leave_open)
""",
    ),
    "a finalizer in a block": (
        FEW,
        """
def block():
    r.value += 1
    Cycle(lambda: ame.run(body))
    gc.collect()

def act():
    ame.run(block)
""",
    ),
    "a finalizer that leaves its block open": (
        FEW,
        """
def act():
    Cycle(leave_open)
    gc.collect()
""",
    ),
    "a finalizer that leaves its block open in a block": (
        FEW,
        """
def block():
    r.value += 1
    Cycle(leave_open)
    gc.collect()

def act():
    ame.run(block)
""",
    ),
    "strict mode": (
        MANY,
        """
def act():
    before = stm.set_strict(True)
    try:
        r.value = [1]
    except ame.UntrackedMutable:
        pass
    finally:
        stm.set_strict(before)
""",
    ),
}


def grown(program: str) -> float:
    """Return by how many bytes the process grew per call."""
    done = run_script(COMMON + program, timeout=60)
    print(done.stdout)
    return float(done.stdout.split()[0])


@pytest.mark.parametrize("case", CASES)
def test_process_does_not_grow_with(case: str) -> None:
    """Catches: a value, hook, record or manager that this end of a block forgets."""
    count, program = CASES[case]
    source = f"import linecache\nprogram = {program!r}\n"
    source += "linecache.cache['<case>'] = (0, None, program.splitlines(True), '<case>')\n"
    source += "exec(compile(program, '<case>', 'exec'))\n"
    assert grown(f"{source}\nmeasure(act, {count})\n") < BOUND


MODULE_LEVEL = """
lines = "".join(f"    if 0: a{number} = r\\n" for number in range(20))
blocks = "with ame.atomic():\\n    r.value = 1\\n" + lines

def act():
    exec(compile(blocks, "<cell>", "exec"), {"ame": ame, "r": r})

measure(act, 1000)
assert r.value == 1
"""


def test_module_level_block_that_is_compiled_a_thousand_times_does_not_grow() -> None:
    """Catches: a site or a label kept for each compilation of the same line (a cell, a plug-in)."""
    assert grown(MODULE_LEVEL) < 500
