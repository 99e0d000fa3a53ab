"""Logging from inside of blocks: when they commit, and only then."""

from __future__ import annotations

import copy
import logging

import stm

__all__ = ["CommitHandler"]


class CommitHandler(logging.Handler):
    """Passes each record on to another handler once the current block has committed.

    Lost attempts log nothing; the records of one thread keep the order of its commits. Outside of
    a block records are passed on at once::

        logging.getLogger().addHandler(ame.logs.CommitHandler(logging.StreamHandler()))

    Args:
        target: gets the records; its level, filters and formatter count as usual.
        level: records below it are dropped here.

    In a transaction: the message is made at once, of the arguments as the attempt sees them.
    """

    def __init__(self, target: logging.Handler, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on, now or after the commit."""
        if not stm.in_transaction():
            self._pass_on(record)
            return
        made = copy.copy(record)
        try:
            made.message = made.msg = record.getMessage()
        except Exception:  # a mistake in the call is reported, as by every handler
            self.handleError(record)
            return
        made.args = None
        stm.on_commit(self._pass_on, made)

    def _pass_on(self, record: logging.LogRecord) -> None:
        if record.levelno >= self.target.level:
            self.target.handle(record)

    def flush(self) -> None:
        """Flush the target."""
        self.target.flush()
