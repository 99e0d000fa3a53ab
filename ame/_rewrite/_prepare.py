"""`prepare` and `doctor`: what the user calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TypeVar

from ame._rewrite._engine import install, mentions_atomic
from ame._rewrite._entry import functions_in, register_refusal
from ame._rewrite._registry import Block, registry
from ame._rewrite._source import Refused

__all__ = ["Doctor", "doctor", "prepare"]

_T = TypeVar("_T")


def prepare(obj: _T) -> _T:
    """Does what `ame.prepare` says."""
    if isinstance(obj, type | ModuleType):
        for function in _functions_within(obj):
            _prepare_quietly(function)
        return obj
    functions = list(functions_in(obj))
    if not functions:
        raise TypeError(
            f"prepare() takes a function, class or module, not {type(obj).__name__!r} objects"
        )
    for function in functions:
        _prepare_one(function)
    return obj


def _prepare_one(function: FunctionType) -> None:
    """Prepares a function that the user has named.

    Raises:
        TransactionError: that is not possible.
    """
    try:
        install(function)
    except Refused as refusal:
        if not mentions_atomic(function):
            return
        register_refusal(function, str(refusal))
        code = function.__code__
        from stm import TransactionError

        raise TransactionError(
            f"the blocks of {code.co_qualname} ({code.co_filename}:{code.co_firstlineno}) cannot "
            f"be made re-executable: {refusal}; they run irrevocably, one at a time"
        ) from refusal


def _prepare_quietly(function: FunctionType) -> None:
    if not mentions_atomic(function):
        return
    try:
        install(function)
    except Refused as refusal:
        register_refusal(function, str(refusal))


def _functions_within(owner: type | ModuleType) -> Iterator[FunctionType]:
    """Yields the functions defined in a class or module."""
    pending: list[type | ModuleType] = [owner]
    seen = {id(owner)}
    home = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    while pending:
        for value in list(vars(pending.pop()).values()):
            if isinstance(value, type):
                if value.__module__ == home and id(value) not in seen:
                    seen.add(id(value))
                    pending.append(value)
                continue
            for function in functions_in(value):
                if function.__module__ == home:
                    yield function


@dataclass(frozen=True, slots=True)
class Doctor:
    """What `ame.doctor()` found. `str()` of it is a text to read.

    Attributes:
        blocks: the blocks that were rewritten or refused, by file and line.
    """

    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        refused = [each for each in self.blocks if each.reason is not None]
        noun = "block" if len(self.blocks) == 1 else "blocks"
        head = (
            f"{len(self.blocks)} {noun}: {len(self.blocks) - len(refused)} re-executable, "
            f"{len(refused)} irrevocable"
        )
        return "\n".join([head, *(f"  {each}" for each in self.blocks)])


def doctor() -> Doctor:
    """Does what `ame.doctor` says."""
    return Doctor(registry.blocks())
