"""A lock for moving lock-based code over step by step: real outside of blocks, elided inside."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, final

import stm

__all__ = ["Lock"]

PATIENCE: Final = 60.0  # seconds

_tokens = threading.local()


def _token() -> object:
    """Return an object of this thread; its ident may be that of a thread which has ended."""
    try:
        return _tokens.own
    except AttributeError:
        _tokens.own = object()
        return _tokens.own


@final
class Lock:
    """A mutual exclusion lock that transactions see through.

    Outside of blocks it is a `threading.Lock`. Inside of a block ``with lock:`` takes nothing: the
    block only reads that the lock is free, so that blocks with the same lock run in parallel, and
    one is executed again if a thread outside takes the lock meanwhile. Code with locks and code
    with blocks thus exclude each other, and a program can be moved over one lock at a time. After
    Speculative Lock Elision (Rajwar and Goodman 2001), done in software.

    Args:
        patience: seconds that a block waits for a thread that holds the lock outside; then it ends
            with `TransactionTimeout`. A block that waits for a lock that is never released would
            hang otherwise. None: no limit.

    In a transaction: ``with lock:`` conflicts with threads that take the lock outside of blocks
    only. `acquire` and `release` write: a block that uses them holds the lock from its commit on.
    """

    __slots__ = ("_owner", "_patience")

    def __init__(self, *, patience: float | None = PATIENCE) -> None:
        if patience is not None and not patience >= 0:
            raise ValueError(f"patience must be a number of seconds >= 0 or None, got {patience!r}")
        self._owner: Final[stm.Ref[object]] = stm.Ref(None)  # a token of its thread
        self._patience: Final = patience

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting for it if need be.

        Args:
            blocking: False returns at once when the lock is held.
            timeout: seconds to wait; -1: no limit (in a block: its patience).

        Returns:
            Whether the lock was taken.

        Raises:
            RuntimeError: this thread or block holds it already: it would wait for itself for ever.
            ValueError: a timeout together with blocking=False, or a negative one but -1.
            TransactionTimeout: in a block, a thread outside held it for longer than `patience`.

        In a transaction: a write; the lock is held from the commit of the block on.
        """
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        limit = None if timeout == -1 else timeout
        if stm.in_transaction():
            return self._take(blocking, self._patience if limit is None else limit)
        try:
            return stm.run(self._take, blocking, limit)
        except stm.TransactionTimeout:
            if limit is None:  # in a signal handler, or at exit: there is no waiting for ever
                raise
            return False

    def _take(self, blocking: bool, limit: float | None) -> bool:
        if not self._wait(blocking, limit):
            return False
        self._owner.value = _token()
        return True

    def _wait(self, blocking: bool, limit: float | None) -> bool:
        owner = self._owner.value
        if not blocking:
            return owner is None and not self._is_elided()
        if owner is _token() or self._is_elided():
            raise RuntimeError(
                f"{self!r} is held by this thread already: taking it again would wait for ever"
            )
        if owner is not None:
            stm.retry(timeout=limit, key=self)
        return True

    def _is_elided(self) -> bool:
        return self in stm.attempt_locals()

    def release(self) -> None:
        """Give the lock back; any thread may.

        Raises:
            RuntimeError: it is not held.

        In a transaction: a write; others get the lock when the block has committed.
        """
        if stm.in_transaction():
            self._give()
        else:
            stm.run(self._give)

    def _give(self) -> None:
        if self._owner.value is None:
            raise RuntimeError("release unlocked lock")
        self._owner.value = None

    def locked(self) -> bool:
        """Tell whether a thread holds the lock; blocks that elide it do not."""
        return self._owner.value is not None

    def __enter__(self) -> bool:
        if not stm.in_transaction():
            return self.acquire()
        self._wait(True, self._patience)
        stm.attempt_locals()[self] = True
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not stm.in_transaction() or stm.attempt_locals().pop(self, None) is None:
            self.release()

    def __repr__(self) -> str:
        return f"<ame.Lock at {id(self):#x}>"
