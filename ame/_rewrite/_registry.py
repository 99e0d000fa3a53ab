"""What has been rewritten, what could not be and why: the registry of the process.

INV-REGISTRY-1  Everything here changes under `lock` only, which a forked child makes anew.
INV-REGISTRY-2  A code object is known by identity.  One without blocks is not kept alive; one that
                was rewritten is, with what it became.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from types import CodeType
from typing import TypeVar

__all__ = ["Block", "Registry", "registry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One `with` block of the program.

    Attributes:
        filename: the file it is in.
        line: the line of its `with`.
        function: the qualified name of the function it is in.
        reason: why it runs irrevocably; None if it is executed again when it loses.
        entries: how often it was noticed that it ran irrevocably.
    """

    filename: str
    line: int
    function: str
    reason: str | None = None
    entries: int = 0

    def __str__(self) -> str:
        where = f"{self.filename}:{self.line} in {self.function}"
        if self.reason is None:
            return f"{where}: re-executable"
        return f"{where}: irrevocable: {self.reason}"


_T = TypeVar("_T")
_Key = tuple[str, int, str]
_Table = dict[int, tuple[weakref.ref[CodeType], _T]]


class Registry:
    """Code objects before and after rewriting, and the blocks in them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._blocks: dict[_Key, Block] = {}
        self._codes: _Table[CodeType | None] = {}
        self._originals: _Table[CodeType] = {}
        self._entered: _Table[set[int]] = {}
        self._extra_lines: dict[_Key, frozenset[int]] = {}

    def after_fork(self) -> None:
        """Makes the lock anew in a child: another thread of the parent may have held it."""
        self.lock = threading.RLock()

    # --- code objects ---------------------------------------------------------------------

    def add(self, original: CodeType, new: CodeType | None) -> None:
        """Remembers that `new` is what `original` was rewritten to; None: there was no need."""
        _put(self._codes, original, new)
        if new is not None:
            _put(self._originals, new, original)

    def is_known(self, original: CodeType) -> bool:
        """Whether `original` was given to `add`."""
        found = self._codes.get(id(original))
        return found is not None and found[0]() is original

    def rewritten(self, original: CodeType) -> CodeType | None:
        """Returns what `original` was last rewritten to."""
        return _get(self._codes, original)

    def first_entry(self, code: CodeType, line: int) -> bool:
        """Whether this is the first time that `code` is reported to have begun a block there."""
        lines = _get(self._entered, code)
        if lines is None:
            _put(self._entered, code, lines := set())
        if line in lines:
            return False
        lines.add(line)
        return True

    def original(self, code: CodeType) -> CodeType:
        """Returns what `code` was rewritten from: itself, if it was not."""
        return _get(self._originals, code) or code

    def is_new(self, code: CodeType) -> bool:
        """Whether `code` is the result of a rewriting."""
        return _get(self._originals, code) is not None

    def extra_lines(self, key: _Key, more: frozenset[int] = frozenset()) -> frozenset[int]:
        """Returns the lines of blocks in a function that were found only when entered."""
        lines = self._extra_lines.get(key, frozenset()) | more
        if more:
            self._extra_lines[key] = lines
        return lines

    # --- blocks ----------------------------------------------------------------------------

    def accept(self, filename: str, line: int, function: str) -> None:
        """Registers a block that is executed again when it loses."""
        key = filename, line, function
        old = self._blocks.get(key)
        self._blocks[key] = Block(
            filename=filename, line=line, function=function, entries=old.entries if old else 0
        )

    def refuse(
        self, filename: str, line: int, function: str, reason: str, *, entered: bool = False
    ) -> None:
        """Registers a block that runs irrevocably; with AME_DEBUG=1, says so the first time."""
        key = filename, line, function
        old = self._blocks.get(key)
        block = old
        if old is None or old.reason is None:
            entries = old.entries if old else 0
            block = Block(
                filename=filename, line=line, function=function, reason=reason, entries=entries
            )
            if os.environ.get("AME_DEBUG", "") not in ("", "0"):
                print(
                    f"ame: the block at {filename}:{line} in {function} runs irrevocably: {reason}",
                    file=sys.stderr,
                )
        assert block is not None
        self._blocks[key] = replace(block, entries=block.entries + entered)

    def blocks(self) -> tuple[Block, ...]:
        """Returns all blocks that are known, by file and line."""
        with self.lock:
            return tuple(block for _, block in sorted(self._blocks.items()))


def _put(table: _Table[_T], code: CodeType, value: _T) -> None:
    number = id(code)

    def forget(reference: weakref.ref[CodeType]) -> None:
        found = table.get(number)
        if found is not None and found[0] is reference:
            table.pop(number, None)

    table[number] = weakref.ref(code, forget), value


def _get(table: _Table[_T], code: CodeType) -> _T | None:
    found = table.get(id(code))
    return found[1] if found is not None and found[0]() is code else None


registry = Registry()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=registry.after_fork)
