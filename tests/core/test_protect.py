"""The protected slot: one holder, first come first served, nobody overwrites what it has read."""

from __future__ import annotations

import threading

import pytest
from harness import FOREVER, NOW, Cause, Domain, State, Status, Txn, open_domain

from stm._core import ffi, lib
from support import run_threads, wait_for

PROTECTED = lib.STM_BEGIN_PROTECTED


def test_slot_has_one_holder(domain: Domain) -> None:
    first, second = domain.record(), domain.record()
    assert first.begin(PROTECTED) is Status.OK
    assert second.begin(PROTECTED, timeout=NOW) is Status.TIMEOUT
    assert second.state is State.IDLE
    assert first.commit() is Status.OK
    assert second.begin(PROTECTED, timeout=NOW) is Status.OK
    assert second.state is State.PROTECTED


@pytest.mark.parametrize("end", [Txn.commit, Txn.rollback])
def test_end_of_the_holder_clears_its_marks(domain: Domain, end: object) -> None:
    holder, writer, cell = domain.record(), domain.record(), domain.cell()
    assert holder.begin(PROTECTED) is Status.OK
    holder.read(cell)
    assert writer.begin(timeout=NOW) is Status.OK
    assert writer.write(cell, 1) is Status.OK
    assert writer.commit() is Status.TIMEOUT
    assert callable(end)
    end(holder)
    assert writer.commit() is Status.OK
    assert holder.pinned_read(cell) == 1


def test_others_commit_what_the_holder_has_not_read(domain: Domain) -> None:
    holder, writer, cells = domain.record(), domain.record(), [domain.cell() for _ in range(2)]
    assert holder.begin(PROTECTED) is Status.OK
    assert holder.read(cells[0]) == 0
    writer.set(cells[1], 5)
    assert holder.read(cells[1]) == 5  # the latest value
    assert holder.write(cells[0], 6) is Status.OK
    assert holder.commit() is Status.OK
    assert writer.pinned_read(cells[0]) == 6


def test_others_read_what_the_holder_has_marked(domain: Domain) -> None:
    holder, reader, cell = domain.record(), domain.record(), domain.cell(3)
    assert holder.begin(PROTECTED) is Status.OK
    assert holder.read(cell) == 3
    assert holder.write(cell, 4) is Status.OK
    assert reader.begin(lib.STM_BEGIN_READ_ONLY) is Status.OK
    assert reader.read(cell) == 3
    assert holder.commit() is Status.OK
    assert reader.read(cell) == 3
    assert reader.commit() is Status.OK
    assert reader.pinned_read(cell) == 4


def test_conflict_comes_before_a_wait(domain: Domain) -> None:
    holder, loser, cells = domain.record(), domain.record(), [domain.cell() for _ in range(2)]
    assert loser.begin(timeout=NOW) is Status.OK
    loser.read(cells[1])
    assert loser.write(cells[0], 1) is Status.OK
    assert holder.begin(PROTECTED) is Status.OK
    holder.read(cells[0])
    domain.record().set(cells[1], 9)
    assert loser.commit() is Status.CONFLICT
    assert domain.stats.waits == 0


def test_block_goes_protected_after_the_lost_limit(domain: Domain) -> None:
    domain.lost_limit(2)
    loser, writer, cell = domain.record(), domain.record(), domain.cell()
    assert loser.begin() is Status.OK
    for lost in range(2):
        assert loser.state is State.ACTIVE
        loser.read(cell)
        writer.set(cell, lost + 1)
        assert loser.write(cell, 50) is Status.OK
        assert loser.commit() is Status.CONFLICT
        assert loser.restart() is Status.OK
    assert loser.state is State.PROTECTED
    assert loser.read(cell) == 2
    assert writer.begin(timeout=NOW) is Status.OK
    assert writer.write(cell, 9) is Status.OK
    assert writer.commit() is Status.TIMEOUT
    assert loser.write(cell, 50) is Status.OK
    assert loser.commit() is Status.OK
    writer.rollback()
    assert loser.pinned_read(cell) == 50


def test_restart_that_does_not_get_the_slot_ends_the_block(domain: Domain) -> None:
    domain.lost_limit(1)
    holder, loser, cell = domain.record(), domain.record(), domain.cell()
    assert holder.begin(PROTECTED) is Status.OK
    assert loser.begin() is Status.OK
    assert loser.write(cell, 1) is Status.OK
    loser.doom(Cause.INJECTED)
    assert loser.restart(NOW) is Status.TIMEOUT
    assert loser.state is State.IDLE
    assert domain.stats.by_cause[Cause.INJECTED] == 1
    assert holder.commit() is Status.OK
    assert holder.pinned_read(cell) == 0


def test_irrevocable_block_keeps_what_it_read(domain: Domain) -> None:
    txn, writer, cell = domain.record(), domain.record(), domain.cell(1)
    assert txn.begin() is Status.OK
    assert txn.read(cell) == 1
    assert txn.make_irrevocable() is Status.OK
    assert txn.make_irrevocable() is Status.OK
    assert writer.begin(timeout=NOW) is Status.OK
    assert writer.write(cell, 2) is Status.OK
    assert writer.commit() is Status.TIMEOUT
    assert txn.commit() is Status.OK
    assert writer.commit() is Status.OK


