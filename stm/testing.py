"""Faults on request, for tests of code that uses blocks: does it survive being executed again?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stm import _core


@contextmanager
def forced_aborts(count: int) -> Iterator[None]:
    """Make the first `count` attempts of every block lose at their commit, in all threads.

    A block that is irrevocable, or protected after three lost attempts, commits all the same.

    Args:
        count: attempts per block; 0 switches it off.

    Raises:
        ValueError: `count` is negative.

    In a transaction: takes effect for the running block too.
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    _counts.append(count)
    _inject()
    try:
        yield
    finally:
        _counts.remove(count)
        _inject()


_counts: list[int] = []  # of the calls that are open; the last one counts


def _inject() -> None:
    count = _counts[-1] if _counts else 0
    _core.lib.stm_domain_inject_aborts(_core.lib.stmpy_get_domain(), count)


def lose() -> None:
    """Doom the current attempt: its next transactional operation, or its commit, starts it over.

    Does nothing in a block that cannot run again.

    Raises:
        NotInTransaction: outside of a block.

    In a transaction: required.
    """
    _core._lose()
