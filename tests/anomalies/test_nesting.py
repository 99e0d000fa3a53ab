"""A block inside a block is part of it: the outermost decides what is committed and re-executed."""

from __future__ import annotations

import pytest

import ame
from support import Interference, in_thread

pytestmark = pytest.mark.deadline(30)


class OuterError(Exception):
    """Raised by an outer block after the inner one has ended."""


def test_inner_block_is_undone_with_the_outer() -> None:
    """Catches: an inner block that commits when it ends."""
    ref = ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict()

    @ame.atomic
    def inner() -> None:
        ref.value = 1
        table["k"] = 1

    @ame.atomic
    def outer() -> None:
        inner()
        assert (ref.value, table["k"]) == (1, 1)
        raise OuterError

    with pytest.raises(OuterError):
        outer()
    assert (ref.value, len(table)) == (0, 0)


def test_inner_block_is_not_visible_before_the_outer_ends() -> None:
    """Catches: the same, seen by another thread."""
    ref = ame.Ref(0)
    seen: list[int] = []

    @ame.atomic
    def inner() -> None:
        ref.value += 1

    @ame.atomic
    def outer() -> None:
        inner()
        seen.append(in_thread(lambda: ref.value))
        inner()
        assert ref.value == 2

    outer()
    assert set(seen) == {0}
    assert ref.value == 2


def test_each_way_to_open_a_block_joins_each_other() -> None:
    """Catches: one kind of block that opens a transaction of its own inside another."""
    ref = ame.Ref(0)

    def add() -> None:
        assert ame.in_transaction()
        ref.value += 1

    decorated = ame.atomic(add)
    labelled = ame.atomic(label="labelled")(add)

    def all_inside() -> None:
        decorated()
        labelled()
        ame.run(add)
        with ame.atomic():
            add()
        ref.update(lambda value: value + 1)

    def check(seen: int) -> None:
        assert in_thread(lambda: ref.value) == seen

    @ame.atomic
    def as_function() -> None:
        all_inside()
        check(0)

    as_function()
    assert ref.value == 5
    with ame.atomic():
        all_inside()
        check(5)
    assert ref.value == 10
    with pytest.raises(OuterError):
        with ame.atomic():
            as_function_again = ame.atomic(all_inside)
            as_function_again()
            raise OuterError
    assert ref.value == 10
    assert not ame.in_transaction()


def test_conflict_of_an_inner_block_re_executes_the_outermost() -> None:
    """Catches: an inner block re-executed alone, on top of stale values of the outer one."""
    x, y = ame.Ref(0), ame.Ref(0)

    def change() -> None:
        x.value += 10
        y.value += 10

    interfere = Interference(lambda: ame.run(change))
    outer_runs = 0

    @ame.atomic
    def inner(before: int) -> None:
        interfere()
        y.value = before + 1

    @ame.atomic
    def outer() -> None:
        nonlocal outer_runs
        outer_runs += 1
        inner(x.value)

    outer()
    assert outer_runs == 2
    assert (x.value, y.value) == (10, 11)


def test_deep_nesting_is_one_transaction() -> None:
    """Catches: a depth counter that overflows or ends the block too early."""
    ref = ame.Ref(0)

    @ame.atomic
    def descend(depth: int) -> int:
        ref.value += 1
        result = descend(depth - 1) if depth else in_thread(lambda: ref.value)
        assert ame.in_transaction()
        return result

    assert descend(100) == 0
    assert ref.value == 101
    assert not ame.in_transaction()


def test_result_of_each_block_reaches_its_caller() -> None:
    """Catches: results lost or mixed up between nested blocks."""

    @ame.atomic
    def inner(value: int, *, factor: int = 1) -> int:
        return value * factor

    @ame.atomic
    def outer(value: int) -> tuple[int, int]:
        return inner(value), inner(value, factor=10)

    assert outer(3) == (3, 30)
    assert ame.run(outer, 4) == (4, 40)
