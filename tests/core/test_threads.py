"""Real threads on the core. cffi lets go of the GIL in each call, so they interleave anywhere."""

from __future__ import annotations

import threading

import pytest
from harness import FOREVER, Cell, Domain, State, Status, Txn

from stm._core import lib
from support import gil_enabled, repeat_until, rounds, run_n, run_threads, seeded, then_set

SECONDS = 1.0  # that the writers of a test run
pytestmark = pytest.mark.deadline(60)


def transfer(txn: Txn, source: Cell, target: Cell, amount: int) -> None:
    """Move an amount in one transaction, restarting until it is committed."""
    status = txn.begin()
    while True:
        for cell, sign in ((source, -1), (target, 1)):
            if status is Status.OK:
                status, value = txn.try_read(cell)
            if status is Status.OK:
                status = txn.write(cell, value + sign * amount)
        if status is Status.OK:
            status = txn.commit()
        if status is Status.OK:
            return
        assert status is Status.CONFLICT, status
        status = txn.restart()


def total(txn: Txn, cells: list[Cell], flags: int) -> int:
    """Add up all cells in one transaction, restarting until it is committed."""
    assert txn.begin(flags) is Status.OK
    while True:
        seen = [txn.try_read(cell) for cell in cells]
        if all(status is Status.OK for status, _ in seen):
            assert txn.commit() is Status.OK  # it wrote nothing
            return sum(value for _, value in seen)
        assert not flags & lib.STM_BEGIN_READ_ONLY
        assert txn.restart() is Status.OK


@pytest.mark.parametrize("log", [4, 4096])
@pytest.mark.parametrize("flags", [0, lib.STM_BEGIN_READ_ONLY])
def test_sum_of_the_accounts_is_the_same_in_every_snapshot(log: int, flags: int) -> None:
    domain = Domain(log=log)
    accounts, seed = [domain.cell(100_000) for _ in range(100)], seeded().random()
    records, reader = [domain.record() for _ in range(3)], domain.record()
    done = threading.Event()
    running = threading.Semaphore(0)

    def pay(n: int) -> None:
        order = seeded()
        order.seed(f"{seed} {n}")
        for _ in rounds(20_000, seconds=SECONDS):
            source, target = order.sample(accounts, 2)
            transfer(records[n], source, target, order.randrange(10))
        running.release()
        if n == 0:
            for _ in records:
                running.acquire()
            done.set()

    def audit() -> None:
        assert total(reader, accounts, flags) == 10_000_000

    run_n(3, pay, repeat_until(done, audit))
    assert total(reader, accounts, lib.STM_BEGIN_READ_ONLY) == 10_000_000
    stats = domain.stats
    assert stats.attempts == stats.commits + stats.aborts
    domain.collect()
    domain.close()


def torn_reads(domain: Domain) -> int:
    """Keep x == y in one thread, and count in another how often they differ."""
    x, y = domain.cell(), domain.cell()
    writer, reader = domain.record(), domain.record()
    done = threading.Event()

    def write() -> None:
        for n in rounds(50_000, seconds=SECONDS):
            assert writer.begin() is Status.OK
            assert writer.write(x, n) is Status.OK
            assert writer.write(y, n) is Status.OK
            assert writer.commit() is Status.OK

    torn = 0

    def look() -> None:
        nonlocal torn
        assert reader.begin() is Status.OK
        while True:
            seen = [reader.try_read(cell) for cell in (x, y)]
            if all(status is Status.OK for status, _ in seen):
                torn += seen[0][1] != seen[1][1]
                assert reader.commit() is Status.OK
                return
            assert reader.restart() is Status.OK

    run_threads(then_set(done, write), repeat_until(done, look))
    return torn


def test_reader_of_two_cells_that_are_kept_equal_never_sees_them_differ(domain: Domain) -> None:
    assert torn_reads(domain) == 0


@pytest.mark.skipif(gil_enabled(), reason="hardly ever happens there")
def test_head_loaded_before_an_extension_shows_torn_reads(domain: Domain) -> None:
    """The planted bug that one thread can't show. The race is rare where cores are few."""
    domain.plant(lib.STM_BUG_OLD_HEAD)
    if not any(torn_reads(domain) for _ in rounds(20, seconds=8)):
        pytest.skip("the race did not happen here")


