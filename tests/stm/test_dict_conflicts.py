"""What conflicts with what on a Dict: one thread's block, and another thread's write in its middle.

Each case runs a body that calls `disturb` half-way; the number of attempts says whether the two
conflicted.  The interference happens in the first attempt only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from support import Interference

pytestmark = pytest.mark.deadline(60)

Action = Callable[[Any], object]


class SameHash:
    """A key whose hash is that of all others."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 11

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameHash) and self.name == other.name


A, B, C, D = (SameHash(name) for name in "abcd")


def conflicts(table: Any, mine: Action, theirs: Action) -> int:
    """Return how many attempts a block lost that did `mine` while another did `theirs`."""
    disturb = Interference(lambda: ame.run(theirs, table))
    own = ame.Ref(0)

    def body() -> None:
        mine(table)
        own.value = stm.attempt() + 1  # a block that only reads would not have to be right now
        disturb()

    before = ame.stats()
    ame.run(body)
    spent = ame.stats() - before
    assert spent.conflicts == spent.aborts == disturb.calls - 1 == own.value - 1
    return spent.conflicts


def put(key: Any, value: Any = 9) -> Action:
    return lambda table: table.__setitem__(key, value)


def drop(key: Any) -> Action:
    return lambda table: table.__delitem__(key)


def swap(old: Any, new: Any) -> Action:
    return lambda table: (table.__delitem__(old), table.__setitem__(new, 1))


LOOKUPS: dict[str, Callable[[Any], Action]] = {
    "in": lambda key: lambda table: key in table,
    "get": lambda key: lambda table: table.get(key),
    "pop": lambda key: lambda table: table.pop(key, None),
    "items": lambda key: lambda table: (key, 1) in table.items(),
    "keys": lambda key: lambda table: key in table.keys(),  # noqa: SIM118
}
each_lookup = pytest.mark.parametrize("look", LOOKUPS.values(), ids=LOOKUPS.keys())
each_keys = pytest.mark.parametrize(
    "keys", [("a", "b", "c", "d"), (A, B, C, D), (1, 2, 3, 4)], ids=["str", "equal hashes", "int"]
)


def table_of(*keys: Any) -> ame.Dict[Any, int]:
    return ame.Dict((key, 1) for key in keys)


@each_keys
def test_replacing_distinct_keys_does_not_conflict(keys: Any) -> None:
    a, b, *_ = keys
    assert conflicts(table_of(a, b), put(a), put(b)) == 0


@each_keys
def test_inserting_distinct_keys_does_not_conflict(keys: Any) -> None:
    a, b, c, _ = keys
    table = table_of(a)
    assert conflicts(table, put(b), put(c)) == 0
    assert len(table) == len(list(table)) == 3


@each_keys
def test_deleting_distinct_keys_does_not_conflict(keys: Any) -> None:
    a, b, c, _ = keys
    table = table_of(a, b, c)
    assert conflicts(table, drop(a), drop(b)) == 0
    assert len(table) == len(list(table)) == 1


@each_keys
def test_insert_and_delete_of_distinct_keys_do_not_conflict(keys: Any) -> None:
    a, b, c, _ = keys
    assert conflicts(table_of(a, b), drop(a), put(c)) == 0


@each_lookup
@each_keys
def test_absent_lookup_conflicts_with_the_insertion(look: Any, keys: Any) -> None:
    a, b, *_ = keys
    assert conflicts(table_of(a), look(b), put(b)) == 1


@each_lookup
@each_keys
def test_absent_lookup_does_not_conflict_with_another_insertion(look: Any, keys: Any) -> None:
    a, b, c, _ = keys
    assert conflicts(table_of(a), look(b), put(c)) == 0


@each_lookup
@each_keys
def test_lookup_conflicts_with_change_and_deletion_of_its_key_only(look: Any, keys: Any) -> None:
    a, b, c, _ = keys
    assert conflicts(table_of(a, b, c), look(a), put(a)) == 1
    assert conflicts(table_of(a, b, c), look(a), drop(a)) == 1
    assert conflicts(table_of(a, b, c), look(a), put(b)) == 0
    assert conflicts(table_of(a, b, c), look(a), drop(b)) == 0


def test_inserting_the_same_key_conflicts() -> None:
    table = table_of()
    assert conflicts(table, put("a", 1), put("a", 2)) == 1
    assert dict(table.items()) == {"a": 1}


