"""Shapes: other context managers around a block, in its statement, and in its body; aliases."""
# ruff: noqa: PLW2901

from __future__ import annotations

import contextlib

import ame
import ame as engine
from ame import atomic
from ame import atomic as tx
from shapes.table import ANY, ONCE, Table

TABLE = Table()


class Manager:
    """Tells what happens to it: at the commit when it is in a block."""

    def __init__(self, c, name, *, suppress=False, fails=""):
        self.c, self.name, self.suppress, self.fails = c, name, suppress, fails
        self.data = {}

    def tell(self, *what):
        if ame.in_transaction():
            ame.on_commit(self.c.note, self.name, *what)
        else:
            self.c.note(self.name, *what)

    def __enter__(self):
        self.tell("enter")
        if self.fails == "enter":
            raise ValueError("enter fails")
        return self

    def __exit__(self, kind, error, traceback):
        self.tell("exit", kind and kind.__name__, str(error))
        if self.fails == "exit":
            raise ValueError("exit fails")
        return self.suppress


class Holder:
    """Has attributes and items to assign to."""


@TABLE.shape
def before_and_after_in_one_statement(c):
    with Manager(c, "a") as a, ame.atomic() as t, Manager(c, "b") as b:
        c.enter()
        c.ref.value += 1
        c.point()
        c.table["names"] = a.name + b.name
    return isinstance(t, ame.atomic)


@TABLE.shape
def parenthesized_statement(c):
    with (
        Manager(c, "a") as a,
        ame.atomic(label="parenthesized") as t,
        Manager(c, a.name + "b") as b,
    ):
        c.enter()
        c.ref.value += 1
        c.point()
        c.table[b.name] = 1
    return a.name, b.name, isinstance(t, ame.atomic)


@TABLE.shape
def two_blocks_in_one_statement(c):
    with ame.atomic(), Manager(c, "between"), ame.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        c.table["k"] = 1
        return c.ref.value


@TABLE.shape
def error_with_managers_on_both_sides(c):
    try:
        with Manager(c, "a"), ame.atomic(), Manager(c, "b"):
            c.enter()
            c.ref.value += 1
            c.point()
            raise KeyError("out")
    except KeyError as error:
        return c.describe(error)


@TABLE.shape
def manager_before_suppresses(c):
    with Manager(c, "a", suppress=True), ame.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        raise KeyError("suppressed")
    return "after", c.ref.value


@TABLE.shape
def manager_before_would_suppress_a_lost_attempt(c):
    with Manager(c, "a", suppress=True), ame.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        c.ref.value += 1
    return c.ref.value


@TABLE.shape
def manager_after_suppresses(c):
    with ame.atomic(), Manager(c, "b", suppress=True):
        c.enter()
        c.ref.value += 1
        c.point()
        c.ref.value += 1
        raise KeyError("suppressed")
    return "after", c.ref.value


@TABLE.shape
def manager_inside_suppresses_everything(c):
    with ame.atomic():
        c.enter()
        with contextlib.suppress(BaseException):
            c.ref.value += 1
            c.point()
            c.ref.value += 1
            raise KeyboardInterrupt
        c.table["after"] = c.ref.value
    return c.ref.value


@TABLE.shape
def manager_fails_on_entry(c):
    told = []
    for which in "ab":
        try:
            with Manager(c, "a", fails="enter" if which == "a" else ""), ame.atomic():
                c.enter()
                c.ref.value += 1
                c.point()
                with Manager(c, "b", fails="enter" if which == "b" else ""):
                    c.note("not reached")
        except ValueError as error:
            told.append(c.describe(error))
    return told, c.ref.value


@TABLE.shape
def manager_fails_on_exit(c):
    try:
        with Manager(c, "a"), ame.atomic(), Manager(c, "b", fails="exit"):
            c.enter()
            c.ref.value += 1
            c.point()
    except ValueError as error:
        return c.describe(error)


@TABLE.shape
def return_and_break_through_managers(c):
    for item in range(4):
        with Manager(c, f"a{item}"), ame.atomic(), Manager(c, f"b{item}"):
            c.enter()
            c.ref.value += 1
            c.point()
            if item == 1:
                continue
            if item == 2:
                return item
        c.note("end", item)


@TABLE.shape
def as_targets(c):
    holder, items = Holder(), {}
    with ame.atomic() as holder.block:
        c.enter()
        c.ref.value += 1
        c.point()
    with ame.atomic() as items["block"]:
        c.enter()
        c.ref.value += isinstance(items["block"], ame.atomic)
        c.point()
    with ame.atomic() as name, Manager(c, "m") as holder.manager:
        c.enter()
        c.point()
        c.ref.value += isinstance(name, ame.atomic)
        name = "rebound"
    c.note(sorted(vars(holder)), list(items), name)
    return isinstance(holder.block, ame.atomic)


