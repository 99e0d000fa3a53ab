"""The state in which a block waits, and what parking does without another thread."""

from __future__ import annotations

import pytest
from harness import FOREVER, NOW, Cause, Domain, State, Status, open_domain, wait_to_park

from stm._core import ffi, lib

PROTECTED, READ_ONLY = lib.STM_BEGIN_PROTECTED, lib.STM_BEGIN_READ_ONLY
LONG = 60.0  # seconds
pytestmark = pytest.mark.deadline(60)


# --- the state WAITING -----------------------------------------------------------------------


def test_everything_is_refused_while_waiting(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell(1)
    assert txn.retry() is Status.MISUSE
    assert txn.park() is Status.MISUSE
    assert txn.begin() is Status.OK
    assert txn.park() is Status.MISUSE
    assert txn.write(cell, 2) is Status.OK
    assert txn.retry() is Status.CONFLICT
    assert txn.state is State.WAITING
    assert txn.try_read(cell)[0] is Status.CONFLICT
    assert txn.try_peek(cell)[0] is Status.CONFLICT
    assert txn.write(cell, 3) is Status.CONFLICT
    assert txn.add(cell, 3) is Status.CONFLICT
    assert txn.commit() is Status.CONFLICT
    assert txn.make_irrevocable(NOW) is Status.CONFLICT
    assert txn.nest_begin()[0] is Status.CONFLICT
    assert txn.retry() is Status.CONFLICT
    assert txn.restart() is Status.MISUSE
    txn.rollback()
    assert txn.state is State.IDLE
    assert domain.stats.by_cause[Cause.USER] == 1


def test_waiting_attempt_may_be_doomed(domain: Domain) -> None:
    txn = domain.record()
    assert txn.begin() is Status.OK
    txn.doom()
    assert txn.retry() is Status.CONFLICT
    assert txn.state is State.DOOMED
    assert txn.restart() is Status.OK
    assert txn.retry() is Status.CONFLICT
    txn.doom()
    assert txn.park() is Status.MISUSE
    assert txn.state is State.DOOMED
    assert txn.restart() is Status.OK


@pytest.mark.parametrize("flags", [0, READ_ONLY, PROTECTED])
def test_end_of_a_nested_block_revives_the_attempt(domain: Domain, flags: int) -> None:
    txn, writer, cells = domain.record(), domain.record(), [domain.cell(n) for n in range(3)]
    assert txn.begin(flags) is Status.OK
    before = txn.state
    savepoint = txn.nest()
    assert txn.read(cells[0]) == 0
    assert txn.retry() is Status.CONFLICT
    txn.nest_rollback(savepoint)
    assert txn.state is before
    writer.set(cells[1], 5)
    assert txn.read(cells[1]) == (1 if flags == READ_ONLY else 5)
    assert txn.read(cells[2]) == 2
    assert txn.reads == (0 if flags == READ_ONLY else 3)
    assert writer.begin(timeout=NOW) is Status.OK
    assert writer.write(cells[2], 6) is Status.OK
    assert writer.commit() is (Status.TIMEOUT if flags == PROTECTED else Status.OK)
    assert txn.commit() is Status.OK
    assert domain.stats.aborts == 0


def test_snapshot_is_revived_as_one(domain: Domain) -> None:
    txn, writer, cells = domain.record(), domain.record(), [domain.cell(1) for _ in range(2)]
    assert txn.begin() is Status.OK
    txn.doom()
    assert txn.restart() is Status.OK
    assert txn.read(cells[0]) == 1
    writer.set(cells[0], 2)
    writer.set(cells[1], 2)
    assert txn.read(cells[1]) == 1
    assert txn.state is State.SNAPSHOT
    savepoint = txn.nest()
    assert txn.retry() is Status.CONFLICT
    txn.nest_rollback(savepoint)
    assert txn.state is State.SNAPSHOT
    assert txn.read(cells[0]) == 1
    assert txn.retry() is Status.CONFLICT
    assert txn.park(NOW) is Status.OK  # not all of its reads are known
    assert (txn.state, txn.attempt) == (State.ACTIVE, 1 + 1)
    assert txn.read(cells[1]) == 2


# --- without another thread -------------------------------------------------------------------


def test_change_before_the_sleep_is_seen(domain: Domain) -> None:
    txn, writer, cell = domain.record(), domain.record(), domain.cell()
    wait_to_park(txn, [cell])
    writer.set(cell, 1)
    assert txn.park() is Status.OK
    assert txn.read(cell) == 1
    stats = domain.stats
    assert (stats.parks, stats.wakes, stats.parked) == (0, 0, 0)
    assert stats.by_cause[Cause.RETRY] == stats.aborts == 1
    assert stats.seconds_lost == 0
    assert txn.conflict.cause is Cause.RETRY


def test_sleep_that_reaches_its_deadline_ends_the_block(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell()
    wait_to_park(txn, [cell])
    assert txn.park(0.02) is Status.TIMEOUT
    assert txn.state is State.IDLE
    stats = domain.stats
    assert (stats.parks, stats.wakes, stats.parked, stats.waits) == (1, 0, 0, 0)
    assert stats.seconds_waited == 0
    info = txn.wait_info
    assert info.for_change
    assert 0.02 <= info.seconds < 5


@pytest.mark.parametrize("own", [0.02, FOREVER, LONG])
def test_deadline_of_the_block_counts_too(domain: Domain, own: float) -> None:
    txn, cell = domain.record(), domain.cell()
    assert txn.begin(timeout=0.02) is Status.OK
    txn.read(cell)
    assert txn.retry() is Status.CONFLICT
    assert txn.park(own) is Status.TIMEOUT


def test_block_that_has_read_nothing_can_only_wait_for_its_deadline(domain: Domain) -> None:
    txn = domain.record()
    wait_to_park(txn, [])
    assert txn.park() is Status.MISUSE
    assert txn.state is State.IDLE
    wait_to_park(txn, [])
    assert txn.park(0.01) is Status.TIMEOUT
    assert domain.stats.by_cause[Cause.RETRY] == 2


def test_reader_records_from_its_second_attempt_on(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell()
    wait_to_park(txn, [cell], READ_ONLY)
    assert txn.reads == 0
    assert txn.park() is Status.OK
    assert txn.state is State.READER
    assert txn.read(cell) == 0
    assert txn.reads == 1
    assert txn.read_cell(0) == cell
    assert txn.read_cell(1) == ffi.NULL
    assert txn.retry() is Status.CONFLICT
    assert txn.park(NOW) is Status.TIMEOUT
    assert txn.begin(READ_ONLY) is Status.OK
    txn.read(cell)
    assert txn.reads == 0


def test_reader_that_records_reads_one_version(domain: Domain) -> None:
    txn, writer, cells = domain.record(), domain.record(), [domain.cell() for _ in range(2)]
    wait_to_park(txn, cells, READ_ONLY)
    assert txn.park() is Status.OK
    assert txn.read(cells[0]) == 0
    writer.set(cells[0], 1)
    writer.set(cells[1], 1)
    assert txn.read(cells[1]) == 0
    assert txn.retry() is Status.CONFLICT
    assert txn.park() is Status.OK
    assert [txn.read(cell) for cell in cells] == [1, 1]


def test_writes_are_dropped_and_released(domain: Domain) -> None:
    released: list[int] = []
    with open_domain(release=released.append) as other:
        txn, cells = other.record(), [other.handle_cell(0) for _ in range(20)]
        nodes = other.stats.nodes
        assert txn.begin() is Status.OK
        for n, cell in enumerate(cells):
            txn.nest()
            assert txn.write(cell, n + 1) is Status.OK
            assert txn.write(cells[0], n + 101) is Status.OK
        txn.read(cells[0])
        assert txn.retry() is Status.CONFLICT
        assert txn.park(NOW) is Status.TIMEOUT
        assert sorted([*released, 1]) == [*range(1, 21), *range(101, 121)]
        other.free_record(txn)
        assert other.stats.nodes == nodes


def test_time_of_all_waits_of_a_block_is_told(domain: Domain) -> None:
    holder, txn, cell = domain.record(), domain.record(), domain.cell()
    label = domain.label("holder")
    assert holder.begin(PROTECTED, label=label) is Status.OK
    assert txn.begin(PROTECTED, timeout=0.01) is Status.TIMEOUT
    info = txn.wait_info
    assert (info.for_change, info.holder_label) == (False, label)
    assert info.seconds >= 0.01
    wait_to_park(txn, [cell])
    assert txn.wait_info.seconds == 0
    assert txn.make_irrevocable(NOW) is Status.CONFLICT
    txn.rollback()
