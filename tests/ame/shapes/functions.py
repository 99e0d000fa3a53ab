"""Shapes: what a function is, apart from its body: decorators, defaults, source, recursion."""
# ruff: noqa: B006, E702, E731, PLC3002, UP033

import functools
import inspect
import linecache

import ame
from shapes.table import CREATED, ONCE, Table

TABLE = Table()


def logged(function):
    @functools.wraps(function)
    def wrapper(c, *args, **kwargs):
        c.note("call", function.__name__)
        try:
            return function(c, *args, **kwargs)
        finally:
            c.note("end", function.__name__)

    return wrapper


def times(count, *, start=0):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(c):
            return [function(c, n) for n in range(start, count)]

        return wrapper

    return decorate


@TABLE.shape
@logged
def decorated(c):
    x = 1
    with ame.atomic():
        c.enter()
        x += 1
        c.point()
        c.ref.value = x
    return x


@TABLE.shape
@logged
@times(3, start=1)
@logged
def decorated_by_a_factory(c, n):
    with ame.atomic():
        c.enter()
        c.point()
        c.ref.value += n
        n = c.ref.value
    return n


@functools.lru_cache(maxsize=None)
def _cached(c, n):
    with ame.atomic():
        c.enter()
        c.ref.value += n
        c.point()
        n += 1
    return n


@TABLE.shape
def cached(c):
    return [_cached(c, n) for n in (1, 2, 1, 2, 3)]


@TABLE.shape
@ame.atomic
def atomic_on_top(c):
    c.enter()
    x = 1
    with ame.atomic():
        x += 1
        c.ref.value += x
        c.point()
    with ame.atomic():
        x += 1
        c.table["x"] = x
    return x


@ame.atomic(label="inner")
def _add(c, n):
    with ame.atomic():
        c.ref.value += n
        c.point()
        return c.ref.value


@TABLE.shape
def calls_an_atomic_function(c):
    x = 0
    with ame.atomic():
        c.enter()
        x += _add(c, 1)
        x += ame.run(_add, c, n=5)
    return x


@TABLE.shape
def atomic_function_defined_inside(c):
    x = 1

    @ame.atomic
    def inner(n):
        c.enter()
        with ame.atomic():
            c.ref.value += n + x
        c.point()
        return c.ref.value

    first = inner(1)
    with ame.atomic():
        c.enter()
        x += 1
        c.point()
        c.table["x"] = x
    return first, x


def _defaults(c, a=[], b={"k": 1}, *, d=(1, 2), e=None) -> "dict[str, int]":
    """The docstring.

    Of two paragraphs.
    """
    with ame.atomic():
        c.enter()
        a = [*a, len(a)]
        c.point()
        c.ref.value += b["k"]
        d += (3,)
    return a, b, d, e


@TABLE.shape
def defaults_and_docstring(c):
    results = [_defaults(c), _defaults(c, e=1), _defaults(c, [5], d=())]
    about = (
        _defaults.__doc__,
        _defaults.__defaults__,
        _defaults.__kwdefaults__,
        _defaults.__annotations__,
        _defaults.__qualname__,
        _defaults.__module__,
        str(inspect.signature(_defaults)),
    )
    return results, about


@TABLE.shape
def looks_of_the_code(c):
    """Documented."""
    made = inner_code(c)
    made(1)
    code = made.__code__
    return (
        code.co_name,
        code.co_qualname,
        code.co_firstlineno,
        code.co_argcount,
        code.co_kwonlyargcount,
        code.co_freevars,
        code.co_flags,
        code.co_varnames[: code.co_argcount],
        inspect.getsource(made),
        made.__closure__ and len(made.__closure__),
        list(inspect.signature(made).parameters),
    )


def inner_code(c):
    zeta = alpha = middle = 1

    def made(n, /, m=2, *, k=3):
        nonlocal middle
        with ame.atomic():
            c.enter()
            middle += zeta + alpha
            c.point()
            c.ref.value += n + m + k
        return middle

    return made


@TABLE.shape
def attributes_of_the_function(c):
    def counted(n):
        with ame.atomic():
            c.enter()
            c.ref.value += n * counted.factor
            c.point()

    counted.factor = 3
    counted(2)
    return counted.__dict__, c.ref.value


@TABLE.shape
def recursion(c):
    def descend(depth, above):
        here = depth
        with ame.atomic():
            if not above:
                c.enter()
            c.ref.value += here
            here += 1
            if depth:
                below = descend(depth - 1, True)
            else:
                c.point()
                below = 0
        return here + below

    return descend(6, False)


@TABLE.shape
def recursion_outside_of_the_block(c):
    def descend(depth):
        with ame.atomic():
            c.enter()
            c.ref.value += depth
            value = c.ref.value
            c.point()
        return [value, *descend(depth - 1)] if depth else []

    return descend(4)


def _even(c, n, outer):
    with ame.atomic():
        if outer:
            c.enter()
        c.ref.value += 1
        n -= 1
        if n < 0:
            c.point()
            return True
        return _odd(c, n)