def test_setdefault_conflicts_with_the_insertion_and_returns_what_was_inserted() -> None:
    table = table_of()
    results = []
    mine = lambda t: results.append(t.setdefault("a", 1))  # noqa: E731
    assert conflicts(table, mine, put("a", 2)) == 1
    assert results == [1, 2]


def test_deletion_of_an_absent_key_conflicts_with_its_insertion() -> None:
    def mine(table: Any) -> None:
        try:
            del table["a"]
        except KeyError:
            return

    table = table_of()
    assert conflicts(table, mine, put("a")) == 1
    assert len(table) == 0


@pytest.mark.parametrize("measure", [len, lambda t: len(t.keys()), lambda t: len(t.items())])
def test_len_conflicts_with_a_net_change_only(measure: Action) -> None:
    assert conflicts(table_of("a", "b"), measure, put("c")) == 1
    assert conflicts(table_of("a", "b"), measure, drop("a")) == 1
    assert conflicts(table_of("a", "b"), measure, put("a")) == 0
    assert conflicts(table_of("a", "b"), measure, swap("a", "c")) == 0


ITERATIONS: dict[str, Action] = {
    "list": list,
    "keys": lambda table: list(table.keys()),
    "reversed": lambda table: list(reversed(table)),
    "for": lambda table: [key for key in table],
}


@pytest.mark.parametrize("iterate", ITERATIONS.values(), ids=ITERATIONS.keys())
def test_iteration_over_keys_conflicts_with_changes_of_keys_only(iterate: Action) -> None:
    assert conflicts(table_of("a", "b"), iterate, put("a")) == 0
    assert conflicts(table_of("a", "b"), iterate, put("a", 1)) == 0
    assert conflicts(table_of("a", "b"), iterate, put("c")) == 1
    assert conflicts(table_of("a", "b"), iterate, drop("a")) == 1
    assert conflicts(table_of("a", "b"), iterate, swap("a", "c")) == 1


@pytest.mark.parametrize(
    "iterate",
    [lambda t: list(t.values()), lambda t: list(t.items()), repr, lambda t: t == {}, dict.copy],
    ids=["values", "items", "repr", "==", "copy"],
)
def test_iteration_over_values_conflicts_with_their_change(iterate: Action) -> None:
    if iterate is dict.copy:
        iterate = ame.Dict.copy
    assert conflicts(table_of("a", "b"), iterate, put("a")) == 1
    assert conflicts(table_of("a", "b"), iterate, put("c")) == 1
    assert conflicts(table_of("a", "b"), iterate, put("a", 1)) == 0


def test_writing_the_same_value_does_not_conflict_with_readers() -> None:
    table = table_of("a")
    assert conflicts(table, lambda t: t["a"], put("a", 1)) == 0


def test_writing_the_same_value_is_a_read() -> None:
    table = table_of("a")
    assert conflicts(table, put("a", 1), put("a", 2)) == 1
    assert table["a"] == 1


def test_clear_conflicts_with_inserts_and_changes() -> None:
    for theirs in (put("z"), put("a"), drop("a")):
        table = table_of("a", "b")
        assert conflicts(table, lambda t: t.clear(), theirs) == 1
        assert len(table) == 0


def test_growth_of_the_table_is_no_conflict() -> None:
    def many(table: Any) -> None:
        for number in range(1000):
            table[number] = number

    table = table_of("a", "b")
    assert conflicts(table, put("c"), many) == 0
    assert conflicts(table, put("a"), lambda t: t.clear() or many(t)) == 1


def test_insertion_order_is_that_of_the_commits() -> None:
    table = table_of("a")
    assert conflicts(table, put("mine"), put("theirs")) == 0
    assert list(table) == ["a", "theirs", "mine"]


def test_read_only_block_keeps_its_version_without_a_conflict() -> None:
    table = table_of("a")
    disturb = Interference(lambda: table.update(a=2, b=3))

    @ame.atomic(read_only=True)
    def body() -> Any:
        first = dict(table.items())
        disturb()
        return first, dict(table.items()), len(table), "b" in table

    before = ame.stats()
    assert body() == ({"a": 1}, {"a": 1}, 1, False)
    assert (ame.stats() - before).aborts == 0
