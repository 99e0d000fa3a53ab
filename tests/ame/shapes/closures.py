"""Shapes: closures, functions made in a block, comprehensions, the walrus."""
# ruff: noqa: B023, E731, PLC3002

from __future__ import annotations

import ame
from shapes.table import Table

TABLE = Table()


@TABLE.shape
def closure_reads_what_the_block_binds(c):
    x = 1

    def look():
        return x

    with ame.atomic():
        c.enter()
        x += look()
        c.point()
        c.ref.value = look()
    c.locals(locals())
    x += 100
    return look()


@TABLE.shape
def closure_over_a_name_unbound_before(c):
    def look():
        try:
            return late
        except NameError as error:
            return str(error)

    before = look()
    with ame.atomic():
        c.enter()
        inside = look()
        late = c.ref.value + 1
        c.point()
        c.ref.value = late
    return before, inside, look(), look.__code__.co_freevars


@TABLE.shape
def nonlocal_in_the_block(c):
    total, names = 0, ()

    def add(n):
        nonlocal total, names
        with ame.atomic():
            c.enter()
            total += n
            names += (n,)
            c.ref.value += total
            c.point()
            return total

    results = add(1), add(2)
    c.locals(locals())
    return results, total, names


@TABLE.shape
def nonlocal_deleted_in_the_block(c):
    value = 1

    def drop():
        nonlocal value
        with ame.atomic():
            c.enter()
            c.ref.value = value
            del value
            c.point()
            c.ref.value += 1

    drop()
    try:
        return value
    except NameError as error:
        return str(error)


@TABLE.shape(aborts=False)
def nonlocal_changed_by_a_function_that_is_called(c):
    total = 0

    def bump():
        nonlocal total
        total += 1

    with ame.atomic():
        c.enter()
        bump()
        c.point()
        c.ref.value = total
    return total


@TABLE.shape
def function_defined_in_the_block(c):
    base = 10
    with ame.atomic():
        c.enter()
        step = c.ref.value + 1

        def add(n, *, by=base, keep=step):
            """Adds."""
            return n + step + by + keep

        base += 1
        c.point()
        c.ref.value = add(1)
    c.locals(locals())
    return add(2), add.__doc__, add.__qualname__, add.__kwdefaults__, add.__code__.co_freevars


@TABLE.shape
def function_returned_from_the_block(c):
    with ame.atomic():
        c.enter()
        n = c.ref.value

        def count():
            nonlocal n
            n += 1
            return n

        c.ref.value = count()
        c.point()
        return count(), count(), (lambda: n)()


@TABLE.shape
def function_with_a_block_made_in_a_block(c):
    with ame.atomic():
        c.enter()

        def inner(n):
            with ame.atomic():
                c.ref.value += n
                n += 1
                c.point()
                return n

        x = inner(1)
        y = inner(x)
    return x, y


@TABLE.shape
def lambdas_capture(c):
    with ame.atomic():
        c.enter()
        made = [lambda n=n: n + c.ref.value for n in range(3)]
        late = [lambda: n for n in range(3)]
        c.point()
        c.ref.value += sum(each() for each in made)
    return [each() for each in made], [each() for each in late]


@TABLE.shape
def block_in_a_function_called_by_a_lambda(c):
    def inner(n):
        with ame.atomic():
            c.enter()
            c.ref.value += n
            c.point()
            return c.ref.value

    call = lambda n: (lambda: inner(n))()
    return [call(n) for n in range(3)]


@TABLE.shape
def deeply_nested_functions(c):
    a = 1

    def one():
        b = 2

        def two():
            nonlocal b

            def three(d):
                nonlocal a, b
                with ame.atomic():
                    c.enter()
                    a += 1
                    b += a
                    d += b
                    c.point()
                    c.ref.value += d
                    return (lambda: (a, b, d))()

            b += 1
            return three(5), three.__qualname__

        return two(), b

    result = one()
    c.locals(locals())
    return result, a


@TABLE.shape
def comprehensions_and_walrus(c):
    last = "before"
    n = "untouched"
    with ame.atomic():
        c.enter()
        squares = [last := n * n for n in range(4)]
        table = {n: (n, last) for n in squares if n}
        odd = {n for n in squares if n % 2}
        nested = [[m * n for m in range(n)] for n in range(3)]
        c.point()
        c.ref.value = sum(squares)
    c.locals(locals())
    return last, n


@TABLE.shape
def walrus_in_a_comprehension_starts_unbound(c):
    with ame.atomic():
        c.enter()
        seen = "found" in locals()
        if any((found := n) > 2 for n in range(9)):
            c.ref.value += found
        c.point()
        while (left := c.ref.value) < 6:
            c.ref.value += 1
    c.locals(locals())
    return seen, found, left


@TABLE.shape
def generator_expression_consumed_inside(c):
    offset = 1
    with ame.atomic():
        c.enter()
        total = sum(n + offset + c.ref.value for n in range(4))
        offset += total
        c.point()
        c.ref.value = max(n * offset for n in range(3))
    return total, offset
