"""Shapes: how control leaves a block, and loops around and inside it."""
# ruff: noqa: B012, B018, E701, E702, F821, PLW0120, SIM107

from __future__ import annotations

import ame
from shapes.table import Table

TABLE = Table()


@TABLE.shape
def falls_through(c):
    with ame.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        c.table["k"] = c.ref.value
    return c.ref.value


@TABLE.shape
def returns_a_value(c):
    with ame.atomic():
        c.enter()
        c.ref.value += 5
        c.point()
        return c.ref.value * 2


@TABLE.shape
def returns_nothing(c):
    with ame.atomic():
        c.enter()
        c.point()
        c.ref.value = 1
        return
    return "not reached"


@TABLE.shape
def returns_in_nested_finally(c):
    with ame.atomic():
        c.enter()
        try:
            try:
                c.ref.value += 1
                c.point()
                return c.ref.value
            finally:
                c.ref.value += 10
        finally:
            c.ref.value += 100
            c.table["at"] = c.ref.value


@TABLE.shape
def return_in_finally_overrides(c):
    with ame.atomic():
        c.enter()
        try:
            c.point()
            c.ref.value += 1
            return "first"
        finally:
            return f"second {c.ref.value}"


@TABLE.shape
def return_in_finally_drops_an_error(c):
    with ame.atomic():
        c.enter()
        try:
            c.ref.value += 1
            c.point()
            raise ValueError("dropped")
        finally:
            return c.ref.value


@TABLE.shape
def finally_around_returns_instead(c):
    try:
        with ame.atomic():
            c.enter()
            c.point()
            c.ref.value += 1
            return "inner"
    finally:
        c.note("finally", c.ref.value)
        return "outer"


@TABLE.shape
def return_of_three_exits(c):
    def exit_by(way):
        for item in range(3):
            with ame.atomic():
                c.enter()
                c.ref.value += 1
                c.point()
                if item == way:
                    return way, item, c.ref.value
        return "end"

    return [exit_by(way) for way in (0, 2, 5)]


@TABLE.shape
def breaks_an_outer_for(c):
    for item in range(5):
        with ame.atomic():
            c.enter()
            c.ref.value += item
            c.point()
            if item == 3:
                break
            c.table[item] = item
    else:
        c.note("else")
    c.locals(locals())
    return item


@TABLE.shape
def for_else_runs(c):
    for item in range(3):
        with ame.atomic():
            c.enter()
            c.point()
            c.ref.value += item
            if item > 5:
                break
    else:
        with ame.atomic():
            c.enter()
            c.point()
            c.table["else"] = item
        return "else"
    return "no else"


@TABLE.shape
def continues_an_outer_for(c):
    seen = []
    for item in range(6):
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            if item % 2:
                continue
            c.table[item] = c.ref.value
        seen.append(item)
    else:
        seen.append("else")
    return seen


@TABLE.shape
def breaks_an_outer_while(c):
    n = 0
    while n < 10:
        with ame.atomic():
            c.enter()
            n += 1
            c.point()
            c.ref.value += n
            if n == 4:
                break
    else:
        c.note("else")
    c.locals(locals())
    return n


@TABLE.shape
def while_else_after_continue(c):
    n = 0
    while n < 4:
        with ame.atomic():
            c.enter()
            n += 1
            c.ref.value += n
            c.point()
            if n == 2:
                continue
            c.table[n] = True
        c.note("after", n)
    else:
        c.note("else", n)
    return n


@TABLE.shape
def breaks_and_continues(c):
    for item in range(9):
        c.note("begin", item)
        with ame.atomic():
            c.enter()
            c.point()
            c.ref.value += item
            if item == 1:
                continue
            if item == 4:
                break
        c.note("end", item)
    return item, c.ref.value


@TABLE.shape
def breaks_only_an_inner_loop(c):
    total = 0
    for item in range(3):
        with ame.atomic():
            c.enter()
            for inner in range(10):
                if inner == item + 1:
                    break
                if inner == 1:
                    continue
                total += 1
                c.ref.value += inner
            else:
                total += 1000
            c.point()
            c.table[item] = total
    c.locals(locals())
    return total


@TABLE.shape
def break_in_the_else_of_an_inner_loop(c):
    for item in range(4):
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            for inner in range(item):
                if inner == 5:
                    break
            else:
                if item == 2:
                    break
                continue
        c.note("not reached")
    else:
        c.note("else")
    return item


@TABLE.shape
def break_through_finally_in_the_block(c):
    for item in range(5):
        with ame.atomic():
            c.enter()
            try:
                c.point()
                if item == 2:
                    break
                if item == 1:
                    continue
                c.ref.value += 1
            finally:
                c.ref.value += 10
        c.note("end", item)
    return item


