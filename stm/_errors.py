"""The exceptions of the library.

They stand below one class, `TransactionError`, but for `TransactionAborted`: that one carries a
lost attempt out of user code, and must not be caught by ``except Exception``.
"""

from __future__ import annotations


class TransactionError(Exception):
    """Something went wrong with a transaction; the base of all errors of this library."""


class TransactionTimeout(TransactionError, TimeoutError):
    """A transaction waited for another one until its time was up; nothing it wrote is kept."""


class NotInTransaction(TransactionError):
    """Something was called outside of an atomic block that makes sense only inside of one."""


class IrrevocableError(TransactionError):
    """Something was asked of an irrevocable block that such a block cannot do."""


class OpenBlockError(TransactionError):
    """An atomic block was left in another thread or another call than began it."""


class ReadOnlyError(TransactionError):
    """A write in a block that was declared ``read_only``."""


class TransactionAborted(BaseException):
    """Carries an attempt that lost a conflict out of user code, to be executed again.

    Private: raised by operations of a doomed attempt only, and consumed by the block.  Catching
    it changes nothing, as every further operation of the attempt raises it again.
    """
