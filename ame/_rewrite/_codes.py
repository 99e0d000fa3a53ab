"""Compiles trees, finds code objects in each other, swaps placeholders, and tells codes apart."""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import itertools
import warnings
from collections.abc import Iterator, Mapping
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import CodeType
from typing import Any

from ame._rewrite._nodes import BUILTINS, RUNTIME
from ame._rewrite._source import Refused
from ame._rewrite._transform import Place

__all__ = [
    "compile_tree",
    "find_code",
    "first_with",
    "future_flags",
    "nested",
    "pairs",
    "same_code",
    "suspends",
    "swap",
]

_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag

_FIELDS = (
    "co_code",
    "co_names",
    "co_varnames",
    "co_cellvars",
    "co_freevars",
    "co_linetable",
    "co_exceptiontable",
    "co_flags",
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_name",
    "co_qualname",
    "co_firstlineno",
    "co_stacksize",
)


def future_flags(code: CodeType) -> int:
    """Returns the `from __future__` flags that `code` was compiled with."""
    return code.co_flags & _FUTURE


def compile_tree(tree: ast.Module, filename: str, flags: int) -> CodeType:
    """Returns the code of `tree`.

    Raises:
        Refused: it does not compile.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first compilation has shown them
            code: CodeType = compile(tree, filename, "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Refused(f"its source cannot be compiled ({type(error).__name__})") from error
    return code


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yields `code` and all code objects inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def _key(code: CodeType) -> tuple[str, int, str]:
    return code.co_qualname, code.co_firstlineno, code.co_name


def find_code(within: CodeType, like: CodeType) -> CodeType | None:
    """Returns the code object in `within` that has the name and first line of `like`."""
    return next((each for each in nested(within) if _key(each) == _key(like)), None)


def pairs(first: CodeType, second: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Yields the code objects in `first` with their counterparts in `second`."""
    counterparts: dict[tuple[str, int, str], CodeType] = {}
    for each in nested(second):
        counterparts.setdefault(_key(each), each)
    for each in nested(first):
        if _key(each) in counterparts:
            yield each, counterparts[_key(each)]


def same_code(first: CodeType, second: CodeType) -> bool:
    """Whether two code objects are the same but for what running them has specialised."""
    return all(getattr(first, name) == getattr(second, name) for name in _FIELDS) and _same(
        first.co_consts, second.co_consts
    )


def _same(first: object, second: object) -> bool:
    """Whether two constants are the same, 0.0 and -0.0 or 1 and True not being so."""
    if type(first) is not type(second):
        return False
    if isinstance(first, CodeType) and isinstance(second, CodeType):
        return same_code(first, second)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, float | complex):
        return repr(first) == repr(second)
    return first == second


def first_with(code: CodeType) -> int | None:
    """Returns the line of the first `with` statement in `code` itself, if there is one."""
    for each in dis.get_instructions(code):
        enters = each.opname == "LOAD_SPECIAL" and "__enter__" in each.argrepr  # 3.14
        if (enters or each.opname == "BEFORE_WITH") and each.positions is not None:
            return each.positions.lineno
    return None


def suspends(code: CodeType, lasti: int) -> bool:
    """Whether the `with` that `code` enters at the instruction `lasti` has a yield or await in it.

    The body of a `with` is what its handler covers, and the handler calls `__exit__`.
    """
    if not code.co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR):
        return False
    instructions = list(dis.get_instructions(code))
    handlers = {
        first.offset
        for first, second in itertools.pairwise(instructions)
        if (first.opname, second.opname) == ("PUSH_EXC_INFO", "WITH_EXCEPT_START")
    }
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    # Where this body is, the handlers around it have a gap: the next part to begin is its own.
    ahead = [part for part in table if part.start > lasti and part.target in handlers]
    if not ahead:
        return False
    target = min(ahead, key=lambda part: part.start).target

    def is_inside(offset: int) -> bool:
        """Whether what the instruction raises goes to that handler, if need be through others."""
        for part in table:
            if part.start <= offset < part.end:
                return part.target == target or is_inside(part.target)
        return False

    return any(each.opname == "YIELD_VALUE" and is_inside(each.offset) for each in instructions)


def swap(code: CodeType, sites: Mapping[str, Place]) -> CodeType:
    """Returns `code` with objects instead of the placeholders, in all code inside of it too."""
    from stm import runtime

    objects: dict[str, Any] = {RUNTIME: runtime, BUILTINS: builtins}
    for placeholder, place in sites.items():
        objects[placeholder] = runtime.site(code.co_filename, place.line, place.qualname)
    return _swapped(code, objects)


def _swapped(code: CodeType, objects: Mapping[str, Any]) -> CodeType:
    constants: list[object] = []
    for each in code.co_consts:
        if isinstance(each, CodeType):
            constants.append(_swapped(each, objects))
        else:
            constants.append(objects.get(each, each) if isinstance(each, str) else each)
    changed = any(old is not new for old, new in zip(code.co_consts, constants, strict=True))
    return code.replace(co_consts=tuple(constants)) if changed else code
