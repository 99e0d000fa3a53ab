"""The life of a transaction record: statuses, misuse, records, labels, conflict records."""

from __future__ import annotations

import pytest
from harness import NOW, Cause, Domain, State, Status

from stm._core import ffi, lib


def test_idle_record_refuses_everything_but_begin(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell(1)
    assert txn.state is State.IDLE
    assert txn.try_read(cell)[0] is Status.MISUSE
    assert txn.try_peek(cell)[0] is Status.MISUSE
    assert txn.write(cell, 2) is Status.MISUSE
    assert txn.add(cell, 2) is Status.MISUSE
    assert txn.commit() is Status.MISUSE
    assert txn.restart() is Status.MISUSE
    assert txn.make_irrevocable(NOW) is Status.MISUSE
    txn.rollback()
    assert domain.stats.aborts == 0


def test_begin_in_an_open_block_is_misuse(domain: Domain) -> None:
    txn = domain.record()
    assert txn.begin() is Status.OK
    assert txn.begin() is Status.MISUSE
    assert txn.state is State.ACTIVE
    assert txn.commit() is Status.OK


def test_begin_while_pinned_is_misuse(domain: Domain) -> None:
    txn = domain.record()
    lib.stm_pin(txn.raw)
    assert txn.begin() is Status.MISUSE
    lib.stm_unpin(txn.raw)
    assert txn.begin() is Status.OK


def test_restart_of_an_attempt_that_is_not_lost_is_misuse(domain: Domain) -> None:
    txn = domain.record()
    assert txn.begin() is Status.OK
    assert txn.restart() is Status.MISUSE
    assert txn.commit() is Status.OK


def test_add_to_a_cell_of_handles_is_misuse(domain: Domain) -> None:
    txn, cell = domain.record(), domain.handle_cell()
    assert txn.begin() is Status.OK
    assert txn.add(cell, 1) is Status.MISUSE
    assert txn.commit() is Status.OK
    assert domain.clock == 0


def test_doomed_attempt_answers_conflict_until_it_restarts(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell(1)
    assert txn.begin() is Status.OK
    txn.doom(Cause.INJECTED)
    assert txn.state is State.DOOMED
    assert txn.try_read(cell)[0] is Status.CONFLICT
    assert txn.try_peek(cell)[0] is Status.CONFLICT
    assert txn.write(cell, 2) is Status.CONFLICT
    assert txn.add(cell, 2) is Status.CONFLICT
    assert txn.commit() is Status.CONFLICT
    assert txn.make_irrevocable(NOW) is Status.CONFLICT
    assert txn.restart() is Status.OK
    assert txn.attempt == 1
    assert txn.read(cell) == 1
    assert txn.commit() is Status.OK


@pytest.mark.parametrize("flags", [0, lib.STM_BEGIN_PROTECTED])
def test_read_only_block_refuses_writes_and_goes_on(domain: Domain, flags: int) -> None:
    txn, cell = domain.record(), domain.cell(1)
    assert txn.begin(lib.STM_BEGIN_READ_ONLY | flags) is Status.OK
    assert txn.write(cell, 2) is Status.READ_ONLY
    assert txn.add(cell, 2) is Status.READ_ONLY
    assert txn.read(cell) == 1
    assert txn.commit() is Status.OK
    assert domain.clock == 0


def test_records_are_reused(domain: Domain) -> None:
    first = domain.record()
    before = domain.stats
    domain.free_record(first)
    second = domain.record()
    assert second.raw == first.raw
    assert domain.stats.transactions == before.transactions == 1
    assert domain.record().raw != second.raw
    assert domain.stats.transactions == 2


def test_record_that_is_freed_inside_a_block_rolls_back(domain: Domain) -> None:
    txn, other, cell = domain.record(), domain.record(), domain.cell(1)
    assert txn.begin(lib.STM_BEGIN_PROTECTED) is Status.OK
    assert txn.write(cell, 2) is Status.OK
    domain.free_record(txn)
    assert other.pinned_read(cell) == 1
    assert other.begin(lib.STM_BEGIN_PROTECTED, timeout=NOW) is Status.OK
    assert other.commit() is Status.OK


def test_label_has_one_number_for_ever(domain: Domain) -> None:
    first, second = domain.label("transfer"), domain.label("audit")
    assert 0 != first != second != 0
    assert domain.label("transfer") == first
    assert domain.label_text(first) == "transfer"
    assert domain.label_text(0) == domain.label_text(4095) == domain.label_text(2**32 - 1) == ""


def test_labels_run_out_quietly(domain: Domain) -> None:
    numbers = [domain.label(str(n)) for n in range(4100)]
    assert numbers[:4095] == list(range(1, 4096))
    assert set(numbers[4095:]) == {0}
    assert domain.label("17") == numbers[17]


def test_conflict_names_cell_version_writer_and_loser(domain: Domain) -> None:
    loser, writer, cells = domain.record(), domain.record(), [domain.cell() for _ in range(3)]
    assert loser.begin(label=domain.label("loser")) is Status.OK
    assert [loser.read(cell) for cell in cells] == [0, 0, 0]
    assert loser.write(cells[0], 1) is Status.OK
    writer.set(cells[1], 5, label=domain.label("writer"))
    assert loser.commit() is Status.CONFLICT
    conflict = loser.conflict
    assert conflict.cause is Cause.COMMIT
    assert conflict.cell == cells[1]
    assert conflict.version == domain.clock == 1
    assert domain.label_text(conflict.writer_label) == "writer"
    assert domain.label_text(conflict.loser_label) == "loser"
    assert conflict.writer_thread == 2
    assert conflict.attempt == 0


def test_write_hands_back_what_it_replaces(domain: Domain) -> None:
    txn, cell = domain.record(), domain.handle_cell(7)
    assert txn.begin() is Status.OK
    assert (txn.write(cell, 8), txn.replaced) == (Status.OK, 0)
    assert (txn.write(cell, 9), txn.replaced) == (Status.OK, 8)
    assert txn.commit() is Status.OK
    assert txn.pinned_read(cell) == 9


def test_commit_that_timed_out_keeps_its_write_set(domain: Domain) -> None:
    """Regression: adds of zero were dropped from the write set, and the index was left stale."""
    guard, txn = domain.record(), domain.record()
    cells = [domain.cell(n) for n in range(12)]
    assert guard.begin(lib.STM_BEGIN_PROTECTED) is Status.OK
    guard.read(cells[11])
    assert txn.begin(timeout=NOW) is Status.OK
    assert txn.add(cells[0], 0) is Status.OK
    for n in range(1, 12):
        assert txn.write(cells[n], 100 + n) is Status.OK
    assert txn.commit() is Status.TIMEOUT
    expected = [0] + [100 + n for n in range(1, 12)]
    assert [txn.read(cell) for cell in cells] == expected
    assert txn.write(cells[3], 203) is Status.OK
    assert guard.commit() is Status.OK
    assert txn.commit() is Status.OK
    expected[3] = 203
    assert [txn.pinned_read(cell) for cell in cells] == expected


def test_domain_without_hooks_works() -> None:
    raw = lib.stm_domain_new(ffi.NULL, 0)
    txn = lib.stm_txn_new(raw)
    cell = lib.stm_cell_new(raw, lib.STM_CELL_HANDLE, 3)
    out = ffi.new("stm_value *")
    assert lib.stm_begin(txn, 0, 0, -1.0) == lib.STM_OK
    assert lib.stm_write(txn, cell, 4, out) == lib.STM_OK
    assert lib.stm_commit(txn) == lib.STM_OK
    lib.stm_cell_free(raw, cell)
    lib.stm_txn_free(txn)
    lib.stm_domain_free(raw)
