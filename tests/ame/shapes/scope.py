"""Shapes: local variables, parameters, globals; what a new attempt must find restored."""
# ruff: noqa: B018, F821, F842

from __future__ import annotations

import ame
from shapes.table import Table

TABLE = Table()
COUNTER = 0
MADE = None


@TABLE.shape
def augments_a_local(c):
    x = 1
    text = "a"
    both = items = ()
    with ame.atomic():
        c.enter()
        x += 1
        text += "b"
        items += (x,)
        c.point()
        c.ref.value = x
        x *= 3
        both = (x, both)
    c.locals(locals())
    return x, text


@TABLE.shape
def deletes_a_local(c):
    x, y = 1, 2
    with ame.atomic():
        c.enter()
        c.ref.value = x
        del x
        c.point()
        c.ref.value += y
        del y
    c.locals(locals())
    try:
        return x
    except UnboundLocalError as error:
        return str(error)


@TABLE.shape
def deletes_and_binds_again(c):
    x = 1
    with ame.atomic():
        c.enter()
        before = x
        del x
        c.point()
        x = before + c.ref.value + 1
        c.ref.value = x
    c.locals(locals())
    return x


@TABLE.shape
def deletes_what_is_deleted_in_each_round(c):
    for item in range(3):
        x = item
        with ame.atomic():
            c.enter()
            c.ref.value += x
            c.point()
            del x
        c.locals(locals())
    return "x" in locals()


@TABLE.shape
def binds_under_a_condition(c):
    shots = []
    for item in range(4):
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            if item == 2:
                maybe = item
            elif item == 3:
                del maybe
        shots.append("maybe" in locals())
    c.locals(locals())
    return shots


@TABLE.shape
def first_attempt_would_see_its_own_binding(c):
    with ame.atomic():
        c.enter()
        try:
            fresh
            seen = "bound"
        except NameError as error:
            seen = type(error).__name__
        fresh = 1
        c.point()
        c.ref.value += fresh
    c.locals(locals())
    return seen


@TABLE.shape
def rebinds_parameters(c, first=1, *rest, key=2, **named):
    with ame.atomic():
        c.enter()
        first += 1
        rest += (first,)
        named = {**named, "new": key}
        c.point()
        key = first
        c.ref.value = first
    c.locals(locals())
    return first, rest, key, named


def _arguments(c, first, /, second, *rest, key, other=5, **named):
    with ame.atomic():
        c.enter()
        first, second = second, first
        rest = (*rest, len(rest))
        c.point()
        named = named | {"other": other}
        other += key
        c.ref.value += other
    c.locals(locals())
    return first, second, rest, key, other, named


@TABLE.shape
def all_kinds_of_arguments(c):
    return [
        _arguments(c, 1, 2, key=3),
        _arguments(c, 1, 2, 3, 4, key=3, other=6, more=7),
        _arguments(c, 1, second=2, key=3, first=4),
    ]


@TABLE.shape
def swaps_and_unpacks(c):
    a, b, rest = 1, 2, [9]
    target = [0, 0]
    with ame.atomic():
        c.enter()
        a, b = b, a
        first, *rest, last = (a, b, a + b, *rest)
        (p, [q, *r]), s = (1, "xyz"), {**{"k": a}}
        target = [a, *target]
        target[0], target[1] = target[1], target[0]
        c.point()
        c.ref.value = a = b = a + b
    c.locals(locals())
    return a, b


@TABLE.shape
def all_targets_that_bind(c):
    item = "before"
    with ame.atomic():
        c.enter()
        for item in range(3):
            for i, (j, *k) in [(item, (1, 2, 3))]:
                c.ref.value += i + j + len(k)
        with c_manager() as (w, v):
            c.ref.value += w + v
        import os.path as path_module
        from math import floor as down

        if (walrus := c.ref.value) > 3:
            walrus += 1
        noted: int = down(2.5)
        bare: str
        c.point()
        c.table["path"] = path_module.basename("a/b")
        [x := 1, x := x + 1]
    c.locals(locals())
    return item, walrus, noted


class c_manager:
    def __enter__(self):
        return 3, 4

    def __exit__(self, *error):
        return False


@TABLE.shape
def except_as_name_is_deleted(c):
    error = "mine"
    with ame.atomic():
        c.enter()
        before = error
        try:
            raise ValueError("inside")
        except ValueError as error:
            c.ref.value += len(str(error))
        c.point()
        gone = "error" not in locals()
    c.locals(locals())
    return before, gone


@TABLE.shape(aborts=False)
def global_in_the_block(c):
    global COUNTER, MADE
    COUNTER = 0
    with ame.atomic():
        c.enter()
        COUNTER += 1
        MADE = "made"
        c.point()
        c.ref.value = COUNTER
    return COUNTER, MADE, globals()["COUNTER"]


@TABLE.shape
def global_is_bound_again_in_the_block(c):
    global MADE
    with ame.atomic():
        c.enter()
        MADE = c.ref.value + 1
        c.point()
        c.ref.value = MADE
    c.locals(locals())
    return MADE


@TABLE.shape
def locals_in_the_block(c):
    x = 1
    with ame.atomic():
        c.enter()
        y = x + 1
        x = 5
        shot = c.shot(locals())
        c.point()
        ame.on_commit(c.locals, shot)
        ame.on_commit(c.locals, c.shot(locals()))
        c.ref.value = eval("x + y")
        names = sorted(name for name in locals() if name.isidentifier())
    return names


@TABLE.shape
def names_that_shadow_builtins(c):
    NameError, range, locals, globals = 1, 2, 3, 4
    BaseException, UnboundLocalError, getattr, Exception = 5, 6, 7, 8
    with ame.atomic():
        c.enter()
        NameError += 1
        range, locals = locals, range
        globals += NameError
        BaseException, Exception = Exception, BaseException
        del getattr, UnboundLocalError
        late = True
        c.point()
        c.ref.value = NameError + globals
    return NameError, range, locals, globals, BaseException, Exception, late


@TABLE.shape
def one_name_for_ame_and_a_local(c):
    engine = ame
    with engine.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        engine = "rebound"
    return engine


@TABLE.shape
def twenty_locals(c):
    a = b = d = e = f = g = h = i = j = k = 1
    with ame.atomic():
        c.enter()
        a, b, d, e, f = b + 1, a + 2, e + 3, d + 4, a + b + d + e + f
        g += f
        h -= g
        i *= h
        j //= k
        k **= 2
        ll = m = n = o = p = a
        c.point()
        q, r, s, t, u = a, b, ll + m, n + o, p
        del o
        c.ref.value = u
    c.locals(locals())
    return q, r, s, t
