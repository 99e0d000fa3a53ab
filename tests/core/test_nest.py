"""Nested blocks: what one wrote is undone by itself, merged, and never leaked."""

from __future__ import annotations

import pytest
from harness import NOW, Cause, Domain, State, Status, Txn, open_domain

from stm._core import lib


def begun(domain: Domain) -> Txn:
    txn = domain.record()
    assert txn.begin() is Status.OK
    return txn


def test_rollback_gives_back_what_the_outer_block_had_written(domain: Domain) -> None:
    txn, cells = begun(domain), [domain.cell(n) for n in range(3)]
    assert txn.write(cells[0], 100) is Status.OK
    assert txn.add(cells[1], 5) is Status.OK
    savepoint = txn.nest()
    for cell in cells:
        assert txn.write(cell, 7) is Status.OK
    assert [txn.read(cell) for cell in cells] == [7, 7, 7]
    txn.nest_rollback(savepoint)
    assert txn.writes == 2
    assert [txn.read(cell) for cell in cells] == [100, 6, 2]
    assert txn.commit() is Status.OK
    assert [txn.pinned_read(cell) for cell in cells] == [100, 6, 2]


def test_add_of_a_nested_block_is_undone(domain: Domain) -> None:
    txn, written, added = begun(domain), domain.cell(1), domain.cell(2)
    assert txn.write(written, 10) is Status.OK
    assert txn.add(added, 3) is Status.OK
    savepoint = txn.nest()
    for cell in (written, added):
        assert txn.add(cell, 100) is Status.OK
    assert [txn.read(written), txn.read(added)] == [110, 105]
    txn.nest_rollback(savepoint)
    assert [txn.read(written), txn.read(added)] == [10, 5]


def test_merged_block_belongs_to_the_outer_one(domain: Domain) -> None:
    txn, cells = begun(domain), [domain.cell(n) for n in range(3)]
    assert txn.write(cells[0], 10) is Status.OK
    outer = txn.nest()
    assert txn.write(cells[1], 11) is Status.OK
    inner = txn.nest()
    for cell in cells:
        assert txn.write(cell, 50) is Status.OK
    txn.nest_commit(inner)
    assert [txn.read(cell) for cell in cells] == [50, 50, 50]
    txn.nest_rollback(outer)
    assert [txn.read(cell) for cell in cells] == [10, 1, 2]
    assert txn.writes == 1


def test_blocks_that_follow_each_other_are_undone_one_by_one(domain: Domain) -> None:
    txn, cell = begun(domain), domain.cell(0)
    for n in range(1, 20):
        savepoint = txn.nest()
        assert txn.write(cell, n) is Status.OK
        if n % 3 == 0:
            txn.nest_commit(savepoint)
        else:
            txn.nest_rollback(savepoint)
        assert txn.read(cell) == n // 3 * 3
    assert txn.commit() is Status.OK
    assert txn.pinned_read(cell) == 18


def test_block_writes_again_what_an_inner_one_had_undone(domain: Domain) -> None:
    txn, cell = begun(domain), domain.cell(0)
    assert txn.write(cell, 1) is Status.OK
    outer = txn.nest()
    inner = txn.nest()
    assert txn.write(cell, 2) is Status.OK
    txn.nest_rollback(inner)
    assert txn.write(cell, 3) is Status.OK
    txn.nest_rollback(outer)
    assert txn.read(cell) == 1


def test_outer_block_ends_with_inner_ones_still_open(domain: Domain) -> None:
    txn, cell = begun(domain), domain.cell(0)
    assert txn.write(cell, 1) is Status.OK
    outer = txn.nest()
    for n in range(2, 6):
        txn.nest()
        assert txn.write(cell, n) is Status.OK
    txn.nest_rollback(outer)
    assert txn.read(cell) == 1


def test_savepoint_of_a_block_that_has_ended_does_nothing(domain: Domain) -> None:
    txn, cell = begun(domain), domain.cell(0)
    savepoint = txn.nest()
    assert txn.write(cell, 1) is Status.OK
    txn.nest_commit(savepoint)
    txn.nest_rollback(savepoint)
    assert txn.read(cell) == 1
    assert txn.commit() is Status.OK
    txn.nest_rollback(savepoint)
    txn.nest_commit(savepoint)
    assert txn.pinned_read(cell) == 1


def test_nothing_nests_where_nothing_runs(domain: Domain) -> None:
    txn = domain.record()
    assert txn.nest_begin()[0] is Status.MISUSE
    assert txn.begin() is Status.OK
    txn.doom()
    assert txn.nest_begin()[0] is Status.CONFLICT
    txn.rollback()


def test_doomed_attempt_stays_doomed_and_starts_without_savepoints(domain: Domain) -> None:
    txn, cell = begun(domain), domain.cell(0)
    assert txn.write(cell, 5) is Status.OK
    savepoint = txn.nest()
    assert txn.write(cell, 6) is Status.OK
    txn.doom()
    txn.nest_rollback(savepoint)
    assert txn.state is State.DOOMED
    assert txn.restart() is Status.OK
    txn.nest_rollback(savepoint)
    assert (txn.read(cell), txn.writes) == (0, 0)
    assert (txn.write(cell, 1), txn.write(cell, 2)) == (Status.OK, Status.OK)
    assert txn.commit() is Status.OK


