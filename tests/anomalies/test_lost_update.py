"""Lost update: two blocks read the same value, and the second write buries the first."""

from __future__ import annotations

import operator

import pytest

import ame
from support import Interference, in_thread, run_n

pytestmark = pytest.mark.deadline(30)

THREADS = 4
TIMES = 500


def test_increments_of_one_ref_in_blocks_all_count() -> None:
    """Catches: a commit that doesn't validate what it read."""
    counter = ame.Ref(0)

    @ame.atomic
    def increment() -> None:
        counter.value += 1

    def body(_: int) -> None:
        for _ in range(TIMES):
            increment()

    run_n(THREADS, body)
    assert counter.value == THREADS * TIMES


def test_increments_in_with_blocks_all_count() -> None:
    """Catches: a `with` block that isn't one transaction (or whose lock lets others in)."""
    counter = ame.Ref(0)

    def body(_: int) -> None:
        for _ in range(TIMES):
            with ame.atomic():
                counter.value += 1

    run_n(THREADS, body)
    assert counter.value == THREADS * TIMES


def test_with_blocks_and_functions_count_together() -> None:
    """Catches: irrevocable and ordinary commits that don't exclude each other."""
    counter = ame.Ref(0)

    @ame.atomic
    def increment() -> None:
        counter.value += 1

    def body(number: int) -> None:
        for _ in range(TIMES):
            if number % 2:
                increment()
            else:
                with ame.atomic():
                    counter.value += 1

    run_n(THREADS, body)
    assert counter.value == THREADS * TIMES


def test_updates_outside_blocks_all_count() -> None:
    """Catches: `Ref.update` that is a read and a write instead of one transaction."""
    counter = ame.Ref(0)

    def body(_: int) -> None:
        for _ in range(TIMES):
            counter.update(operator.add, 1)

    run_n(THREADS, body)
    assert counter.value == THREADS * TIMES


def test_increments_of_one_dict_value_all_count() -> None:
    """Catches: a dict that doesn't record the read of a present key."""
    counts: ame.Dict[str, int] = ame.Dict({"a": 0, "b": 0})

    def increment(key: str) -> None:
        counts[key] += 1

    def body(number: int) -> None:
        for _ in range(TIMES):
            ame.run(increment, "ab"[number % 2])

    run_n(THREADS, body)
    assert dict(counts.items()) == {"a": TIMES * THREADS // 2, "b": TIMES * THREADS // 2}


def test_counts_that_begin_with_an_absent_key_all_count() -> None:
    """Catches: a dict that doesn't record that a key was absent."""
    counts: ame.Dict[int, int] = ame.Dict()

    @ame.atomic
    def increment(key: int) -> None:
        counts[key] = counts.get(key, 0) + 1

    def body(_: int) -> None:
        for key in range(TIMES):
            increment(key)

    run_n(THREADS, body)
    assert dict(counts.items()) == dict.fromkeys(range(TIMES), THREADS)
    assert len(counts) == TIMES


def test_setdefault_outside_blocks_has_one_winner_per_key() -> None:
    """Catches: `setdefault` that looks and then stores in two steps."""
    owners: ame.Dict[int, int] = ame.Dict()

    def body(number: int) -> list[int]:
        return [owners.setdefault(key, number) for key in range(TIMES)]

    seen = run_n(THREADS, body)
    final = [owners[key] for key in range(TIMES)]
    assert all(answers == final for answers in seen)
    assert len(owners) == TIMES


def test_each_key_is_popped_once() -> None:
    """Catches: `pop` that returns a value which another thread's `pop` returned too."""
    todo: ame.Dict[int, int] = ame.Dict({key: key for key in range(TIMES)})

    def body(_: int) -> list[int]:
        return [value for key in range(TIMES) if (value := todo.pop(key, -1)) >= 0]

    popped = run_n(THREADS, body)
    assert sorted(value for values in popped for value in values) == list(range(TIMES))
    assert len(todo) == 0


def test_update_between_read_and_write_is_kept() -> None:
    """Catches: the same as the first test, without needing luck."""
    counter = ame.Ref(0)

    def add_ten() -> None:
        counter.value += 10

    interfere = Interference(lambda: ame.run(add_ten))

    @ame.atomic
    def increment() -> None:
        before = counter.value
        interfere()
        counter.value = before + 1

    increment()
    assert counter.value == 11
    assert interfere.calls == 2


def test_write_outside_any_block_between_read_and_write_is_kept() -> None:
    """Catches: a plain write that is no transaction, so that blocks don't notice it."""
    counter = ame.Ref(0)

    def set_ten() -> None:
        counter.value = 10

    interfere = Interference(set_ten)

    @ame.atomic
    def increment() -> None:
        before = counter.value
        interfere()
        counter.value = before + 1

    increment()
    assert counter.value == 11


def test_dict_value_changed_between_read_and_write_is_kept() -> None:
    """Catches: dict reads that aren't validated, for each way of reading a key."""
    for read in (
        lambda counts: counts["k"],
        lambda counts: counts.get("k"),
        lambda counts: counts.setdefault("k", 0),
        lambda counts: dict(counts.items())["k"],
        lambda counts: next(iter(counts.values())),
        lambda counts: counts.pop("k"),
    ):
        counts: ame.Dict[str, int] = ame.Dict({"k": 0})
        interfere = Interference(lambda counts=counts: counts.__setitem__("k", 10))

        def increment() -> None:
            before = read(counts)  # noqa: B023 - called before the next round
            interfere()  # noqa: B023
            counts["k"] = before + 1  # noqa: B023

        ame.run(increment)
        assert counts["k"] == 11
        assert in_thread(lambda: counts["k"]) == 11  # noqa: B023