@TABLE.shape
def break_in_finally_drops_an_error(c):
    for item in range(3):
        with ame.atomic():
            c.enter()
            try:
                c.ref.value += 1
                c.point()
                raise KeyError(item)
            finally:
                if item == 1:
                    break
                continue
    return item, c.ref.value


@TABLE.shape
def break_two_blocks_deep(c):
    for item in range(5):
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            with ame.atomic():
                c.table[item] = 1
                c.point()
                if item == 1:
                    continue
                with ame.atomic():
                    if item == 3:
                        break
            c.ref.value += 100
    return item, c.ref.value


@TABLE.shape
def block_around_and_in_a_loop(c):
    with ame.atomic():
        c.enter()
        for item in range(4):
            with ame.atomic():
                c.ref.value += item
                c.point()
                if item == 2:
                    break
        else:
            c.table["else"] = 1
        c.table["last"] = item
    return item


@TABLE.shape
def loops_two_levels_and_blocks_between(c):
    seen = []
    for outer in range(3):
        with ame.atomic():
            c.enter()
            c.point()
            c.ref.value += outer
            if outer == 1:
                continue
        while True:
            with ame.atomic():
                c.enter()
                c.ref.value += 1
                c.point()
                if c.ref.value % 3 == 0:
                    break
            seen.append((outer, c.ref.value))
    return seen


@TABLE.shape
def first_bound_in_a_block_in_a_loop(c):
    for item in range(3):
        with ame.atomic():
            c.enter()
            if item == 0:
                try:
                    late
                except UnboundLocalError as error:
                    text = str(error)
            else:
                late += "!"
            if item == 0:
                late = "first"
            c.point()
            c.ref.value += len(late)
        c.locals(locals())
    return late, text


@TABLE.shape
def block_in_match_with_captures(c):
    found = []
    for value in ({"k": 1, "x": 2}, [1, 2, 3], ("p", 4), 7, "s"):
        match value:
            case {"k": key, **rest}:
                with ame.atomic():
                    c.enter()
                    c.ref.value += key
                    rest["y"] = c.ref.value
                    rest = dict(rest)
                    c.point()
                found.append(sorted(rest))
            case [first, *others] if first == 1:
                with ame.atomic():
                    c.enter()
                    first += 1
                    c.point()
                    c.ref.value += first
                found.append((first, others))
            case ("p", number):
                with ame.atomic():
                    c.enter()
                    c.point()
                    c.ref.value += number
                    continue
            case int(number) | str(number) as whole:
                with ame.atomic():
                    c.enter()
                    c.table[whole] = number
                    c.point()
                    if whole == "s":
                        break
        c.note("after", value)
    c.locals(locals())
    return found


@TABLE.shape
def match_inside_the_block(c):
    taken = None
    for value in (("a", 1), {"n": {"m": 2}}, 3, None):
        with ame.atomic():
            c.enter()
            match value:
                case (str() as name, count):
                    taken = name * count
                case {"n": {"m": deep}}:
                    taken = deep
                case int(whole):
                    taken = whole
                    c.point()
                    continue
                case _:
                    break
            c.point()
            c.table[str(taken)] = c.ref.value = c.ref.value + 1
    c.locals(locals())
    return taken


@TABLE.shape
def endless_loop_around_a_block(c):
    while True:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            if c.ref.value >= 4:
                return c.ref.value
            if c.ref.value == 2:
                continue
        c.note("again", c.ref.value)


@TABLE.shape
def several_blocks_in_a_row(c):
    x = 1
    with ame.atomic():
        c.enter()
        x += 1
        c.point()
        c.ref.value = x
    c.locals(locals())
    with ame.atomic():
        c.enter()
        x *= 10
        c.ref.value += x
        c.point()
    with ame.atomic():
        c.enter()
        c.point()
        x = y = c.ref.value
    c.locals(locals())
    return x, y


@TABLE.shape
def blocks_in_if_and_else(c):
    for flag in (True, False, None):
        if flag:
            with ame.atomic():
                c.enter()
                c.ref.value += 1
                c.point()
        elif flag is None:
            with ame.atomic():
                c.enter()
                c.ref.value += 100
                c.point()
                return "none", flag
        else:
            with ame.atomic():
                c.enter()
                c.ref.value += 10
                c.point()


@TABLE.shape
def block_on_one_line(c):
    # fmt: off
    with ame.atomic(): c.enter(); c.point(); c.ref.value += 1
    for _ in range(2):
        with ame.atomic(): c.enter(); c.ref.value += 1; c.point(); break
    # fmt: on
    return c.ref.value
