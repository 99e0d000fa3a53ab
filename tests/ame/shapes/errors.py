"""Shapes: exceptions that leave a block, end in it, or come from an inner one."""
# ruff: noqa: B012, B018, B904, E722, F821, F841

from __future__ import annotations

import ame
from shapes.table import ANY, Table

TABLE = Table()


class ShapeError(Exception):
    """Carries a value."""

    def __init__(self, value):
        super().__init__(f"value {value}")
        self.value = value


class Signal(BaseException):
    """Not an Exception."""


@TABLE.shape
def leaves_the_function(c):
    c.ref.value = 1
    with ame.atomic():
        c.enter()
        c.ref.value += 1
        c.table["k"] = 1
        ame.on_commit(c.note, "never")
        c.point()
        raise ShapeError(c.ref.value)


@TABLE.shape
def caught_around_the_block(c):
    x = 1
    try:
        with ame.atomic():
            c.enter()
            x += 1
            c.ref.value = x
            c.point()
            raise ShapeError(x)
    except ShapeError as error:
        c.note(c.describe(error), error.value)
    c.locals(locals())
    return x, c.ref.value


@TABLE.shape
def caught_in_the_block(c):
    with ame.atomic():
        c.enter()
        try:
            c.ref.value += 1
            c.point()
            raise ShapeError(c.ref.value)
        except ShapeError as error:
            c.ref.value += error.value
            told = c.describe(error)
        else:
            c.ref.value = -1
    c.note(told)
    return c.ref.value


@TABLE.shape
def from_a_cause(c):
    with ame.atomic():
        c.enter()
        try:
            c.point()
            c.table["missing"]
        except KeyError as error:
            c.ref.value += 1
            raise ShapeError("wrapped") from error


@TABLE.shape
def with_a_context(c):
    with ame.atomic():
        c.enter()
        try:
            raise ValueError("first")
        except ValueError:
            c.point()
            c.ref.value += 1
            raise ShapeError("second")


@TABLE.shape
def without_a_context(c):
    with ame.atomic():
        c.enter()
        try:
            c.ref.value += 1
            c.point()
            raise ValueError("first")
        except ValueError:
            raise ShapeError("second") from None


@TABLE.shape
def context_from_around_the_block(c):
    try:
        raise ValueError("around")
    except ValueError:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            raise ShapeError("inside")


@TABLE.shape
def lost_attempts_leave_no_context(c):
    with ame.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        c.ref.value += 1
    try:
        raise ShapeError("after")
    except ShapeError as error:
        return c.describe(error)


@TABLE.shape
def notes_and_reraise(c):
    try:
        with ame.atomic():
            c.enter()
            try:
                c.ref.value += 1
                c.point()
                raise ShapeError("noted")
            except ShapeError as error:
                error.add_note("a note")
                raise
    except ShapeError as error:
        c.note(c.describe(error))
        raise


@TABLE.shape
def bare_except_swallows_everything(c):
    with ame.atomic():
        c.enter()
        caught = 0
        for _ in range(3):
            try:
                c.ref.value += 1
                c.point()
                c.ref.value += 1
                if c.ref.value == 4:
                    raise ShapeError("swallowed")
            except:
                caught += 1
    return caught, c.ref.value


@TABLE.shape
def except_base_exception(c):
    with ame.atomic():
        c.enter()
        try:
            c.point()
            c.ref.value += 1
            raise Signal("caught")
        except BaseException as error:
            name = type(error).__name__
        finally:
            c.table["f"] = 1
    return name


@TABLE.shape
def base_exception_becomes_another_error(c):
    with ame.atomic():
        c.enter()
        try:
            c.ref.value += 1
            c.point()
            c.ref.value += 1
        except BaseException as error:
            raise ShapeError(f"translated {type(error).__name__}") from error
    return c.ref.value


@TABLE.shape
def base_exception_caught_around(c):
    try:
        with ame.atomic():
            c.enter()
            c.point()
            c.ref.value += 1
    except BaseException as error:
        c.note("must not be seen", c.describe(error))
    finally:
        c.note("finally", c.ref.value)
    return "end"


@TABLE.shape
def unbound_local_in_the_block(c):
    with ame.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        x = y + 1
        y = x
    return x


@TABLE.shape
def unbound_local_caught(c):
    try:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            del never
            never = 1
    except UnboundLocalError as error:
        return c.describe(error)


@TABLE.shape
def unknown_name_in_the_block(c):
    with ame.atomic():
        c.enter()
        c.point()
        c.ref.value += 1
        undefined_name


@TABLE.shape
def locals_after_an_error(c):
    x = 1
    try:
        with ame.atomic():
            c.enter()
            fresh = x
            x = 2
            c.point()
            c.ref.value = x
            for item in range(3):
                if item == 1:
                    del fresh
                    raise ShapeError(item)
    except ShapeError:
        c.locals(locals())
    return x, item


