"""retry and the process: Ctrl-C, fork, exit, and what many sleepers cost.

The programs run in processes of their own.
"""

from __future__ import annotations

import sys

import pytest

from support import run_script

COMMON = """
import gc, os, signal, sys, threading, time
import ame
from sleepers import parked, wait_until

x, y = ame.Ref(0), ame.Ref(0)
table = ame.Dict()

@ame.atomic
def wait(least=1):
    y.value += 1
    table.get("absent")
    if x.value < least:
        ame.retry()
    y.value -= 1
    return x.value

def start(count, target=wait):
    threads = [threading.Thread(target=target, daemon=True) for _ in range(count)]
    before = parked()
    for thread in threads:
        thread.start()
    wait_until(lambda: parked() == before + count)
    return threads

def join(threads):
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
"""

INTERRUPT = """
@ame.atomic
def outer():
    y.value = 5
    return ame.or_else(wait, wait)

@ame.atomic
def swallow():
    while True:
        try:
            wait()
        except Exception:
            pass

def in_a_loop():
    ame.for_each(lambda item: wait(), range(3), workers=1)

def until():
    ame.block_until(lambda: x.value, timeout=60)

block = {"outermost": wait, "nested": outer, "swallowed": swallow, "block_until": until,
         "loop": in_a_loop, "with timeout": lambda: ame.run(lambda: x.value or
         ame.retry(timeout=60))}[sys.argv[1]]
best = 60.0
for _ in range(3):
    def interrupt():
        wait_until(lambda: parked() == 1)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    sent = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        block()
    except KeyboardInterrupt:
        best = min(best, time.monotonic() - sent[0])
    else:
        raise SystemExit("not interrupted")
    thread.join()
    assert (x.value, y.value, parked(), ame.in_transaction()) == (0, 0, 0, False)
assert best < 0.3, best
x.value = 1
assert wait() == 1
print("ok")
"""


@pytest.mark.parametrize(
    "kind", ["outermost", "nested", "swallowed", "block_until", "loop", "with timeout"]
)
def test_ctrl_c_ends_a_sleep_within_0_3_seconds(kind: str) -> None:
    """Catches: a sleep that no signal gets through; one that leaves something behind."""
    done = run_script(COMMON + INTERRUPT, kind, timeout=60)
    assert done.stdout == "ok\n", done.stdout + done.stderr


HANDLER = """
calls = []

def on_alarm(number, frame):
    calls.append(ame.in_transaction())
    ame.run(lambda: setattr(x, "value", x.value + 1))

signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
assert wait(3) >= 3
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(calls) >= 3
assert y.value == 0
print("ok")
"""


def test_signal_handler_may_wake_the_sleeping_thread() -> None:
    """Catches: a handler that runs inside of the sleep and whose change is lost."""
    assert run_script(COMMON + HANDLER, timeout=30).stdout == "ok\n"


ALARM = """
class Late(Exception):
    pass

def on_alarm(number, frame):
    raise Late

signal.signal(signal.SIGALRM, on_alarm)
for block in (wait, lambda: ame.or_else(wait, wait)):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        block()
    except Late:
        assert (y.value, parked(), ame.in_transaction()) == (0, 0, False)
    else:
        raise SystemExit("not interrupted")
print("ok")
"""


def test_exception_of_a_signal_handler_ends_the_sleep() -> None:
    assert run_script(COMMON + ALARM, timeout=30).stdout == "ok\n"


LOOP = """
def item(number):
    if number == 0 and sys.argv[1] == "error":
        ame.block_until(lambda: table.get("go"))
        raise LookupError
    if not x.value:
        y.value += 1
        ame.retry()

def stop():
    wait_until(lambda: parked() == 2)
    if sys.argv[1] == "error":
        table["go"] = True
    else:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

sent = []
threading.Thread(target=stop).start()
try:
    ame.for_each(item, range(2), workers=2, chunk=1)
except KeyboardInterrupt:
    assert time.monotonic() - sent[0] < 0.6
    print("interrupted", y.value)
except LookupError:
    print("error", y.value)
"""


@pytest.mark.parametrize("kind", ["error", "interrupted"])
def test_loop_ends_although_an_item_sleeps(kind: str) -> None:
    """Catches: Ctrl-C, or the error of another item, that waits for an item which never ends."""
    assert run_script(COMMON + LOOP, kind, timeout=10).stdout == f"{kind} 0\n"


CPU = """
threads = start(100)
began = time.process_time()
threading.Event().wait(1.0)
spent = time.process_time() - began
assert parked() == 100
x.value = 1
join(threads)
assert y.value == 0
print(spent)
"""


