"""ame.Lock outside of blocks: a lock as those of threading."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import ame
from support import in_thread, run_n, run_threads, wait_for

pytestmark = pytest.mark.deadline(60)


class BodyError(Exception):
    """Leaves a block."""


@pytest.fixture
def lock() -> ame.Lock:
    return ame.Lock(patience=20)


def test_lock_excludes_threads(lock: ame.Lock) -> None:
    """Catches: two holders."""
    inside: list[int] = []

    def body(number: int) -> None:
        for _ in range(200):
            with lock:
                inside.append(number)
                assert inside == [number]
                inside.clear()

    run_n(4, body)
    assert not lock.locked()


def test_locked_tells_whether_a_thread_holds_it(lock: ame.Lock) -> None:
    """Catches: a state that is not given back, also after an exception."""
    assert not lock.locked()
    with lock:
        assert lock.locked()
        assert in_thread(lock.locked)
    assert not lock.locked()
    with pytest.raises(BodyError), lock:
        raise BodyError
    assert not lock.locked()


def test_acquire_and_release_work_as_those_of_threading(lock: ame.Lock) -> None:
    """Catches: results that differ from a threading.Lock's."""
    assert lock.acquire() is True
    assert in_thread(lambda: lock.acquire(False)) is False
    assert in_thread(lambda: lock.acquire(blocking=False)) is False
    assert in_thread(lambda: lock.acquire(True, 0)) is False
    assert in_thread(lambda: lock.acquire(timeout=0.01)) is False
    assert lock.release() is None  # type: ignore[func-returns-value]
    assert in_thread(lambda: lock.acquire(True, 5)) is True
    assert lock.locked()
    lock.release()  # any thread may


@pytest.mark.parametrize("arguments", [(False, 1), (False, 0), (True, -2), (True, -0.5)])
def test_wrong_arguments_are_refused_as_by_threading(
    lock: ame.Lock, arguments: tuple[Any, ...]
) -> None:
    """Catches: a timeout that is ignored, or taken for `no limit`."""
    with pytest.raises(ValueError):
        threading.Lock().acquire(*arguments)
    with pytest.raises(ValueError):
        lock.acquire(*arguments)
    assert not lock.locked()


@pytest.mark.parametrize("patience", [-1, -0.001, float("nan")])
def test_wrong_patience_is_refused(patience: float) -> None:
    """Catches: a wait that ends at once, or never."""
    with pytest.raises(ValueError, match="patience"):
        ame.Lock(patience=patience)


def test_taking_it_twice_raises_in_place_of_waiting_for_ever(lock: ame.Lock) -> None:
    """Catches: a thread that waits for itself."""
    with lock:
        with pytest.raises(RuntimeError, match="already"):
            lock.acquire()
        with pytest.raises(RuntimeError, match="already"), lock:
            pass
        assert lock.locked()
    assert not lock.locked()


def test_taking_it_twice_without_waiting_is_refused_as_by_threading(lock: ame.Lock) -> None:
    """Catches: an error where nothing would wait: a threading.Lock answers False."""
    with lock:
        assert lock.acquire(blocking=False) is False
    assert not lock.locked()


@pytest.mark.parametrize("runner", [lambda fn: fn(), ame.run], ids=["outside", "block"])
def test_releasing_what_is_free_raises(lock: ame.Lock, runner: Any) -> None:
    """Catches: a count below zero."""
    with pytest.raises(RuntimeError, match="unlocked"):
        runner(lock.release)
    assert not lock.locked()


def test_waiting_thread_gets_the_lock_when_it_is_released(lock: ame.Lock) -> None:
    """Catches: a release that wakes nobody."""
    waiting = threading.Event()

    def wait() -> bool:
        waiting.set()
        with lock:
            return True

    def hold() -> bool:
        wait_for(waiting)
        lock.release()
        return True

    lock.acquire()
    assert run_threads(wait, hold) == [True, True]


def test_repr_names_the_lock_without_reading_it(lock: ame.Lock) -> None:
    """Catches: a repr that makes a block conflict with the lock."""
    assert "Lock" in repr(lock)

    def body() -> int:
        repr(lock)
        return ame.current().reads

    assert ame.run(body) == 0


def test_lock_that_an_ended_thread_has_left_taken_is_not_held_by_a_new_thread(
    lock: ame.Lock,
) -> None:
    """Catches: an owner known by its ident, which the system gives to later threads again."""

    def try_again() -> bool:
        return lock.acquire(timeout=0.001)

    in_thread(lock.acquire)
    assert [in_thread(try_again) for _ in range(5)] == [False] * 5
    lock.release()
    assert in_thread(try_again) is True
