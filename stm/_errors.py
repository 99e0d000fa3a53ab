"""The exceptions of the library.

They stand below one class, `TransactionError`, but for two private ones that carry control flow
through user code and must not be caught by ``except Exception``.
"""

from __future__ import annotations

from typing import Any, Final

from stm._causes import Cause


class TransactionError(Exception):
    """Something went wrong with a transaction; the base of all errors of this library."""


class BlockEnded(TransactionError):
    """A block gave up, and nothing it wrote is kept: a timeout or a limit of attempts."""

    def __init__(
        self,
        message: str = "",
        *,
        block: str = "",
        attempts: int = 0,
        seconds: float = 0.0,
        cause: Cause = Cause.NONE,
        holder: str = "",
        cells: tuple[int, ...] = (),
    ) -> None:
        super().__init__(message)
        self.block: Final = block
        """Which block it was, with file and line."""
        self.attempts: Final = attempts
        """How many times the block was executed."""
        self.seconds: Final = seconds
        """Seconds that the block has spent waiting, in all its attempts."""
        self.cause: Final = cause
        """Why its last attempt ended."""
        self.holder: Final = holder
        """Label of the irrevocable or protected block that it waited for; "" if it was none."""
        self._cells: Final = cells

    @property
    def waited_on(self) -> list[Any]:
        """What `retry` waited on: each `Ref`, and each ``(Dict, key)``, that the block had read.

        Looked up when asked for, among all objects of the process: slow, and what does not exist
        any more is missing.  At most 64 are known.
        """
        from stm._owners import find_owners

        return find_owners(self._cells)


class TransactionTimeout(BlockEnded, TimeoutError):
    """A block waited, for another one or for a change, until its time was up."""


class AttemptLimit(BlockEnded):
    """A block lost as many attempts as ``max_attempts`` allows."""


class NotInTransaction(TransactionError):
    """Something was called outside of an atomic block that makes sense only inside of one."""


class IrrevocableError(TransactionError):
    """Something was asked of an irrevocable block that such a block cannot do."""


class OpenBlockError(TransactionError):
    """A block was left open, or left, where that cannot work: in another thread, another call,
    across a ``yield`` or ``await``, across a fork."""


class ReadOnlyError(TransactionError):
    """A write in a block that was declared ``read_only``."""


class UntrackedMutable(TransactionError, TypeError):
    """Strict mode: a plain mutable object was put into transactional state."""

    def __init__(self, message: str = "", *, value: object = None, place: str = "") -> None:
        super().__init__(message)
        self.value: Final = value
        """The mutable object."""
        self.place: Final = place
        """What it was put into."""


class TransactionAborted(BaseException):
    """Carries an attempt that lost a conflict out of user code, to be executed again.

    Private: raised by operations of a doomed attempt only, and consumed by the block.  Catching
    it changes nothing, as every further operation of the attempt raises it again.
    """


class BlockRerun(BaseException):
    """Sends a rewritten ``with`` block round again.

    Private: raised by ``__exit__`` of the block alone, and caught by the code around it.
    """


def limit_error(
    timeout: int,
    block: str,
    attempts: int,
    seconds: float,
    for_change: int,
    cause: int,
    holder: str | None,
    cells: tuple[int, ...] | None,
) -> BlockEnded:
    """Makes the error of a block that gave up; called by the extension."""
    times = f"{attempts} attempt{'s' if attempts != 1 else ''}"
    data: dict[str, Any] = {"block": block, "attempts": attempts, "seconds": seconds}
    data["cells"] = cells or ()
    if not timeout:
        text = f"{block} has lost {times}, as many as max_attempts allows: see ame.stats()"
        return AttemptLimit(text, cause=Cause(cause), **data)
    if for_change:
        count = len(data["cells"])
        what = f"one of the {count} values that it had read" if count != 1 else "what it had read"
        text = f"{block} waited {seconds:.3g} s in retry() for a change of {what}, in {times}"
        return TransactionTimeout(text, cause=Cause.RETRY, **data)
    if not seconds:
        text = f"{block} was to wait when its time was up, after {times}"
        return TransactionTimeout(text, cause=Cause(cause), **data)
    who = f"the block {holder!r}" if holder else "an irrevocable or protected block"
    text = f"{block} waited {seconds:.3g} s for {who} until its time was up, in {times}"
    return TransactionTimeout(text, cause=Cause(cause), holder=holder or "", **data)


def strict_error(place: str, inside: str, value: object) -> UntrackedMutable:
    """Makes the error of strict mode; called by the extension."""
    kind = type(value).__name__
    text = (
        f"strict mode: a plain {kind}{inside} was put into {place}; blocks that change it do not "
        "conflict, and nothing undoes what they do to it: use an ame type, or something immutable"
    )
    return UntrackedMutable(text, value=value, place=place)
