"""Ctrl-C at any moment of a rewritten `with`: no block stays open, and it stays KeyboardInterrupt.

The interrupts come from a timer or from another thread, at moments that nobody chooses, so these
programs repeat them: as often as a number and a time allow. The tests at the end stage one moment
each.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

import ame
from stm import runtime as rt
from stm.testing import forced_aborts
from support import in_thread, run_script

posix = pytest.mark.skipif(sys.platform == "win32", reason="no such timers and signals there")

INTERRUPTS = 5000  # at most, for each program
SECONDS = 0.5  # at most, for each program

COMMON = """
import linecache, os, random, signal, sys, threading, time
import ame, stm
from stm.testing import forced_aborts, lose

MOST, SECONDS = int(sys.argv[1]), float(sys.argv[2])
x, y = ame.Ref(0), ame.Ref(0)

def define(source):
    linecache.cache["<block>"] = (len(source), None, source.splitlines(True), "<block>")
    exec(compile(source, "<block>", "exec"), globals())

def by_timer(delay):
    signal.setitimer(signal.ITIMER_REAL, delay)

ready = threading.Semaphore(0)
delays = []

def by_thread(delay):
    delays.append(delay)
    ready.release()

def send():
    while True:
        ready.acquire()
        time.sleep(delays.pop())
        os.kill(os.getpid(), signal.SIGINT)

def usable():
    assert not ame.in_transaction()
    thread = threading.Thread(target=lambda: ame.run(ame.irrevocable))
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "the slot is held"
    ame.run(ame.irrevocable)

def interrupt(block, request, holds):
    # Each round runs the block until one interrupt ends it; then nothing may be left.
    end = time.monotonic() + SECONDS
    count = 0
    while count < MOST and (time.monotonic() < end or count < 10):
        late = time.monotonic() + 10
        interrupted = False
        try:
            request(random.uniform(2e-5, 6e-4))
            while time.monotonic() < late:
                block()
            raise SystemExit(f"interrupt {count} was lost")
        except KeyboardInterrupt:
            interrupted = True
        except BaseException as error:
            raise SystemExit(f"interrupt {count} became {error!r} from {error.__context__!r}")
        assert interrupted
        assert not ame.in_transaction(), f"interrupt {count} left the block open"
        assert holds(), (count, x.value, y.value)
        count += 1
        if count % 50 == 0:
            usable()
    usable()
    print("ok")

def run(holds=lambda: x.value == y.value):
    for _ in range(3):
        block()
    if sys.argv[3] == "timer":
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        request = by_timer
    else:
        threading.Thread(target=send, daemon=True).start()
        request = by_thread
    interrupt(block, request, holds)
"""

BLOCKS = {
    "plain": """
def block():
    with ame.atomic():
        x.value += 1
        y.value += 1
""",
    "with a local that is assigned": """
def block():
    count = 0
    with ame.atomic(label="counts") as manager:
        count += 1
        x.value += count
        y.value += 1
    assert count == 1, count
""",
    "nested": """
def block():
    with ame.atomic():
        x.value += 1
        with ame.atomic(label="first"):
            y.value += 1
        with ame.atomic(label="second"):
            pass
""",
    "nested in a function": """
def inner():
    with ame.atomic():
        y.value += 1

@ame.atomic
def block():
    x.value += 1
    inner()
""",
    "lost attempts": """
def block():
    with ame.atomic():
        x.value += 1
        if stm.attempt() < 2:
            lose()
        y.value += 1
""",
    "irrevocable": """
def block():
    with ame.atomic(irrevocable=True):
        x.value += 1
        y.value += 1
""",
    "hooks": """
def block():
    with ame.atomic():
        ame.on_commit(abs, 1)
        ame.on_abort(abs, 1)
        x.value += 1
        y.value += 1
""",
    "an exception that leaves it": """
def block():
    try:
        with ame.atomic():
            x.value += 1
            raise LookupError
    except LookupError:
        pass
