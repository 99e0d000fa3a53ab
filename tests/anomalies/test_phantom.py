"""Phantom: a key that was absent when a block looked, and present when it committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ame
from support import Interference, rounds, run_threads

pytestmark = pytest.mark.deadline(30)


class SameHash:
    """A key whose hash is that of all others."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameHash) and self.name == other.name


KEYS = [("ann", "bob"), (SameHash("ann"), SameHash("bob"))]
KEY_KINDS = ["different hashes", "equal hashes"]


def _check_by_in(table: ame.Dict[Any, int], key: Any) -> bool:
    return key in table


def _check_by_get(table: ame.Dict[Any, int], key: Any) -> bool:
    return table.get(key) is not None


def _check_by_item(table: ame.Dict[Any, int], key: Any) -> bool:
    try:
        table[key]
    except KeyError:
        return False
    return True


def _check_by_pop(table: ame.Dict[Any, int], key: Any) -> bool:
    return table.pop(key, None) is not None


def _check_by_keys(table: ame.Dict[Any, int], key: Any) -> bool:
    return any(present == key for present in table)


def _check_by_len(table: ame.Dict[Any, int], _: Any) -> bool:
    return len(table) > 0


CHECKS = [
    _check_by_in, _check_by_get, _check_by_item, _check_by_pop, _check_by_keys, _check_by_len,
]  # fmt: skip


@pytest.mark.parametrize("keys", KEYS, ids=KEY_KINDS)
def test_of_two_blocks_that_check_for_the_other_one_wins(keys: tuple[Any, Any]) -> None:
    """Catches: absent keys that aren't in the read set."""

    @ame.atomic
    def claim(table: ame.Dict[Any, int], mine: Any, other: Any) -> bool:
        if other in table:
            return False
        table[mine] = 1
        return True

    for _ in rounds(300):
        table: ame.Dict[Any, int] = ame.Dict()
        won = run_threads(
            lambda: claim(table, *keys),  # noqa: B023
            lambda: claim(table, *reversed(keys)),  # noqa: B023
        )
        assert sorted(won) == [False, True]
        assert len(table) == 1


@pytest.mark.parametrize("keys", KEYS, ids=KEY_KINDS)
@pytest.mark.parametrize("check", CHECKS)
def test_insert_after_the_check_is_noticed(
    check: Callable[[ame.Dict[Any, int], Any], bool], keys: tuple[Any, Any]
) -> None:
    """Catches: one way of finding a key absent that isn't recorded; no luck needed."""
    table: ame.Dict[Any, int] = ame.Dict()
    mine, other = keys
    interfere = Interference(lambda: ame.run(table.__setitem__, other, 1))
    won = ame.Ref(False)

    @ame.atomic
    def claim() -> None:
        if not check(table, other):
            interfere()
            table[mine] = 1
            won.value = True

    claim()
    assert not won.value
    assert mine not in table


@pytest.mark.parametrize("keys", KEYS, ids=KEY_KINDS)
def test_key_that_came_and_went_is_noticed_or_harmless(keys: tuple[Any, Any]) -> None:
    """Catches: entries of absent keys that are swept away while a block depends on them."""
    table: ame.Dict[Any, int] = ame.Dict()
    mine, other = keys

    def come_and_go() -> None:
        for _ in range(50):
            table[other] = 1
            del table[other]
        table[other] = 1

    interfere = Interference(come_and_go)

    @ame.atomic
    def claim() -> bool:
        if other in table:
            return False
        interfere()
        table[mine] = 1
        return True

    assert claim() is False
    assert mine not in table


def test_growth_of_the_table_keeps_absent_keys_protected() -> None:
    """Catches: a resize that drops the entry on which an open block depends."""
    table: ame.Dict[int, int] = ame.Dict()

    def grow() -> None:
        for key in range(1000):
            table[key] = key

    interfere = Interference(grow)

    @ame.atomic
    def claim() -> bool:
        if 999 in table or -1 in table:
            return False
        interfere()
        table[-2] = 1
        return True

    assert claim() is False
    assert len(table) == 1000


SUMMARIES: list[Callable[[ame.Dict[str, int]], object]] = [
    len,
    list,
    lambda table: sorted(table.keys()),
    lambda table: sum(table.values()),
    lambda table: sorted(table.items()),
    lambda table: table == {"a": 1},
    repr,
]
SUMMARY_NAMES = ["len", "iter", "keys", "values", "items", "eq", "repr"]


@pytest.mark.parametrize("summary", SUMMARIES, ids=SUMMARY_NAMES)
@pytest.mark.parametrize("change", ["insert", "delete"])
def test_summary_of_a_dict_conflicts_with_insert_and_delete(
    summary: Callable[[ame.Dict[str, int]], object], change: str
) -> None:
    """Catches: iteration or size that doesn't conflict with a change of the set of keys."""
    table: ame.Dict[str, int] = ame.Dict({"a": 1})
    out: ame.Ref[object] = ame.Ref(None)

    def act() -> None:
        if change == "insert":
            table["b"] = 2
        else:
            del table["a"]

    interfere = Interference(lambda: ame.run(act))

    @ame.atomic
    def summarise() -> None:
        result = summary(table)
        interfere()
        out.value = result

    summarise()
    assert out.value == summary(table)
    assert interfere.calls == 2


def test_numbering_by_len_gives_each_its_own_number() -> None:
    """Catches: a size that commutes even when a block has read it."""
    table: ame.Dict[int, int] = ame.Dict()

    @ame.atomic
    def append(value: int) -> None:
        table[len(table)] = value

    def body() -> None:
        for value in range(200):
            append(value)

    run_threads(body, body, body)
    assert sorted(table) == list(range(600))
    assert sorted(table.values()) == sorted(list(range(200)) * 3)


def test_inserts_of_different_keys_are_all_there() -> None:
    """Catches: inserts at the same time that lose an entry, a size step or an iteration slot."""
    table: ame.Dict[tuple[int, int], int] = ame.Dict()

    def body(number: int) -> None:
        for index in range(500):
            table[number, index] = index
            if index % 3 == 0:
                del table[number, index]

    run_threads(lambda: body(0), lambda: body(1), lambda: body(2))
    expected = {(number, index) for number in range(3) for index in range(500) if index % 3}
    assert set(table) == expected
    assert len(table) == len(list(table)) == len(expected)
