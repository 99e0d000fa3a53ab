"""fork in a signal handler, while the block of the main thread waits inside the core.

The handler is outside of the block, so it may fork; then the child is in the middle of the wait
too, alone. The programs run in processes of their own, with a time limit for them and their
children.
"""

from __future__ import annotations

import sys

import pytest

from support import run_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork there")

COMMON = """
import os, signal, sys, threading, traceback
import ame, stm
from sleepers import parked, wait_until

parent = os.getpid()
children = []
x, y, counter = ame.Ref(0), ame.Ref(0), ame.Ref(0)

def in_child():
    return os.getpid() != parent

def on_signal(number, frame):
    assert not ame.in_transaction()
    pid = os.fork()
    if pid:
        children.append(pid)
    else:
        after_fork()

def after_fork():
    pass

signal.signal(signal.SIGUSR1, on_signal)

def signal_when(condition, then=lambda: None):
    def other():
        wait_until(condition)
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(lambda: children)
        then()
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    return thread

def run_all(*bodies):
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)

def check_child():
    # Blocks of five threads at once, one of them begun before the others.
    assert not ame.in_transaction()
    assert parked() == 0
    barrier, out = threading.Barrier(4), []

    def at_once():
        def body():
            y.value
            if stm.attempt() == 0:
                barrier.wait(20)
            return "ok"
        out.append(ame.run(body))

    def outer():
        x.value = 7
        run_all(*[at_once] * 4)
        return x.value

    assert ame.run(outer) == 7
    assert out == ["ok"] * 4

    def count():
        for _ in range(300):
            counter.update(lambda value: value + 1)
    run_all(*[count] * 4)
    assert counter.value == 1200
    ame.run(ame.irrevocable)
    run_all(lambda: ame.run(ame.irrevocable))

def finish(child, block, check):
    # Runs the block in parent and child (which leaves it here) and what each has to check.
    code = 1
    try:
        result = block()
        if in_child():
            child(result)
            check_child()
        else:
            check(result)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        if in_child():
            os._exit(code)
    assert len(children) == 1, children
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert code == 0
    print("parent ok")
"""

RETRY_TIMES_OUT = """
def body():
    if not x.value:
        ame.retry(timeout=0.7)

def block():
    try:
        ame.run(body)
    except ame.TransactionTimeout:
        return "timeout"

def expect(result):
    assert result == "timeout"

signal_when(lambda: parked() == 1)
finish(expect, block, expect)
"""

RETRY_IS_WOKEN = """
def after_fork():
    x.value = 5  # the handler of the child; the parent's thread does not exist here

def body():
    if not x.value:
        ame.retry(timeout=20)
    return x.value

def child(result):
    assert result == 5

def check(result):
    assert result == 6

signal_when(lambda: parked() == 1, lambda: setattr(x, "value", 6))
finish(child, lambda: ame.run(body), check)
"""

RETRY_BESIDE_SLEEPERS = """
def sleeper():
    ame.block_until(lambda: x.value, timeout=20)

threads = [threading.Thread(target=sleeper, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
wait_until(lambda: parked() == 3)

def after_fork():
    x.value = 5

def body():
    if not x.value:
        ame.retry(timeout=20)
    return x.value

def child(result):
    assert result == 5

def check(result):
    assert result == 6
    for thread in threads:
        thread.join(20)
    assert parked() == 0

signal_when(lambda: parked() == 4, lambda: setattr(x, "value", 6))
finish(child, lambda: ame.run(body), check)
"""

NESTED_RETRY = """
def inner():
    if not x.value:
        ame.retry(timeout=20)
    return x.value

@ame.atomic
def body():
    y.value += 1
    return ame.or_else(inner, inner)

def after_fork():
    x.value = 5

def child(result):
    assert (result, y.value) == (5, 1)

def check(result):
    assert (result, y.value) == (6, 1)

signal_when(lambda: parked() == 1, lambda: setattr(x, "value", 6))
finish(child, body, check)
"""

WITH_BLOCK = """
import linecache
SOURCE = '''
def block():
    with ame.atomic():
        y.value += 1
        if not x.value:
            ame.retry(timeout=20)
    return x.value
'''
linecache.cache["<function>"] = (len(SOURCE), None, SOURCE.splitlines(True), "<function>")
exec(compile(SOURCE, "<function>", "exec"))
x.value = 1
block()  # before Python 3.12 the first call is what has it rewritten
x.value = y.value = 0

def after_fork():
    x.value = 5

def child(result):
    assert (result, y.value) == (5, 1)

def check(result):
    assert (result, y.value) == (6, 1)

signal_when(lambda: parked() == 1, lambda: setattr(x, "value", 6))
finish(child, block, check)
"""

SLOT = """
inside, leave = threading.Event(), threading.Event()

def hold():
    def body():
        ame.irrevocable()
        y.value = 1
        inside.set()
        leave.wait(30)
    ame.run(body)

holder = threading.Thread(target=hold, daemon=True)
holder.start()
inside.wait(30)

def body():
    ame.irrevocable()
    x.value += 1
    return y.value

def child(result):
    # The thread that held the slot does not exist here, and what it wrote never happened.
    assert (result, x.value, y.value) == (0, 1, 0)

def check(result):
    holder.join(20)
    assert (result, x.value, y.value) == (1, 1, 1)

before = ame.stats().waits
signal_when(lambda: ame.stats().waits > before, leave.set)
finish(child, MAKE_BLOCK, check)
"""

RE_ENTRY = """
def block():
    def body():
        x.value += 1
        with ame.unprotected():
            holder.start()
            inside.wait(30)
            signal_when(lambda: ame.stats().waits > before, leave.set)
        return y.value
    return ame.run(body)
"""

PROGRAMS = {
    "in retry that times out": RETRY_TIMES_OUT,
    "in retry that is woken": RETRY_IS_WOKEN,
    "in retry beside other sleepers": RETRY_BESIDE_SLEEPERS,
    "in retry of a nested block": NESTED_RETRY,
    "in retry of a with block": WITH_BLOCK,
    "for the slot, in the block": SLOT.replace("MAKE_BLOCK", "lambda: ame.run(body)"),
    "for the slot, at the beginning": SLOT.replace(
        "MAKE_BLOCK", "lambda: ame.atomic(irrevocable=True)(body)()"
    ),
    "for the slot, after unprotected": SLOT.replace("holder.start()\ninside.wait(30)\n", RE_ENTRY)
    .replace("signal_when(lambda: ame.stats().waits > before, leave.set)\nfinish", "finish")
    .replace("MAKE_BLOCK", "block"),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_child_of_a_fork_during_a_wait_ends_the_block_and_runs_others(program: str) -> None:
    """Catches: a child that wakes without its record, shares it between threads, or hangs."""
    done = run_script(COMMON + program, timeout=30, stacks=False)
    assert done.stdout.strip() == "parent ok", done.stdout + done.stderr
    assert "Error" not in done.stderr, done.stderr
