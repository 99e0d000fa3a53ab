"""Shapes: methods, `super()`, private names, classes made in a block."""
# ruff: noqa: PLC3002, RUF012, UP008

from __future__ import annotations

import dataclasses

import ame
from shapes.table import Table

TABLE = Table()


class Base:
    """What `super()` finds."""

    def __init__(self, c):
        self.c = c
        self.__secret = "base"

    def add(self, n):
        with ame.atomic():
            self.c.ref.value += n
            self.c.point()
            return self.c.ref.value

    def secret(self):
        return self.__secret


class Child(Base):
    """Blocks in all kinds of methods."""

    __limit = 5
    registry: dict[str, object] = {}

    def __init__(self, c):
        with ame.atomic():
            c.enter()
            super().__init__(c)
            c.point()
            c.ref.value += 1
        self.__own = "child"

    def add(self, n):
        with ame.atomic():
            self.c.enter()
            before = super().add(n)
            self.c.point()
            return before, super(Child, self).add(n), __class__.__name__

    def mangled(self, __n):
        __x = 1
        with ame.atomic():
            self.c.enter()
            __x += __n
            __n = self.__limit
            self.c.point()
            self.c.ref.value = __x
            __later = (lambda: __x + __n)()
        self.c.locals({name: value for name, value in locals().items() if name != "self"})
        return __x, __n, __later, self.__own, self.secret()

    @classmethod
    def make(cls, c):
        with ame.atomic():
            c.enter()
            name = cls.__name__
            c.point()
            c.ref.value += cls.__limit
        return name

    @staticmethod
    def plain(c, n=1):
        with ame.atomic():
            c.enter()
            n += 1
            c.point()
            c.ref.value += n
            return n

    @property
    def size(self):
        with ame.atomic():
            self.c.enter()
            self.c.point()
            return self.c.ref.value

    @size.setter
    def size(self, value):
        with ame.atomic():
            self.c.enter()
            value *= 2
            self.c.point()
            self.c.ref.value = value

    def __getitem__(self, key):
        with ame.atomic():
            self.c.enter()
            key += 1
            self.c.point()
            self.c.table[key] = key
        return key

    def __call__(self, *args):
        def inner(self, extra):
            with ame.atomic():
                self.c.enter()
                extra += (super(Child, self).secret(), self.__limit)
                self.c.point()
                self.c.ref.value += 1
            return extra

        return inner(self, args)


@TABLE.shape
def constructor(c):
    return Child(c).secret(), c.ref.value


@TABLE.shape
def super_in_a_block(c):
    child = Child(c)
    return child.add(10), child.add(n=1)


@TABLE.shape
def private_names(c):
    return Child(c).mangled(4)


@TABLE.shape
def class_and_static_methods(c):
    return Child.make(c), Child.plain(c), Child(c).plain(c, 5), Child(c).make(c)


@TABLE.shape
def properties(c):
    child = Child(c)
    child.size = 21
    child.size += 1
    return child.size


@TABLE.shape
def special_methods(c):
    child = Child(c)
    return child[1], child(1, 2), child.__call__.__qualname__


@TABLE.shape
def bound_methods_kept(c):
    child = Child(c)
    add = child.add
    return [add(n) for n in range(2)]


@TABLE.shape
def class_defined_in_the_block(c):
    base = 5
    with ame.atomic():
        c.enter()

        class Made(Base):
            """Made in a block."""

            size = base + c.ref.value

            def total(self):
                return self.size + base + len(super().secret())

        base += 1
        made = Made(c)
        c.point()
        c.ref.value += made.total()
    return made.total(), Made.__qualname__, Made.__doc__, Made.__mro__[1].__name__


@TABLE.shape
def class_in_a_function_with_blocks_in_methods(c):
    start = 3

    class Local:
        def __init__(self):
            nonlocal start
            with ame.atomic():
                c.enter()
                start += 1
                c.point()
                c.ref.value = start
            self.__hidden = start

        def get(self):
            with ame.atomic():
                c.enter()
                c.point()
                c.ref.value += self.__hidden
                return __class__.__name__, self.__hidden

    made = Local()
    return made.get(), Local().get(), start


@TABLE.shape
def inherited_through_a_diamond(c):
    class Left(Child):
        def add(self, n):
            with ame.atomic():
                self.c.enter()
                n += 1
                return Base.add(self, n), "left"

    class Right(Base):
        def add(self, n):
            with ame.atomic():
                return super().add(n * 10)

    class Both(Left, Right):
        def add(self, n):
            with ame.atomic():
                self.c.enter()
                n += 1
                self.c.point()
                return super(Left, self).__thisclass__.__name__, Right.add(self, n)

    return Both(c).add(1), Left(c).add(2)


@dataclasses.dataclass
class Record:
    """A dataclass with a block."""

    c: object
    n: int = 1

    def __post_init__(self):
        n = self.n
        with ame.atomic():
            self.c.enter()
            n += 1
            self.c.point()
            self.c.ref.value += n
        self.n = n


@TABLE.shape
def dataclass_with_a_block(c):
    return Record(c).n, Record(c, n=5).n


@TABLE.shape
def metaclass_and_class_hooks(c):
    class Meta(type):
        def __new__(mcs, name, bases, space):
            with ame.atomic():
                c.enter()
                space = {**space, "tag": name.lower()}
                c.point()
                c.ref.value += 1
            return super().__new__(mcs, name, bases, space)

    class Made(metaclass=Meta):
        def __init_subclass__(cls, **options):
            with ame.atomic():
                c.enter()
                c.table[cls.__name__] = options.pop("key")
                c.point()
                super().__init_subclass__(**options)

    class Sub(Made, key=7):
        pass

    return Made.tag, Sub.tag


@TABLE.shape
def slots_and_attributes_in_a_block(c):
    class Slotted:
        __slots__ = ("a", "b")

    made = Slotted()
    with ame.atomic():
        c.enter()
        made.a = 1
        made.b = [made.a]
        made.b[0] += 1
        c.point()
        c.ref.value = made.a
        del made.a
    return made.b, hasattr(made, "a")