def test_reads_of_a_block_that_was_undone_still_conflict(domain: Domain) -> None:
    txn, writer, cells = begun(domain), domain.record(), [domain.cell() for _ in range(2)]
    savepoint = txn.nest()
    txn.read(cells[0])
    txn.nest_rollback(savepoint)
    writer.set(cells[0], 1)
    assert txn.write(cells[1], 1) is Status.OK
    assert txn.commit() is Status.CONFLICT
    assert txn.conflict.cell == cells[0]


def test_attempt_whose_writes_were_undone_counts_as_one_that_read_only(domain: Domain) -> None:
    txn, writer, cells = begun(domain), domain.record(), [domain.cell() for _ in range(2)]
    txn.read(cells[0])
    savepoint = txn.nest()
    assert txn.write(cells[1], 9) is Status.OK
    txn.nest_rollback(savepoint)
    writer.set(cells[0], 1)
    writer.set(cells[1], 1)
    assert txn.commit() is Status.OK
    assert txn.begin() is Status.OK
    txn.read(cells[0])
    savepoint = txn.nest()
    assert txn.write(cells[0], 9) is Status.OK
    txn.nest_rollback(savepoint)
    writer.set(cells[0], 2)
    txn.doom()
    assert txn.restart() is Status.OK  # now its rv was taken from the clock
    txn.read(cells[0])
    savepoint = txn.nest()
    assert txn.write(cells[1], 9) is Status.OK
    txn.nest_rollback(savepoint)
    writer.set(cells[0], 3)
    writer.set(cells[1], 3)
    assert txn.read(cells[1]) == 1
    assert txn.state is State.SNAPSHOT


def test_irrevocable_block_undoes_a_nested_one(domain: Domain) -> None:
    txn, cell = begun(domain), domain.cell(1)
    savepoint = txn.nest()
    assert txn.write(cell, 2) is Status.OK
    assert txn.make_irrevocable(NOW) is Status.OK
    txn.nest_rollback(savepoint)
    assert txn.state is State.PROTECTED
    assert txn.read(cell) == 1
    assert txn.commit() is Status.OK


@pytest.mark.parametrize("before", [0, 3, 8, 9, 30])
@pytest.mark.parametrize("inside", [1, 9, 40])
def test_large_write_set_is_found_after_a_rollback(
    domain: Domain, before: int, inside: int
) -> None:
    """The index of the write set still names places that were cut off."""
    txn, cells = begun(domain), [domain.cell(n) for n in range(100)]
    expected = list(range(100))
    for n in range(before):
        assert txn.write(cells[n], expected[n] + 1000) is Status.OK
        expected[n] += 1000
    for turn in range(4):
        savepoint = txn.nest()
        first = (before + 17 * turn) % 60
        for cell in reversed(cells[first : first + inside]):
            assert txn.write(cell, 5) is Status.OK
        assert txn.writes <= before + inside
        txn.nest_rollback(savepoint)
        assert txn.writes == before
        assert [txn.read(cell) for cell in cells] == expected
    for n in range(99, before - 1, -2):
        assert txn.write(cells[n], expected[n] + 2000) is Status.OK
        expected[n] += 2000
    assert [txn.read(cell) for cell in cells] == expected
    assert txn.commit() is Status.OK
    assert [txn.pinned_read(cell) for cell in cells] == expected


def test_handles_are_released_once_and_not_before_they_are_given_up() -> None:
    released: list[int] = []
    with open_domain(release=released.append) as domain:
        txn, cell = domain.record(), domain.handle_cell(1)
        assert txn.begin() is Status.OK
        assert (txn.write(cell, 2), txn.replaced) == (Status.OK, 0)
        savepoint = txn.nest()
        assert (txn.write(cell, 3), txn.replaced) == (Status.OK, 0)  # 2 may come back
        assert (txn.write(cell, 4), txn.replaced) == (Status.OK, 3)
        txn.nest_release()
        assert released == []
        txn.nest_rollback(savepoint)
        assert txn.read(cell) == 2
        txn.nest_release()
        assert released == [4]
        savepoint = txn.nest()
        assert (txn.write(cell, 5), txn.replaced) == (Status.OK, 0)
        txn.nest_commit(savepoint)
        assert (txn.write(cell, 6), txn.replaced) == (Status.OK, 5)
        assert released == [4]
        assert txn.commit() is Status.OK
        assert 2 in released
    assert sorted(released) == [1, 2, 4, 6]