""",
    "unprotected": """
def block():
    with ame.atomic():
        x.value += 1
        y.value += 1
        with ame.unprotected():
            pass
""",
    "unprotected, a part after it": """
def block():
    with ame.atomic():
        x.value += 1
        with ame.unprotected():
            y.value
        x.value -= 1
""",
    "split": """
def block():
    with ame.atomic():
        x.value += 1
        y.value += 1
        ame.split()
        x.value += 1
        y.value += 1
""",
}
ALWAYS = {"unprotected, a part after it"}  # whose first part stays when the rest is undone


def program(name: str) -> str:
    holds = "lambda: True" if name in ALWAYS else ""
    return f"{COMMON}\ndefine({BLOCKS[name]!r})\nrun({holds})\n"


@posix
@pytest.mark.parametrize("name", BLOCKS)
def test_interrupt_of_a_timer_at_any_moment_ends_the_block(name: str) -> None:
    """Catches: a block left open between __enter__ and its body; Ctrl-C made OpenBlockError."""
    done = run_script(program(name), str(INTERRUPTS), str(SECONDS), "timer", timeout=30)
    assert done.stdout == "ok\n", done.stdout + done.stderr
    assert done.stderr == ""


@posix
@pytest.mark.parametrize("name", ["plain", "nested", "unprotected"])
def test_sigint_at_any_moment_ends_the_block(name: str) -> None:
    """Catches: the same with the real signal, sent while another thread runs."""
    done = run_script(program(name), str(INTERRUPTS), str(SECONDS), "thread", timeout=30)
    assert done.stdout == "ok\n", done.stdout + done.stderr
    assert done.stderr == ""


RE_ENTRY = """
import os, signal, threading
import ame
from sleepers import wait_until

x = ame.Ref(0)
inside, leave = threading.Event(), threading.Event()

def hold():
    def body():
        ame.irrevocable()
        inside.set()
        leave.wait(30)
    ame.run(body)

def interrupt():
    wait_until(lambda: ame.stats().waits > before)
    os.kill(os.getpid(), signal.SIGINT)

threads = [threading.Thread(target=hold), threading.Thread(target=interrupt)]
before = ame.stats().waits

@ame.atomic
def block():
    x.value += 1
    with ame.unprotected():
        threads[0].start()
        inside.wait(30)
        threads[1].start()
    x.value += 100

try:
    block()
except KeyboardInterrupt:
    print("interrupted", ame.in_transaction(), x.value)
leave.set()
for thread in threads:
    thread.join(20)
print(ame.run(lambda: x.update(lambda value: value + 1)), ame.in_transaction())
"""


@posix
def test_interrupt_while_the_rest_after_unprotected_waits_for_its_turn_ends_the_block() -> None:
    """Catches: a block without an attempt that goes on, or stays open."""
    done = run_script(RE_ENTRY, timeout=30)
    assert done.stdout == "interrupted False 1\n2 False\n"


# --- one moment each ---------------------------------------------------------------------

SITE = rt.site("file.py", 7, "function")
deadline = pytest.mark.deadline(30)


def entered(**options: Any) -> Any:
    """Begin a block as rewritten code does, and return what the frame's stack would hold."""
    blocks = rt.block(SITE, ame.atomic(**options))
    next(blocks)
    attempt = rt.attempt()
    attempt.__enter__()
    del attempt
    return blocks


def usable(ref: ame.Ref[int]) -> bool:
    """Tell whether this thread and another one can write `ref` and have the slot."""

    def body() -> int:
        ame.irrevocable()
        ref.value += 1
        return ref.value

    before = ref.value
    return (ame.run(body), in_thread(lambda: ame.run(body))) == (before + 1, before + 2)


