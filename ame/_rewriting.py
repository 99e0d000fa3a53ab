"""Connects the extension with the rewriter, which is imported when the first function needs it."""

from __future__ import annotations

from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, TypeVar

from stm import runtime

if TYPE_CHECKING:
    from ame._rewrite import Doctor

__all__ = ["doctor", "prepare"]

T = TypeVar("T")


def prepare(obj: T) -> T:
    """Make the `with ame.atomic():` blocks of `obj` re-executable now, not at their first use.

    Needed where a first entry must not be irrevocable: for functions that were defined before
    `import ame` and, on Python 3.11, for all of them. Everything else is prepared by itself.

    Args:
        obj: a function, method, property, ``@ame.atomic`` function or other wrapper that follows
            `functools.wraps`; a class, for all its functions; or a module, for all functions and
            classes defined in it.

    Returns:
        `obj` itself, so this can be a decorator.

    Raises:
        TransactionError: `obj` is a function whose blocks cannot be made re-executable; the text
            says why and where. For a class or module, `ame.doctor()` tells.
        TypeError: there are no functions in `obj`.

    In a transaction: allowed; it reads and writes no transactional state. Blocks that are open
    already stay as they are.
    """
    from ame import _rewrite

    return _rewrite.prepare(obj)


def doctor() -> Doctor:
    """Tell which `with` blocks are re-executable, and which run irrevocably and why.

    Returns:
        A record of the blocks that this process has come across so far: those of functions that
        were called, or given to `prepare`. `str` of it is a text to read.

    In a transaction: allowed; it reads and writes no transactional state.
    """
    from ame import _rewrite

    return _rewrite.doctor()


def _first_call(function: FunctionType) -> None:
    from ame import _rewrite

    _rewrite.first_call(function)


def _first_entry(frame: FrameType, site: runtime.site) -> bool:
    from ame import _rewrite

    _rewrite.first_entry(frame)
    return _rewrite.suspends(frame)


def _new_code(function: FunctionType) -> CodeType | None:
    from ame import _rewrite

    return _rewrite.new_code(function)


runtime.set_rewriter(_first_call, _first_entry, _new_code)
