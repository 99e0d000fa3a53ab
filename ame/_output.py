"""Printing from inside of blocks: when they commit, and only then."""

from __future__ import annotations

import builtins
import io
import sys
from typing import TextIO

import stm

__all__ = ["print"]


def print(
    *values: object,
    sep: str | None = " ",
    end: str | None = "\n",
    file: TextIO | None = None,
    flush: bool = False,
) -> None:
    """Print as the built-in does, once the current block has committed.

    The text is made now, of the values as this attempt sees them; lost attempts print nothing, and
    the outputs of one thread appear in the order of its commits. Each call is written as a whole.

    Args:
        values: as for `print`.
        sep: between the values.
        end: after the last value.
        file: a text stream; None is what `sys.stdout` is when the block commits.
        flush: whether the stream is flushed.

    Raises:
        Exception: what `str` of a value raises. Errors of the stream are reported as those of
            `on_commit` functions are.

    In a transaction: emitted by `on_commit`. Outside of a block it prints at once.
    """
    if not stm.in_transaction():
        builtins.print(*values, sep=sep, end=end, file=file, flush=flush)
        return
    text = io.StringIO()
    builtins.print(*values, sep=sep, end=end, file=text)
    stm.on_commit(_emit, text.getvalue(), file, flush)


def _emit(text: str, file: TextIO | None, flush: bool) -> None:
    stream = sys.stdout if file is None else file
    if stream is None:
        return  # no console, as under pythonw: the built-in print does nothing either
    stream.write(text)
    if flush:
        stream.flush()
