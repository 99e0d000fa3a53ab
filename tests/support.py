"""What tests share: threads that can't hang a test, deterministic conflicts, scripts, seeds.

Nothing here imports the project, so that each test decides what it needs.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any, Generic, TypeVar

T = TypeVar("T")

THREADS_TIMEOUT = 30.0  # seconds; far more than any test needs, for a machine under load
GRACE = 5.0  # seconds that the other threads get once one has failed
SCRIPT_TIMEOUT = 60.0  # seconds
ROOT = Path(__file__).resolve().parent.parent


class _Task(Generic[T]):
    """One body in a thread of its own: what came out of it."""

    def __init__(
        self,
        body: Callable[[], T],
        name: str,
        barrier: threading.Barrier | None,
        ended: threading.Semaphore,
    ) -> None:
        self._body = body
        self._barrier = barrier
        self._ended = ended
        self.result: list[T] = []
        self.error: BaseException | None = None
        self.finished_at = 0.0  # when it ended, in seconds of time.monotonic()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            if self._barrier is not None:
                self._barrier.wait(THREADS_TIMEOUT)
            self.result.append(self._body())
        except BaseException as error:
            self.error = error
        finally:
            self.finished_at = time.monotonic()
            self._ended.release()


def run_threads(*bodies: Callable[[], T], timeout: float = THREADS_TIMEOUT) -> list[T]:
    """Run each body in a thread of its own, all released at the same moment.

    Args:
        bodies: Functions without arguments.
        timeout: Seconds until the test fails with the stack of every thread, instead of hanging.

    Returns:
        The results, in the order of the bodies.

    Raises:
        BaseException: The exception that was raised first in any of them, with its traceback.
        AssertionError: A thread did not end in time.
    """
    barrier = threading.Barrier(len(bodies)) if len(bodies) > 1 else None
    ended = threading.Semaphore(0)
    tasks = [_Task(body, f"test-{n}", barrier, ended) for n, body in enumerate(bodies)]
    deadline = time.monotonic() + timeout
    for task in tasks:
        task.thread.start()
    for _ in tasks:
        if not ended.acquire(timeout=max(0.0, deadline - time.monotonic())):
            break
        if any(task.error is not None for task in tasks):
            deadline = min(deadline, time.monotonic() + GRACE)
    failed = [task for task in tasks if task.error is not None]
    stuck = [task.thread.name for task in tasks if not task.finished_at]
    if failed:
        first = min(failed, key=lambda task: task.finished_at)
        assert first.error is not None
        raise first.error
    if stuck:
        raise AssertionError(
            f"still running after {timeout} s: {', '.join(stuck)}\n\n{all_stacks()}"
        )
    for task in tasks:
        task.thread.join(GRACE)
    return [task.result[0] for task in tasks]


def run_n(
    count: int,
    body: Callable[[int], T],
    *others: Callable[[], Any],
    timeout: float = THREADS_TIMEOUT,
) -> list[T]:
    """Run `body(0)` .. `body(count - 1)` in threads, and `others` along with them.

    Returns the results of `body`; raises as `run_threads`.
    """
    results = run_threads(
        *[_bound(body, number) for number in range(count)], *others, timeout=timeout
    )
    return results[:count]


def _bound(body: Callable[[int], T], number: int) -> Callable[[], T]:
    return lambda: body(number)


def in_thread(body: Callable[[], T], *, timeout: float = THREADS_TIMEOUT) -> T:
    """Run `body` in another thread, wait for it, and return what it returned or raise its error.

    Called inside an atomic block it is how a test makes a conflict that always happens.
    """
    return run_threads(body, timeout=timeout)[0]


class Interference:
    """Lets another thread do something in the middle of a block, on the first call only.

    A block calls the object; its re-execution calls it again, and then nothing happens. `calls`
    counts both, so it is the number of attempts that came this far.
    """

    def __init__(self, act: Callable[[], object], *, times: int = 1) -> None:
        self._act = act
        self._times = times
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self._times:
            in_thread(self._act)


def rounds(most: int, *, seconds: float = 1.0) -> Iterator[int]:
    """Yield 0, 1, 2, ... up to `most` numbers, and no more once `seconds` have passed."""
    deadline = time.monotonic() + seconds
    for number in range(most):
        if number and time.monotonic() > deadline:
            return
        yield number


def repeat_until(done: threading.Event, action: Callable[[], object]) -> Callable[[], int]:
    """Return a body that repeats `action` until `done` is set, and returns how often it did.

    When the action fails, `done` is set, so that the other threads of the test end too.
    """

    def body() -> int:
        count = 0
        try:
            while not done.is_set():
                action()
                count += 1
        finally:
            done.set()
        return count

    return body


def then_set(done: threading.Event, body: Callable[[], T]) -> Callable[[], T]:
    """Return `body`, which sets `done` when it ends in any way."""

    def wrapped() -> T:
        try:
            return body()
        finally:
            done.set()

    return wrapped


def wait_for(event: threading.Event, *, timeout: float = THREADS_TIMEOUT) -> None:
    """Wait for an event; fail with the stack of every thread instead of hanging."""
    if not event.wait(timeout):
        raise AssertionError(f"event not set after {timeout} s\n\n{all_stacks()}")


def all_stacks() -> str:
    """Return the Python stack of every thread, as text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append(f"thread {names.get(ident, ident)}:\n{stack}")
    return "\n".join(parts)


def run_script(
    source: str,
    *arguments: str,
    timeout: float = SCRIPT_TIMEOUT,
    environment: dict[str, str] | None = None,
    expect: int | None = 0,
    stacks: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own.

    Args:
        source: The program.
        arguments: What it finds in `sys.argv[1:]`.
        timeout: Seconds until it is killed (with the stacks of its threads) and the test fails.
        environment: Variables to set besides the present ones.
        expect: Exit code that it must have; None accepts any.
        stacks: Whether the stacks of its threads are shown when it is late. Not for programs that
            fork: the child would wait for ever for the thread that watches the clock.

    Returns:
        The finished process, with `stdout` and `stderr` as text.

    Raises:
        AssertionError: It did not end in time, or with another exit code.
    """
    variables = {**os.environ, **(environment or {})}
    paths = [*sys.path, str(ROOT / "tests"), str(ROOT)]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    watch = f"import faulthandler; faulthandler.dump_traceback_later({timeout}, exit=True)\n"
    header = watch if stacks else ""
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-W",
        "ignore",
        "-c",
        header + source,
        *arguments,
    ]
    process = subprocess.Popen(
        command, env=variables, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout + GRACE)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        stdout, stderr = process.communicate()
        stderr += f"\n(killed: it or a child of it still ran after {timeout} s)"
    finally:
        _kill_group(process)
    done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    if expect is not None and done.returncode != expect:
        raise AssertionError(
            f"the script ended with {done.returncode}, not {expect}\n--- stdout\n{done.stdout}"
            f"\n--- stderr\n{done.stderr}"
        )
    return done


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End the process and whatever it has forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def gil_enabled() -> bool:
    """Return whether only one thread at a time runs Python code here."""
    probe = getattr(sys, "_is_gil_enabled", None)
    return probe is None or bool(probe())


def seeded() -> random.Random:
    """Return a random generator, and print the seed that makes it again.

    `AME_TEST_SEED` sets the seed; pytest shows the printed line when the test fails.
    """
    seed = int(os.environ.get("AME_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"AME_TEST_SEED={seed}")
    return random.Random(seed)
