"""Ref: one transactional variable, as an object: value, update, identity, copying, lifetime."""

from __future__ import annotations

import copy
import gc
import pickle
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ame
from support import Interference, run_n

pytestmark = pytest.mark.deadline(60)

DEEP = 1_000_000
EQUAL_VALUES: list[Callable[[], object]] = [
    lambda: int("12345678901234567890"),
    lambda: float("1.5"),
    lambda: "".join(["a", "b", "c"]),
    lambda: bytes([1, 2, 3]),
]


class Named(ame.Ref[Any]):
    """A subclass at module level, so that pickle finds it."""


class Loud:
    """An object whose comparison must never be asked for."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    __hash__ = None  # type: ignore[assignment]


class Plain:
    """An object that a weak reference can point to."""

    ref: object = None


def writes_of(body: Callable[[], object]) -> int:
    """Return 1 if the block that runs `body` published something, else 0."""
    before = ame.stats()
    ame.run(body)
    spent = ame.stats() - before
    return spent.commits - spent.read_only


def test_holds_none_by_default() -> None:
    assert ame.Ref().value is None


def test_value_is_the_very_object() -> None:
    thing = Plain()
    ref = ame.Ref(thing)
    assert ref.value is thing
    other = Plain()
    ref.value = other
    assert ref.value is other


def test_more_than_one_argument_is_refused() -> None:
    with pytest.raises(TypeError):
        ame.Ref(1, 2)  # type: ignore[call-arg]


def test_deleting_the_value_names_the_remedy() -> None:
    ref = ame.Ref(1)
    with pytest.raises(AttributeError, match="assign None"):
        del ref.value
    assert ref.value == 1


def test_update_returns_the_new_value_and_passes_arguments() -> None:
    ref = ame.Ref(3)
    assert ref.update(lambda value, *more: value + sum(more), *range(20)) == 193
    assert ref.value == 193


@pytest.mark.parametrize("arguments", [(), (3,)])
def test_update_without_a_callable_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"Ref\.update"):
        ame.Ref(1).update(*arguments)


def test_update_that_raises_changes_nothing() -> None:
    ref, other = ame.Ref(1), ame.Ref(1)

    def fail(value: int) -> int:
        other.value = 2
        ref.value = 3
        raise LookupError(value)

    with pytest.raises(LookupError, match="1"):
        ref.update(fail)
    assert (ref.value, other.value) == (1, 1)


def test_update_runs_again_after_a_conflict() -> None:
    ref = ame.Ref(1)

    def other_write() -> None:
        ref.value = 10

    disturb = Interference(other_write)

    def double(value: int) -> int:
        disturb()
        return value * 2

    assert ref.update(double) == 20
    assert disturb.calls == 2


def test_updates_of_many_threads_all_count() -> None:
    ref = ame.Ref(0)

    def work(_: int) -> None:
        for _i in range(200):
            ref.update(lambda value: value + 1)

    run_n(4, work)
    assert ref.value == 800


@pytest.mark.parametrize("make", EQUAL_VALUES)
def test_writing_an_equal_builtin_is_not_a_write(make: Callable[[], object]) -> None:
    first = make()
    ref = ame.Ref(first)
    assert writes_of(lambda: setattr(ref, "value", make())) == 0
    assert ref.value is first


def test_writing_the_same_object_is_not_a_write() -> None:
    thing = Loud()
    ref = ame.Ref(thing)
    assert writes_of(lambda: setattr(ref, "value", thing)) == 0


@pytest.mark.parametrize(
    ("old", "new"), [(1, True), (1, 1.0), (0.0, -0.0), ((1,), (1.0,)), (Loud(), Loud())]
)
def test_values_that_can_be_told_apart_are_written(old: object, new: object) -> None:
    ref = ame.Ref(old)
    assert writes_of(lambda: setattr(ref, "value", new)) == 1
    assert ref.value is new


def test_nan_is_the_same_as_itself_only() -> None:
    nan = float("nan")
    ref = ame.Ref(nan)
    assert writes_of(lambda: setattr(ref, "value", nan)) == 0


def test_writing_back_the_old_value_is_undone_with_the_rest() -> None:
    ref = ame.Ref(1)

    def there_and_back() -> None:
        ref.value = 2
        ref.value = 1

    ame.run(there_and_back)
    assert ref.value == 1


def test_same_value_write_is_a_read_that_conflicts() -> None:
    ref, seen = ame.Ref(1), ame.Ref(0)

    def other_write() -> None:
        ref.value = 2

    disturb = Interference(other_write)

    def body() -> None:
        ref.value = 1
        disturb()
        seen.value += 1

    ame.run(body)
    assert (ref.value, seen.value, disturb.calls) == (1, 1, 2)


def test_blind_writes_do_not_conflict() -> None:
    ref = ame.Ref(0)

    def other_write() -> None:
        ref.value = 2

    disturb = Interference(other_write)

    def body() -> None:
        ref.value = 1
        disturb()

    ame.run(body)
    assert (ref.value, disturb.calls) == (1, 1)


def test_repr_shows_the_value() -> None:
    assert repr(ame.Ref("x")) == "Ref('x')"


def test_repr_of_a_ref_that_holds_itself_ends() -> None:
    ref: ame.Ref[Any] = ame.Ref()
    ref.value = [ref]
    assert repr(ref) == "Ref([Ref(...)])"


def test_compared_and_hashed_by_identity() -> None:
    a, b = ame.Ref(1), ame.Ref(1)
    assert a != b
    assert len({a, b, a}) == 2


def test_generic_alias() -> None:
    alias = ame.Ref[int]
    assert isinstance(alias, types.GenericAlias)
    assert alias(3).value == 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_class_and_value(protocol: int) -> None:
    again = pickle.loads(pickle.dumps(Named([1, 2]), protocol))
    assert type(again) is Named
    assert again.value == [1, 2]


def test_copy_shares_the_value_and_deepcopy_does_not() -> None:
    ref = ame.Ref([1])
    assert copy.copy(ref).value is ref.value
    deep = copy.deepcopy(ref)
    assert deep.value == [1]
    assert deep.value is not ref.value


def test_copy_inside_a_block_sees_the_blocks_own_write() -> None:
    ref = ame.Ref(1)

    def body() -> Any:
        ref.value = 2
        return copy.copy(ref).value

    assert ame.run(body) == 2


def test_subclass_has_attributes_slots_and_weak_references() -> None:
    class Slotted(ame.Ref[int]):
        __slots__ = ("note",)

    slotted, named = Slotted(1), Named(2)
    slotted.note = "s"
    named.anything = "n"
    assert (slotted.note, named.anything) == ("s", "n")
    assert weakref.ref(slotted)() is slotted
    assert weakref.ref(named)() is named


def test_value_dies_with_its_ref() -> None:
    thing = Plain()
    watch = weakref.ref(thing)
    ref = ame.Ref(thing)
    del thing
    assert watch() is not None
    del ref
    gc.collect()
    assert watch() is None


def test_replaced_value_dies_at_the_next_collection() -> None:
    thing = Plain()
    watch = weakref.ref(thing)
    ref: ame.Ref[Any] = ame.Ref(thing)
    del thing
    ref.value = None
    gc.collect()
    assert watch() is None


def test_cycle_through_a_ref_is_collected() -> None:
    thing = Plain()
    watch = weakref.ref(thing)
    thing.ref = ame.Ref(thing)
    del thing
    gc.collect()
    assert watch() is None


def test_value_of_a_lost_attempt_is_given_up() -> None:
    ref: ame.Ref[Any] = ame.Ref()
    watches = []

    def body() -> None:
        thing = Plain()
        watches.append(weakref.ref(thing))
        ref.value = thing
        raise LookupError

    with pytest.raises(LookupError):
        ame.run(body)
    gc.collect()
    assert [watch() for watch in watches] == [None]


def test_finalizer_of_a_subclass_may_resurrect_it() -> None:
    kept: list[ame.Ref[int]] = []

    class Phoenix(ame.Ref[int]):
        def __del__(self) -> None:
            kept.append(self)

    Phoenix(7)
    gc.collect()
    assert kept[0].value == 7
    kept[0].value = 8
    assert kept[0].value == 8


def test_finalizers_in_a_cycle_still_read_their_refs() -> None:
    seen: list[Any] = []

    class Knot:
        def __init__(self) -> None:
            self.ref = ame.Ref(self)
            self.number = ame.Ref(5)

        def __del__(self) -> None:
            seen.append((self.ref.value is self, self.number.value))

    Knot()
    gc.collect()
    assert seen == [(True, 5)]


def test_chain_of_a_million_refs_is_freed() -> None:
    watch_me = Plain()
    watch = weakref.ref(watch_me)
    chain: ame.Ref[Any] = ame.Ref(watch_me)
    del watch_me
    for _ in range(DEEP):
        chain = ame.Ref(chain)
    del chain
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize("way", [copy.deepcopy, lambda ref: pickle.loads(pickle.dumps(ref))])
def test_copy_of_a_ref_that_holds_itself(way: Callable[[Any], Any]) -> None:
    ref: ame.Ref[Any] = ame.Ref()
    ref.value = ref
    again = way(ref)
    assert again.value is again
