"""Closed nesting over a Dict: values, lengths and places in the order come back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import ame
from nesting import FORMS, InnerError, fail_in
from support import Interference, in_thread, seeded

pytestmark = pytest.mark.deadline(60)


def delete_and_insert(table: Any) -> None:
    if "a" in table:
        del table["a"]
    table["a"] = 50


def insert_and_delete(table: Any) -> None:
    table["temporary"] = 1
    del table["temporary"]


def pop_last(table: Any) -> None:
    if len(table):
        table.popitem()


STEPS: dict[str, Callable[[Any], object]] = {
    "nothing": lambda table: None,
    "insert": lambda table: table.update(d=4),
    "replace": lambda table: table.update(a=10),
    "replace with the same": lambda table: table.update(a=1),
    "delete": lambda table: table.pop("b", None),
    "delete and insert": delete_and_insert,
    "insert and delete": insert_and_delete,
    "popitem": pop_last,
    "update": lambda table: table.update({"c": 30, "e": 5, "f": 6}),
    "setdefault": lambda table: table.setdefault("g", 7),
    "clear": lambda table: table.clear(),
}


@pytest.mark.parametrize("inner", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("outer", STEPS.values(), ids=STEPS.keys())
def test_undone_inner_step_leaves_the_dict_as_the_outer_one_made_it(outer: Any, inner: Any) -> None:
    """Catches: a value, length or place in the order that the undo forgets."""
    start = {"a": 1, "b": 2, "c": 3}
    table, plain = ame.Dict(start), dict(start)

    def check() -> None:
        assert list(table.items()) == list(plain.items())
        assert len(table) == len(plain)
        assert list(reversed(table)) == list(reversed(plain))
        assert [key in table for key in "abcdefg"] == [key in plain for key in "abcdefg"]

    @ame.atomic
    def body() -> None:
        outer(table)
        fail_in(ame.atomic, lambda: inner(table))
        check()
        table["last"] = plain["last"] = 9
        check()

    outer(plain)
    body()
    check()
    in_thread(check)


class Program:
    """A random tree of nested blocks over Refs and a Dict; copies of plain ones are the model."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.refs = [ame.Ref[Any](0) for _ in range(6)]
        self.table = ame.Dict[Any, int]({n: n for n in range(5)})
        self.plain_refs: list[Any] = [0] * 6
        self.plain: dict[Any, int] = {n: n for n in range(5)}
        self.left = 300

    def check(self) -> None:
        assert [ref.value for ref in self.refs] == self.plain_refs
        assert list(self.table.items()) == list(self.plain.items())
        assert len(self.table) == len(self.plain)

    def step(self) -> None:
        key, value = self.rng.randrange(10), self.rng.randrange(1000)
        kind = self.rng.randrange(6)
        if kind <= 1:
            self.refs[key % 6].value = self.plain_refs[key % 6] = value
        elif kind <= 3:
            self.table[key] = self.plain[key] = value
        elif kind == 4:
            assert self.table.pop(key, None) == self.plain.pop(key, None)
        else:
            self.check()

    def block(self, depth: int) -> None:
        for _ in range(self.rng.randrange(1, 6)):
            self.left -= 1
            if depth < 6 and self.left > 0 and self.rng.random() < 0.5:
                before = list(self.plain_refs), dict(self.plain)
                try:
                    self.rng.choice(list(FORMS.values()))(lambda: self.block(depth + 1))()
                except InnerError:
                    self.plain_refs, self.plain = before
                    if self.rng.random() < 0.5:
                        self.check()
            else:
                self.step()
        if depth and self.rng.random() < 0.5:
            raise InnerError


@pytest.mark.parametrize("number", range(20))
def test_random_tree_of_blocks_does_what_copies_of_plain_objects_do(number: int) -> None:
    """Catches: whatever the tests above did not think of."""
    program = Program(random.Random(seeded().random() + number))

    def whole() -> None:
        while program.left > 0:
            program.block(0)
        program.check()

    ame.run(whole)
    program.check()


def test_inner_inserts_that_are_undone_leave_the_length_to_other_threads_inserts() -> None:
    """Catches: an undone `size` that overwrites what others add meanwhile."""
    table = ame.Dict(a=1)
    disturb = Interference(lambda: table.update(other=1))

    @ame.atomic
    def outer() -> None:
        table["outer"] = 1
        fail_in(ame.atomic, lambda: table.update(x=1, y=2, z=3))
        disturb()

    outer()
    assert disturb.calls == 1  # two inserts do not conflict
    assert len(table) == len(list(table)) == 3


def test_length_read_by_an_undone_block_is_still_right_after_an_insert_elsewhere() -> None:
    """Catches: an addition turned into a write by a read, and turned back by the undo."""
    table = ame.Dict(a=1)
    disturb = Interference(lambda: table.update(other=1))

    def inner() -> None:
        table["x"] = 1
        assert len(table) == len(list(table))

    @ame.atomic
    def outer() -> int:
        table["outer"] = 1
        fail_in(ame.atomic, inner)
        disturb()
        table["more"] = 1
        return len(table)

    assert outer() == len(table) == len(list(table)) == 4


def test_iteration_goes_on_after_an_undone_insert() -> None:
    """Catches: an iterator that counts an insert which never was."""
    table = ame.Dict[Any, int](dict.fromkeys(range(10), 0))

    @ame.atomic
    def outer() -> list[Any]:
        seen = []
        for key in table:
            fail_in(ame.atomic, lambda: table.update({"new": 1}))
            seen.append(key)
        return seen

    assert outer() == list(range(10))


def test_equal_key_of_an_undone_insert_does_not_stay() -> None:
    """Catches: the key object of an undone insert (True for 1) that later inserts get."""
    table = ame.Dict[Any, str]({1: "one"})

    def inner() -> None:
        del table[1]
        table[True] = "true"

    @ame.atomic
    def outer() -> None:
        fail_in(ame.atomic, inner)
        assert [type(key) for key in table] == [int]

    outer()
    assert list(table.items()) == [(1, "one")]
    assert [type(key) for key in table] == [int]