def test_hundred_sleepers_use_no_processor() -> None:
    """Catches: sleepers that poll. Less than 2 % of one processor, over one second."""
    assert min(float(run_script(COMMON + CPU).stdout) for _ in range(2)) < 0.02


MANY = """
threading.stack_size(256 * 1024)
threads = start(1000)
x.value = 1
join(threads)
assert parked() == 0
assert y.value == 0
print("ok")
"""


def test_thousand_sleepers_are_woken_by_one_commit() -> None:
    """Catches: wake-ups lost among many sleepers that then all conflict with each other."""
    assert run_script(COMMON + MANY, timeout=60).stdout == "ok\n"


BUSY_BESIDE = """
threads = start(200)
beside = ame.Dict()
before = ame.stats()
for number in range(20_000):
    beside[number % 10] = number
used = ame.stats() - before
assert used.attempts == used.commits, used
assert parked() == 200
x.value = 1
join(threads)
print("ok")
"""


def test_sleepers_are_not_woken_by_work_beside_them() -> None:
    """Catches: each commit waking or looking through all sleepers: this would take minutes."""
    assert run_script(COMMON + BUSY_BESIDE, timeout=40).stdout == "ok\n"


EXIT = {
    "sleeping daemon threads": """
start(20)
print("ok")
""",
    "sleepers with a timeout": """
start(5, lambda: ame.run(lambda: x.value or ame.retry(timeout=1)))
print("ok")
""",
    "sleepers in loops": """
def loop():
    ame.for_each(lambda item: wait(), range(10), workers=2, chunk=1)
threading.Thread(target=loop, daemon=True).start()
wait_until(lambda: parked() == 2)
print("ok")
""",
    "sleepers that a finalizer wakes at exit": """
class Waker:
    def __del__(self):
        x.value = 1
start(20)
waker = Waker()
table["waker"] = Waker()
print("ok")
""",
    "sleepers that an exit function wakes": """
import atexit
threads = start(20)
atexit.register(lambda: (setattr(x, "value", 1), join(threads), print("ok")))
""",
    "a finalizer at the very end that nobody can answer": """
class Last:
    def __del__(self, wait=wait, timeout=ame.TransactionTimeout, write=os.write):
        try:
            wait()
        except timeout:
            write(1, b"ok\\n")
last = Last()
""",
    "sys.exit in the main thread": """
start(20)
print("ok")
sys.stdout.flush()
sys.exit(0)
""",
}


@pytest.mark.parametrize("program", EXIT.values(), ids=EXIT.keys())
def test_exit_is_clean_with(program: str) -> None:
    """Catches: a crash, a hang or noise when the interpreter ends while threads sleep."""
    for _ in range(2):
        done = run_script(COMMON + program, timeout=30)
        assert done.stdout == "ok\n"
        assert "Traceback" not in done.stderr, done.stderr
        assert "Fatal" not in done.stderr, done.stderr


COLLECT = """
threads = start(50)
for number in range(50):
    cycle = [ame.Ref(number)]
    cycle.append(cycle)
    del cycle
    gc.collect()
gc.freeze()
gc.collect()
assert parked() == 50
x.value = 1
join(threads)
assert y.value == 0
print("ok")
"""


def test_collections_beside_sleepers_end() -> None:
    """Catches: sleepers that never stop for a collection of the free-threaded build."""
    assert run_script(COMMON + COLLECT, timeout=30).stdout == "ok\n"


FORK = """
threads = start(10)
for number in range(5):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert parked() == 0
            assert not ame.in_transaction()
            table[number] = 1
            mine = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
            for thread in mine:
                thread.start()
            wait_until(lambda: parked() == 3)
            x.value = 1
            join(mine)
            assert (y.value, parked()) == (0, 0)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
assert (x.value, parked()) == (0, 10)
x.value = 1
join(threads)
assert y.value == 0
print("ok")
"""

FORK_IN_HOOK = """
def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if not ame.in_transaction() else 1)
    statuses.append(os.waitpid(pid, 0)[1])

statuses = []
def block():
    ame.on_abort(fork)
    wait()

threads = [threading.Thread(target=ame.atomic(block), daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
wait_until(lambda: parked() == 3)
assert statuses == [0, 0, 0], statuses
x.value = 1
join(threads)
print("ok")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.parametrize("program", [FORK, FORK_IN_HOOK], ids=["main thread", "abort hook"])
def test_child_of_a_fork_has_no_sleepers(program: str) -> None:
    """Catches: a child that wakes, counts or waits for sleepers that do not exist there."""
    assert run_script(COMMON + program, timeout=30, stacks=False).stdout == "ok\n"