@TABLE.shape
def error_on_each_of_several_lines(c):
    def run(which):
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            values = (
                1 if which != 0 else 1 // 0,
                [].pop() if which == 1 else 2,
            )
            if which == 2:
                raise ShapeError(values)
            assert which != 3, f"assertion {which}"
        {}["after"]

    for which in range(5):
        try:
            run(which)
        except Exception as error:
            c.note(c.describe(error))
    return c.ref.value


@TABLE.shape
def inner_error_caught_in_the_outer_block(c):
    x = "before"
    with ame.atomic():
        c.enter()
        c.ref.value = 1
        try:
            with ame.atomic():
                c.ref.value = 2
                c.table["inner"] = 1
                x = "inner"
                ame.on_commit(c.note, "undone")
                c.point()
                raise ShapeError("inner")
        except ShapeError as error:
            told = c.describe(error)
            ame.on_commit(c.note, "handled", c.ref.value)
        c.table["outer"] = c.ref.value
    c.locals(locals())
    c.note(told)
    return x


@TABLE.shape
def three_deep_with_errors_at_each_level(c):
    with ame.atomic():
        c.enter()
        c.table["1"] = c.ref.value
        try:
            with ame.atomic():
                c.ref.value += 1
                c.table["2"] = c.ref.value
                try:
                    with ame.atomic():
                        c.ref.value += 10
                        c.table["3"] = c.ref.value
                        c.point()
                        raise ValueError("3")
                except ValueError as error:
                    c.table["caught"] = c.ref.value
                    raise ShapeError("2") from error
        except ShapeError as error:
            told = c.describe(error)
        c.ref.value += 100
    c.note(told)
    return c.ref.value


@TABLE.shape
def error_through_two_blocks(c):
    try:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            with ame.atomic():
                c.table["k"] = 1
                c.point()
                raise ShapeError("through")
    except ShapeError as error:
        return c.describe(error), dict(c.table)


@TABLE.shape
def block_in_each_part_of_try(c):
    seen = []
    for item in range(3):
        try:
            with ame.atomic():
                c.enter()
                c.ref.value += 1
                c.point()
                if item == 1:
                    raise ShapeError(item)
        except ShapeError as error:
            with ame.atomic():
                c.enter()
                c.ref.value += error.value * 100
                c.point()
                seen.append("except") if item > 9 else None
            seen.append(error.value)
        else:
            with ame.atomic():
                c.enter()
                c.point()
                c.table["else", item] = c.ref.value
                if item == 2:
                    return seen
        finally:
            with ame.atomic():
                c.enter()
                c.ref.value += 1000
                c.point()
                c.table["finally", item] = c.ref.value


@TABLE.shape
def block_in_finally_while_an_error_passes(c):
    try:
        try:
            raise ValueError("passing")
        finally:
            with ame.atomic():
                c.enter()
                c.ref.value += 1
                c.point()
                c.table["k"] = c.ref.value
    except ValueError as error:
        return c.describe(error)


@TABLE.shape
def bare_raise_in_a_block_in_except(c):
    try:
        raise ValueError("again")
    except ValueError:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            raise


@TABLE.shape
def block_in_finally_that_returns(c):
    try:
        raise ValueError("dropped")
    finally:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            return c.ref.value


@TABLE.shape
def except_star_in_the_block(c):
    with ame.atomic():
        c.enter()
        told = []
        try:
            c.ref.value += 1
            raise ExceptionGroup("all", [ValueError("a"), KeyError("b"), TypeError("d")])
        except* ValueError as group:
            c.point()
            told.append(len(group.exceptions))
            c.ref.value += 1
        except* (KeyError, TypeError) as group:
            told.append(c.describe(group))
            c.ref.value += 10
    c.locals(locals())
    return told


@TABLE.shape
def except_star_lets_the_rest_through(c):
    try:
        with ame.atomic():
            c.enter()
            try:
                c.ref.value += 1
                c.point()
                raise ExceptionGroup("all", [ValueError("a"), KeyError("b")])
            except* ValueError:
                c.ref.value += 1
    except* KeyError as group:
        c.note(c.describe(group))
    return c.ref.value


@TABLE.shape
def stop_iteration_and_system_exit(c):
    told = []
    for kind in (StopIteration, SystemExit, GeneratorExit, MemoryError):
        try:
            with ame.atomic():
                c.enter()
                c.ref.value += 1
                c.point()
                raise kind("it")
        except BaseException as error:
            told.append(c.describe(error))
    return told


@TABLE.shape
def error_in_an_expression_before_the_block(c):
    try:
        with ame.atomic(no_such_option=1) if c.ref.value else ame.nothing():
            c.enter()
    except (TypeError, AttributeError) as error:
        return type(error).__name__


@TABLE.shape(runs=ANY)  # Ctrl-C may end an attempt that has lost
def keyboard_interrupt(c):
    try:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            raise KeyboardInterrupt("it")
    except KeyboardInterrupt as error:
        return c.describe(error), c.ref.value
