"""ame.Lock in a signal handler: it may not wait for ever there, and must not pretend to hold it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ame
from sleepers import parked, wait_until
from support import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals between threads there")


class Scene:
    """A thread that holds the lock, and a block of the main thread that a signal interrupts."""

    def __init__(self, act: Callable[[ame.Lock], Any]) -> None:
        self._act = act
        self.lock = ame.Lock()
        self.results: list[Any] = []
        self.errors: list[BaseException] = []
        self.holder_errors: list[BaseException] = []
        self._handled = threading.Event()
        self._inside = threading.Event()
        self._wake = ame.Ref(0)

    def _hold(self) -> None:
        try:
            with self.lock:
                self._inside.set()
                wait_until(lambda: parked() == 1)
                os.kill(os.getpid(), signal.SIGUSR1)
                wait_for(self._handled)
                assert self.lock.locked()
        except BaseException as error:
            self.holder_errors.append(error)
        finally:
            self._wake.value = 1

    def _handle(self, number: int, frame: object) -> None:
        try:
            self.results.append(self._act(self.lock))
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._handled.set()

    def _sleep(self) -> int:
        if not self._wake.value:
            ame.retry(timeout=20)
        return self._wake.value

    def run(self) -> None:
        before = signal.signal(signal.SIGUSR1, self._handle)
        holder = threading.Thread(target=self._hold, daemon=True)
        holder.start()
        try:
            wait_for(self._inside)
            assert ame.run(self._sleep) == 1
        finally:
            holder.join(20)
            signal.signal(signal.SIGUSR1, before)
        assert self.holder_errors == []
        assert not self.lock.locked()
        with self.lock:
            assert self.lock.locked()


def enter(lock: ame.Lock) -> str:
    with lock:
        return "entered"


@pytest.mark.parametrize("act", [enter, ame.Lock.acquire, lambda lock: lock.acquire(timeout=-1)])
def test_wait_without_a_limit_that_is_cut_short_raises(act: Callable[[ame.Lock], Any]) -> None:
    """Catches: a handler in the critical section, or told False by a wait that has no end."""
    scene = Scene(act)
    scene.run()
    assert scene.results == []
    assert [type(error) for error in scene.errors] == [ame.TransactionTimeout]


@pytest.mark.parametrize(
    "act", [lambda lock: lock.acquire(timeout=0.05), lambda lock: lock.acquire(blocking=False)]
)
def test_wait_with_a_limit_returns_false(act: Callable[[ame.Lock], Any]) -> None:
    """Catches: an exception where threading.Lock answers."""
    scene = Scene(act)
    scene.run()
    assert (scene.results, scene.errors) == ([False], [])


def test_handler_may_take_a_lock_that_is_free() -> None:
    """Catches: locks refused in handlers altogether."""
    other = ame.Lock()
    scene = Scene(lambda _: enter(other))
    scene.run()
    assert (scene.results, scene.errors) == (["entered"], [])
    assert not other.locked()
