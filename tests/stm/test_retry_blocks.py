"""retry in each kind of block: nested, read-only, on a snapshot, protected, in loops."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import ame
import stm
from sleepers import Sleepers, expires, parked, waiter
from support import Interference, in_thread, run_threads

pytestmark = pytest.mark.deadline(60)


def test_retry_in_a_nested_block_gives_up_the_outermost() -> None:
    x, y = ame.Ref(0), ame.Ref(0)
    runs: list[str] = []

    @ame.atomic
    def inner() -> None:
        runs.append("inner")
        y.value += 10
        if not x.value:
            ame.retry()

    @ame.atomic
    def outer() -> None:
        runs.append("outer")
        y.value += 1
        inner()
        inner()

    sleepers = Sleepers(outer)
    assert y.value == 0
    assert runs == ["outer", "inner"]
    x.value = 1
    sleepers.join()
    assert y.value == 21
    assert runs == ["outer", "inner", "outer", "inner", "inner"]


def test_retry_in_a_nested_block_wakes_by_the_reads_of_the_outer() -> None:
    x, gate = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def inner() -> None:
        if not gate.value:
            ame.retry()

    @ame.atomic
    def outer() -> str:
        if x.value:
            return "without it"
        inner()
        return "with it"

    sleepers = Sleepers(outer, outer)
    x.value = 1
    assert sleepers.join() == ["without it"] * 2


def test_except_of_the_outer_block_cannot_catch_the_retry_of_an_inner() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def inner() -> None:
        if not x.value:
            ame.retry()

    @ame.atomic
    def outer() -> str:
        try:
            inner()
        except BaseException:
            return "caught"
        y.value = 1
        return "went on"

    sleepers = Sleepers(outer)
    x.value = 1
    assert sleepers.join() == ["went on"]


def test_reads_of_a_nested_block_that_failed_are_waited_on() -> None:
    """Catches: reads that are forgotten with the writes of an undone block."""
    x = ame.Ref(0)

    def inner() -> None:
        if not x.value:
            raise LookupError

    @ame.atomic
    def outer() -> int:
        try:
            ame.run(inner)
        except LookupError:
            ame.retry()
        return x.value

    sleepers = Sleepers(outer)
    x.value = 6
    assert sleepers.join() == [6]


@pytest.mark.parametrize("size", [1, 400])
def test_retry_in_a_read_only_block_wakes(size: int) -> None:
    """Catches: a reader that records no reads, and so sleeps for ever or never."""
    refs = [ame.Ref(0) for _ in range(size)]
    runs = 0

    @ame.atomic(read_only=True)
    def block() -> int:
        nonlocal runs
        runs += 1
        total = sum(ref.value for ref in refs)
        if not total:
            ame.retry()
        return total

    sleepers = Sleepers(block)
    asleep = runs
    assert asleep <= 2
    refs[-1].value = 3
    assert sleepers.join() == [3]
    assert runs == asleep + 1


def test_timeout_of_a_read_only_block_says_what_it_waited_for() -> None:
    x = ame.Ref(0)

    @ame.atomic(read_only=True)
    def block() -> None:
        if not x.value:
            ame.retry(timeout=0.05)

    assert expires(block).waited_on == [x]


def test_retry_after_the_fall_back_on_a_snapshot_looks_again_at_once() -> None:
    """Catches: a sleep on values that had changed before, after which nothing changes any more."""
    x, y = ame.Ref(0), ame.Ref(0)

    def step() -> None:
        x.value += 1
        y.value += 1

    interfere = Interference(lambda: ame.run(step), times=2)

    @ame.atomic
    def block() -> tuple[int, int]:
        first = x.value
        interfere()
        second = y.value
        assert first == second
        if first < 2:
            ame.retry()
        return first, second

    assert block() == (2, 2)


def test_retry_of_a_protected_block_gives_up_its_place() -> None:
    """Catches: a sleeper that nobody may wake, as it forbids the change that it waits for."""
    x, y = ame.Ref(0), ame.Ref(0)
    interfere = Interference(lambda: y.update(lambda value: value + 1), times=3)

    @ame.atomic
    def block() -> int:
        before = y.value
        interfere()
        y.value = before + 10
        if interfere.calls > 3 and not x.value:
            ame.retry()
        return x.value

    sleepers = Sleepers(block)
    assert interfere.calls == 4
    in_thread(lambda: ame.run(ame.irrevocable))
    y.value += 1
    x.value = 1
    assert sleepers.join() == [1]
    assert y.value == 14


def test_item_of_a_loop_waits_for_another_item() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    def item(number: int) -> int:
        if number == 0:
            if not x.value:
                ame.retry()
            y.value = 1
        else:
            x.value = 1
        return number

    assert ame.map(item, range(2), workers=2, chunk=1) == [0, 1]
    assert (x.value, y.value) == (1, 1)


@pytest.mark.parametrize("options", [{"workers": 1, "chunk": 2}, {"workers": 2}], ids=str)
def test_items_of_a_loop_hand_over_to_another_thread(options: dict[str, Any]) -> None:
    """Catches: a chunk that waits for an answer to one of its own items, which it has undone."""
    count = 300
    box = ame.Ref[int | None](None)

    @ame.atomic
    def put(item: int) -> None:
        if box.value is not None:
            ame.retry(timeout=3)
        box.value = item

    @ame.atomic
    def take() -> int:
        item = box.value
        if item is None:
            ame.retry(timeout=3)
        box.value = None
        return item

    def consume() -> list[int]:
        return [take() for _ in range(count)]

    _, taken = run_threads(lambda: ame.for_each(put, range(count), **options), consume)
    assert sorted(taken or []) == list(range(count))


def test_timeout_of_an_item_ends_the_loop() -> None:
    x = ame.Ref(0)

    def item(number: int) -> None:
        if number == 3 and not x.value:
            ame.retry(timeout=0.05)

    with pytest.raises(ame.TransactionTimeout) as caught:
        ame.for_each(item, range(5), workers=2)
    assert caught.value.waited_on == [x]


def test_retry_in_a_loop_inside_of_a_block_gives_up_the_block() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> list[int]:
        y.value += 1
        return ame.map(lambda item: item if x.value else ame.retry(), range(3))

    sleepers = Sleepers(block)
    assert y.value == 0
    x.value = 1
    assert sleepers.join() == [[0, 1, 2]]
    assert y.value == 1


def test_counts_of_sleeps_are_those_of_the_cause() -> None:
    x = ame.Ref(0)
    wait, seen = waiter(lambda: x.value)
    before = ame.stats()
    sleepers = Sleepers(wait)
    x.value = 1
    sleepers.join()
    used = ame.stats() - before
    assert used.aborts_by_cause[ame.Cause.RETRY] == len(seen) - 1 == 1
    assert used.conflicts == 0


def test_collections_while_threads_sleep_do_no_harm() -> None:
    """Catches: sleepers that a collection of the free-threaded build waits for, or frees."""
    x = ame.Ref(0)
    wait, seen = waiter(lambda: x.value)

    @ame.atomic
    def on_a_temporary() -> int:
        ame.Ref(5).value  # noqa: B018 - its cell is waited on, and soon gone
        if not x.value:
            ame.retry()
        return x.value

    sleepers = Sleepers(*[wait] * 5, *[on_a_temporary] * 5)
    for number in range(20):
        cycle = ame.Ref[object](None)
        cycle.value = [cycle, ame.Ref(number)]
        del cycle
        gc.collect()
    stm.collect()
    x.value = 1
    assert sleepers.join() == [1] * 10
    assert seen.count(1) == 5


def test_count_of_sleepers_goes_back_to_what_it_was() -> None:
    """Catches: a sleeper that is still counted, and makes every commit look for it."""
    before = parked()
    x = ame.Ref(0)
    wait, _ = waiter(lambda: x.value)
    sleepers = Sleepers(wait, wait, wait)
    assert parked() == before + 3
    x.value = 1
    sleepers.join()
    assert parked() == before
