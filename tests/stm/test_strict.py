"""Strict mode: plain mutable objects are refused as transactional values, with the place."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import ame
from support import in_thread, run_script

pytestmark = pytest.mark.deadline(60)


class Point(NamedTuple):
    x: object
    y: object


class MyList(list):  # type: ignore[type-arg]
    pass


class Plain:
    """An object of a class of the user."""


MUTABLE: dict[str, Callable[[], object]] = {
    "list": list,
    "dict": dict,
    "set": set,
    "bytearray": bytearray,
    "deque": collections.deque,
    "defaultdict": lambda: collections.defaultdict(list),
    "OrderedDict": collections.OrderedDict,
    "subclass of list": MyList,
}
IMMUTABLE: list[object] = [
    None,
    0,
    1.5,
    "text",
    b"bytes",
    (),
    (1, ("a", b"b")),
    frozenset({1}),
    range(3),
    len,
    int,
    Plain(),
    ame.Ref(0),
    ame.Dict(a=1),
    (ame.Ref(0), ame.Dict(a=1)),
]

PLACES: dict[str, tuple[Callable[[ame.Ref[Any], ame.Dict[Any, Any], Any], object], str]] = {
    "Ref()": (lambda ref, table, value: ame.Ref(value), "Ref"),
    "Ref.value": (lambda ref, table, value: setattr(ref, "value", value), "Ref"),
    "Ref.update": (lambda ref, table, value: ref.update(lambda _: value), "Ref"),
    "Dict(mapping)": (lambda ref, table, value: ame.Dict({"k": value}), "Dict"),
    "Dict(pairs)": (lambda ref, table, value: ame.Dict([("k", value)]), "Dict"),
    "Dict(**)": (lambda ref, table, value: ame.Dict(k=value), "Dict"),
    "insert": (lambda ref, table, value: table.__setitem__("new", value), "Dict"),
    "replace": (lambda ref, table, value: table.__setitem__("old", value), "Dict"),
    "setdefault": (lambda ref, table, value: table.setdefault("new", value), "Dict"),
    "update": (lambda ref, table, value: table.update({"x": 1, "new": value}), "Dict"),
    "update(**)": (lambda ref, table, value: table.update(new=value), "Dict"),
}
each_place = pytest.mark.parametrize(("put", "place"), PLACES.values(), ids=PLACES.keys())


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with ame.strict(False):
        yield


@each_place
@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE.keys())
@pytest.mark.parametrize("runner", [lambda fn, *args: fn(*args), ame.run], ids=["outside", "block"])
def test_plain_mutable_object_is_refused_and_changes_nothing(
    put: Any, place: str, make: Any, runner: Any
) -> None:
    """Catches: a place, or a type, that strict mode does not look at."""
    ref, table, value = ame.Ref(0), ame.Dict(old=0), make()
    with ame.strict(), pytest.raises(ame.UntrackedMutable) as caught:
        runner(put, ref, table, value)
    error = caught.value
    assert error.value is value
    assert place in error.place
    assert place in str(error)
    assert type(value).__name__ in str(error)
    assert isinstance(error, TypeError)
    assert (ref.value, dict(table.items()), len(table)) == (0, {"old": 0}, 1)


@each_place
def test_mutable_object_inside_of_tuples_is_found(put: Any, place: str) -> None:
    """Catches: a list that a tuple, or a tuple in it, hides."""
    inside: list[int] = []
    for value in ((inside,), (1, (2, ("a", inside))), Point(1, inside)):
        with ame.strict(), pytest.raises(ame.UntrackedMutable, match="inside of a tuple") as caught:
            put(ame.Ref(0), ame.Dict(old=0), value)
        assert caught.value.value is inside


@each_place
def test_other_objects_are_accepted(put: Any, place: str) -> None:
    """Catches: a refusal of what is tracked, or cannot change."""
    for value in IMMUTABLE:
        with ame.strict():
            put(ame.Ref("other"), ame.Dict(old="other"), value)


@each_place
def test_everything_is_accepted_when_strict_mode_is_off(put: Any, place: str) -> None:
    """Catches: a check that does not look at the switch."""
    for make in MUTABLE.values():
        put(ame.Ref(0), ame.Dict(old=0), make())


def test_block_goes_on_after_a_refusal() -> None:
    """Catches: a refusal that ends or dooms the block, or leaves half of a write."""
    ref, table = ame.Ref[Any](0), ame.Dict[str, Any](a=1)

    @ame.atomic
    def body() -> None:
        ref.value = 1
        for write in (
            lambda: setattr(ref, "value", []),
            lambda: table.update(a=[]),
            lambda: table.update(b={}),
            lambda: table.update(c=1, d=[]),
        ):
            with pytest.raises(ame.UntrackedMutable):
                write()
        table["last"] = 2

    with ame.strict():
        body()
    assert (ref.value, dict(table.items()), len(table)) == (1, {"a": 1, "last": 2}, 2)


def test_default_that_is_not_stored_is_not_refused() -> None:
    """Catches: a check of arguments in place of writes."""
    table = ame.Dict[str, Any](a=1)
    with ame.strict():
        assert table.setdefault("a", []) == 1
        assert table.get("b", []) == []
        assert table.pop("b", []) == []


def test_values_that_are_there_can_be_read_and_removed() -> None:
    """Catches: a check on reads."""
    ref, table = ame.Ref[Any]([1]), ame.Dict[str, Any](a=[2])
    with ame.strict():
        assert (ref.value, table["a"], list(table.values())) == ([1], [2], [[2]])
        assert table.pop("a") == [2]


def test_tuple_that_contains_itself_does_not_hang() -> None:
    """Catches: a search without an end."""
    cell: Any = ame.Ref(None)
    deep: Any = ()
    for _ in range(10_000):
        deep = (deep,)
    with ame.strict():
        cell.value = deep
        cell.value = (deep, deep, (deep, cell))


def test_wide_tuples_in_tuples_are_searched_once_each() -> None:
    """Catches: a search whose time doubles with each level of shared tuples."""
    shared: Any = (1,)
    for _ in range(15):
        shared = (shared, shared)
    with ame.strict():
        ame.Ref(shared)


def test_scope_restores_the_former_mode_in_any_order() -> None:
    """Catches: a scope that switches off what was on before it."""
    with ame.strict():
        with ame.strict(False):
            ame.Ref([])
            with ame.strict():
                with pytest.raises(ame.UntrackedMutable):
                    ame.Ref([])
            ame.Ref([])
        with pytest.raises(ame.UntrackedMutable):
            ame.Ref([])
    ame.Ref([])


def test_scope_restores_the_former_mode_after_an_exception() -> None:
    """Catches: a scope that keeps the mode, or swallows the exception."""
    with pytest.raises(LookupError), ame.strict():
        raise LookupError
    ame.Ref([])


def test_without_with_the_mode_stays() -> None:
    """Catches: a mode that ends when the object that strict() returns is dropped."""
    ame.strict()
    with pytest.raises(ame.UntrackedMutable):
        ame.Ref([])
    ame.strict(False)
    ame.Ref([])


def test_mode_holds_in_all_threads() -> None:
    """Catches: a switch for the calling thread only."""
    with ame.strict(), pytest.raises(ame.UntrackedMutable):
        in_thread(lambda: ame.Ref([]))


def test_mode_can_be_switched_in_a_block_and_is_not_undone() -> None:
    """Catches: a switch that waits for a commit."""

    @ame.atomic
    def body() -> None:
        ame.strict()
        raise LookupError

    with pytest.raises(LookupError):
        body()
    with pytest.raises(ame.UntrackedMutable):
        ame.Ref([])


@pytest.mark.parametrize(
    ("setting", "is_on"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_environment_switches_it_on_from_the_start(setting: str, is_on: bool) -> None:
    """Catches: AME_STRICT that is not looked at, or AME_STRICT=0 that switches it on."""
    done = run_script(
        """
import ame
try:
    ame.Ref([])
    print("off")
except ame.UntrackedMutable:
    print("on")
""",
        environment={"AME_STRICT": setting},
    )
    assert done.stdout.strip() == ("on" if is_on else "off")
