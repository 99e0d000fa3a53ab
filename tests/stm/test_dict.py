"""Dict behaves as the built-in dict does, one operation after the other and in sequences.

Hypothesis applies the same operations to both: outside of blocks, in a block that commits, and in
a block whose first attempt loses.
"""

from __future__ import annotations

import copy
import gc
import pickle
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ame
from support import Interference, seeded

pytestmark = pytest.mark.deadline(120)

NAN = float("nan")


class Clash:
    """A key whose hash is that of all others of its class."""

    def __init__(self, name: int) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clash) and self.name == other.name

    def __repr__(self) -> str:
        return f"Clash({self.name})"


class Subclass(ame.Dict[Any, Any]):
    """At module level, so that pickle finds it."""


CLASHES = [Clash(n) for n in range(4)]
KEYS: list[Any] = [0, 1, 1.0, True, 0.0, -0.0, False, 2, "a", "b", b"a", (1,), (1.0,), None, NAN]
KEYS += CLASHES
VALUES = st.sampled_from([0, 1, 1.0, True, -0.0, 0.0, NAN, "x", None])
KEY = st.sampled_from(KEYS)
PAIRS = st.lists(st.tuples(KEY, VALUES), max_size=4)
OPERATION = st.one_of(
    st.tuples(st.just("set"), KEY, VALUES),
    st.tuples(st.sampled_from(["del", "in", "getitem", "get", "pop", "pop default"]), KEY),
    st.tuples(st.sampled_from(["setdefault", "get default"]), KEY, VALUES),
    st.tuples(st.sampled_from(["update", "update list", "equal"]), PAIRS),
    st.tuples(st.sampled_from(["list", "reversed", "values", "items", "len", "clear", "repr"])),
)
APPLY: dict[str, Callable[..., Any]] = {
    "set": lambda d, k, v: d.__setitem__(k, v),
    "del": lambda d, k: d.__delitem__(k),
    "in": lambda d, k: k in d,
    "getitem": lambda d, k: d[k],
    "get": lambda d, k: d.get(k),
    "get default": lambda d, k, v: d.get(k, v),
    "pop": lambda d, k: d.pop(k),
    "pop default": lambda d, k: d.pop(k, "gone"),
    "setdefault": lambda d, k, v: d.setdefault(k, v),
    "update": lambda d, pairs: d.update(dict(pairs)),
    "update list": lambda d, pairs: d.update(pairs, word=1),
    "equal": lambda d, pairs: (d == dict(pairs), d != dict(pairs)),
    "list": list,
    "reversed": lambda d: list(reversed(d)),
    "values": lambda d: list(d.values()),
    "items": lambda d: list(d.items()),
    "len": len,
    "clear": lambda d: d.clear(),
    "repr": lambda d: repr(d).removeprefix("Dict(").removesuffix(")"),
}


def outcome(table: Any, operation: tuple[Any, ...]) -> tuple[str, str]:
    """What an operation gives, told apart as far as a reader of the output can."""
    name, *arguments = operation
    try:
        return "value", repr(APPLY[name](table, *arguments))
    except KeyError as error:
        return "KeyError", repr(error.args)


def outcomes(table: Any, operations: list[tuple[Any, ...]]) -> list[tuple[str, str]]:
    return [outcome(table, operation) for operation in operations]


def shown(table: Any) -> tuple[str, str, int]:
    return repr(list(table.items())), repr(list(table)), len(table)


def fault_once() -> Callable[[], None]:
    """Return what dooms the first attempt that calls it at its commit, by a real conflict."""
    ref = ame.Ref(0)

    def write() -> None:
        ref.value += 1

    disturb = Interference(write)

    def call() -> None:
        ref.value += 1
        disturb()

    return call


@given(PAIRS, st.lists(OPERATION, max_size=25))
@example([(1, 0)], [("del", 1), ("set", 1.0, 0), ("list",)])
@example([], [("set", "a", 1), ("set", "b", 1), ("del", "a"), ("set", "a", 1), ("list",)])
@settings(max_examples=400, deadline=None)
def test_parity_outside_of_blocks(start: Any, operations: Any) -> None:
    ours, theirs = ame.Dict(start), dict(start)
    for operation in operations:
        assert outcome(ours, operation) == outcome(theirs, operation)
    assert shown(ours) == shown(theirs)


@given(PAIRS, st.lists(st.lists(OPERATION, max_size=10), max_size=4))
@settings(max_examples=300, deadline=None)
def test_parity_in_blocks_that_commit(start: Any, blocks: Any) -> None:
    ours, theirs = ame.Dict(start), dict(start)
    for operations in blocks:
        assert ame.run(outcomes, ours, operations) == outcomes(theirs, operations)
        assert shown(ours) == shown(theirs)


