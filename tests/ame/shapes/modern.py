"""Shapes with the syntax of Python 3.12: type parameters, type aliases, nested f-strings."""
# ruff: noqa: B023

from __future__ import annotations

import ame
from shapes.table import Table

TABLE = Table()


@TABLE.shape
def generic_function(c):
    def first[T](items: list[T], *, default: T | None = None) -> T | None:
        found: T | None = default
        with ame.atomic():
            c.enter()
            for item in items:
                found = item
                break
            c.point()
            c.ref.value += len(items)
        return found

    return first([1, 2]), first([], default=5), [str(each) for each in first.__type_params__]


def _generic[T: (int, str), *Ts, **P](c, value: T, *args: *Ts) -> T:
    with ame.atomic():
        c.enter()
        value += value
        args = (*args, T.__name__)
        c.point()
        c.ref.value += len(args)
    return value, args


@TABLE.shape
def generic_at_module_level(c):
    about = [(str(each), type(each).__name__) for each in _generic.__type_params__]
    return _generic(c, 2), _generic(c, "x", 1, 2), about, _generic.__annotations__


@TABLE.shape
def type_alias_in_the_block(c):
    with ame.atomic():
        c.enter()
        type Number = int
        type Pair[T] = tuple[T, Number]
        c.point()
        c.ref.value += isinstance(1, Number.__value__)
    return str(Number), str(Pair), str(Pair[str])


class Box[T]:
    """A generic class."""

    __count = 0

    def __init__(self, c, value: T) -> None:
        self.c, self.value = c, value

    def swap[S](self, other: S) -> tuple[T, S]:
        with ame.atomic():
            self.c.enter()
            old, other = self.value, [other]
            self.c.point()
            self.c.ref.value += 1 + self.__count
            return old, other, T.__name__, S.__name__, __class__.__name__


@TABLE.shape
def generic_class_and_method(c):
    return Box[int](c, 1).swap("x"), Box.swap.__qualname__


@TABLE.shape
def generic_class_in_the_block(c):
    with ame.atomic():
        c.enter()

        class Made[T]:
            def get[S](self, value: S) -> tuple[T, S]:
                return value, T.__name__, S.__name__

        def identity[T](value: T) -> T:
            return value

        c.point()
        c.ref.value += identity(1)
    return Made().get(1), Made.__qualname__


@TABLE.shape
def comprehensions_in_the_frame(c):
    n = x = "kept"
    with ame.atomic():
        c.enter()
        first = [(n, [x for x in range(n)]) for n in range(3)]
        second = [lambda: n for n in range(2)]
        try:
            [1 // n for n in (1, 0)]
        except ZeroDivisionError:
            n += "!"
        c.point()
        c.ref.value += len(first)
    c.locals({"n": n, "x": x})
    return first, [each() for each in second]


@TABLE.shape
def nested_f_strings(c):
    names = {"a": 1}
    with ame.atomic():
        c.enter()
        text = f"{names['a']}{f'{f"{c.ref.value}"}'}{'\n'.join(['x', 'y'])}"
        c.point()
        c.ref.value += len(text)
    return text
