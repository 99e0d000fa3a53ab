"""Loops at their edges: irrevocable items, slow, odd and ending iterables, contexts of errors."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator

import pytest

import ame

pytestmark = pytest.mark.deadline(60)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("chunk", [8, "auto"])
def test_irrevocable_item_runs_once_although_a_later_one_raises(workers: int, chunk: int) -> None:
    """Catches: a chunk that is rolled back with an item in it whose I/O has been done."""
    done: list[int] = []

    def body(n: int) -> None:
        if n == 3:
            ame.irrevocable()
            done.append(n)
        if n == 5:
            raise ValueError(n)

    with pytest.raises(ValueError, match="5"):
        ame.for_each(body, range(8), workers=workers, chunk=chunk)
    assert done == [3]


@pytest.mark.parametrize("workers", [1, 2])
def test_item_that_raises_after_irrevocable_is_not_run_again(workers: int) -> None:
    done: list[int] = []
    table: ame.Dict[int, int] = ame.Dict()

    def body(n: int) -> None:
        table[n] = n
        if n == 3:
            ame.irrevocable()
            done.append(n)
            raise ValueError(n)

    with pytest.raises(ValueError, match="3"):
        ame.for_each(body, range(8), workers=workers, chunk=8)
    assert done == [3]
    assert [n for n in table if n < 4] == [0, 1, 2]


def test_failure_does_not_wait_for_a_slow_iterable_to_fill_a_chunk() -> None:
    """Catches: a worker that goes on claiming items of a loop that has failed."""
    read: list[int] = []

    def slow() -> Iterator[int]:
        for n in range(3_000):
            read.append(n)
            time.sleep(0.001)
            yield n

    def body(n: int) -> None:
        raise ValueError(n)

    with pytest.raises(ValueError, match="0"):
        ame.for_each(body, slow(), workers=2, chunk=1_000)
    assert len(read) < 2_500


def test_iterable_whose_len_raises_is_iterated_over() -> None:
    class Wrapped:
        def __len__(self) -> int:
            raise TypeError("has no len()")

        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    assert ame.map(lambda n: n, Wrapped(), workers=2) == [0, 1, 2]


def test_iterator_that_has_ended_is_not_asked_again() -> None:
    class Once:
        def __init__(self) -> None:
            self.asked = 0

        def __iter__(self) -> Once:
            return self

        def __next__(self) -> int:
            self.asked += 1
            assert self.asked <= 2
            if self.asked == 2:
                raise StopIteration
            return 7

    assert ame.map(lambda n: n, Once(), workers=2) == [7]


@pytest.mark.parametrize("workers", [1, 2])
def test_error_keeps_its_context_inside_an_except(workers: int) -> None:
    def body(n: int) -> None:
        try:
            {}[n]
        except KeyError:
            raise ValueError(n)  # noqa: B904  (the implicit context is what is tested)

    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        with pytest.raises(ValueError) as caught:
            ame.for_each(body, range(4), workers=workers)
    assert isinstance(caught.value.__context__, KeyError)


def test_items_of_an_iterable_that_raised_are_freed() -> None:
    class Item:
        pass

    alive: list[weakref.ref[Item]] = []

    def items() -> Iterator[Item]:
        item = Item()
        alive.append(weakref.ref(item))
        yield item
        del item
        raise ValueError("the iterable")

    with pytest.raises(ValueError, match="the iterable"):
        ame.for_each(lambda item: None, items(), workers=2)
    gc.collect()
    assert alive[0]() is None


def test_generator_function_is_refused() -> None:
    def body(n: int) -> Iterator[int]:
        yield n

    with pytest.raises(TypeError, match="generator function"):
        ame.for_each(body, range(3))
