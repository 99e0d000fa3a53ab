"""Dict with keys whose hash or comparison raises, changes the Dict, or runs transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from support import in_thread

pytestmark = pytest.mark.deadline(60)

OPERATIONS: list[Callable[[Any, Any], Any]] = [
    lambda table, key: table[key],
    lambda table, key: table.__setitem__(key, 1),
    lambda table, key: table.pop(key),
    lambda table, key: table.get(key),
    lambda table, key: key in table,
    lambda table, key: table.setdefault(key, 1),
    lambda table, key: table.update([("k", 1), (key, 1)]),
    lambda table, key: (key, 1) in table.items(),
    lambda table, key: ame.Dict([(Hostile(lambda: None), 1), (key, 1)]),
]


class Hostile:
    """A key with the hash of all others of its class; a comparison of it acts first."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        for key in (self, other):
            if isinstance(key, Hostile):
                act, key.act = key.act, lambda: None
                act()
        return self is other


def fail() -> None:
    raise LookupError("hostile")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("runner", [lambda fn, *a: fn(*a), ame.run])
def test_comparison_that_raises_is_shown_and_changes_nothing(runner: Any, operation: Any) -> None:
    here = Hostile(lambda: None)
    table = ame.Dict({here: 0})
    with pytest.raises(LookupError, match="hostile"):
        runner(operation, table, Hostile(fail))
    assert (list(table), len(table)) == ([here], 1)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_hash_that_raises_is_shown(operation: Any) -> None:
    class NoHash:
        def __hash__(self) -> int:
            raise LookupError("no hash")

    with pytest.raises(LookupError, match="no hash"):
        operation(ame.Dict(), NoHash())


@pytest.mark.parametrize("runner", [lambda fn: fn(), ame.run])
def test_comparison_that_grows_the_dict_loses_nothing(runner: Any) -> None:
    table = ame.Dict[Any, int]({Hostile(lambda: None): 0})

    def grow() -> None:
        for number in range(1000):
            table[number] = number

    runner(lambda: table.__setitem__(Hostile(grow), 2))
    assert len(table) == len(list(table)) == 1002


def test_comparison_that_inserts_the_same_key_makes_one_mapping() -> None:
    table = ame.Dict[Any, int]({Hostile(lambda: None): 0})
    key = Hostile(lambda: table.__setitem__(key, 1))
    table[key] = 2
    assert (len(table), len(list(table)), table[key]) == (2, 2, 2)


def test_comparison_that_clears_the_dict() -> None:
    table = ame.Dict[Any, int]({Hostile(lambda: None): 0})
    table[Hostile(table.clear)] = 2
    assert len(table) == len(list(table)) == 1


def test_comparison_that_waits_for_another_threads_write_loses_and_runs_again() -> None:
    table = ame.Dict[Any, int]({Hostile(lambda: None): 0, "n": 0})
    key = Hostile(lambda: in_thread(lambda: table.__setitem__("n", 5)))

    def body() -> None:
        seen = table["n"]
        table[key] = seen

    before = ame.stats()
    ame.run(body)
    assert table[key] == 5
    assert (ame.stats() - before).conflicts == 1


def test_source_that_changes_the_dict_while_it_is_read() -> None:
    table = ame.Dict(a=1)

    def pairs() -> Any:
        for number in range(100):
            table[number] = number  # type: ignore[index]
            yield number, -number

    table.update(pairs())
    assert len(table) == 101
    assert table[7] == -7  # type: ignore[index]


def test_value_whose_finalizer_uses_the_dict() -> None:
    table = ame.Dict[str, Any](n=0)

    class Counter:
        def __del__(self) -> None:
            table["n"] += 1

    for _ in range(50):
        table["x"] = Counter()
    table["x"] = None
    stm.collect()
    assert table["n"] == 50


def test_comparison_of_two_dicts_outside_of_a_block_is_one_transaction() -> None:
    keys = [Hostile(lambda: None), Hostile(lambda: None)]
    first = ame.Dict[Any, int](dict.fromkeys(keys, 0))
    second = ame.Dict[Any, int](dict.fromkeys(keys, 0))

    def write() -> None:
        for table in (first, second):
            for key in keys:
                table[key] = 1

    keys[0].act = lambda: in_thread(lambda: ame.run(write))
    assert first == second