def test_increments_are_not_lost(domain: Domain) -> None:
    cell, records = domain.cell(), [domain.record() for _ in range(3)]
    sink = [domain.cell(1 << 40) for _ in records]

    def increment(n: int) -> int:
        done = 0
        for _ in rounds(5_000, seconds=SECONDS):
            transfer(records[n], sink[n], cell, 1)
            done += 1
        return done

    assert records[0].pinned_read(cell) == 0
    counts = run_n(3, increment)
    assert records[0].pinned_read(cell) == sum(counts)


def test_adds_commute_and_never_conflict(domain: Domain) -> None:
    cell, records = domain.cell(), [domain.record() for _ in range(3)]

    def add(n: int) -> None:
        for _ in range(5_000):
            assert records[n].begin() is Status.OK
            assert records[n].add(cell, n + 1) is Status.OK
            assert records[n].commit() is Status.OK

    run_n(3, add)
    assert records[0].pinned_read(cell) == 5_000 * 6
    assert domain.stats.aborts == 0


def test_large_transaction_finishes_protected_after_the_lost_limit(domain: Domain) -> None:
    domain.lost_limit(3)
    cells = [domain.cell() for _ in range(500)]
    large, small, done = domain.record(), domain.record(), threading.Event()
    committed = threading.Semaphore(0)
    protected = 0

    def interfere() -> None:
        """Write to what the large one has read, until it is protected."""
        if protected == 0:
            small.set(cells[0], 1)
            committed.release()

    def sweep() -> None:
        nonlocal protected
        assert large.begin() is Status.OK
        while True:
            values = [large.try_read(cell) for cell in cells]
            if large.state is State.PROTECTED:
                protected += 1
            else:
                while committed.acquire(blocking=False):
                    pass
                for _ in range(2):  # one of them began after the read
                    assert committed.acquire(timeout=30)
            status = next((status for status, _ in values if status is not Status.OK), Status.OK)
            for cell, (_, value) in zip(cells, values, strict=True):
                if status is Status.OK:
                    status = large.write(cell, value + 10)
            if status is Status.OK:
                status = large.commit()
            if status is Status.OK:
                return
            assert status is Status.CONFLICT
            assert large.restart() is Status.OK

    run_threads(then_set(done, sweep), repeat_until(done, interfere))
    assert protected == 1
    assert large.attempt == 3
    assert all(large.pinned_read(cell) == 10 for cell in cells[1:])


def test_two_irrevocable_blocks_run_one_after_the_other(domain: Domain) -> None:
    records, cell = [domain.record() for _ in range(2)], domain.cell()
    inside, most = 0, 0

    def turn(n: int) -> int:
        nonlocal inside, most
        done = 0
        for _ in rounds(2_000, seconds=SECONDS):
            assert records[n].begin() is Status.OK
            status = records[n].make_irrevocable(FOREVER)
            while status is Status.CONFLICT:
                assert records[n].restart() is Status.OK
                status = Status.OK if records[n].state is State.PROTECTED else status
            inside += 1
            most = max(most, inside)
            value = records[n].read(cell)
            assert records[n].write(cell, value + 1) is Status.OK
            inside -= 1
            assert records[n].commit() is Status.OK
            done += 1
        return done

    counts = run_n(2, turn)
    assert most == 1
    assert records[0].pinned_read(cell) == sum(counts)
    assert domain.stats.protected_attempts == sum(counts)


def test_writer_goes_on_when_the_block_that_protects_its_cell_ends(domain: Domain) -> None:
    holder, writer, cell = domain.record(), domain.record(), domain.cell(1)
    assert holder.begin(lib.STM_BEGIN_PROTECTED) is Status.OK
    assert holder.read(cell) == 1

    def end() -> None:
        while domain.stats.waits == 0:
            assert holder.read(cell) == 1
        assert holder.write(cell, 2) is Status.OK
        assert holder.commit() is Status.OK

    def add() -> None:
        assert writer.begin() is Status.OK
        assert writer.add(cell, 10) is Status.OK
        assert writer.commit() is Status.OK

    run_threads(end, add)
    assert writer.pinned_read(cell) == 12
    assert domain.stats.waits == 1
    assert domain.stats.seconds_waited > 0