def test_irrevocable_reader_goes_on_at_its_version(domain: Domain) -> None:
    txn, writer, cell = domain.record(), domain.record(), domain.cell(1)
    assert txn.begin(lib.STM_BEGIN_READ_ONLY) is Status.OK
    writer.set(cell, 2)
    assert txn.make_irrevocable() is Status.OK
    assert txn.make_irrevocable() is Status.OK
    assert writer.begin(PROTECTED, timeout=NOW) is Status.TIMEOUT
    writer.set(cell, 3)  # a reader needs no marks
    assert txn.read(cell) == 1
    assert txn.write(cell, 4) is Status.READ_ONLY
    assert txn.commit() is Status.OK
    assert writer.begin(PROTECTED, timeout=NOW) is Status.OK
    assert domain.stats.upgrades == 1


def test_irrevocable_with_stale_reads_restarts_once_and_keeps_the_slot(domain: Domain) -> None:
    txn, writer, cell = domain.record(), domain.record(), domain.cell(1)
    assert txn.begin() is Status.OK
    assert txn.read(cell) == 1
    writer.set(cell, 2)
    assert txn.make_irrevocable() is Status.CONFLICT
    assert txn.conflict.cause is Cause.UPGRADE
    assert writer.begin(PROTECTED, timeout=NOW) is Status.TIMEOUT
    assert txn.restart(NOW) is Status.OK
    assert txn.state is State.PROTECTED
    assert txn.read(cell) == 2
    assert txn.commit() is Status.OK
    assert domain.stats.upgrades == 1


def test_irrevocable_that_times_out_leaves_the_block_as_it_was(domain: Domain) -> None:
    holder, txn, cell = domain.record(), domain.record(), domain.cell(1)
    assert holder.begin(PROTECTED) is Status.OK
    assert txn.begin() is Status.OK
    assert txn.read(cell) == 1
    assert txn.write(cell, 2) is Status.OK
    assert txn.make_irrevocable(NOW) is Status.TIMEOUT
    assert txn.state is State.ACTIVE
    assert txn.read(cell) == 2
    assert txn.commit() is Status.OK


@pytest.mark.deadline(60)
def test_slot_is_granted_in_the_order_of_arrival(domain: Domain) -> None:
    holder, waiters = domain.record(), [domain.record() for _ in range(4)]
    order: list[int] = []
    assert holder.begin(PROTECTED) is Status.OK

    def arrive(n: int) -> None:
        while domain.stats.waits < n:  # until all before it stand in the queue
            pass
        assert waiters[n].begin(PROTECTED) is Status.OK
        order.append(n)
        assert waiters[n].commit() is Status.OK

    def release() -> None:
        while domain.stats.waits < len(waiters):
            pass
        assert holder.commit() is Status.OK

    # A wait is counted after the waiter stands in the queue.
    run_threads(release, *[lambda n=n: arrive(n) for n in range(len(waiters))])
    assert order == [0, 1, 2, 3]


def test_host_is_detached_during_a_wait_and_attached_after_it() -> None:
    calls: list[str] = []

    def detach() -> object:
        calls.append("detach")
        return ffi.cast("void *", 7)

    def attach(token: object) -> int:
        calls.append(f"attach {int(ffi.cast('intptr_t', token))}")
        return 0

    with open_domain(detach=detach, attach=attach) as domain:
        holder, txn = domain.record(), domain.record()
        assert holder.begin(PROTECTED) is Status.OK
        assert calls == []
        assert txn.begin(PROTECTED, timeout=NOW) is Status.TIMEOUT
    assert calls == ["detach", "attach 7"]


@pytest.mark.deadline(60)
@pytest.mark.parametrize("kind", ["begin", "commit", "restart", "irrevocable"])
def test_host_can_interrupt_a_wait(kind: str) -> None:
    waited, stop = threading.Event(), threading.Event()

    def attach(token: object) -> int:
        waited.set()
        return int(stop.is_set())

    with open_domain(attach=attach) as domain:
        domain.lost_limit(1)
        holder, txn, cell = domain.record(), domain.record(), domain.cell()
        assert holder.begin(PROTECTED) is Status.OK
        holder.read(cell)

        def wait() -> Status:
            flags = lib.STM_INTERRUPTIBLE
            if kind == "begin":
                return txn.begin(flags | PROTECTED)
            assert txn.begin(flags) is Status.OK
            assert txn.write(cell, 1) is Status.OK
            if kind == "restart":
                txn.doom()
                return txn.restart(FOREVER)
            return txn.commit() if kind == "commit" else txn.make_irrevocable(FOREVER)

        def interrupt() -> Status:
            wait_for(waited)
            stop.set()
            return Status.INTERRUPTED

        assert run_threads(wait, interrupt) == [Status.INTERRUPTED] * 2
        running = kind in ("commit", "irrevocable")
        assert txn.state is (State.ACTIVE if running else State.IDLE)
        assert holder.commit() is Status.OK
        stop.clear()
        if running:
            assert txn.commit() is Status.OK
        assert txn.begin(PROTECTED, timeout=NOW) is Status.OK  # it left the queue
