"""What has happened so far in this process, as one record of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, final

from stm import _core
from stm._causes import CONFLICTS, Cause


@final
class Stats(NamedTuple):
    """Counts since the start of the process, or, as a difference, since an earlier `stats()`.

    Attributes:
        commits: blocks that committed, read-only ones included.
        read_only: of these, blocks that wrote nothing.
        attempts: executions of blocks; more than `commits` where some lost or raised.
        aborts: attempts that ended without a commit.
        aborts_by_cause: how many for each `Cause`.
        protected: attempts that ran in the protected slot and so could not lose.
        waits: waits for the protected transaction, or for its slot.
        parks: sleeps until something that a block had read changes.
        wakes: of these, sleeps that a commit ended (others reached their deadline).
        parked: transactions that sleep so now; of a difference: now less then.
        seconds_lost: seconds spent in attempts that lost a conflict, summed over threads.
        seconds_waited: seconds spent in `waits`, summed over threads.
    """

    commits: int
    read_only: int
    attempts: int
    aborts: int
    aborts_by_cause: Mapping[Cause, int]
    protected: int
    waits: int
    parks: int
    wakes: int
    parked: int
    seconds_lost: float
    seconds_waited: float

    @property
    def conflicts(self) -> int:
        """Attempts that another transaction got in the way of."""
        return sum(self.aborts_by_cause[cause] for cause in CONFLICTS)

    def __sub__(self, earlier: Stats) -> Stats:
        """Returns what has happened since ``earlier``."""
        return Stats(
            commits=self.commits - earlier.commits,
            read_only=self.read_only - earlier.read_only,
            attempts=self.attempts - earlier.attempts,
            aborts=self.aborts - earlier.aborts,
            aborts_by_cause=MappingProxyType(
                {c: n - earlier.aborts_by_cause[c] for c, n in self.aborts_by_cause.items()}
            ),
            protected=self.protected - earlier.protected,
            waits=self.waits - earlier.waits,
            parks=self.parks - earlier.parks,
            wakes=self.wakes - earlier.wakes,
            parked=self.parked - earlier.parked,
            seconds_lost=self.seconds_lost - earlier.seconds_lost,
            seconds_waited=self.seconds_waited - earlier.seconds_waited,
        )


def stats() -> Stats:
    """Returns the counts so far; two calls and a ``-`` give those of a stretch of time.

    Returns:
        A frozen record.  Counts of blocks that run in other threads may be a moment old.

    In a transaction: allowed, conflicts with nothing, and counts what lost attempts did too.
    """
    raw = _core.ffi.new("stm_stats *")
    _core.lib.stm_domain_stats(_core.lib.stmpy_get_domain(), raw)
    return Stats(
        commits=raw.commits,
        read_only=raw.read_only,
        attempts=raw.attempts,
        aborts=raw.aborts,
        aborts_by_cause=MappingProxyType({c: raw.aborts_by_cause[c] for c in Cause}),
        protected=raw.protected_attempts,
        waits=raw.waits,
        parks=raw.parks,
        wakes=raw.wakes,
        parked=raw.parked,
        seconds_lost=raw.seconds_lost,
        seconds_waited=raw.seconds_waited,
    )
