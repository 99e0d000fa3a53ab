"""Waiting for a predicate, and what the running block looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar, final

import stm
from ame._inputs import check_seconds

__all__ = ["Current", "block_until", "current"]

T = TypeVar("T")

_NOT_PLAIN: Final = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR


def block_until(predicate: Callable[[], T], *, timeout: float | None = None) -> T:
    """Wait until `predicate()` is true, then go on; this is the BlockUntil of AME.

    The predicate is evaluated again when something changes that it has read: there is no polling.

    Args:
        predicate: reads transactional state; may be called any number of times.
        timeout: seconds, counted from the first wait; None: no limit.

    Returns:
        What the predicate returned, a true value.

    Raises:
        TypeError, ValueError: the timeout is no number of seconds, or the predicate is a generator
            or coroutine function.
        TransactionTimeout: the time is up (in a block: from the outermost one).
        TransactionError: the predicate reads nothing, so that it could never become true.
        IrrevocableError: it is false, and the block cannot be undone to wait.
        Exception: whatever the predicate raises.

    In a transaction: part of it. If the predicate is false, the whole block is undone and starts
    over when something changes that it has read. Outside of a block it is a block of its own.
    """
    check_seconds(timeout, "timeout")
    code = getattr(predicate, "__code__", None)
    if code is not None and code.co_flags & _NOT_PLAIN:
        raise TypeError(
            f"block_until() needs a predicate that returns an answer, and {predicate!r} is a "
            "generator or coroutine function: what it returns is always true"
        )
    wait = _Until(predicate, timeout)
    return wait() if stm.in_transaction() else stm.run(wait)


@final
class _Until(Generic[T]):
    """The body of `block_until`; errors name the place of the predicate that it wraps."""

    __slots__ = ("__wrapped__", "_timeout")

    def __init__(self, predicate: Callable[[], T], timeout: float | None) -> None:
        self.__wrapped__: Final = predicate
        self._timeout: Final = timeout

    def __call__(self) -> T:
        value = self.__wrapped__()
        if not value:
            stm.retry(timeout=self._timeout, key=_place(self.__wrapped__))
        return value


def _place(predicate: object) -> object:
    """Return what stays the same when a block makes its lambdas anew in each attempt."""
    return getattr(predicate, "__code__", predicate)


@final
class Current(NamedTuple):
    """The running block at one moment."""

    label: str
    """The label of the outermost block, "" without one."""
    where: str
    """Where it stands: function, file and line."""
    attempt: int
    """Which execution of the block this is, 0 for the first."""
    reads: int
    """Distinct values that it has read so far (not counted by ``read_only`` blocks)."""
    writes: int
    """Distinct values that it has written so far."""
    depth: int
    """How many blocks are open, itself included."""
    irrevocable: bool
    """Whether it runs exactly once from here on."""


def current() -> Current:
    """Tell what is known about the running block, for messages and tests.

    Returns:
        A record; it does not change afterwards.

    Raises:
        NotInTransaction: outside of a block.

    In a transaction: required; it reads and writes nothing.
    """
    label, where, attempt, reads, writes, depth, irrevocable = stm.block_info()
    return Current(label or "", where, attempt, reads, writes, depth, irrevocable)
