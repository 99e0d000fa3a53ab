"""The ring of recent write sets: it wraps, it is too small, and still finds what heads show."""

from __future__ import annotations

import threading

import pytest
from harness import Cause, Domain, Status, open_domain

from support import repeat_until, rounds, run_threads, seeded, then_set

SMALL, LARGE = 4, 4096  # entries
READS = 100  # more than 64: the log is worth a look
OTHERS = 200  # cells that the large transaction does not read

Outcome = tuple[Status, Cause, int, int]  # of a read; then the blamed cell and version


def extend(log: int, commits: list[list[int]]) -> Outcome:
    """Read the first READS cells, let others commit, and read one more cell.

    Each commit is a list of numbers of cells; the last one writes the cell that is read.
    """
    with open_domain(log=log) as domain:
        cells = [domain.cell() for _ in range(READS + OTHERS + 1)]
        txn, writer = domain.record(), domain.record()
        assert txn.begin() is Status.OK
        for cell in cells[:READS]:
            txn.read(cell)
        assert txn.write(cells[0], 7) is Status.OK  # it can't go on as a snapshot
        for number, written in enumerate([*commits, [READS + OTHERS]], 1):
            assert writer.begin(label=number) is Status.OK
            for cell in written:
                assert writer.write(cells[cell], number) is Status.OK
            assert writer.commit() is Status.OK
        status, value = txn.try_read(cells[-1])
        if status is Status.OK:
            assert value == len(commits) + 1
            assert txn.commit() is Status.OK
            return status, Cause.NONE, -1, 0
        found = txn.conflict
        assert found.writer_label == found.version
        return status, found.cause, cells.index(found.cell), found.version


def others(first: int, count: int) -> list[int]:
    return [READS + (first + n) % OTHERS for n in range(count)]


@pytest.mark.parametrize("log", [SMALL, LARGE])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 17, 40])
def test_commits_to_other_cells_are_no_conflict(log: int, count: int) -> None:
    commits = [others(n, 1) for n in range(count)]
    assert extend(log, commits)[0] is Status.OK


@pytest.mark.parametrize("log", [SMALL, LARGE])
@pytest.mark.parametrize("width", [1, 4, 5, 8, 9, 16, 17, 150])
def test_write_set_of_any_width_is_no_conflict_if_it_is_of_other_cells(
    log: int, width: int
) -> None:
    assert extend(log, [others(0, width)] * 3)[0] is Status.OK


@pytest.mark.parametrize("log", [SMALL, LARGE])
@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("width", [1, 4, 5, 9, 17])
def test_overwritten_read_is_found_wherever_it_stands(log: int, place: int, width: int) -> None:
    commits = [others(n, width) for n in range(6)]
    commits[place] = [*commits[place][1:], 42]
    assert extend(log, commits) == (Status.CONFLICT, Cause.READ, 42, place + 1)


def test_both_ways_to_validate_agree_on_any_commits() -> None:
    order = seeded()
    for _ in range(200):
        commits = [
            others(order.randrange(OTHERS), order.choice([1, 2, 4, 5, 8, 20]))
            for _ in range(order.randrange(8))
        ]
        for commit in commits:
            if order.random() < 0.1:
                commit[order.randrange(len(commit))] = order.randrange(READS)
        written = {cell for commit in commits for cell in commit if cell < READS}
        outcomes = [extend(log, commits) for log in (SMALL, LARGE)]
        if not written:
            assert [status for status, *_ in outcomes] == [Status.OK] * 2
            continue
        for status, cause, cell, version in outcomes:
            assert (status, cause) == (Status.CONFLICT, Cause.READ)
            assert cell in written and cell in commits[version - 1]


def test_read_set_of_thousands_is_indexed_once_it_pays(domain: Domain) -> None:
    cells = [domain.cell(n) for n in range(5_000)]
    txn, writer, other = domain.record(), domain.record(), domain.cell()
    assert txn.begin() is Status.OK
    for number, cell in enumerate(cells):
        assert txn.read(cell) == number
        if number % 100 == 0:
            probe = domain.cell()
            writer.set(probe, number)
            assert txn.read(probe) == number  # extends
    writer.set(cells[2_500], 0)
    assert txn.write(other, 1) is Status.OK
    assert txn.commit() is Status.CONFLICT
    assert txn.conflict.cell == cells[2_500]


@pytest.mark.parametrize("kill", [False, True])
def test_commit_to_a_dead_cell_is_no_conflict(kill: bool) -> None:
    """What a commit wrote to a dead cell is in the log, but nobody can see it."""
    with open_domain(log=LARGE) as domain:
        cells = [domain.cell() for _ in range(READS)]
        txn, writer, other = domain.record(), domain.record(), domain.cell()
        assert txn.begin() is Status.OK
        for cell in cells:
            txn.read(cell)
        assert writer.begin() is Status.OK
        assert writer.write(cells[5], 1) is Status.OK
        if kill:
            domain.free_cell(cells[5])
        assert writer.write(other, 2) is Status.OK
        assert writer.commit() is Status.OK
        assert txn.write(cells[6], 1) is Status.OK
        assert txn.try_read(other)[0] is (Status.OK if kill else Status.CONFLICT)
        txn.rollback()


@pytest.mark.deadline(60)
@pytest.mark.parametrize("log", [SMALL, 64])
def test_ring_that_is_overwritten_during_a_scan_makes_no_conflict(log: int) -> None:
    with open_domain(log=log) as domain:
        still = [domain.cell() for _ in range(READS)]
        moving = [domain.cell() for _ in range(30)]
        reader, writer = domain.record(), domain.record()
        done = threading.Event()

        def write() -> None:
            for n in rounds(30_000, seconds=1.0):
                assert writer.begin() is Status.OK
                for cell in moving[n % 7 : n % 7 + 1 + n % 23]:
                    assert writer.write(cell, n) is Status.OK
                assert writer.commit() is Status.OK

        def look() -> None:
            for cell in moving[:5]:
                assert reader.begin() is Status.OK
                assert reader.write(still[0], 1) is Status.OK  # no snapshots
                for known in still:
                    reader.read(known)
                reader.read(cell)  # extends: what it has read is never overwritten
                reader.rollback()

        run_threads(then_set(done, write), repeat_until(done, look))
        assert domain.stats.by_cause[Cause.READ] == 0