def _odd(c, n):
    with ame.atomic():
        c.table[n] = c.ref.value
        n -= 1
        return n >= 0 and _even(c, n, False)


@TABLE.shape
def mutual_recursion(c):
    return _even(c, 6, True), _even(c, 3, True)


@TABLE.shape
def error_in_recursion(c):
    def descend(depth, outer):
        with ame.atomic():
            if outer:
                c.enter()
            c.ref.value += depth
            if not depth:
                c.point()
                raise ValueError("bottom")
            try:
                descend(depth - 1, False)
            except ValueError as error:
                if depth == 2:
                    return c.describe(error)
                raise

    return descend(2, True)


TEXT = """\
def made(c, x=1):
    for item in range(3):
        with ame.atomic():
            c.enter()
            x += item
            c.point()
            c.ref.value = x
            if item == 1:
                break
    return x, item
"""


@TABLE.shape(runs=CREATED)
def made_by_exec_with_source(c):
    name = "<ame shape with source>"
    linecache.cache[name] = (len(TEXT), None, TEXT.splitlines(True), name)
    space = {"ame": ame, "__name__": __name__}
    exec(compile(TEXT, name, "exec"), space)
    return space["made"](c)


@TABLE.shape(runs=ONCE)
def made_by_exec_without_source(c):
    space = {"ame": ame}
    exec(compile(TEXT, "<ame shape without source>", "exec"), space)
    return space["made"](c)


@TABLE.shape(runs=ONCE)
def made_by_exec_with_the_wrong_source(c):
    name = "<ame shape with wrong source>"
    wrong = TEXT.replace("x += item", "x += 1000")
    linecache.cache[name] = (len(wrong), None, wrong.splitlines(True), name)
    space = {"ame": ame}
    exec(compile("\n\n" + TEXT, name, "exec"), space)
    return space["made"](c)


@TABLE.shape(runs=ONCE)
def module_level_of_exec(c):
    space = {"ame": ame, "c": c, "x": 1}
    text = "with ame.atomic():\n    c.enter()\n    x += 1\n    c.point()\n    c.ref.value = x\n"
    exec(compile(text, "<ame shape at module level>", "exec"), space)
    return space["x"]


@TABLE.shape(runs=ONCE)
def class_body(c):
    class Made:
        x = 1
        with ame.atomic():
            c.enter()
            x += 1
            c.point()
            c.ref.value = x
        y = x

    return Made.x, Made.y


DOCTEST = '''\
def doubled(c, n):
    """Doubles.

    >>> 1 + 1
    2
    """
    with ame.atomic():
        c.enter()
        n *= 2
        c.point()
        c.ref.value += n
    return n
'''


@TABLE.shape(runs=CREATED)
def made_as_by_doctest(c):
    name = "<doctest shapes[0]>"
    linecache.cache[name] = (len(DOCTEST), None, DOCTEST.splitlines(True), name)
    space = {"ame": ame}
    exec(compile(DOCTEST, name, "single"), space)
    return space["doubled"](c, 4), space["doubled"].__doc__


@TABLE.shape
def several_functions_on_one_line(c):
    # fmt: off
    add = lambda n: n + 1; twice = lambda n: add(add(n))
    # fmt: on
    with ame.atomic():
        c.enter()
        pair = (lambda n: n * 2)(c.ref.value), (lambda n: n + 3)(c.ref.value)
        c.point()
        c.ref.value = twice(pair[1])
    return pair


@TABLE.shape
def functions_of_one_name(c):
    def same(n):
        with ame.atomic():
            c.enter()
            n += 1
            c.point()
            c.ref.value += n
        return n

    first = same

    def same(n):
        with ame.atomic():
            c.enter()
            n += 100
            c.ref.value += n
            c.point()
        return n

    return first(1), same(1)


@TABLE.shape
def constants_that_are_equal(c):
    with ame.atomic():
        c.enter()
        seen = (1, True, 1.0, 1 + 0j, 0.0, -0.0, "1", b"1", None, ..., (1, True), (True, 1.0))
        text = f"{1!r}{True}{1.0:.2f}{seen[4]}{seen[5]} \x00\ud800 \N{SNOWMAN} {'qr'}"
        raw = (
            rb"\n",
            r"\N{x}",
            """tri"ple
        line""",
        )
        c.point()
        c.ref.value = repr(seen)
    return repr(seen), repr(text), raw


@TABLE.shape
def passes_arguments_on(c):
    def inner(*args, **kwargs):
        with ame.atomic():
            c.enter()
            args = args[1:]
            kwargs = {**kwargs, "n": len(args)}
            c.point()
            c.ref.value += kwargs.pop("n")
        return args, kwargs

    return inner(1, 2, 3, key=4), inner(*"ab", **{"n": 5})


@TABLE.shape
def partial_and_map(c):
    def inner(a, b):
        with ame.atomic():
            c.enter()
            a, b = b, a
            c.point()
            c.ref.value += a
        return a - b

    return list(map(functools.partial(inner, 10), range(3))), sorted(
        [2, 1], key=lambda n: inner(n, 0)
    )
