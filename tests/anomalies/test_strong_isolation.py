"""Strong isolation: reads and writes outside of blocks are small transactions of their own."""

from __future__ import annotations

import threading

import pytest

import ame
from support import Interference, repeat_until, rounds, run_threads, then_set

pytestmark = pytest.mark.deadline(30)


def test_reads_outside_never_see_one_write_of_a_block_without_the_other() -> None:
    """Catches: a commit that is visible piece by piece to those outside of blocks."""
    x, y = ame.Ref(0), ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict({"n": 0})
    done = threading.Event()

    @ame.atomic
    def step() -> None:
        x.value += 1
        table["n"] += 1
        y.value += 1

    def reader() -> None:
        # All grow together, so what is read later is at least what was read before.
        for _ in rounds(3000):
            a, b, c = x.value, table["n"], y.value
            assert a <= b <= c
            a, b, c = y.value, table["n"], x.value
            assert a <= b <= c

    run_threads(then_set(done, reader), repeat_until(done, step), repeat_until(done, step))
    assert x.value == y.value == table["n"]


def test_value_seen_outside_is_seen_by_the_next_block() -> None:
    """Catches: a read outside that shows a commit before blocks can see it."""
    x, y = ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    @ame.atomic
    def step() -> None:
        x.value += 1
        y.value += 1

    @ame.atomic
    def both() -> tuple[int, int]:
        return x.value, y.value

    def reader() -> None:
        for _ in rounds(3000):
            before = x.value
            first, second = both()
            assert before <= first == second <= y.value

    run_threads(then_set(done, reader), repeat_until(done, step), repeat_until(done, step))


def test_whole_dict_read_outside_is_of_one_version() -> None:
    """Catches: `len`, `items` or `repr` outside a block that walk over changing content."""
    table: ame.Dict[int, int] = ame.Dict({0: 0, 1: 1, 2: 2, 3: 3})
    done = threading.Event()
    allowed = {str({k: k for k in range(n, n + 4)}) for n in range(100)}

    @ame.atomic
    def shift(number: int) -> None:
        del table[number]
        table[number + 4] = number + 4

    def writer() -> None:
        for number in range(96):
            shift(number)
        for _ in rounds(200):
            table.update({key: key for key in range(96, 100)})

    def reader() -> None:
        while not done.is_set():
            assert len(table) == 4
            items = sorted(table.items())
            assert len(items) == 4
            assert items[3][0] - items[0][0] == 3
            text = repr(table)
            assert any(text.endswith(content + ")") for content in allowed), text

    run_threads(then_set(done, writer), reader, reader)


def test_read_outside_while_a_block_is_open_does_not_wait() -> None:
    """Catches: isolation by a lock: the reader would wait for the block, and the block for it."""
    ref, table = ame.Ref(0), ame.Dict[str, int]({"k": 0})
    seen: list[tuple[int, int]] = []
    interfere = Interference(lambda: seen.append((ref.value, table["k"])))

    @ame.atomic
    def body() -> None:
        ref.value = 1
        interfere()
        table["k"] = 1

    body()
    assert seen == [(0, 0)]


def test_writes_outside_of_two_threads_are_not_torn() -> None:
    """Catches: a write outside that is not a transaction: a reader sees a value nobody wrote."""
    ref: ame.Ref[tuple[int, int]] = ame.Ref((0, 0))
    done = threading.Event()

    def writer(sign: int) -> None:
        for number in rounds(3000):
            ref.value = (number * sign, number * sign)

    def reader() -> None:
        while not done.is_set():
            first, second = ref.value
            assert first == second

    run_threads(
        then_set(done, lambda: writer(1)), then_set(done, lambda: writer(-1)), reader, reader
    )
