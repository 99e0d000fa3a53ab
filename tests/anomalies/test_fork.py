"""fork: the child has one thread, copies of all locks, and must be able to go on.

The programs run in processes of their own, with a time limit for them and their children.
"""

from __future__ import annotations

import sys

import pytest

from support import run_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork there")

COMMON = """
import os, sys, threading, ame

x, y = ame.Ref(0), ame.Ref(0)
table = ame.Dict({"n": 0})
done = threading.Event()

@ame.atomic
def step():
    x.value += 1
    y.value += 1
    table["n"] += 1
    assert x.value == y.value == table["n"]

def work():
    while not done.is_set():
        step()

def check(times=50):
    for number in range(times):
        step()
        with ame.atomic():
            assert x.value == y.value
        table[number] = number
        x.value, y.value, table["n"] = 7, 7, 7
        ame.run(lambda: ame.irrevocable())

def check_threads():
    threads = [threading.Thread(target=check_steps) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def check_steps():
    for _ in range(50):
        step()

def start():
    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    while x.value < 100:
        pass
    return threads

def stop(threads):
    done.set()
    for thread in threads:
        thread.join()
"""

OS_FORK = """
def child():
    done.set()
    assert not ame.in_transaction()
    assert ame.run(lambda: x.value == y.value == table["n"])
    check()
    check_threads()

threads = start()
for number in range(20):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, (number, status)
stop(threads)
assert x.value == y.value
print("parent ok")
"""

FORK_AND_LEAVE_NORMALLY = """
threads = start()
pid = os.fork()
if pid == 0:
    done.set()
    check()
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
stop(threads)
print("parent ok")
"""

MULTIPROCESSING = """
import multiprocessing

def target(queue):
    done.set()
    check()
    check_threads()
    queue.put(ame.run(lambda: x.value == y.value))

threads = start()
context = multiprocessing.get_context("fork")
for _ in range(5):
    queue = context.SimpleQueue()
    process = context.Process(target=target, args=(queue,))
    process.start()
    process.join(30)
    assert process.exitcode == 0, process.exitcode
    assert queue.get() is True
stop(threads)
print("parent ok")
"""

IRREVOCABLE_ELSEWHERE = """
inside, leave = threading.Event(), threading.Event()

def hold():
    with ame.atomic():
        x.value
        y.value = 1
        inside.set()
        leave.wait(30)

holder = threading.Thread(target=hold, daemon=True)
holder.start()
inside.wait(30)
pid = os.fork()
if pid == 0:
    # The thread that held the only place for irrevocable blocks doesn't exist here.
    with ame.atomic():
        x.value += 1
        assert (x.value, y.value) == (1, 0)
    ame.for_each(lambda item: None, range(100), workers=3)
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
leave.set()
holder.join()
assert (x.value, y.value) == (0, 1)
print("parent ok")
"""

PROGRAMS = {
    "os.fork": OS_FORK,
    "os.fork, sys.exit": FORK_AND_LEAVE_NORMALLY,
    "multiprocessing": MULTIPROCESSING,
    "another thread was irrevocable": IRREVOCABLE_ELSEWHERE,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_child_of_a_fork_can_run_transactions(program: str) -> None:
    """Catches: a child that inherits a held commit lock, a protected slot, or slots of the dead."""
    done = run_script(COMMON + program, timeout=30, stacks=False)
    assert done.stdout.strip() == "parent ok"
    assert "Error" not in done.stderr, done.stderr
