"""The interpreter ends while transactions are open: no crash, no hang, no noise."""

from __future__ import annotations

import pytest

from support import run_script

COMMON = """
import sys, threading, ame

x, y = ame.Ref(0), ame.Ref(0)
table = ame.Dict()
inside = threading.Event()

@ame.atomic
def step():
    x.value += 1
    y.value += 1
    table[x.value % 100] = y.value

def start(target, count=1):
    for _ in range(count):
        threading.Thread(target=target, daemon=True).start()
"""

BUSY = """
def work():
    while True:
        step()
        inside.set()

start(work, 4)
inside.wait(30)
"""

OPEN = """
@ame.atomic
def hold():
    step()
    inside.set()
    threading.Event().wait()

start(hold)
inside.wait(30)
"""

OPEN_IRREVOCABLE = """
def hold():
    with ame.atomic():
        x.value
        y.value = 5
        inside.set()
        threading.Event().wait()

start(hold)
inside.wait(30)
assert ame.run(lambda: (x.value, y.value)) == (0, 0)
"""

WAITING = """
def hold():
    with ame.atomic():
        x.value
        inside.set()
        threading.Event().wait()

def wait_for_it():
    inside.wait(30)
    with ame.atomic():
        x.value += 1

start(hold)
start(wait_for_it, 3)
inside.wait(30)
"""

OPEN_IN_MAIN = """
@ame.atomic
def body():
    x.value = 1
    sys.exit(0)

body()
"""

GLOBAL_FINALIZER = """
class Value:
    def __init__(self):
        ref = self.ref = ame.Ref(0)
        def bump():
            ref.value += 1
        self.step = ame.atomic(bump)
    def __del__(self):
        self.ref.value += 1
        self.step()

value = Value()
held = ame.Ref(Value())
table["held"] = Value()
cycle = Value()
cycle.cycle = ame.Ref(cycle)
hidden = Value()
hidden.cycle = hidden
del hidden
"""

AT_EXIT = """
import atexit

@atexit.register
def last():
    step()
    assert ame.run(lambda: x.value == y.value == 1)
    print("last")
"""

LOOP = """
def work():
    ame.for_each(lambda item: step(), iter(int, 1), workers=2)

start(work)
while x.value < 100:
    pass
"""

PROGRAMS = {
    "threads that commit all the time": BUSY,
    "an open block": OPEN,
    "an open irrevocable block": OPEN_IRREVOCABLE,
    "threads that wait for an irrevocable block": WAITING,
    "exit from inside a block": OPEN_IN_MAIN,
    "finalizers of globals": GLOBAL_FINALIZER,
    "a transaction at exit": AT_EXIT,
    "a loop in a daemon thread": LOOP,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_exit_is_clean_with(program: str) -> None:
    """Catches: a crash (code -11), a hang, or an error message at the end of the process."""
    done = run_script(COMMON + program + "\nprint('end of main')\n", timeout=30)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Fatal" not in done.stderr, done.stderr
    if program is not OPEN_IN_MAIN:
        assert done.stdout.startswith("end of main")
    if program is AT_EXIT:
        assert done.stdout.endswith("last\n")
