"""What the runtime calls: at the first call of a function, and when a block was missed."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from ame._rewrite import _codes
from ame._rewrite._codes import first_with, nested, same_code
from ame._rewrite._engine import install, rewrite
from ame._rewrite._registry import registry
from ame._rewrite._source import Refused

__all__ = [
    "first_call",
    "first_entry",
    "functions_in",
    "functions_of",
    "new_code",
    "register_refusal",
    "suspends",
]


def first_call(function: FunctionType) -> None:
    """Rewrites `function` before its first call; if that cannot be, registers why.

    Called by the runtime, from 3.12 on.  Raises only what must not be held back: KeyboardInterrupt,
    MemoryError, SystemExit.
    """
    try:
        _install_or_register(function)
    except MemoryError:
        raise
    except Exception as error:  # a mistake of ours: the block is right all the same
        register_refusal(function, _mistake(error))


def new_code(function: FunctionType) -> CodeType | None:
    """Returns the rewritten code of `function`, which is being created; None: there is none.

    Called by the runtime, on 3.12 and 3.13; its closure and defaults are not there yet.  Registers
    and raises like `first_call`.
    """
    try:
        return rewrite(function)
    except Refused as refusal:
        register_refusal(function, str(refusal))
    except MemoryError:
        raise
    except Exception as error:
        register_refusal(function, _mistake(error))
    return None


def first_entry(frame: FrameType) -> None:
    """Rewrites the function of `frame`, which has begun a block irrevocably, for its next call.

    Does nothing if that line of that function was reported before.  Raises like `first_call`.
    """
    code, line = frame.f_code, frame.f_lineno
    with registry.lock:
        if not registry.first_entry(code, line):
            return
    try:
        reason = _rewrite_for(frame)
    except MemoryError:
        raise
    except Exception as error:
        reason = _mistake(error)
    if reason is not None:
        _register(code, line, reason, entered=True)


def suspends(frame: FrameType) -> bool:
    """Whether the block that `frame` is about to enter has a yield or await in its body."""
    return _codes.suspends(frame.f_code, frame.f_lasti)


def _rewrite_for(frame: FrameType) -> str | None:
    """Rewrites what `frame` runs; returns why not."""
    code, line = frame.f_code, frame.f_lineno
    if code.co_name == "<module>":
        return "module level"
    if "__qualname__" in code.co_names and not code.co_flags & 0x2:  # CO_NEWLOCALS, CO_OPTIMIZED
        return "class body"
    functions = list(functions_of(code, frame.f_globals))
    if not functions:
        return "its function was not found"
    reason, done = None, False
    for function in functions:
        try:
            done = install(function, frozenset([line])) or done
        except Refused as refusal:
            reason = str(refusal)
    if reason is None and not done and not registry.is_new(functions[0].__code__):
        return "no `with` statement was found at that line"
    return reason


def _install_or_register(function: FunctionType) -> None:
    try:
        install(function)
    except Refused as refusal:
        register_refusal(function, str(refusal))


def register_refusal(function: FunctionType, reason: str) -> None:
    """Registers that the blocks of `function` cannot be rewritten, with their functions."""
    for code in nested(function.__code__):
        line = first_with(code)
        if line is not None:
            _register(code, line, reason)


def _register(code: CodeType, line: int, reason: str, *, entered: bool = False) -> None:
    with registry.lock:
        registry.refuse(code.co_filename, line, code.co_qualname, reason, entered=entered)


def _mistake(error: Exception) -> str:
    return f"the rewriter failed, please report this: {type(error).__name__}: {error}"


# --- finding functions ---------------------------------------------------------------------


def functions_of(code: CodeType, namespace: dict[str, Any]) -> Iterator[FunctionType]:
    """Yields the functions that run `code`, and the one that creates functions that run it."""
    seen: set[int] = set()
    outermost = code.co_qualname.split(".<locals>", 1)[0]
    value: Any = None
    for number, name in enumerate(outermost.split(".")):
        value = namespace.get(name) if number == 0 else getattr(value, "__dict__", {}).get(name)
    original = registry.original(code)
    for function in functions_in(value):
        if _contains(function.__code__, original):
            seen.add(id(function))
            yield function
    if seen and code.co_qualname == outermost:
        return
    current = registry.rewritten(original) or code
    for referrer in gc.get_referrers(code, current):
        if type(referrer) is not FunctionType or id(referrer) in seen:
            continue
        if referrer.__code__ is code or referrer.__code__ is current:
            seen.add(id(referrer))
            yield referrer


def _contains(code: CodeType, original: CodeType) -> bool:
    """Whether `original` is the code of a function that `code` is or creates, rewritten or not."""
    if code.co_filename != original.co_filename:
        return False
    return any(same_code(registry.original(each), original) for each in nested(code))


def functions_in(value: object, depth: int = 8) -> Iterator[FunctionType]:
    """Yields the functions that `value` is, wraps or, if it is a descriptor, consists of."""
    if isinstance(value, FunctionType):
        yield value
    if depth == 0 or value is None or isinstance(value, type):
        return
    if isinstance(value, property):
        parts: tuple[object, ...] = value.fget, value.fset, value.fdel
    elif isinstance(value, classmethod | staticmethod | MethodType):
        parts = (value.__func__,)
    elif isinstance(value, functools.partial | functools.cached_property):
        parts = (value.func,)
    else:
        parts = (getattr(value, "__dict__", {}).get("__wrapped__"),)
    for part in parts:
        yield from functions_in(part, depth - 1)