@given(PAIRS, st.lists(st.lists(OPERATION, max_size=10), max_size=4))
@settings(max_examples=200, deadline=None)
def test_parity_in_irrevocable_blocks(start: Any, blocks: Any) -> None:
    ours, theirs = ame.Dict(start), dict(start)
    for operations in blocks:
        with ame.atomic():
            assert outcomes(ours, operations) == outcomes(theirs, operations)
        assert shown(ours) == shown(theirs)


@given(PAIRS, st.lists(OPERATION, max_size=15))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_parity_in_a_block_that_loses_once(start: Any, operations: Any) -> None:
    ours, theirs, conflict = ame.Dict(start), dict(start), fault_once()

    def body() -> Any:
        conflict()
        return outcomes(ours, operations)

    before = ame.stats()
    assert ame.run(body) == outcomes(theirs, operations)
    assert (ame.stats() - before).conflicts == 1
    assert shown(ours) == shown(theirs)


@given(PAIRS, st.lists(OPERATION, max_size=15))
@settings(max_examples=200, deadline=None)
def test_block_that_raises_leaves_no_trace(start: Any, operations: Any) -> None:
    ours, theirs = ame.Dict(start), dict(start)

    def body() -> None:
        outcomes(ours, operations)
        raise LookupError

    with pytest.raises(LookupError):
        ame.run(body)
    assert shown(ours) == shown(theirs)