@TABLE.shape
def as_target_is_the_block(c):
    block = ame.atomic(label="mine")
    with block as t:
        c.enter()
        c.point()
        c.ref.value += t is block
    return t is block


@TABLE.shape
def as_targets_that_unpack(c):
    with contextlib.nullcontext((1, [2, 3])) as (a, [b, *d]), ame.atomic():
        c.enter()
        a, b = b, a
        c.point()
        c.ref.value = a
        with contextlib.nullcontext("xy") as (e, f):
            c.ref.value += b
    c.locals(locals())
    return a, b, d, e, f


@TABLE.shape
def in_a_manager_of_contextlib(c):
    @contextlib.contextmanager
    def around(name):
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
        try:
            yield name
        finally:
            with ame.atomic():
                c.enter()
                c.point()
                c.ref.value += 10

    with around("x") as name:
        c.note(name, c.ref.value)
    return c.ref.value


@TABLE.shape
def statement_evaluated_once(c):
    made = []

    def label(text):
        made.append(text)
        return text

    with Manager(c, label("a")), ame.atomic(label=label("t")):
        c.enter()
        c.ref.value += 1
        c.point()
    return made


@TABLE.shape
def alias_from_import(c):
    with tx():
        c.enter()
        c.ref.value += 1
        c.point()
    with atomic(label="x"):
        c.enter()
        c.point()
        c.ref.value += 1
    return c.ref.value


@TABLE.shape
def alias_of_the_module(c):
    with engine.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
    return engine.in_transaction()


@TABLE.shape
def alias_imported_in_the_function(c):
    import ame as local
    from ame import atomic as block

    with local.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
    x = 1
    with block():
        c.enter()
        x += 1
        c.point()
        c.ref.value += x
    return c.ref.value


@TABLE.shape
def block_made_before(c):
    block = ame.atomic(label="x")
    x = 0
    with block:
        c.enter()
        x += 1
        c.ref.value += x
        c.point()
    with block:
        c.enter()
        x += 1
        c.point()
        with block:
            c.ref.value += x
    return x


@TABLE.shape(runs=ANY)
def block_as_an_argument(c):
    def inside(block, x):
        with block:
            c.enter()
            x += 1
            c.point()
            c.ref.value += x
        return x

    return inside(ame.atomic(), 1), inside(ame.atomic(label="x"), 2)


SHARED = ame.atomic(label="shared")
HOLDERS = {"block": ame.atomic(label="held")}


@TABLE.shape(runs=ANY)
def block_from_elsewhere(c):
    x = 0
    with SHARED:
        c.enter()
        x += 1
        c.point()
        c.ref.value += x
    with HOLDERS["block"]:
        c.enter()
        x += 1
        c.point()
        c.ref.value += x
    return x


@TABLE.shape(runs=ANY)
def perhaps_a_block(c):
    told = []
    for flag in (True, False):
        x = 0
        with ame.atomic() if flag else contextlib.nullcontext():
            if flag:
                c.enter()
            x += 1
            c.point()
            c.ref.value += x
        told.append(x)
    return told


@TABLE.shape(runs=ONCE)
def entered_by_an_exit_stack(c):
    x = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(Manager(c, "a"))
        stack.enter_context(ame.atomic())
        c.enter()
        x += 1
        c.point()
        c.ref.value += x
    return x


@TABLE.shape(runs=ONCE)
def entered_by_hand(c):
    block = ame.atomic()
    block.__enter__()
    c.enter()
    c.ref.value += 1
    c.point()
    block.__exit__(None, None, None)
    return c.ref.value


@TABLE.shape
def hooks_in_order(c):
    with ame.atomic():
        c.enter()
        ame.on_commit(c.note, 1)
        with ame.atomic():
            ame.on_commit(c.note, 2, key(c))
            c.point()
            try:
                with ame.atomic():
                    ame.on_commit(c.note, "undone")
                    raise ValueError
            except ValueError:
                ame.on_commit(c.note, 3)
        for n in range(4, 7):
            ame.on_commit(lambda n=n: c.note(n))
        ame.run(ame.on_commit, c.note, 7)
        c.ref.value += 1
    c.note("after")


def key(c):
    return c.ref.value


@TABLE.shape(needs=("or_else", "retry"))
def alternatives_in_the_block(c):
    def first():
        c.ref.value += 100
        ame.on_commit(c.note, "undone")
        ame.retry()

    def second():
        c.ref.value += 1
        ame.on_commit(c.note, "second")
        return "second"

    x = 0
    with ame.atomic():
        c.enter()
        x += 1
        taken = ame.or_else(first, second)
        c.point()
        c.table["taken"] = taken
    return taken, x
