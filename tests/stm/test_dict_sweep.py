"""Entries of keys that stay absent are swept: memory stays bounded, and nobody is fooled by it."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

import ame
import stm
from stm._core import ffi, lib
from support import Interference, repeat_until, rounds, run_threads, then_set

pytestmark = pytest.mark.deadline(120)

ROUNDS = 20_000
SLACK = 5_000  # nodes: what an index of a few keys and all caches may hold


class Key:
    """A key that a weak reference can point to."""


def nodes() -> int:
    """Versions that exist, after everything that can go has gone."""
    gc.collect()
    stm.collect()
    raw = ffi.new("stm_stats *")
    lib.stm_domain_stats(lib.stmpy_get_domain(), raw)
    return int(raw.nodes)


def misses(table: Any) -> None:
    for number in range(ROUNDS):
        assert ("absent", number) not in table


def misses_in_blocks(table: Any) -> None:
    for number in range(ROUNDS):
        ame.run(table.get, ("absent", number))


def churn(table: Any) -> None:
    for number in range(ROUNDS):
        table[number] = number
        del table[number]


def churn_in_blocks(table: Any) -> None:
    def body(number: int) -> None:
        table[number] = number
        table.pop(number - 1, None)

    for number in range(ROUNDS):
        ame.run(body, number)
    table.pop(ROUNDS - 1)


@pytest.mark.parametrize("load", [misses, misses_in_blocks, churn, churn_in_blocks])
def test_memory_stays_bounded(load: Any) -> None:
    table = ame.Dict[Any, Any](here=1)
    before = nodes()
    load(table)
    assert nodes() - before < SLACK
    assert (list(table), len(table)) == (["here"], 1)


def test_swept_keys_are_freed() -> None:
    table = ame.Dict[Any, int]()
    watches = []
    for _ in range(1000):
        key = Key()
        watches.append(weakref.ref(key))
        assert key not in table
        table[key] = 1
        del table[key], key
    gc.collect()
    gc.collect()
    assert sum(watch() is not None for watch in watches) < 200


def sweep(table: Any, *, count: int = 500) -> None:
    """Make the table sweep: look up many keys that it has not, each in a block of its own."""
    for number in range(count):
        ame.run(table.get, ("sweep", number, id(object())))


def test_block_that_relied_on_absence_conflicts_with_the_insertion_after_a_sweep() -> None:
    table, result = ame.Dict[Any, Any](), ame.Ref("")

    def interfere() -> None:
        sweep(table)
        table["key"] = "theirs"
        sweep(table)

    disturb = Interference(interfere)

    def body() -> None:
        seen = table.get("key", "absent")
        disturb()
        result.value = seen

    ame.run(body)
    assert result.value == "theirs"
    assert disturb.calls == 2


def test_block_that_relied_on_absence_ends_though_others_sweep() -> None:
    table, result = ame.Dict[Any, Any](), ame.Ref(0)
    disturb = Interference(lambda: sweep(table), times=2)

    def body() -> None:
        assert "key" not in table
        disturb()
        assert "key" not in table
        result.value += 1

    ame.run(body)
    assert result.value == 1


def test_block_finds_its_own_inserts_while_others_sweep() -> None:
    table = ame.Dict[Any, int]()
    keys = list(range(20))
    disturb = Interference(lambda: sweep(table), times=2)

    def body() -> None:
        for key in keys:
            table[key] = key
        disturb()
        for key in keys:
            assert table[key] == key
        assert list(table) == keys
        assert len(table) == 20

    ame.run(body)
    assert list(table) == keys


def test_irrevocable_block_finds_its_own_inserts_while_others_sweep() -> None:
    table = ame.Dict[Any, int]()
    disturb = Interference(lambda: [("miss", n) in table for n in range(500)])
    with ame.atomic():
        assert "other" not in table
        table["mine"] = 1
        disturb()
        assert list(table.items()) == [("mine", 1)]
        assert "other" not in table
    assert list(table.items()) == [("mine", 1)]


def test_sweep_in_a_block_keeps_what_that_block_has_read_and_written() -> None:
    table = ame.Dict[Any, int]()

    def body() -> None:
        table["mine"] = 1
        assert "absent" not in table
        for number in range(5000):
            assert ("miss", number) not in table
        assert list(table.items()) == [("mine", 1)]
        assert "absent" not in table
        table["absent"] = 2

    ame.run(body)
    assert list(table.items()) == [("mine", 1), ("absent", 2)]


def test_snapshot_reader_sees_its_version_though_keys_are_swept() -> None:
    table = ame.Dict[Any, int](a=1, b=2)

    def interfere() -> None:
        del table["a"]
        sweep(table)
        table["a"] = 3
        sweep(table)

    disturb = Interference(interfere)

    @ame.atomic(read_only=True)
    def body() -> Any:
        before = list(table.items())
        disturb()
        return before == list(table.items()) == [("a", 1), ("b", 2)] and table["a"] == 1

    assert body()
    assert list(table.items()) == [("b", 2), ("a", 3)]


def test_readers_of_absent_keys_and_a_writer_agree_while_entries_are_swept() -> None:
    table, done = ame.Dict[Any, int](), threading.Event()

    def write() -> None:
        for number in rounds(3000, seconds=2.0):
            key = number % 40
            ame.run(lambda k=key: (table.update({k: 1}), table.update({-k - 1: 1})))  # type: ignore[misc]
            ame.run(lambda k=key: (table.pop(k), table.pop(-k - 1)))  # type: ignore[misc]

    @ame.atomic
    def look(key: int) -> tuple[bool, bool]:
        return key in table, -key - 1 in table

    def read() -> None:
        for key in range(40):
            first, second = look(key)
            assert first == second
        misses = [("miss", n) in table for n in range(50)]
        assert not any(misses)

    run_threads(then_set(done, write), repeat_until(done, read), repeat_until(done, read))
    assert (list(table), len(table)) == ([], 0)


def test_counter_per_key_loses_no_update_while_entries_are_swept() -> None:
    table, total = ame.Dict[Any, int](), 1500

    @ame.atomic
    def take(key: int) -> int:
        count = table.pop(key, 0) + 1
        if count % 5:
            table[key] = count
            return 0
        return count

    def work() -> int:
        return sum(take(number % 7) for number in range(total))

    done = threading.Event()
    churner = repeat_until(done, lambda: sweep(table, count=20))

    def workers() -> int:
        return sum(run_threads(work, work))

    taken = run_threads(then_set(done, workers), churner)[0]
    assert taken + sum(table.values()) == 2 * total
