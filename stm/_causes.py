"""Why an attempt ended without a commit: the C enum `stm_cause`, in words."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Cause(IntEnum):
    """Why an attempt ended without a commit.  The numbers are those of the C core."""

    NONE = 0
    READ = 1
    """What it had read was overwritten; seen at a later read."""
    COMMIT = 2
    """What it had read was overwritten; seen at its commit."""
    STALE_START = 3
    """It began behind the clock and could not catch up; it began again at the clock."""
    SNAPSHOT_WRITE = 4
    """It wrote after something it had read was overwritten."""
    UPGRADE = 5
    """It became irrevocable with reads that were out of date; it ran again, irrevocably."""
    USER = 6
    """An exception left the block."""
    INJECTED = 7
    """A test asked for it."""
    RETRY = 8
    """It asked to wait until something that it had read changes."""


CONFLICTS: Final = frozenset(
    {Cause.READ, Cause.COMMIT, Cause.STALE_START, Cause.SNAPSHOT_WRITE, Cause.UPGRADE}
)
"""The causes that mean: another transaction got in the way."""
