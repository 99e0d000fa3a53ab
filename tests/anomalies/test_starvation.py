"""Starvation: a long block loses to short ones for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import ame
from support import Interference, repeat_until, run_threads, then_set, wait_for

pytestmark = pytest.mark.deadline(60)

SIZE = 10_000  # refs or keys that the long block reads and rewrites
MOST_ATTEMPTS = 4  # three may be lost; the next one is protected and can't be
TIMES = 3  # long blocks in a row


def _compete(long_block: Callable[[], None], small: Callable[[int], None]) -> int:
    """Run the long block against two threads of small ones; return how many of those committed."""
    done = threading.Event()
    running = [threading.Event(), threading.Event()]

    def writer(number: int) -> Callable[[], int]:
        position = number

        def step() -> None:
            nonlocal position
            small(position % SIZE)
            position += 7919
            if position > 50 * 7919:
                running[number].set()

        return repeat_until(done, step)

    def long_thread() -> int:
        for event in running:
            wait_for(event)
        for _ in range(TIMES):
            long_block()
        return 0

    return sum(run_threads(then_set(done, long_thread), writer(0), writer(1)))


def test_block_over_ten_thousand_refs_finishes_within_four_attempts() -> None:
    """Catches: no protection after lost attempts, or a protected block that is aborted."""
    refs = [ame.Ref(0) for _ in range(SIZE)]
    attempts = 0

    @ame.atomic
    def rewrite() -> None:
        nonlocal attempts
        attempts += 1
        assert attempts <= MOST_ATTEMPTS
        for ref in refs:
            ref.value += 1

    @ame.atomic
    def increment(index: int) -> None:
        refs[index].value += 1

    def long_block() -> None:
        nonlocal attempts
        attempts = 0
        rewrite()

    committed = _compete(long_block, increment)
    assert sum(ref.value for ref in refs) == committed + TIMES * SIZE


def test_block_over_ten_thousand_keys_finishes_within_four_attempts() -> None:
    """Catches: the same, where the marks of the protected block must cover dict entries."""
    table: ame.Dict[int, int] = ame.Dict({key: 0 for key in range(SIZE)})
    attempts = 0

    @ame.atomic
    def rewrite() -> None:
        nonlocal attempts
        attempts += 1
        assert attempts <= MOST_ATTEMPTS
        for key in range(SIZE):
            table[key] += 1

    @ame.atomic
    def increment(key: int) -> None:
        table[key] += 1

    def long_block() -> None:
        nonlocal attempts
        attempts = 0
        rewrite()

    committed = _compete(long_block, increment)
    assert sum(table.values()) == committed + TIMES * SIZE


def test_block_that_inserts_and_iterates_finishes_within_four_attempts() -> None:
    """Catches: protection that doesn't cover the set of keys of a dict."""
    table: ame.Dict[int, int] = ame.Dict()
    attempts = 0

    @ame.atomic
    def summarise() -> None:
        nonlocal attempts
        attempts += 1
        assert attempts <= MOST_ATTEMPTS
        before = len(table)
        keys = list(table)
        assert len(keys) == before
        table[-attempts] = before

    @ame.atomic
    def flip(key: int) -> None:
        if key % 100 in table:
            del table[key % 100]
        else:
            table[key % 100] = 1

    def long_block() -> None:
        nonlocal attempts
        attempts = 0
        summarise()

    _compete(long_block, flip)
    assert len(table) == len(list(table))


def test_block_that_lost_three_times_cannot_lose_again() -> None:
    """Catches: protection that comes later than after three lost attempts; no luck needed."""
    x = ame.Ref(0)

    def add_ten() -> None:
        x.value += 10

    interfere = Interference(lambda: ame.run(add_ten), times=3)

    @ame.atomic
    def increment() -> None:
        before = x.value
        interfere()
        x.value = before + 1

    increment()
    assert x.value == 31
    assert interfere.calls == MOST_ATTEMPTS


def test_writer_waits_for_the_protected_block_and_then_commits() -> None:
    """Catches: a protected block over whose reads others commit, or that they never outwait."""
    x, y = ame.Ref(0), ame.Ref(-1)
    started, writer_done = threading.Event(), threading.Event()

    def add_ten() -> None:
        x.value += 10

    interfere = Interference(lambda: ame.run(add_ten), times=3)
    seen: list[int] = []

    @ame.atomic
    def protected() -> None:
        before = x.value
        interfere()
        if interfere.calls > 3:
            started.set()
            # Nobody may commit over what is read here. The writer tries all the time.
            for _ in range(2000):
                assert x.value == before
            seen.append(int(writer_done.is_set()))
        y.value = before

    def writer() -> None:
        wait_for(started)
        ame.run(add_ten)
        writer_done.set()

    run_threads(protected, writer)
    assert seen == [0]
    assert (x.value, y.value) == (40, 30)


def test_two_long_blocks_and_small_ones_all_finish() -> None:
    """Catches: a deadlock or a livelock of two blocks that both need protection."""
    refs = [ame.Ref(0) for _ in range(300)]
    done = threading.Event()
    ended = threading.Semaphore(0)

    @ame.atomic
    def rewrite(order: int) -> None:
        for ref in refs[::order]:
            ref.value += 1

    @ame.atomic
    def increment(index: int) -> None:
        refs[index].value += 1

    def long_thread(order: int) -> int:
        for _ in range(20):
            rewrite(order)
        ended.release()
        return 0

    def watch() -> int:
        try:
            assert ended.acquire(timeout=20)
            assert ended.acquire(timeout=20)
        finally:
            done.set()
        return 0

    committed = sum(
        run_threads(
            lambda: long_thread(1),
            lambda: long_thread(-1),
            watch,
            repeat_until(done, lambda: increment(17)),
        )
    )
    assert sum(ref.value for ref in refs) == committed + 2 * 20 * len(refs)
