"""ame.Lock in blocks: a read of the lock, so that blocks and threads exclude each other."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from stm.testing import forced_aborts
from support import Interference, in_thread, run_n, run_threads, wait_for

pytestmark = pytest.mark.deadline(60)

SHORT = 0.05  # seconds that a test waits for a timeout


class BodyError(Exception):
    """Leaves a block."""


@pytest.fixture
def lock() -> ame.Lock:
    return ame.Lock(patience=20)


class Owner:
    """Another thread that holds a lock outside of blocks."""

    def __init__(self, lock: ame.Lock) -> None:
        self._lock = lock
        self._inside, self.leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with self._lock:
            self._inside.set()
            wait_for(self.leave)

    def __enter__(self) -> Owner:
        self._thread.start()
        wait_for(self._inside)
        return self

    def __exit__(self, *exception: object) -> None:
        self.leave.set()
        self._thread.join(20)


def test_blocks_with_the_same_lock_run_in_parallel(lock: ame.Lock) -> None:
    """Catches: a lock that is taken inside of blocks: here they would wait for each other."""
    barrier = threading.Barrier(3)

    @ame.atomic
    def body() -> int:
        with lock:
            assert not lock.locked()
            barrier.wait(20)
        return stm.attempt()

    assert run_n(3, lambda number: body()) == [0, 0, 0]


def test_with_in_a_block_writes_nothing(lock: ame.Lock) -> None:
    """Catches: blocks that conflict over the lock itself."""

    @ame.atomic
    def body() -> int:
        for _ in range(3):
            with lock:
                pass
        return ame.current().writes

    assert body() == 0
    assert ame.atomic(read_only=True)(lambda: lock.__enter__() and lock.__exit__(None, None, None))
    assert not lock.locked()


def test_block_waits_for_a_thread_that_holds_the_lock(lock: ame.Lock) -> None:
    """Catches: a block that runs beside code with the lock."""
    ref, log = ame.Ref(0), []

    @ame.atomic
    def body() -> int:
        log.append("attempt")
        ame.on_abort(owner.leave.set)
        with lock:
            return ref.value

    with Owner(lock) as owner:
        ref.value = 1
        assert body() == 1
    assert log == ["attempt"] * 2


def test_block_starts_over_when_a_thread_takes_the_lock_meanwhile(lock: ame.Lock) -> None:
    """Catches: a block that commits in the middle of code with the lock."""
    first, second, result = ame.Ref(0), ame.Ref(0), ame.Ref[Any](None)

    def with_lock() -> None:
        with lock:
            first.value += 1
            second.value += 1

    disturb = Interference(with_lock)

    @ame.atomic
    def body() -> None:
        with lock:
            seen = first.value
            disturb()
            result.value = (seen, second.value)

    body()
    assert (result.value, disturb.calls) == ((1, 1), 2)


def test_taking_and_releasing_alone_makes_a_block_start_over(lock: ame.Lock) -> None:
    """Catches: a lock that looks free again, so that what happened under it goes unseen (ABA)."""
    result = ame.Ref(0)
    plain = [0]

    def with_lock() -> None:
        with lock:
            plain[0] += 1

    disturb = Interference(with_lock)

    @ame.atomic
    def body() -> None:
        with lock:
            seen = plain[0]
            disturb()
            result.value = seen + 10

    body()
    assert (result.value, disturb.calls) == (11, 2)


def test_blocks_and_threads_with_the_lock_exclude_each_other(lock: ame.Lock) -> None:
    """Catches: steps of lock-based code that a block sees half of, or the other way round."""
    first, second = ame.Ref(0), ame.Ref(0)

    def outside() -> None:
        for _ in range(100):
            with lock:
                seen = first.value
                first.value = seen + 1
                second.value = seen + 1

    @ame.atomic
    def block() -> None:
        with lock:
            assert first.value == second.value
            first.value += 1
            second.value += 1

    def inside() -> None:
        for _ in range(100):
            block()

    run_threads(outside, inside, outside, inside)
    assert (first.value, second.value) == (400, 400)


def test_patience_ends_the_wait_of_a_block() -> None:
    """Catches: a block that waits for ever for a lock that is never released."""
    lock, ref = ame.Lock(patience=SHORT), ame.Ref(0)

    @ame.atomic
    def body() -> None:
        ref.value = 1
        with lock:
            pass

    with Owner(lock):
        with pytest.raises(ame.TransactionTimeout):
            body()
    assert ref.value == 0
    body()
    assert ref.value == 1


def test_exception_inside_of_the_lock_in_a_block_leaves_the_lock_usable(lock: ame.Lock) -> None:
    """Catches: an entry that is remembered after the block has ended."""

    @ame.atomic
    def body(error: bool) -> None:
        with lock:
            if error:
                raise BodyError

    for _ in range(2):
        with pytest.raises(BodyError):
            body(True)
    body(False)
    with lock:
        assert lock.locked()
    assert not lock.locked()


def test_lost_attempt_leaves_the_lock_usable(lock: ame.Lock) -> None:
    """Catches: an entry of a lost attempt that the next one takes for its own."""

    @ame.atomic
    def body() -> int:
        with lock:
            return stm.attempt()

    with forced_aborts(2):
        assert body() == 2
    with lock:
        pass
    assert body() == 0


def test_taking_it_twice_in_a_block_raises(lock: ame.Lock) -> None:
    """Catches: code that works in a block and hangs outside of it."""

    def again() -> None:
        with lock:
            pass

    @ame.atomic
    def body() -> None:
        with lock:
            with pytest.raises(RuntimeError, match="already"):
                again()
            with pytest.raises(RuntimeError, match="already"):
                ame.run(again)
        again()

    body()


def test_acquire_inside_of_with_in_a_block_raises(lock: ame.Lock) -> None:
    """Catches: the same by acquire(): it would be held for ever after the block."""

    @ame.atomic
    def body() -> None:
        with lock:
            with pytest.raises(RuntimeError, match="already"):
                lock.acquire()

    try:
        body()
    finally:
        held = lock.locked()
    assert not held


def test_lock_held_by_the_thread_outside_is_refused_in_its_block(lock: ame.Lock) -> None:
    """Catches: a thread that waits for itself by way of a block."""

    def body() -> None:
        with lock:
            pass

    with lock:
        with pytest.raises(RuntimeError, match="already"):
            ame.run(body)
    ame.run(body)


def test_acquire_in_a_block_holds_the_lock_from_the_commit_on(lock: ame.Lock) -> None:
    """Catches: a lock taken before the commit, or not at all."""

    @ame.atomic
    def take(error: bool) -> None:
        assert lock.acquire() is True
        assert lock.locked()
        assert not in_thread(lock.locked)
        if error:
            raise BodyError

    with pytest.raises(BodyError):
        take(True)
    assert not lock.locked()
    take(False)
    assert in_thread(lock.locked)
    ame.run(lock.release)
    assert not lock.locked()


def test_acquire_and_release_in_one_block_leave_the_lock_free(lock: ame.Lock) -> None:
    """Catches: a release that looks at the committed state."""

    @ame.atomic
    def body() -> None:
        lock.acquire()
        lock.release()
        with lock:
            pass

    body()
    assert not lock.locked()


def test_two_blocks_that_acquire_do_not_both_get_the_lock(lock: ame.Lock) -> None:
    """Catches: an acquire that does not read."""
    holders: list[int] = []

    def body(number: int) -> None:
        for _ in range(50):
            ame.run(lock.acquire)
            holders.append(number)
            assert holders == [number]
            holders.clear()
            ame.run(lock.release)

    run_n(3, body)
    assert not lock.locked()


def test_acquire_without_waiting_in_a_block(lock: ame.Lock) -> None:
    """Catches: acquire(False) that waits, or takes what is held."""
    with Owner(lock):
        assert ame.run(lock.acquire, False) is False
    assert ame.run(lock.acquire, False) is True
    lock.release()


def test_undone_nested_block_gives_the_lock_back(lock: ame.Lock) -> None:
    """Catches: a lock held by a block that was undone."""

    def inner() -> None:
        lock.acquire()
        raise BodyError

    @ame.atomic
    def outer() -> None:
        with pytest.raises(BodyError):
            ame.run(inner)
        assert not lock.locked()

    outer()
    assert not lock.locked()


def test_two_locks_in_different_orders_do_not_deadlock_in_blocks() -> None:
    """Catches: locks that are taken."""
    locks = [ame.Lock(patience=20), ame.Lock(patience=20)]
    ref = ame.Ref(0)

    def both(first: ame.Lock, second: ame.Lock) -> Callable[[], None]:
        @ame.atomic
        def body() -> None:
            with first, second:
                ref.value += 1

        def repeat() -> None:
            for _ in range(100):
                body()

        return repeat

    run_threads(both(*locks), both(*reversed(locks)))
    assert ref.value == 200


def test_hook_of_a_block_with_the_lock_may_take_it(lock: ame.Lock) -> None:
    """Catches: an entry that lasts to the end of the hooks."""
    log = []

    def hook() -> None:
        with lock:
            log.append(lock.locked())

    @ame.atomic
    def body() -> None:
        with lock:
            ame.on_commit(hook)

    body()
    assert log == [True]
    assert not lock.locked()


def test_alternative_waits_for_nobody_when_the_lock_is_taken(lock: ame.Lock) -> None:
    """Catches: a wait inside of the lock that or_else cannot answer."""

    def first() -> str:
        with lock:
            return "first"

    with Owner(lock):
        assert ame.or_else(first, lambda: "second") == "second"
    assert ame.or_else(first, lambda: "second") == "first"


@pytest.mark.parametrize("leave", [ame.split, lambda: ame.unprotected().__enter__()])
def test_block_cannot_be_left_half_way_inside_of_an_elided_lock(
    lock: ame.Lock, leave: Callable[[], object]
) -> None:
    """Catches: a new transaction that does not know of the lock which the old one had read."""

    @ame.atomic
    def body() -> None:
        with lock:
            leave()

    with pytest.raises(ame.OpenBlockError, match=r"inside of `with lock:` in .*test_lock_blocks"):
        body()
    assert not lock.locked()


def test_block_of_a_finalizer_may_use_the_lock_that_the_interrupted_block_uses(
    lock: ame.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: an entry of one block taken for that of another, unrelated one of the thread.

    Finalizers that a collection finds have blocks of their own; elided locks exclude none of them.
    """
    reported: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda event: reported.append(event.exc_value))
    log: list[str] = []

    def use() -> None:
        with lock:
            log.append("finalizer")

    class Knot:
        def __init__(self) -> None:
            self.knot = self

        def __del__(self) -> None:
            ame.run(use)

    @ame.atomic
    def body() -> None:
        with lock:
            Knot()
            gc.collect()
            log.append("body")

    body()
    assert (log, reported) == (["finalizer", "body"], [])
