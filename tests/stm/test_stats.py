"""Stats: differences of counts, and causes that have the numbers of the C core."""

from __future__ import annotations

import pytest

import ame
import stm
from stm._causes import CONFLICTS
from stm._core import ffi, lib
from support import Interference

pytestmark = pytest.mark.deadline(30)

CAUSE_PREFIX = "STM_CAUSE_"


def c_causes() -> dict[str, int]:
    """The C enum, by name without its prefix, without the count at its end."""
    names = ffi.typeof("stm_cause").relements
    return {
        name.removeprefix(CAUSE_PREFIX): number
        for name, number in names.items()
        if name != CAUSE_PREFIX + "COUNT"
    }


def test_causes_are_those_of_the_core() -> None:
    assert {cause.name: cause.value for cause in stm.Cause} == c_causes()


def test_core_counts_as_many_causes() -> None:
    assert len(stm.Cause) == lib.STM_CAUSE_COUNT
    assert len(ffi.new("stm_stats *").aborts_by_cause) == lib.STM_CAUSE_COUNT


def test_conflicts_are_the_causes_that_another_transaction_made() -> None:
    others = {stm.Cause.NONE, stm.Cause.USER, stm.Cause.INJECTED, stm.Cause.RETRY}
    assert set(stm.Cause) - CONFLICTS == others


def test_difference_of_equal_stats_is_zero() -> None:
    now = ame.stats()
    spent = now - now
    for name, value in spent._asdict().items():
        assert not any(value.values()) if name == "aborts_by_cause" else value == 0
    assert spent.conflicts == 0


def test_stats_are_frozen() -> None:
    now = ame.stats()
    with pytest.raises(AttributeError):
        now.commits = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        now.aborts_by_cause[stm.Cause.READ] = 1  # type: ignore[index]


def test_writing_and_reading_blocks_are_counted() -> None:
    ref = ame.Ref(0)
    before = ame.stats()
    ame.run(lambda: setattr(ref, "value", 1))
    ame.run(lambda: ref.value)
    spent = ame.stats() - before
    assert (spent.commits, spent.read_only, spent.attempts, spent.aborts) == (2, 1, 2, 0)


def test_read_outside_of_a_block_is_not_counted_as_one() -> None:
    ref = ame.Ref(0)
    before = ame.stats()
    assert ref.value == 0
    assert (ame.stats() - before).attempts == 0


def test_exception_is_an_abort_by_the_user() -> None:
    def fail() -> None:
        raise LookupError

    before = ame.stats()
    with pytest.raises(LookupError):
        ame.run(fail)
    spent = ame.stats() - before
    assert spent.aborts_by_cause[stm.Cause.USER] == spent.aborts == 1
    assert (spent.conflicts, spent.commits, spent.attempts) == (0, 0, 1)


def test_conflict_at_commit_is_counted_with_its_cause_and_time() -> None:
    ref, other = ame.Ref(0), ame.Ref(0)

    def write() -> None:
        ref.value += 1

    disturb = Interference(write)

    def body() -> None:
        other.value = ref.value + 1
        disturb()

    before = ame.stats()
    ame.run(body)
    spent = ame.stats() - before
    assert spent.aborts_by_cause[stm.Cause.COMMIT] == spent.conflicts == spent.aborts == 1
    assert spent.seconds_lost > 0
    assert (spent.commits, spent.attempts) == (2, 3)


def test_irrevocable_block_is_counted_as_protected() -> None:
    before = ame.stats()
    with ame.atomic(irrevocable=True):
        pass
    assert (ame.stats() - before).protected == 1


def test_stats_inside_a_block_count_its_attempt_but_not_its_commit() -> None:
    before = ame.stats()
    spent = ame.run(ame.stats) - before
    assert (spent.attempts, spent.commits) == (1, 0)
