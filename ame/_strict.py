"""Strict mode: refuse plain mutable objects as transactional values."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, final

import stm

__all__ = ["strict"]


@final
class _Scope:
    """What `strict` returns: in a ``with`` statement it restores the mode at the end."""

    __slots__ = ("_before",)

    def __init__(self, before: bool) -> None:
        self._before: Final = before

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stm.set_strict(self._before)


def strict(on: bool = True) -> _Scope:
    """Raise `UntrackedMutable` when a plain mutable object is put into transactional state.

    A list, dict, set, bytearray or deque, also inside of a tuple, that a `Ref` or `Dict` holds is
    neither tracked nor undone: two blocks that change it do not conflict. Strict mode finds the
    places. It holds for the whole process and costs one test per write; ``AME_STRICT=1`` in the
    environment switches it on from the start.

    Args:
        on: False switches it off.

    Returns:
        An object that restores the former mode at the end of a ``with`` statement.

    In a transaction: allowed; not undone.
    """
    return _Scope(stm.set_strict(on))


if os.environ.get("AME_STRICT", "0") not in ("", "0"):
    strict()
