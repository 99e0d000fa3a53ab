"""A serial stand-in for `ame`: the reference of what a shape does when nothing ever conflicts.

Blocks keep a journal, so that an exception undoes what its block wrote; hooks run after the
outermost block.  Nothing is re-executed: the shapes are ordinary Python here.

For the self-tests of the harness a block can also lose attempts, once something (`planted`) runs
it in a retry loop and says so by `optimistic`.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any


class Lost(BaseException):
    """Unwinds an attempt that has lost."""


class Retry(BaseException):
    """Unwinds an alternative of `or_else`."""


@dataclass
class Block:
    """What one outermost block did; the prediction of how often it will run."""

    enters: int = 0
    points: int = 0
    ok: bool = False  # it ended without an exception


class Engine:
    """One thread's transactions, and the module `ame` that speaks to them."""

    def __init__(self) -> None:
        self.depth = 0
        self.journal: list[Callable[[], None]] = []
        self.hooks: list[Callable[[], object]] = []
        self.blocks: list[Block] = []
        self.forced = 0
        self.optimistic = False
        self.doomed = False
        self.retrying = False
        self.attempts = 0
        self.ame = _module(self)

    def touch(self) -> None:
        if self.depth and self.doomed:
            raise Lost

    def wrote(self, undo: Callable[[], None]) -> None:
        if self.depth:
            self.journal.append(undo)

    def in_transaction(self) -> bool:
        return self.depth > 0

    def is_irrevocable(self) -> bool:
        return not self.optimistic

    def attempt(self) -> int:
        return self.attempts

    def lose(self) -> None:
        self.doomed = True

    @contextlib.contextmanager
    def forced_aborts(self, count: int) -> Iterator[None]:
        self.forced = count
        try:
            yield
        finally:
            self.forced = 0

    def begin(self, optimistic: bool) -> tuple[int, int]:
        if self.depth == 0:
            self.attempts = self.attempts + 1 if self.retrying else 0
            self.optimistic = optimistic
            self.doomed = self.retrying = False
            self.blocks.append(Block())
        self.depth += 1
        return len(self.journal), len(self.hooks)

    def end(self, saved: tuple[int, int], failed: bool) -> bool:
        """End a block; return whether its attempt, which was the outermost, lost."""
        self.depth -= 1
        lost = not self.depth and self.optimistic
        lost = lost and (self.doomed or self.attempts < self.forced)
        if failed or lost:
            self.undo(saved)
        if self.depth:
            return False
        self.retrying = lost
        self.blocks[-1].ok = not failed
        hooks, self.hooks, self.journal = self.hooks, [], []
        for hook in hooks:
            hook()
        return lost

    def undo(self, saved: tuple[int, int]) -> None:
        while len(self.journal) > saved[0]:
            self.journal.pop()()
        del self.hooks[saved[1] :]


def _module(engine: Engine) -> types.ModuleType:
    """Build the stand-in, with its types bound to one engine."""
    missing = object()

    class Ref:
        def __init__(self, value: Any = None) -> None:
            self._value = value

        @property
        def value(self) -> Any:
            engine.touch()
            return self._value

        @value.setter
        def value(self, value: Any) -> None:
            engine.touch()
            before, self._value = self._value, value
            engine.wrote(lambda: setattr(self, "_value", before))

        def update(self, fn: Callable[..., Any], /, *args: Any) -> Any:
            self.value = fn(self.value, *args)
            return self.value

    class Dict(MutableMapping[Any, Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._data = dict(*args, **kwargs)

        def __getitem__(self, key: Any) -> Any:
            engine.touch()
            return self._data[key]

        def _change(self) -> None:
            engine.touch()
            before = dict(self._data)
            engine.wrote(lambda: setattr(self, "_data", before))

        def __setitem__(self, key: Any, value: Any) -> None:
            self._change()
            self._data[key] = value

        def __delitem__(self, key: Any) -> None:
            self._change()
            del self._data[key]

        def __iter__(self) -> Iterator[Any]:
            engine.touch()
            return iter(list(self._data))

        def __len__(self) -> int:
            engine.touch()
            return len(self._data)

    def call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        block = atomic()
        block.optimistic = True
        while True:
            try:
                with block:
                    result = fn(*args, **kwargs)
            except BaseException:
                if not block.lost:
                    raise
            else:
                return result

    class atomic:
        def __new__(cls, fn: Any = missing, /, **options: Any) -> Any:
            if fn is missing:
                return super().__new__(cls)
            return _wrapped(fn)

        def __init__(self, *args: Any, **options: Any) -> None:
            self.lost = False
            self.optimistic = False
            self._saved: list[tuple[int, int]] = []

        def __call__(self, fn: Callable[..., Any], /) -> Any:
            return _wrapped(fn)

        def __enter__(self) -> Any:
            self._saved.append(engine.begin(self.optimistic))
            return self

        def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
            self.lost = engine.end(self._saved.pop(), kind is not None)
            if self.lost and kind is None:
                raise Lost
            return False

    def _wrapped(fn: Callable[..., Any]) -> Any:
        @functools.wraps(fn)
        def AtomicFunction(*args: Any, **kwargs: Any) -> Any:
            return call(fn, *args, **kwargs)

        return AtomicFunction

    def on_commit(fn: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        assert engine.depth, "on_commit outside of a block"
        engine.hooks.append(functools.partial(fn, *args, **kwargs))

    def or_else(*alternatives: Callable[[], Any]) -> Any:
        for alternative in alternatives[:-1]:
            saved = (len(engine.journal), len(engine.hooks))
            try:
                return alternative()
            except Retry:
                engine.undo(saved)
        return alternatives[-1]()

    def retry() -> None:
        raise Retry

    module = types.ModuleType("ame")
    module.__dict__.update(
        Ref=Ref,
        Dict=Dict,
        atomic=atomic,
        run=call,
        on_commit=on_commit,
        or_else=or_else,
        retry=retry,
        in_transaction=engine.in_transaction,
    )
    return module
