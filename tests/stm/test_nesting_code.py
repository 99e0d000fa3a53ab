"""Closed nesting: code that runs in the middle of an undo, and exceptions of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from nesting import InnerError, OuterError, fail_in, setter

pytestmark = pytest.mark.deadline(60)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exception_that_is_no_exception_undoes_the_inner_block_too(
    error: type[BaseException],
) -> None:
    """Catches: an undo for subclasses of Exception only, or one that ends the outer block."""
    ref = ame.Ref(0)

    @ame.atomic
    def outer() -> None:
        ref.value = 1
        fail_in(ame.atomic, setter(ref, 2), error)
        assert ame.in_transaction()
        assert ref.value == 1

    outer()
    assert ref.value == 1


def test_finalizer_run_by_the_undo_finds_the_outer_values_and_is_part_of_the_outer_block() -> None:
    """Catches: values released in the middle of the undo, or with the block half closed."""
    ref: ame.Ref[object] = ame.Ref("start")
    log: ame.Ref[tuple[object, ...]] = ame.Ref(())
    calls: list[bool] = []

    class Value:
        def __del__(self) -> None:
            calls.append(ame.in_transaction())
            log.value += (ref.value,)

    @ame.atomic
    def outer(error: bool) -> None:
        ref.value = "outer"
        fail_in(ame.atomic, lambda: setattr(ref, "value", Value()))
        assert calls[-1:] == [True]
        assert log.value == ("outer",)
        if error:
            raise OuterError

    with pytest.raises(OuterError):
        outer(True)
    assert log.value == ()
    outer(False)
    assert (log.value, ref.value) == (("outer",), "outer")


def test_finalizer_run_by_the_undo_may_fail_and_undo_blocks_of_its_own() -> None:
    """Catches: an undo that is not finished when it begins to run other code."""
    refs = [ame.Ref[object](0) for _ in range(50)]
    ended = []

    class Value:
        def __del__(self) -> None:
            def inner() -> None:
                for ref in refs:
                    ref.value = "finalizer"

            try:
                fail_in(ame.atomic, inner)
            finally:
                ended.append([ref.value for ref in refs] == [1] * 50)

    def inner() -> None:
        for ref in refs:
            ref.value = Value()

    @ame.atomic
    def outer() -> None:
        for ref in refs:
            ref.value = 1
        fail_in(ame.atomic, inner)

    outer()
    assert ended == [True] * 50
    assert [ref.value for ref in refs] == [1] * 50


def test_finalizer_run_by_the_undo_does_not_replace_the_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches: an exception on its way that a finalizer's own one overwrites or clears."""
    reported: list[type[BaseException]] = []
    monkeypatch.setattr("sys.unraisablehook", lambda event: reported.append(event.exc_type))
    ref: ame.Ref[object] = ame.Ref(0)

    class Value:
        def __del__(self) -> None:
            raise OuterError

    @ame.atomic
    def outer() -> None:
        for _ in range(3):
            fail_in(ame.atomic, lambda: setattr(ref, "value", Value()))

    outer()
    assert reported == [OuterError] * 3
    assert ref.value == 0


def test_value_overwritten_by_merged_blocks_is_released() -> None:
    """Catches: values that inner blocks replaced and that are kept to the end of the process."""
    ref: ame.Ref[object] = ame.Ref(None)
    ended = []

    class Value:
        def __del__(self) -> None:
            ended.append(1)

    @ame.atomic
    def outer() -> None:
        for _ in range(20):
            ame.run(lambda: setattr(ref, "value", Value()))
        ref.value = None

    outer()
    stm.collect()
    assert len(ended) == 20


class Raising:
    """A key whose comparison acts, then raises."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.act = act

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self.act()
        raise InnerError


def test_comparison_that_raises_undoes_the_inner_block_only() -> None:
    """Catches: an error path of Dict that leaves the write set in between."""
    table = ame.Dict[Any, int]({1: 1})

    @ame.atomic
    def outer() -> None:
        table["outer"] = 1

        def inner() -> None:
            table["inner"] = 2
            table["outer"] = 2
            table[Raising()] = 2

        with pytest.raises(InnerError):
            ame.run(inner)
        assert dict(table.items()) == {1: 1, "outer": 1}

    outer()
    assert (dict(table.items()), len(table)) == ({1: 1, "outer": 1}, 2)


def test_update_that_fails_half_way_in_a_block_changes_nothing() -> None:
    """Catches: Dict.update that keeps the pairs before the failing one."""
    table = ame.Dict[Any, int]({1: 1})

    @ame.atomic
    def outer() -> None:
        with pytest.raises(InnerError):
            table.update([("a", 1), ("b", 2), (Raising(), 3)])
        assert dict(table.items()) == {1: 1}

    outer()
    assert dict(table.items()) == {1: 1}


def test_comparison_that_fails_in_a_nested_block_of_its_own_disturbs_nothing() -> None:
    """Catches: a write set that moves, or an entry that is cut, under an operation of Dict."""
    refs = [ame.Ref(0) for _ in range(200)]

    def act() -> None:
        def body() -> None:
            for ref in refs:
                ref.value = 1

        fail_in(ame.atomic, body)

    class Key(Raising):
        def __eq__(self, other: object) -> bool:
            self.act()
            return self is other

        __hash__ = Raising.__hash__

    table = ame.Dict[Any, int]({Key(act): 0})

    @ame.atomic
    def outer() -> None:
        table[Key(act)] = 1
        table[Key(act)] = 2

    outer()
    assert len(table) == len(list(table)) == 3
    assert {ref.value for ref in refs} == {0}
