"""Counters: each says what its comment in stm_api.h says, and what threads counted stays."""

from __future__ import annotations

from harness import NOW, Cause, Domain, Stats, Status

from stm._core import lib
from support import run_n


def since(domain: Domain, before: Stats) -> dict[str, int]:
    """Return the counts of blocks that have changed."""
    names = ("commits", "read_only", "attempts", "aborts", "extensions", "protected_attempts")
    now = domain.stats
    changes = {name: getattr(now, name) - getattr(before, name) for name in names}
    changes["upgrades"] = now.upgrades - before.upgrades
    changes["waits"] = now.waits - before.waits
    return {name: change for name, change in changes.items() if change}


def test_new_domain_has_counted_nothing(domain: Domain) -> None:
    stats = domain.stats
    assert (stats.commits, stats.attempts, stats.aborts, stats.clock) == (0, 0, 0, 0)
    assert (stats.transactions, stats.retired, stats.seconds_lost) == (0, 0, 0.0)
    assert stats.nodes == 1  # the harness has a cell


def test_commit_that_wrote_nothing_is_read_only_and_does_not_move_the_clock(
    domain: Domain,
) -> None:
    txn, cell = domain.record(), domain.cell()
    before = domain.stats
    assert txn.begin() is Status.OK
    txn.read(cell)
    assert txn.add(cell, 0) is Status.OK  # an add of zero is no write
    assert txn.commit() is Status.OK
    assert since(domain, before) == {"commits": 1, "read_only": 1, "attempts": 1}
    assert domain.clock == 0


def test_commit_that_wrote_moves_the_clock(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell()
    before = domain.stats
    txn.set(cell, 1)
    assert since(domain, before) == {"commits": 1, "attempts": 1}
    assert domain.stats.clock == domain.clock == 1


def test_lost_attempt_is_counted_by_cause_and_by_time(domain: Domain) -> None:
    txn, writer, cell = domain.record(), domain.record(), domain.cell()
    before = domain.stats
    assert txn.begin() is Status.OK
    txn.read(cell)
    writer.set(cell, 1)
    assert txn.write(cell, 2) is Status.OK
    assert txn.commit() is Status.CONFLICT
    assert domain.stats.aborts == 0  # counted when it ends
    assert txn.restart() is Status.OK
    assert txn.commit() is Status.OK
    assert since(domain, before) == {"commits": 2, "read_only": 1, "attempts": 3, "aborts": 1}
    assert domain.stats.by_cause[Cause.COMMIT] == 1
    assert domain.stats.seconds_lost > 0


def test_rollback_is_the_users_and_loses_no_time(domain: Domain) -> None:
    txn = domain.record()
    assert txn.begin() is Status.OK
    txn.rollback()
    assert domain.stats.by_cause[Cause.USER] == domain.stats.aborts == 1
    assert domain.stats.seconds_lost == 0


def test_extension_is_counted_when_the_clock_has_moved(domain: Domain) -> None:
    txn, writer, cells = domain.record(), domain.record(), [domain.cell() for _ in range(2)]
    before = domain.stats
    assert txn.begin() is Status.OK
    txn.read(cells[0])
    assert since(domain, before) == {"attempts": 1}
    writer.set(cells[1], 1)
    assert txn.read(cells[1]) == 1
    assert txn.commit() is Status.OK
    changes = since(domain, before)
    assert changes == {"commits": 2, "read_only": 1, "attempts": 2, "extensions": 1}


def test_protected_attempts_upgrades_and_waits_are_counted(domain: Domain) -> None:
    holder, other = domain.record(), domain.record()
    before = domain.stats
    assert holder.begin() is Status.OK
    assert holder.make_irrevocable() is Status.OK
    assert other.begin(lib.STM_BEGIN_PROTECTED, timeout=NOW) is Status.TIMEOUT
    changes = since(domain, before)
    assert changes == {"attempts": 1, "protected_attempts": 1, "upgrades": 1, "waits": 1}
    assert holder.commit() is Status.OK
    assert other.begin(lib.STM_BEGIN_PROTECTED, timeout=NOW) is Status.OK
    changes = since(domain, before)
    assert changes.pop("commits") == changes.pop("read_only") == 1
    assert changes == {"attempts": 2, "protected_attempts": 2, "upgrades": 1, "waits": 1}


def test_nodes_are_the_versions_that_exist_and_those_kept_for_reuse(domain: Domain) -> None:
    txn, cells = domain.record(), [domain.cell() for _ in range(10)]
    before = domain.stats.nodes
    assert txn.begin() is Status.OK
    for cell in cells:
        assert txn.write(cell, 1) is Status.OK
    assert domain.stats.nodes == before + 10
    txn.rollback()
    assert domain.stats.nodes == before + 10  # kept for its next writes
    domain.free_record(txn)
    assert domain.stats.nodes == before


def test_what_a_record_counted_outlives_it(domain: Domain) -> None:
    txn, cell = domain.record(), domain.cell()
    txn.set(cell, 1)
    before = domain.stats
    domain.free_record(txn)
    assert domain.stats.commits == before.commits
    domain.record().set(cell, 2)
    assert domain.stats.commits == before.commits + 2  # warming up is one


def test_sum_over_threads_is_exact(domain: Domain) -> None:
    blocks = 2_000
    records, cells = [domain.record() for _ in range(4)], [domain.cell() for _ in range(4)]
    before = domain.stats

    def work(n: int) -> None:
        for value in range(blocks):
            records[n].set(cells[n], value)

    run_n(4, work)
    assert since(domain, before)["commits"] == since(domain, before)["attempts"] == 4 * blocks
    assert domain.clock == 4 * blocks
