"""Shapes whose annotations are evaluated (no `from __future__ import annotations` here)."""
# ruff: noqa: F842, UP037

import typing

import ame
from shapes.table import Table

TABLE = Table()
EVALUATED: list[str] = []


def hint(name):
    EVALUATED.append(name)
    return int


def _hinted(c, n: "Later" = 1, *, m: typing.Optional["Later"] = None) -> "list[Later]":
    x: "Later" = n
    with ame.atomic():
        c.enter()
        x += 1
        y: "typing.Final" = x
        c.point()
        c.ref.value += y
    return [x]


Later = int


@TABLE.shape
def forward_references(c):
    return _hinted(c, 5), sorted(typing.get_type_hints(_hinted))


@TABLE.shape
def annotations_with_effects(c):
    EVALUATED.clear()

    def made(n: hint("n"), *args: hint("args")) -> hint("return"):
        x: hint("never") = n
        with ame.atomic():
            c.enter()
            x += 1
            y: hint("never") = x
            (z): hint("never") = y
            c.table["k"]: hint("never, too") = z
            c.point()
            c.ref.value += z
        return x, y

    return made(1), sorted(made.__annotations__), sorted(set(EVALUATED))


@TABLE.shape
def annotated_in_the_block(c):
    with ame.atomic():
        c.enter()

        def inner(n: int) -> "str":
            return str(n)

        class Made:
            x: int = 1
            y: "Later" = 2

        bare: int
        c.point()
        c.ref.value += Made.x
        assert c.ref.value, "never"
    c.locals({name: value for name, value in locals().items() if name == "bare"})
    return inner.__annotations__, Made.__annotations__
