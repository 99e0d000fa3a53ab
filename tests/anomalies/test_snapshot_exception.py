"""An exception that only an inconsistent snapshot could raise is never shown to the user.

What a block raises is shown when its attempt read a consistent snapshot, also one that is out of
date by now. Exceptions of lost attempts are tested in test_abort_signal.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import ame
from support import Interference, repeat_until, rounds, run_threads, then_set

pytestmark = pytest.mark.deadline(30)


class Unequal(Exception):
    """Two values that always are equal were not."""


def _step(x: ame.Ref[int], y: ame.Ref[int]) -> Callable[[], None]:
    @ame.atomic
    def step() -> None:
        x.value += 1
        y.value += 1

    return step


@pytest.mark.parametrize("kind", ["plain", "writes first", "writes last", "read_only", "nested"])
def test_division_by_a_difference_that_is_never_zero_never_fails(kind: str) -> None:
    """Catches: ZeroDivisionError from two values of different versions, in each kind of block."""
    x, y, out = ame.Ref(0), ame.Ref(1), ame.Ref(0)
    done = threading.Event()

    def divide() -> float:
        if kind == "writes first":
            out.value = 1
        quotient = 1 / (y.value - x.value)
        if kind == "writes last":
            out.value = 1
        return quotient

    read = ame.atomic(read_only=kind == "read_only")(divide)
    block = ame.atomic(read) if kind == "nested" else read

    def reader() -> None:
        for _ in rounds(20_000, seconds=0.5):
            assert block() == 1

    step = _step(x, y)
    run_threads(then_set(done, reader), repeat_until(done, step), repeat_until(done, step))


def test_key_error_for_a_key_that_is_always_in_one_of_two_dicts_is_never_shown() -> None:
    """Catches: LookupError from a presence and a value of different versions."""
    left: ame.Dict[str, int] = ame.Dict({"key": 1})
    right: ame.Dict[str, int] = ame.Dict()
    done = threading.Event()

    @ame.atomic
    def move() -> None:
        source, target = (left, right) if "key" in left else (right, left)
        target["key"] = source.pop("key")

    @ame.atomic
    def look() -> int:
        return left["key"] if "key" in left else right["key"]

    def reader() -> None:
        for _ in rounds(20_000, seconds=0.5):
            assert look() == 1

    run_threads(then_set(done, reader), repeat_until(done, move))


def test_exception_handled_in_the_block_is_not_from_an_inconsistent_snapshot_either() -> None:
    """Catches: a handler inside of the block that acts on what never was."""
    x, y, faults = ame.Ref(0), ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    @ame.atomic
    def check() -> None:
        try:
            if x.value != y.value:
                raise Unequal
        except Unequal:
            faults.value += 1

    def reader() -> None:
        for _ in rounds(20_000, seconds=0.5):
            check()

    run_threads(then_set(done, reader), repeat_until(done, _step(x, y)))
    assert faults.value == 0


def test_exception_carries_values_of_one_version() -> None:
    """Catches: an exception that is shown although its attempt was lost meanwhile."""
    x, y = ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    class Report(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(first, second)

    @ame.atomic
    def fail() -> None:
        raise Report(x.value, y.value)

    def reader() -> None:
        last = 0
        for _ in rounds(5_000):
            with pytest.raises(Report) as caught:
                fail()
            first, second = caught.value.args
            assert first == second >= last
            last = first

    run_threads(then_set(done, reader), repeat_until(done, _step(x, y)))


def test_exception_shown_after_a_conflict_is_of_one_version() -> None:
    """Catches: the same, without needing luck."""
    x, y = ame.Ref(0), ame.Ref(0)
    interfere = Interference(_step(x, y))

    @ame.atomic
    def block() -> None:
        first = x.value
        interfere()
        second = y.value
        if first != second:
            raise Unequal
        raise LookupError(first)

    with pytest.raises(LookupError) as caught:
        block()
    assert caught.value.args in {(0,), (1,)}
