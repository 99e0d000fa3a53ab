"""or_else: the first alternative that does not wait; what waits is undone, its reads stay."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn

import pytest

import ame
from sleepers import Sleepers, expires, names_a_line, never, wait_until, waiter, when
from support import Interference, run_threads

pytestmark = pytest.mark.deadline(60)


# --- which one ------------------------------------------------------------------------------------


def test_first_alternative_that_does_not_wait_gives_the_result() -> None:
    calls: list[str] = []

    def alternative(name: str, waits: bool) -> Callable[[], str]:
        def body() -> str:
            calls.append(name)
            if waits:
                ame.retry()
            return name

        return body

    @ame.atomic
    def block() -> str:
        return ame.or_else(
            alternative("a", True), alternative("b", True), alternative("c", False), never
        )

    assert block() == "c"
    assert calls == ["a", "b", "c"]


def test_second_alternative_does_not_run_when_the_first_does_not_wait() -> None:
    calls: list[int] = []
    result = object()
    assert ame.run(lambda: ame.or_else(lambda: result, lambda: calls.append(1))) is result
    assert calls == []


@pytest.mark.parametrize("value", [None, 0, False, ""])
def test_false_result_is_a_result(value: object) -> None:
    """Catches: an alternative that is taken for waiting by what it returns."""
    assert ame.run(lambda: ame.or_else(lambda: value, lambda: "second")) == value


def test_alternative_that_waits_is_undone() -> None:
    x = ame.Ref("before")
    table: ame.Dict[str, int] = ame.Dict({"kept": 1, "gone": 2})

    def first() -> None:
        x.value = "first"
        table["kept"] = 5
        table["new"] = 1
        del table["gone"]
        assert len(table) == 2
        ame.retry()

    def second() -> tuple[str, dict[str, int], int, list[str]]:
        return x.value, dict(table.items()), len(table), list(table)

    expected = ("before", {"kept": 1, "gone": 2}, 2, ["kept", "gone"])
    assert ame.run(lambda: ame.or_else(first, second)) == expected
    assert second() == expected


def test_alternative_that_waits_gives_back_what_the_block_had_written() -> None:
    """Catches: an undo down to the committed state, or none for what was written twice."""
    x, y, z = ame.Ref(0), ame.Ref(0), ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict()

    def first() -> None:
        x.value = 100
        x.value = 101
        z.value = 100
        table["a"] = 100
        del table["b"]
        table["c"] = 100
        ame.retry()

    def second() -> None:
        assert (x.value, y.value, z.value) == (1, 1, 0)
        assert dict(table.items()) == {"a": 1, "b": 2}
        y.value = 2
        table["d"] = 4

    @ame.atomic
    def block() -> None:
        x.value = 1
        y.value = 1
        table.update(a=1, b=2)
        ame.or_else(first, second)
        z.value += 1

    block()
    assert (x.value, y.value, z.value) == (1, 2, 1)
    assert dict(table.items()) == {"a": 1, "b": 2, "d": 4}
    assert list(table) == ["a", "b", "d"]


def test_many_writes_are_undone() -> None:
    """Catches: an undo that misses what is kept in the index of a large write set."""
    refs = [ame.Ref(0) for _ in range(1000)]

    def first() -> None:
        for ref in refs:
            ref.value += 10
        ame.retry()

    def second() -> None:
        assert [ref.value for ref in refs] == [1] * 500 + [0] * 500
        for ref in refs[::2]:
            ref.value += 100

    @ame.atomic
    def block() -> None:
        for ref in refs[:500]:
            ref.value = 1
        ame.or_else(first, first, second)

    block()
    assert [ref.value for ref in refs] == [101, 1] * 250 + [100, 0] * 250


def test_hundred_alternatives_are_tried_in_order() -> None:
    x = ame.Ref(0)

    def waits() -> None:
        x.value += 1
        assert x.value == 1
        ame.retry()

    def last() -> int:
        x.value += 1
        return x.value

    assert ame.run(lambda: ame.or_else(*[waits] * 100, last)) == 1
    assert x.value == 1


def test_retry_after_or_else_does_not_try_the_next_alternative() -> None:
    """Catches: a choice that is taken up again after it was made (Harris et al. 2005)."""
    x = ame.Ref(0)
    second: list[int] = []

    @ame.atomic
    def block() -> int:
        ame.or_else(lambda: 1, lambda: second.append(1))
        if not x.value:
            ame.retry()
        return x.value

    sleepers = Sleepers(block)
    x.value = 2
    assert sleepers.join() == [2]
    assert second == []


def test_or_else_twice_in_a_block_chooses_twice() -> None:
    x, y = ame.Ref(0), ame.Ref(1)

    @ame.atomic
    def block() -> tuple[int, int]:
        first = ame.or_else(when(x), when(y))
        y.value = 5
        return first, ame.or_else(when(x), when(y))

    assert block() == (1, 5)


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(3))
def test_block_wakes_by_the_reads_of_each_alternative(place: int) -> None:
    """Catches: or_else forgets the reads of the first branch, or of the second."""
    refs = [ame.Ref(0) for _ in range(3)]
    sleepers = Sleepers(ame.atomic(lambda: ame.or_else(*map(when, refs))))
    refs[place].value = place + 10
    assert sleepers.join() == [place + 10]


def test_waiting_alternatives_are_woken_again_and_again() -> None:
    """Catches: reads of undone alternatives that get lost after some attempts."""
    x, y = ame.Ref(0), ame.Ref(0)
    wait_x, _ = waiter(lambda: x.value >= 20)
    runs = 0

    @ame.atomic
    def block() -> bool:
        nonlocal runs
        runs += 1
        return ame.or_else(wait_x, lambda: when(y)() > 0)

    sleepers = Sleepers(block)
    for number in range(1, 20):
        x.value = number
        wait_until(lambda number=number: runs > number)
    assert sleepers.ended == 0
    x.value = 20
    assert sleepers.join() == [True]


@pytest.mark.parametrize("place", range(3))
def test_read_only_block_wakes_by_the_reads_of_each_alternative(place: int) -> None:
    """Catches: the same in a block that records its reads only once it has to wait."""
    refs = [ame.Ref(0) for _ in range(3)]
    sleepers = Sleepers(ame.atomic(read_only=True)(lambda: ame.or_else(*map(when, refs))))
    refs[place].value = place + 10
    assert sleepers.join() == [place + 10]


def test_block_wakes_by_what_was_read_before_the_alternatives() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> str:
        if x.value:
            return "without"
        return str(ame.or_else(when(y), when(y)))

    sleepers = Sleepers(block)
    x.value = 1
    assert sleepers.join() == ["without"]


def test_block_in_which_all_wait_starts_over_from_its_first_alternative() -> None:
    x, y, z = ame.Ref(0), ame.Ref(0), ame.Ref(0)
    runs: list[str] = []

    def first() -> str:
        runs.append("first")
        z.value += 1
        return f"first {when(x)()}"

    def second() -> str:
        runs.append("second")
        z.value += 1
        return f"second {when(y)()}"

    @ame.atomic
    def block() -> str:
        runs.append("block")
        z.value += 1
        return ame.or_else(first, second)

    sleepers = Sleepers(block)
    assert z.value == 0
    y.value = 7
    assert sleepers.join() == ["second 7"]
    assert runs == ["block", "first", "second"] * 2
    assert z.value == 2


def test_change_of_what_made_the_first_wait_makes_the_block_choose_again() -> None:
    """Catches: reads of an undone alternative that are not validated: both have run at once."""
    x, y = ame.Ref(0), ame.Ref(0)
    interfere = Interference(lambda: setattr(x, "value", 1))

    def second() -> int:
        interfere()
        y.value += 1
        return -1

    assert ame.run(lambda: ame.or_else(when(x), second)) == 1
    assert (y.value, interfere.calls) == (0, 1)


def test_two_threads_cannot_both_take_the_second_choice() -> None:
    """Catches: the same under real concurrency: each prefers what only the other may leave."""
    x = ame.Ref(1)

    def take() -> str:
        if x.value <= 0:
            ame.retry()
        x.value -= 1
        return "take"

    def give() -> str:
        assert x.value == 0
        x.value += 1
        return "give"

    def body() -> dict[str, int]:
        counts = {"take": 0, "give": 0}
        for _ in range(1500):
            counts[ame.or_else(take, give)] += 1
        return counts

    results = run_threads(body, body, body)
    given = sum(counts["give"] for counts in results)
    assert x.value == 1 + given - sum(counts["take"] for counts in results)
    assert x.value in (0, 1)


def test_timeout_names_what_all_alternatives_have_read() -> None:
    x, y = ame.Ref(0), ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict()

    def third() -> None:
        assert "key" not in table
        ame.retry(timeout=0.05)

    error = expires(lambda: ame.run(lambda: ame.or_else(when(x), when(y), third)))
    assert len(error.waited_on) == 3
    assert error.waited_on[0] is x
    assert error.waited_on[1] is y
    assert error.waited_on[2] == (table, "key")


def test_timeout_of_an_alternative_leaves_the_others_their_turn() -> None:
    """Catches: a timeout of 0 in the first alternative that ends the block before the second."""
    x = ame.Ref(0)

    def first() -> int:
        if not x.value:
            ame.retry(timeout=0)
        return x.value

    assert ame.run(lambda: ame.or_else(first, lambda: -1)) == -1
    error = expires(lambda: ame.run(lambda: ame.or_else(first, when(x))))
    assert error.waited_on == [x]


def test_all_alternatives_that_read_nothing_raise() -> None:
    def block() -> None:
        ame.or_else(never, never)

    with pytest.raises(ame.TransactionError) as caught:
        ame.run(block)
    assert names_a_line(__file__, str(caught.value)), caught.value


def test_alternatives_that_read_nothing_outside_of_a_block_are_named() -> None:
    with pytest.raises(ame.TransactionError) as caught:
        ame.or_else(lambda: never(), never)  # noqa: PLW0108
    assert names_a_line(__file__, str(caught.value)), caught.value


# --- nesting --------------------------------------------------------------------------------------


def test_or_else_of_which_all_wait_waits_itself() -> None:
    x, y, z = ame.Ref(0), ame.Ref(0), ame.Ref(0)

    def inner() -> int:
        z.value += 100
        return ame.or_else(when(x), when(y))

    def third() -> int:
        z.value += 1
        return -1

    assert ame.run(lambda: ame.or_else(inner, third)) == -1
    assert z.value == 1
    y.value = 4
    assert ame.run(lambda: ame.or_else(inner, third)) == 4
    assert z.value == 101


@pytest.mark.parametrize("place", range(4))
def test_block_wakes_by_the_reads_of_each_alternative_of_each_depth(place: int) -> None:
    refs = [ame.Ref(0) for _ in range(4)]
    first, second, third, fourth = map(when, refs)
    sleepers = Sleepers(
        ame.atomic(
            lambda: ame.or_else(
                lambda: ame.or_else(first, second), lambda: ame.or_else(third, fourth)
            )
        )
    )
    refs[place].value = place + 10
    assert sleepers.join() == [place + 10]


def test_or_else_may_be_nested_deeply() -> None:
    x = ame.Ref(0)

    def descend(depth: int) -> int:
        x.value += 1
        if depth == 0:
            ame.retry()
        return ame.or_else(lambda: descend(depth - 1), lambda: x.value)

    assert ame.run(lambda: descend(50)) == 50
    assert x.value == 50


def test_retry_in_a_nested_block_of_an_alternative_tries_the_next() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def deepest() -> None:
        y.value += 1000
        if not x.value:
            ame.retry()

    @ame.atomic
    def deeper() -> None:
        y.value += 100
        deepest()

    def first() -> str:
        y.value += 10
        deeper()
        return "first"

    def second() -> str:
        y.value += 1
        return "second"

    assert ame.run(lambda: ame.or_else(first, second)) == "second"
    assert y.value == 1
    x.value = 1
    assert ame.run(lambda: ame.or_else(first, second)) == "first"
    assert y.value == 1111


def test_depth_is_what_it_was_after_an_alternative_waited() -> None:
    """Catches: nested blocks of an undone alternative that stay open."""

    @ame.atomic
    def inner() -> NoReturn:
        ame.run(never)
        raise AssertionError

    @ame.atomic
    def block() -> tuple[int, int]:
        before = ame.current().depth
        ame.or_else(inner, lambda: None)
        return before, ame.current().depth

    before, after = block()
    assert before == after == 1
    assert not ame.in_transaction()


def test_alternatives_may_be_atomic_functions() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def first() -> str:
        y.value += 10
        if not x.value:
            ame.retry()
        return "first"

    @ame.atomic(label="second")
    def second() -> str:
        y.value += 1
        return "second"

    assert ame.or_else(first, second) == "second"
    assert ame.run(lambda: ame.or_else(first, second)) == "second"
    assert y.value == 2


def test_alternatives_may_be_methods_and_partials() -> None:
    class Stock:
        def __init__(self, count: int) -> None:
            self.count = ame.Ref(count)

        def take(self) -> str:
            if not self.count.value:
                ame.retry()
            self.count.value -= 1
            return "took"

        take_atomically = ame.atomic(take)

    empty, full = Stock(0), Stock(2)
    assert ame.or_else(empty.take, full.take) == "took"
    assert ame.or_else(functools.partial(Stock.take, empty), full.take_atomically) == "took"
    assert (empty.count.value, full.count.value) == (0, 0)
