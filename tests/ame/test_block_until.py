"""block_until: go on when a predicate is true; AME's BlockUntil."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import ame
from sleepers import Sleepers, expires, names_a_line, parked, wait_until
from support import Interference, in_thread, repeat_until, run_threads, then_set

pytestmark = pytest.mark.deadline(60)


def test_true_predicate_gives_its_value_at_once() -> None:
    assert ame.block_until(lambda: "value") == "value"
    result = object()
    assert ame.run(lambda: ame.block_until(lambda: result)) is result


def test_block_until_waits_for_the_predicate() -> None:
    x = ame.Ref(0)
    sleepers = Sleepers(lambda: ame.block_until(lambda: x.value))
    x.value = 5
    assert sleepers.join() == [5]


def test_predicate_is_evaluated_when_what_it_read_changes_and_only_then() -> None:
    """Catches: polling, and waking by any commit."""
    x, y, others = ame.Ref(0), ame.Ref(0), ame.Ref(0)
    seen: list[tuple[int, int]] = []

    def both() -> bool:
        values = x.value, y.value
        seen.append(values)
        return all(values)

    sleepers = Sleepers(lambda: ame.block_until(both))
    for number in range(50):
        others.value = number
    y.value = 1
    wait_until(lambda: len(seen) == 2)
    wait_until(lambda: parked() > 0)
    x.value = 1
    assert sleepers.join() == [True]
    assert seen == [(0, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("ready", "change"),
    [
        (lambda d: "job" in d, lambda d: d.update(job=1)),
        (lambda d: len(d) == 2, lambda d: d.update(job=1)),
        (lambda d: list(d) == ["first", "job"], lambda d: d.update(job=1)),
        (lambda d: not d, lambda d: d.clear()),
        (lambda d: d["first"] > 5, lambda d: d.update(first=6)),
    ],
    ids=["key", "length", "keys", "empty", "value"],
)
def test_block_until_watches_a_dict(
    ready: Callable[[Any], bool], change: Callable[[Any], object]
) -> None:
    table: ame.Dict[str, int] = ame.Dict({"first": 1})
    sleepers = Sleepers(lambda: ame.block_until(lambda: ready(table)))
    change(table)
    assert sleepers.join() == [True]


def test_false_predicate_in_a_block_undoes_the_block() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> int:
        y.value += 1
        value = ame.block_until(lambda: x.value)
        y.value += value
        return y.value

    sleepers = Sleepers(block)
    assert y.value == 0
    x.value = 10
    assert sleepers.join() == [11]
    assert y.value == 11


def test_block_wakes_by_what_it_read_before_the_predicate() -> None:
    x, gate = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> str:
        if x.value:
            return "not needed"
        return f"gate {ame.block_until(lambda: gate.value)}"

    sleepers = Sleepers(block)
    x.value = 1
    assert sleepers.join() == ["not needed"]


def test_what_the_predicate_saw_still_holds_when_the_block_commits() -> None:
    """Catches: a predicate that is evaluated outside of the block that goes on."""
    stock, taken = ame.Ref(1), ame.Ref(0)
    interfere = Interference(lambda: setattr(stock, "value", 0))

    @ame.atomic
    def take() -> None:
        ame.block_until(lambda: stock.value > 0)
        interfere()
        stock.value -= 1
        taken.value += 1

    sleepers = Sleepers(take)
    assert (stock.value, taken.value) == (0, 0)
    stock.value = 1
    sleepers.join()
    assert (stock.value, taken.value) == (0, 1)


def test_stock_never_goes_below_zero() -> None:
    """Catches: the same under real concurrency."""
    stock = ame.Ref(0)

    @ame.atomic
    def take() -> None:
        ame.block_until(lambda: stock.value > 0)
        stock.value -= 1
        assert stock.value >= 0

    @ame.atomic
    def put() -> None:
        ame.block_until(lambda: stock.value < 5)
        stock.value += 1
        assert stock.value <= 5

    def repeat(step: Callable[[], None]) -> Callable[[], None]:
        return lambda: [step() for _ in range(500)] and None

    run_threads(repeat(take), repeat(take), repeat(put), repeat(put))
    assert stock.value == 0


def test_several_conditions_in_a_block_hold_together() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> tuple[int, int]:
        ame.block_until(lambda: x.value > 0)
        ame.block_until(lambda: y.value > 0)
        return x.value, y.value

    sleepers = Sleepers(block)
    x.value = 1
    wait_until(lambda: parked() > 0)
    y.value = 2
    assert sleepers.join() == [(1, 2)]


def test_block_until_in_an_alternative_tries_the_next() -> None:
    x = ame.Ref(0)

    def first() -> int:
        return ame.block_until(lambda: x.value)

    assert ame.or_else(first, lambda: -1) == -1
    x.value = 3
    assert ame.or_else(first, lambda: -1) == 3


def test_exception_of_the_predicate_propagates() -> None:
    x = ame.Ref(0)
    sleepers = Sleepers(lambda: ame.block_until(lambda: x.value and 1 // (x.value - 1)))
    x.value = 1
    with pytest.raises(ZeroDivisionError):
        sleepers.join()
    assert x.value == 1


def test_writes_of_a_false_predicate_are_undone() -> None:
    x, count = ame.Ref(0), ame.Ref(0)

    def counted() -> int:
        count.value += 1
        return x.value

    sleepers = Sleepers(lambda: ame.block_until(counted))
    x.value = 1
    sleepers.join()
    assert count.value == 1


def test_predicate_that_reads_nothing_raises() -> None:
    for call in (
        lambda: ame.block_until(lambda: False),
        lambda: ame.run(lambda: ame.block_until(lambda: False)),
    ):
        with pytest.raises(ame.TransactionError, match="read"):
            call()
        assert not ame.in_transaction()


def test_error_names_the_code_of_the_user() -> None:
    """Catches: a message that names a line of the library, which tells nobody anything."""
    with pytest.raises(ame.TransactionError) as caught:
        ame.block_until(lambda: False)
    assert names_a_line(__file__, str(caught.value)), caught.value


def test_timeout_names_the_code_of_the_user() -> None:
    x = ame.Ref(0)
    error = expires(lambda: ame.block_until(lambda: x.value, timeout=0))
    assert names_a_line(__file__, error.block), error.block


def test_timeout_tells_what_the_predicate_had_read() -> None:
    x = ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict()
    began = time.monotonic()
    error = expires(lambda: ame.block_until(lambda: x.value or "k" in table, timeout=0.05))
    assert time.monotonic() - began >= 0.05
    assert error.waited_on == [x, (table, "k")]
    assert error.cause is ame.Cause.RETRY
    assert error.attempts == 1


def test_timeout_in_a_block_ends_the_block() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> str:
        y.value = 1
        try:
            ame.block_until(lambda: x.value, timeout=0.05)
        except BaseException:
            return "caught inside"
        return "went on"

    error = expires(block)
    assert names_a_line(__file__, error.block)
    assert y.value == 0


def test_timeout_counts_through_all_evaluations() -> None:
    x = ame.Ref(1)

    def disturb() -> None:
        x.value += 1

    ended = threading.Event()
    run_threads(
        then_set(ended, lambda: expires(lambda: ame.block_until(lambda: x.value < 0, timeout=0.2))),
        repeat_until(ended, disturb),
    )


@pytest.mark.parametrize("bad", ["1", True, [1]])
def test_timeout_that_is_no_number_is_a_type_error(bad: Any) -> None:
    x = ame.Ref(0)
    with pytest.raises(TypeError, match="timeout"):
        ame.block_until(lambda: x.value, timeout=bad)


@pytest.mark.parametrize("bad", [-1, float("nan")])
def test_timeout_below_zero_is_a_value_error(bad: float) -> None:
    x = ame.Ref(0)
    with pytest.raises(ValueError, match="timeout"):
        ame.block_until(lambda: x.value, timeout=bad)


def test_bad_timeout_is_an_error_also_when_the_predicate_is_true() -> None:
    """Catches: a mistake that shows only once the program has to wait."""
    with pytest.raises(ValueError, match="timeout"):
        ame.block_until(lambda: True, timeout=-1)


def test_predicate_that_is_a_coroutine_function_is_a_type_error() -> None:
    """Catches: a coroutine, which is always true, for the answer."""

    async def ready() -> bool:
        return False

    with pytest.raises(TypeError):
        ame.block_until(ready)


def test_predicate_that_cannot_be_called_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        ame.block_until(True)  # type: ignore[arg-type]
    assert not ame.in_transaction()


def test_irrevocable_block_goes_on_when_the_predicate_is_true() -> None:
    x = ame.Ref(1)

    @ame.atomic(irrevocable=True)
    def block() -> int:
        return ame.block_until(lambda: x.value)

    assert block() == 1


def test_irrevocable_block_cannot_wait() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> None:
        y.value = 1
        ame.irrevocable()
        ame.block_until(lambda: x.value)

    with pytest.raises(ame.IrrevocableError):
        block()
    assert y.value == 0
    in_thread(lambda: ame.run(ame.irrevocable))


def test_items_of_a_loop_may_wait_for_each_other() -> None:
    turn = ame.Ref(0)
    order: ame.Dict[int, int] = ame.Dict()

    def item(number: int) -> None:
        ame.block_until(lambda: turn.value >= number)
        order[number] = turn.value
        turn.value += 1

    ame.for_each(item, range(40), workers=2, chunk=1)
    assert list(order.items()) == [(number, number) for number in range(40)]


def test_many_threads_wait_at_a_barrier() -> None:
    parties = 20
    arrived = ame.Ref(0)

    @ame.atomic
    def arrive() -> None:
        arrived.value += 1

    def body() -> int:
        for number in range(1, 6):
            arrive()
            ame.block_until(lambda number=number: arrived.value >= number * parties)
        return arrived.value

    assert run_threads(*[body] * parties) == [5 * parties] * parties
