"""Zombie read: an attempt that is going to be thrown away sees values that never were together."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import ame
from support import Interference, repeat_until, rounds, run_threads, seeded, then_set

pytestmark = pytest.mark.deadline(30)


def _keep_equal(x: ame.Ref[int], y: ame.Ref[int]) -> Callable[[], None]:
    @ame.atomic
    def step() -> None:
        x.value += 1
        y.value += 1

    return step


def test_reader_that_writes_sees_equal_values() -> None:
    """Catches: a read of the newest value without extending the snapshot."""
    x, y, out = ame.Ref(0), ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    @ame.atomic
    def read() -> None:
        first = x.value
        out.value = first
        assert first == y.value

    def reader() -> None:
        for _ in rounds(3000):
            read()

    step = _keep_equal(x, y)
    run_threads(then_set(done, reader), repeat_until(done, step), repeat_until(done, step))


def test_reader_that_only_reads_sees_equal_values() -> None:
    """Catches: the same on the path that goes on as a reader of an old snapshot."""
    x, y = ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    @ame.atomic
    def read() -> tuple[int, int]:
        first = x.value
        second = y.value
        assert first == second == x.value
        return first, second

    def reader() -> None:
        last = 0
        for _ in rounds(3000):
            first, second = read()
            assert first == second >= last
            last = first

    step = _keep_equal(x, y)
    run_threads(then_set(done, reader), repeat_until(done, step), repeat_until(done, step))


def test_reader_in_with_block_sees_equal_values() -> None:
    """Catches: an irrevocable block that reads while a commit is half published."""
    x, y = ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    def reader() -> None:
        for _ in rounds(1000):
            with ame.atomic():
                assert x.value == y.value

    step = _keep_equal(x, y)
    run_threads(then_set(done, reader), repeat_until(done, step), repeat_until(done, step))


@pytest.mark.parametrize("write_at", ["never", "start", "end"])
def test_long_reader_sees_the_constant_sum_of_a_thousand_refs(write_at: str) -> None:
    """Catches: versions trimmed while a reader needs them; extensions that skip some reads."""
    count = 1000
    refs = [ame.Ref(10) for _ in range(count)]
    out = ame.Ref(0)
    done = threading.Event()
    random = seeded()
    pairs = [random.sample(range(count), 2) for _ in range(5000)]

    @ame.atomic
    def move(source: int, target: int) -> None:
        refs[source].value -= 1
        refs[target].value += 1

    @ame.atomic
    def total() -> int:
        if write_at == "start":
            out.value = 1
        result = sum(ref.value for ref in refs)
        assert result == 10 * count
        if write_at == "end":
            out.value = result
        return result

    def reader() -> None:
        for _ in rounds(40):
            assert total() == 10 * count

    def mover(shift: int) -> Callable[[], None]:
        position = iter(range(shift, 1 << 60))
        return lambda: move(*pairs[next(position) % len(pairs)])

    run_threads(
        then_set(done, reader), repeat_until(done, mover(0)), repeat_until(done, mover(2500))
    )


def test_reader_of_dict_values_sees_the_constant_sum() -> None:
    """Catches: iteration over a dict that mixes two versions."""
    accounts: ame.Dict[int, int] = ame.Dict({key: 10 for key in range(50)})
    done = threading.Event()

    @ame.atomic
    def move(number: int) -> None:
        accounts[number % 50] -= 1
        accounts[(number + 7) % 50] += 1

    @ame.atomic
    def total() -> int:
        result = sum(accounts.values())
        assert result == sum(accounts[key] for key in accounts) == 500
        return result

    def reader() -> None:
        for _ in rounds(200):
            assert total() == 500

    def writer() -> None:
        for number in rounds(1 << 60, seconds=20):
            if done.is_set():
                return
            move(number)

    run_threads(then_set(done, reader), writer, writer)


def test_reader_of_moving_key_finds_it_in_exactly_one_dict() -> None:
    """Catches: an absent key that isn't part of the snapshot."""
    left: ame.Dict[str, int] = ame.Dict({"key": 1})
    right: ame.Dict[str, int] = ame.Dict()
    done = threading.Event()

    @ame.atomic
    def move() -> None:
        if "key" in left:
            right["key"] = left.pop("key")
        else:
            left["key"] = right.pop("key")

    @ame.atomic
    def look() -> None:
        assert ("key" in left) != ("key" in right)
        assert len(left) + len(right) == 1

    def reader() -> None:
        for _ in rounds(2000):
            look()

    run_threads(then_set(done, reader), repeat_until(done, move))


@pytest.mark.parametrize("written_before", [False, True])
def test_second_read_belongs_to_the_snapshot_of_the_first(written_before: bool) -> None:
    """Catches: the same as the first test, without needing luck, with or without a write."""
    x, y, out = ame.Ref(0), ame.Ref(0), ame.Ref(0)
    interfere = Interference(_keep_equal(x, y))

    @ame.atomic
    def read() -> tuple[int, int]:
        if written_before:
            out.value += 1
        first = x.value
        interfere()
        second = y.value
        assert first == second
        return first, second

    first, second = read()
    assert first == second
    assert out.value == written_before


def test_extension_for_one_ref_keeps_the_others_consistent() -> None:
    """Catches: a reader that extends and then uses the head that it loaded before."""
    x, y, z = ame.Ref(0), ame.Ref(0), ame.Ref(0)

    def other() -> None:
        z.value += 1

    interfere_z = Interference(other, times=2)
    interfere_xy = Interference(_keep_equal(x, y))

    @ame.atomic
    def read() -> int:
        interfere_z()
        seen = z.value  # newer than the snapshot: extends
        first = x.value
        interfere_xy()
        assert first == y.value
        return seen

    assert read() >= 1