@deadline
@pytest.mark.parametrize("options", [{}, {"irrevocable": True}, {"read_only": True}])
def test_block_that_is_dropped_before_its_body_is_undone(options: dict[str, Any]) -> None:
    """Catches: an interrupt between __enter__ and the body, where no __exit__ follows."""
    ref = ame.Ref(0)
    blocks = entered(**options)
    assert ame.in_transaction()
    del blocks
    assert not ame.in_transaction()
    assert usable(ref)


@deadline
def test_nested_block_that_is_dropped_before_its_body_leaves_the_outer_one_open() -> None:
    """Catches: the outer block ended with the inner one, or its exit taken for misuse."""
    ref = ame.Ref(0)
    for () in rt.block(SITE, ame.atomic()):
        with rt.attempt():
            ref.value = 1
            blocks = entered()
            del blocks
            assert ame.in_transaction()
            ref.value += 1
    assert (ame.in_transaction(), ref.value) == (False, 2)
    assert usable(ref)


@deadline
def test_interrupt_before_the_body_of_a_nested_block_leaves_as_it_is() -> None:
    """Catches: KeyboardInterrupt that the outer __exit__ replaces by OpenBlockError."""
    ref = ame.Ref(0)

    def interrupted() -> None:
        blocks = entered()
        assert blocks
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for () in rt.block(SITE, ame.atomic()):
            with rt.attempt():
                ref.value = 1
                interrupted()
    assert (ame.in_transaction(), ref.value) == (False, 0)
    assert usable(ref)


@deadline
def test_interrupt_while_the_dropped_nested_block_is_still_alive_leaves_as_it_is() -> None:
    """Catches: the same when a traceback or a local keeps the inner block until later."""
    ref = ame.Ref(0)
    kept = []

    def interrupted() -> None:
        kept.append(entered())
        kept.append(entered())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for () in rt.block(SITE, ame.atomic()):
            with rt.attempt():
                ref.value = 1
                interrupted()
    assert (ame.in_transaction(), ref.value) == (False, 0)
    assert usable(ref)
    with ame.atomic():
        kept.clear()
        gc.collect()
        assert ame.in_transaction()
        ref.value = 10
    assert (ame.in_transaction(), ref.value) == (False, 10)


@deadline
def test_interrupt_after_entering_unprotected_leaves_as_it_is() -> None:
    """Catches: KeyboardInterrupt that becomes OpenBlockError, or a suspended block left behind."""
    ref = ame.Ref(0)
    with pytest.raises(KeyboardInterrupt):
        for () in rt.block(SITE, ame.atomic()):
            with rt.attempt():
                ref.value = 1
                ame.unprotected().__enter__()
                raise KeyboardInterrupt
    assert (ame.in_transaction(), ref.value) == (False, 1)
    assert usable(ref)


@deadline
@pytest.mark.parametrize("times", [1, 2])
def test_with_block_that_ends_inside_of_unprotected_raises_and_the_thread_is_usable(
    times: int,
) -> None:
    """Catches: a suspended block that the next one, or the end of the thread, trips over."""
    ref = ame.Ref(0)
    for _ in range(times):
        with pytest.raises(ame.OpenBlockError, match=r"file\.py:7"):
            for () in rt.block(SITE, ame.atomic()):
                with rt.attempt():
                    ref.value = 1
                    ame.unprotected().__enter__()
        assert (ame.in_transaction(), ref.value) == (False, 1)
    assert usable(ref)


@deadline
def test_interrupt_before_the_body_of_a_repeated_attempt_ends_the_block() -> None:
    """Catches: the second attempt's __enter__, which takes up the record of the first."""
    ref = ame.Ref(0)
    with forced_aborts(1):
        blocks = rt.block(SITE, ame.atomic())
        next(blocks)
        with pytest.raises(rt.Rerun), rt.attempt():
            ref.value = 1
        next(blocks)
        rt.attempt().__enter__()
        assert ame.in_transaction()
        del blocks
    assert (ame.in_transaction(), ref.value) == (False, 0)
    assert usable(ref)
