"""What tests of `retry` share: threads that are known to sleep, and blocks that count.

A test that wakes a thread must first know that the thread sleeps, or it tests something else.  The
core counts its sleepers; here that count is polled, against a deadline.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

import pytest

import ame
from stm._core import ffi, lib
from support import THREADS_TIMEOUT, all_stacks

T = TypeVar("T")


def parked() -> int:
    """Return how many transactions of this process sleep in `retry` now."""
    raw = ffi.new("stm_stats *")
    lib.stm_domain_stats(lib.stmpy_get_domain(), raw)
    return int(raw.parked)


def wait_until(condition: Callable[[], bool], *, timeout: float = THREADS_TIMEOUT) -> None:
    """Poll until the condition holds; fail with the stack of every thread instead of hanging."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {timeout} s\n\n{all_stacks()}")
        time.sleep(0.0005)


class Sleepers(Generic[T]):
    """Threads, one per body, that were started one after another and all sleep in `retry`.

    The constructor returns when the last one sleeps; they fell asleep in the order of the bodies.
    """

    def __init__(self, *bodies: Callable[[], T]) -> None:
        self._results: dict[int, T] = {}
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        for number, body in enumerate(bodies):
            before = parked()
            thread = threading.Thread(target=self._run, args=(number, body), daemon=True)
            self._threads.append(thread)
            thread.start()
            wait_until(lambda before=before: parked() > before or bool(self._errors))
            if self._errors:
                raise self._errors[0]

    def _run(self, number: int, body: Callable[[], T]) -> None:
        try:
            self._results[number] = body()
        except BaseException as error:
            self._errors.append(error)

    @property
    def ended(self) -> int:
        """How many of them have ended."""
        return sum(not thread.is_alive() for thread in self._threads)

    def join(self, *, timeout: float = THREADS_TIMEOUT) -> list[T]:
        """Wait until all have ended; return their results, or raise the first error.

        Raises:
            AssertionError: one of them still sleeps: its wake-up was lost.
        """
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._errors:
            raise self._errors[0]
        late = sum(thread.is_alive() for thread in self._threads)
        if late:
            raise AssertionError(f"{late} still asleep after {timeout} s\n\n{all_stacks()}")
        return [self._results[number] for number in range(len(self._threads))]


def waiter(ready: Callable[[], T]) -> tuple[Callable[[], T], list[T]]:
    """Return an atomic function that waits until `ready()` is true, and what each run saw."""
    seen: list[T] = []

    @ame.atomic
    def wait() -> T:
        value = ready()
        seen.append(value)
        if not value:
            ame.retry()
        return value

    return wait, seen


def expires(block: Callable[[], object]) -> ame.TransactionTimeout:
    """Return the `TransactionTimeout` that the block must end with."""
    with pytest.raises(ame.TransactionTimeout) as caught:
        block()
    assert not ame.in_transaction()
    return caught.value


def names_a_line(file: str, text: str) -> bool:
    """Tell whether the text names the file, with a line number."""
    return re.search(re.escape(Path(file).name) + r":\d+", text) is not None


def never() -> NoReturn:
    """An alternative that always waits, and reads nothing."""
    ame.retry()


def when(ref: ame.Ref[int]) -> Callable[[], int]:
    """Return an alternative that waits until `ref` is true, and returns its value."""

    def alternative() -> int:
        if not ref.value:
            ame.retry()
        return ref.value

    return alternative
