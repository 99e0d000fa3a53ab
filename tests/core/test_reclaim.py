"""Old versions and dead cells: kept while somebody needs them, gone as soon as nobody does."""

from __future__ import annotations

import threading

import pytest
from harness import Domain, State, Status, open_domain, versions

from stm._core import lib
from support import run_threads

UPDATES = 100_000
FEW = 20  # versions that may wait for the next look at who is running


def test_hundred_thousand_updates_leave_few_versions(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell()
    for value in range(UPDATES):
        txn.set(cell, value)
    assert versions(cell) <= FEW
    assert domain.stats.nodes <= 2 + FEW
    domain.collect()
    assert versions(cell) == 1
    assert txn.pinned_read(cell) == UPDATES - 1


def test_cell_that_an_idle_record_wrote_last_is_trimmed_by_its_next_writer(domain: Domain) -> None:
    """Regression: the cell stayed in the queue of a record that never committed again."""
    idle, busy, cell = domain.record(), domain.record(), domain.cell()
    idle.set(cell, 7)
    for value in range(1000):
        busy.set(cell, value)
    assert versions(cell) <= FEW


def test_cell_that_records_write_in_turn_is_trimmed(domain: Domain) -> None:
    records, cell = [domain.record() for _ in range(3)], domain.cell()
    most = 0
    for value in range(3000):
        records[value % 3].set(cell, value)
        most = max(most, versions(cell))
    assert most <= 3 * FEW


@pytest.mark.parametrize("cells", [1, 100])
def test_versions_stay_few_over_many_cells(domain: Domain, cells: int) -> None:
    txn, made = domain.record(), [domain.cell() for _ in range(cells)]
    for value in range(50 * cells):
        txn.set(made[value % cells], value)
    assert max(versions(cell) for cell in made) <= FEW
    domain.collect()
    assert [versions(cell) for cell in made] == [1] * cells


def test_long_reader_keeps_what_it_needs_and_no_more_afterwards(domain: Domain) -> None:
    reader, writer = domain.record(), domain.record()
    cells = [domain.cell(n) for n in range(5)]
    assert reader.begin(lib.STM_BEGIN_READ_ONLY) is Status.OK
    for value in range(5000):
        for cell in cells:
            writer.set(cell, value)
    domain.collect()
    assert [reader.read(cell) for cell in cells] == [0, 1, 2, 3, 4]
    assert reader.commit() is Status.OK
    domain.collect()
    assert [versions(cell) for cell in cells] == [1] * 5
    assert [reader.pinned_read(cell) for cell in cells] == [4999] * 5


def test_cell_that_is_freed_stays_harmless_in_read_and_write_sets(domain: Domain) -> None:
    txn, writer = domain.record(), domain.record()
    dying, other = domain.cell(1), domain.cell(2)
    assert txn.begin() is Status.OK
    assert txn.read(dying) == 1
    assert txn.write(dying, 5) is Status.OK
    domain.free_cell(dying)
    writer.set(other, 3)
    assert txn.read(other) == 3  # extends: the dead cell is no conflict
    assert txn.state is State.ACTIVE
    assert txn.commit() is Status.OK
    domain.collect()
    assert domain.stats.retired == 0


def test_dead_cells_wait_for_a_running_block_and_then_go(domain: Domain) -> None:
    reader, cells = domain.record(), [domain.cell(n) for n in range(300)]
    assert reader.begin() is Status.OK
    assert [reader.read(cell) for cell in cells] == list(range(300))
    for cell in cells:
        domain.free_cell(cell)
    domain.collect()
    assert domain.stats.retired >= 300
    assert reader.commit() is Status.OK
    domain.collect()
    assert domain.stats.retired == 0


def test_handles_are_released_once_each() -> None:
    released: list[int] = []
    with open_domain(release=released.append) as domain:
        txn, cell = domain.record(), domain.handle_cell(1)
        for value in range(2, 100):
            assert txn.begin() is Status.OK
            assert txn.write(cell, value) is Status.OK
            if value % 3 == 0:
                txn.rollback()
            else:
                assert txn.commit() is Status.OK
        domain.collect()
        assert sorted(released) == [n for n in range(1, 100) if n != 98]  # 98 is the value
        assert txn.begin() is Status.OK
        assert txn.write(cell, 100) is Status.OK
        domain.free_cell(cell)
        assert sorted(released) == list(range(1, 100))
        assert txn.commit() is Status.OK  # what it wrote to the dead cell goes too
        assert sorted(released) == list(range(1, 101))
    assert sorted(released) == list(range(1, 101))


def test_release_may_run_another_block_on_the_same_record() -> None:
    seen: list[int] = []

    def release(value: int) -> None:
        if value <= 3:
            txn.set(log, value)
            seen.append(txn.pinned_read(log))

    with open_domain(release=release) as domain:
        txn, log, cell = domain.record(), domain.cell(), domain.handle_cell(1)
        assert txn.begin() is Status.OK
        assert txn.write(cell, 2) is Status.OK
        txn.rollback()
        assert seen == [2]
        domain.free_cell(cell)
        assert seen == [2, 1]


def test_nodes_return_when_records_and_cells_go(domain: Domain) -> None:
    before = domain.stats.nodes
    txn, cells = domain.record(), [domain.cell() for _ in range(1000)]
    assert txn.begin() is Status.OK
    for cell in cells:
        assert txn.write(cell, 1) is Status.OK
    assert txn.commit() is Status.OK
    for cell in cells:
        domain.free_cell(cell)
    domain.free_record(txn)
    domain.collect()
    assert domain.stats.nodes == before
    assert domain.stats.retired == 0


@pytest.mark.deadline(60)
def test_cells_freed_while_others_validate_them_are_no_conflict(domain: Domain) -> None:
    """Run under ASan this also catches a version that is freed under a validating reader."""
    reader, owner, ticker = domain.record(), domain.record(), domain.record()
    probes = [domain.cell() for _ in range(8)]
    barrier = threading.Barrier(2)
    rounds, size = 200, 60
    batches = [[domain.cell(n) for n in range(size)] for _ in range(rounds)]

    def validate() -> None:
        for batch in batches:
            assert reader.begin() is Status.OK
            assert [reader.read(cell) for cell in batch] == list(range(size))
            barrier.wait(30)
            for probe in probes:
                ticker.set(probe, 1)
                reader.read(probe)
                assert reader.state is State.ACTIVE
            reader.rollback()

    def free() -> None:
        for batch in batches:
            barrier.wait(30)
            for cell in batch:
                domain.free_cell(cell)
            owner.pinned_read(probes[0])

    run_threads(validate, free)
    domain.collect()
    assert domain.stats.retired == 0