@pytest.mark.parametrize("end", ["commit", "rollback", "restart", "free"])
def test_open_savepoints_leave_nothing_behind(end: str) -> None:
    released: list[int] = []
    with open_domain(release=released.append) as domain:
        txn, cell, raw = domain.record(), domain.handle_cell(1), domain.cell()
        nodes = domain.stats.nodes
        assert txn.begin() is Status.OK
        for n in range(2, 6):
            assert txn.write(cell, n) is Status.OK
            assert txn.add(raw, 1) is Status.OK
            txn.nest()
        if end == "restart":
            txn.doom()
            assert txn.restart() is Status.OK
            assert txn.commit() is Status.OK
        elif end == "free":
            domain.free_record(txn)
        else:
            assert getattr(txn, end)() in {Status.OK, None}
        if end != "free":
            domain.free_record(txn)
        domain.collect()
        assert domain.stats.nodes == nodes
    assert sorted(released) == [1, 2, 3, 4, 5]


def test_many_nested_blocks_in_one_take_little_memory() -> None:
    released: list[int] = []
    with open_domain(release=released.append) as domain:
        txn, cells = domain.record(), [domain.handle_cell(0), domain.cell()]
        assert txn.begin() is Status.OK
        outer = txn.nest()
        raw, savepoint, out = txn.raw, txn.nest(), txn._out
        txn.nest_commit(savepoint)
        for n in range(1, 20_001):
            lib.stm_nest_begin(raw, savepoint)
            lib.stm_write(raw, cells[0], n, out)
            lib.stm_add(raw, cells[1], 1)
            (lib.stm_nest_commit if n % 4 else lib.stm_nest_rollback)(raw, savepoint)
            lib.stm_nest_release(raw)
        assert domain.stats.nodes < 50
        assert len(released) == 19_999
        txn.nest_commit(outer)
        assert txn.commit() is Status.OK
        assert txn.pinned_read(cells[1]) == 15_000


def test_rolled_back_writes_of_many_cells_take_little_memory(domain: Domain) -> None:
    """The index throws out what it does not need, instead of growing."""
    txn, cells = begun(domain), [domain.cell(n) for n in range(3_000)]
    for n in range(0, 3_000, 15):
        savepoint = txn.nest()
        for cell in cells[n : n + 15]:
            assert txn.write(cell, 1) is Status.OK
        txn.nest_rollback(savepoint)
    assert lib.stm_txn_writes(txn.raw) == 0
    for n in range(15):
        assert txn.write(cells[n], n) is Status.OK
    assert [txn.read(cell) for cell in cells[:20]] == list(range(20))


def test_serials_are_numbered_anew_after_a_million_blocks(domain: Domain) -> None:
    txn, cells = begun(domain), [domain.cell() for _ in range(2)]
    outer = txn.nest()
    assert txn.write(cells[0], 1) is Status.OK
    raw, savepoint, out = txn.raw, txn.nest(), txn._out
    txn.nest_commit(savepoint)
    for n in range((1 << 20) + 5):
        lib.stm_nest_begin(raw, savepoint)
        if n % 1000 == 0:
            lib.stm_write(raw, cells[1], n, out)
        lib.stm_nest_commit(raw, savepoint)
    assert savepoint.serial < 100
    inner = txn.nest()
    assert [txn.write(cell, 7) for cell in cells] == [Status.OK] * 2
    txn.nest_rollback(inner)
    assert [txn.read(cell) for cell in cells] == [1, 1_048_000]
    txn.nest_rollback(outer)
    assert [txn.read(cell) for cell in cells] == [0, 0]


def test_release_hook_may_use_the_transaction_and_nest() -> None:
    seen: list[int] = []

    def release(value: int) -> None:
        seen.append(value)
        if value == 2:
            savepoint = txn.nest()
            assert txn.write(other, 50) is Status.OK
            assert txn.write(cell, 60) is Status.OK
            txn.nest_rollback(savepoint)
            txn.nest_release()
            assert txn.add(counter, 1) is Status.OK

    with open_domain(release=release) as domain:
        txn, counter = domain.record(), domain.cell()
        cell, other = domain.handle_cell(0), domain.handle_cell(0)
        assert txn.begin() is Status.OK
        for n in (1, 2, 3):
            savepoint = txn.nest()
            assert txn.write(cell, n) is Status.OK
            txn.nest_rollback(savepoint)
        txn.nest_release()
        assert sorted(seen) == [1, 2, 3, 50, 60]
        assert txn.commit() is Status.OK
        assert txn.pinned_read(counter) == 1


def test_abort_can_be_asked_for_more_than_once(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell()
    domain.inject_aborts(2)
    assert txn.begin() is Status.OK
    for attempt in range(2):
        assert txn.attempt == attempt
        assert txn.write(cell, 1) is Status.OK
        assert txn.commit() is Status.CONFLICT
        assert txn.conflict.cause is Cause.INJECTED
        assert txn.restart() is Status.OK
    assert txn.write(cell, 1) is Status.OK
    assert txn.commit() is Status.OK
    assert txn.begin(lib.STM_BEGIN_PROTECTED) is Status.OK
    assert txn.commit() is Status.OK  # it cannot lose
    domain.inject_aborts(0)
    assert txn.begin() is Status.OK
    assert txn.commit() is Status.OK


def test_restart_that_need_not_wait_has_no_deadline(domain: Domain) -> None:
    txn = domain.record()
    assert txn.begin(timeout=NOW) is Status.OK
    txn.doom()
    assert txn.restart() is Status.OK