def test_many_keys_with_churn_are_those_of_a_dict() -> None:
    generator: random.Random = seeded()
    ours, theirs = ame.Dict[int, int](), dict[int, int]()
    for _ in range(200):
        keys = [generator.randrange(2000) for _ in range(100)]

        def body(table: Any, keys: list[int] = keys) -> None:
            for key in keys:
                if key % 3:
                    table[key] = key
                else:
                    table.pop(key // 3, None)

        ame.run(body, ours)
        body(theirs)
    assert list(ours.items()) == list(theirs.items())
    assert len(ours) == len(theirs)


def test_hundred_thousand_keys_in_one_block() -> None:
    table = ame.Dict[int, int]()

    def fill() -> None:
        for key in range(100_000):
            table[key] = -key

    ame.run(fill)
    assert len(table) == 100_000
    assert list(table) == list(range(100_000))
    assert table[99_999] == -99_999


def test_replaced_key_keeps_its_place_and_reinserted_one_goes_last() -> None:
    table = ame.Dict(a=1, b=2, c=3)

    def body() -> list[str]:
        table["a"] = 9
        del table["b"]
        table["b"] = 8
        return list(table)

    assert ame.run(body) == list(table) == ["a", "c", "b"]


def test_insertion_order_survives_a_collection_in_the_middle_of_a_block() -> None:
    table, ref = ame.Dict[str, int](), ame.Ref(0)

    class Knot:
        def __init__(self) -> None:
            self.knot = self

        def __del__(self) -> None:
            ref.value += 1

    def body() -> None:
        table.update(a=1, b=2, c=3)
        Knot()
        gc.collect()
        table.update(d=4, e=5)

    ame.run(body)
    assert list(table) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("key", ["x", (1, 2), (), None, 3.5])
@pytest.mark.parametrize("name", ["getitem", "del", "pop"])
@pytest.mark.parametrize("runner", [lambda fn, *a: fn(*a), ame.run])
def test_missing_key_is_the_argument_of_key_error(key: Any, name: str, runner: Any) -> None:
    with pytest.raises(KeyError) as caught:
        runner(APPLY[name], ame.Dict(), key)
    assert caught.value.args == (key,)


@pytest.mark.parametrize("name", ["getitem", "del", "pop", "in", "get"])
def test_unhashable_key_names_the_remedy(name: str) -> None:
    with pytest.raises(TypeError, match=r"unhashable type: 'list'.*tuple"):
        APPLY[name](ame.Dict(), [])


def test_key_that_contains_an_unhashable_is_refused() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        ame.Dict()[(1, [])] = 1


def test_dict_itself_is_unhashable() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(ame.Dict())


class Keyed:
    """What update takes besides dicts and pairs."""

    def keys(self) -> list[str]:
        return ["x", "y"]

    def __getitem__(self, key: str) -> str:
        return key * 2


SOURCES: list[Callable[[], Any]] = [
    lambda: {"a": 1},
    lambda: [("a", 1), ["b", 2], "cd"],
    lambda: iter([("a", 1)]),
    Keyed,
    lambda: ame.Dict(a=1, b=2),
    lambda: Subclass(a=1),
    {"k": 2}.items,
]


@pytest.mark.parametrize("source", SOURCES)
def test_every_form_of_source_fills_and_updates(source: Callable[[], Any]) -> None:
    kind = source()
    plain = dict(kind.items() if isinstance(kind, ame.Dict) else source())
    assert dict(ame.Dict(source()).items()) == plain
    assert dict(ame.Dict(source(), k=1, a=3).items()) == {**plain, "k": 1, "a": 3}
    table = ame.Dict(z=0)
    table.update(source(), k=1)
    assert list(table.items()) == list({"z": 0, **plain, "k": 1}.items())


@pytest.mark.parametrize("source", [3, [1], ["abc"], [("a",)], [([], 1)]])
def test_wrong_source_raises_as_dict_does_and_changes_nothing(source: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        dict(source)
    table = ame.Dict(a=1)
    for call in (ame.Dict, table.update):
        with pytest.raises(type(theirs.value)):
            call(source)
    assert dict(table.items()) == {"a": 1}


@pytest.mark.parametrize("name", ["get", "pop", "setdefault"])
@pytest.mark.parametrize("count", [0, 3])
def test_wrong_number_of_arguments_is_refused(name: str, count: int) -> None:
    with pytest.raises(TypeError, match=name):
        getattr(ame.Dict(), name)(*range(count))


def test_self_update_and_self_comparison() -> None:
    table = ame.Dict(a=1, b=2)
    table.update(table)
    assert table == table.copy()
    assert table != ame.Dict(a=1)
    assert table != [("a", 1)]
    assert dict.__eq__({}, table) is NotImplemented
    assert table == {"a": 1, "b": 2}
    with pytest.raises(TypeError):
        assert table < table.copy()  # type: ignore[operator]


def test_repr_of_a_dict_that_holds_itself_ends() -> None:
    table = ame.Dict[str, Any]()
    table["me"] = table
    assert repr(table) == "Dict({'me': Dict({...})})"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_class_order_and_keys(protocol: int) -> None:
    table = Subclass([(1.0, "x"), ("a", [1])])
    again = pickle.loads(pickle.dumps(table, protocol))
    assert type(again) is Subclass
    assert repr(list(again.items())) == repr(list(table.items()))


def test_copies_are_independent_and_deepcopy_is_deep() -> None:
    table = Subclass(a=[1])
    for other in (table.copy(), copy.copy(table), copy.deepcopy(table)):
        other["b"] = 2
        assert "b" not in table
        assert other["a"] == [1]
    assert copy.deepcopy(table)["a"] is not table["a"]
    assert type(table.copy()) is ame.Dict
    assert type(copy.copy(table)) is Subclass


def test_init_called_again_updates() -> None:
    table = ame.Dict(a=1)
    table.__init__(b=2)  # type: ignore[misc]
    assert (dict(table.items()), len(table)) == ({"a": 1, "b": 2}, 2)


def test_subclass_may_fill_itself_before_it_initializes_its_base() -> None:
    class Early(ame.Dict[str, int]):
        def __init__(self, **more: int) -> None:
            self["early"] = 1
            super().__init__(**more)

    table = Early(late=2)
    assert list(table) == ["early", "late"]
    assert len(table) == 2


@pytest.mark.parametrize("way", [copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_copy_of_a_dict_that_holds_itself(way: Callable[[Any], Any]) -> None:
    table = ame.Dict[str, Any]()
    table["me"] = table
    again = way(table)
    assert again["me"] is again


def test_copy_keeps_the_attributes_of_a_subclass() -> None:
    table = Subclass(a=1)
    table.note = "n"
    assert copy.copy(table).note == "n"


class Watched:
    """A value that a weak reference can point to."""

    link: object = None


def test_values_die_with_the_dict_and_with_their_keys() -> None:
    first, second = Watched(), Watched()
    watches = [weakref.ref(first), weakref.ref(second)]
    table = ame.Dict(a=first, b=second)
    del first, second
    del table["a"]
    gc.collect()
    assert watches[0]() is None
    del table
    gc.collect()
    assert watches[1]() is None


def test_cycle_through_value_or_key_is_collected() -> None:
    for as_key in (False, True):
        thing = Watched()
        watch = weakref.ref(thing)
        thing.link = ame.Dict({thing: 1} if as_key else {"a": thing})
        del thing
        gc.collect()
        gc.collect()  # keys go one step later than values
        assert watch() is None, as_key


def test_deep_chain_of_dicts_is_freed() -> None:
    thing = Watched()
    watch = weakref.ref(thing)
    chain: Any = thing
    del thing
    for number in range(100_000):
        chain = ame.Dict(x=chain) if number % 2 else ame.Dict(x=chain).values()
    del chain
    gc.collect()
    gc.collect()
    assert watch() is None


def test_weak_reference_to_a_dict() -> None:
    table = ame.Dict()
    watch = weakref.ref(table)
    assert watch() is table
    del table
    gc.collect()
    assert watch() is None
