"""Transactions that sleep until something that they read changes. Real threads, no sleeps.

The narrowest races, a commit in its section while another thread parks, are in tests/c: from Python
the two hardly ever meet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from harness import NOW, Cell, Domain, State, Status, Txn, open_domain, versions, wait_to_park

from stm._core import lib
from support import run_n, run_script, run_threads

PROTECTED, READ_ONLY = lib.STM_BEGIN_PROTECTED, lib.STM_BEGIN_READ_ONLY
LONG = 60.0  # seconds; a wake-up that is lost fails the test long before
pytestmark = pytest.mark.deadline(60)


def until(condition: Callable[[], bool]) -> None:
    """Poll until something has happened in another thread."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0)


def until_parked(domain: Domain, count: int) -> None:
    """Wait until so many sleep: they have had their last look at what they read."""

    def all_asleep() -> bool:
        stats = domain.stats
        return stats.parked == count <= stats.parks

    until(all_asleep)


def sleep_until_changed(txn: Txn, cells: list[Cell], flags: int = 0) -> list[int]:
    """Park on cells that are zero; return what they hold afterwards."""
    wait_to_park(txn, cells, flags)
    while True:
        assert txn.park() is Status.OK
        values = [txn.read(cell) for cell in cells]
        if any(values):
            assert txn.commit() is Status.OK
            return values
        assert txn.retry() is Status.CONFLICT


def test_protected_attempt_gives_up_the_slot(domain: Domain) -> None:
    txn, other, cell = domain.record(), domain.record(), domain.cell()
    assert txn.begin(PROTECTED) is Status.OK
    other.set(domain.cell(), 1)  # the clock moves on
    txn.read(cell)
    assert txn.retry() is Status.CONFLICT
    assert txn.park(NOW) is Status.TIMEOUT
    assert other.begin(PROTECTED, timeout=NOW) is Status.OK
    assert other.commit() is Status.OK
    assert txn.begin(PROTECTED) is Status.OK
    txn.read(cell)
    assert txn.retry() is Status.CONFLICT

    def park() -> State:
        assert txn.park() is Status.OK
        return txn.state

    def change() -> State:
        until_parked(domain, 1)
        assert other.begin(PROTECTED, timeout=NOW) is Status.OK
        assert other.write(cell, 1) is Status.OK
        assert other.commit() is Status.OK
        return other.state

    assert run_threads(park, change) == [State.ACTIVE, State.IDLE]
    assert txn.read(cell) == 1


@pytest.mark.parametrize("flags", [0, READ_ONLY, PROTECTED, READ_ONLY | PROTECTED])
@pytest.mark.parametrize("reads", [1, 10, 100, 1_000])
def test_commit_wakes_who_has_read_what_it_writes(domain: Domain, reads: int, flags: int) -> None:
    txn, writer, cells = domain.record(), domain.record(), [domain.cell() for _ in range(reads)]

    def change() -> list[int]:
        until_parked(domain, 1)
        writer.set(cells[reads // 2], 7)
        return [7]

    values, expected = run_threads(lambda: sleep_until_changed(txn, cells, flags), change)
    assert sum(values) == sum(expected)
    stats = domain.stats
    assert (stats.parks, stats.wakes, stats.parked) == (1, 1, 0)


@pytest.mark.parametrize("writes", [1, 5, 9, 300])
@pytest.mark.parametrize("reads", [1, 20])
def test_large_commit_wakes_too(domain: Domain, reads: int, writes: int) -> None:
    txn, writer = domain.record(), domain.record()
    cells = [domain.cell() for _ in range(reads + writes - 1)]

    def change() -> list[int]:
        until_parked(domain, 1)
        assert writer.begin() is Status.OK
        for cell in cells[reads - 1 :]:
            assert writer.add(cell, 1) is Status.OK
        assert writer.commit() is Status.OK
        return []

    run_threads(lambda: sleep_until_changed(txn, cells[:reads]), change)


def test_commits_that_overwrite_nothing_wake_nobody(domain: Domain) -> None:
    sleepers = [domain.record() for _ in range(3)]
    writer, mine, others = domain.record(), domain.cell(), [domain.cell() for _ in range(3_000)]
    read = [[mine], [mine, *others[:20]], [mine, *others[:400]]]  # one counts as everything

    def change() -> list[int]:
        until_parked(domain, 3)
        for cell in others[400:]:
            writer.set(cell, 1)
        assert writer.begin() is Status.OK
        assert writer.add(mine, 0) is Status.OK  # no write
        for cell in others[400:]:
            assert writer.add(cell, 1) is Status.OK
        assert writer.commit() is Status.OK
        assert (domain.stats.parked, domain.stats.wakes) == (3, 0)
        writer.set(mine, 1)
        return []

    run_threads(*[lambda n=n: sleep_until_changed(sleepers[n], read[n]) for n in range(3)], change)
    assert (domain.stats.parks, domain.stats.wakes) == (3, 3)


def test_sleepers_leave_from_anywhere_in_the_queue(domain: Domain) -> None:
    sleepers, writer = [domain.record() for _ in range(5)], domain.record()
    cells, other = [domain.cell() for _ in range(5)], domain.cell()
    woken: list[int] = []

    def park(n: int) -> None:
        until_parked(domain, n)
        sleep_until_changed(sleepers[n], [cells[n], other])
        woken.append(n)

    def change() -> None:
        until_parked(domain, 5)
        for n in (3, 0, 4):  # from the middle, the front and the back
            writer.set(cells[n], 1)
            until(lambda n=n: n in woken)
        writer.set(other, 1)

    run_threads(*[lambda n=n: park(n) for n in range(5)], change)
    assert woken[:3] == [3, 0, 4]
    assert sorted(woken[3:]) == [1, 2]
    assert domain.stats.wakes == 5


def test_sleeper_keeps_no_version_alive(domain: Domain) -> None:
    txn, writer, cell, other = domain.record(), domain.record(), domain.cell(), domain.cell()

    def change() -> list[int]:
        until_parked(domain, 1)
        for n in range(100):
            writer.set(other, n)
        domain.collect()
        assert versions(other) == 1
        writer.set(cell, 1)
        return []

    run_threads(lambda: sleep_until_changed(txn, [cell]), change)


def test_cell_may_die_while_somebody_sleeps_on_it(domain: Domain) -> None:
    txn, writer, cell = domain.record(), domain.record(), domain.cell()
    dying = [domain.cell() for _ in range(50)]

    def change() -> None:
        until_parked(domain, 1)
        for died in dying:
            domain.free_cell(died)
        domain.collect()
        writer.set(cell, 1)

    def park() -> None:
        wait_to_park(txn, [*dying, cell])
        assert txn.park() is Status.OK

    run_threads(park, change)


@pytest.mark.parametrize("empty", [False, True])
def test_host_is_asked_every_now_and_then_and_may_end_the_sleep(empty: bool) -> None:
    stop = threading.Event()
    asked = 0

    def attach(token: object) -> int:
        nonlocal asked
        asked += 1
        return int(stop.is_set())

    with open_domain(attach=attach) as domain:
        txn, cell = domain.record(), domain.cell()

        def park() -> Status:
            assert txn.begin(lib.STM_INTERRUPTIBLE, timeout=LONG) is Status.OK
            if not empty:
                txn.read(cell)
            assert txn.retry() is Status.CONFLICT
            return txn.park()

        def interrupt() -> Status:
            until(lambda: asked >= 2)
            stop.set()
            return Status.OK

        assert run_threads(park, interrupt)[0] is Status.INTERRUPTED
        assert txn.state is State.IDLE
        assert domain.stats.parked == 0


def test_many_sleepers_need_no_processor(domain: Domain) -> None:
    """Nobody polls: while they sleep, only those who look at them use time."""
    sleepers, writer = [domain.record() for _ in range(100)], domain.record()
    cells, other = [domain.cell() for _ in range(4)], domain.cell()

    def change() -> float:
        until_parked(domain, 100)
        before = time.process_time()
        time.sleep(0.5)  # what is measured, not a way to wait for something
        spent = time.process_time() - before
        for n in range(1_000):
            writer.set(other, n)
        assert domain.stats.parked == 100
        for cell in cells:
            writer.set(cell, 1)
        return spent

    def park(n: int) -> float:
        sleep_until_changed(sleepers[n], [cells[n % 4]])
        return 0.0

    assert max(run_threads(*[lambda n=n: park(n) for n in range(100)], change)) < 0.1
    assert domain.stats.wakes == 100


# --- races ------------------------------------------------------------------------------------


def turn(txn: Txn, ball: Cell, mine: int, count: int) -> None:
    """Wait for the ball and hand it on, again and again; it counts up."""
    for n in range(count):
        expected = 2 * n + mine
        assert txn.begin() is Status.OK
        while True:
            status, value = txn.try_read(ball)
            if status is Status.OK and value == expected:
                status = txn.write(ball, value + 1)
                status = txn.commit() if status is Status.OK else status
                if status is Status.OK:
                    break
            if status is Status.OK:
                assert txn.retry() is Status.CONFLICT
                assert txn.park(20.0) is Status.OK, (n, domain_of(txn))
            else:
                assert status is Status.CONFLICT
                assert txn.restart() is Status.OK


def domain_of(txn: Txn) -> str:
    return f"attempt {txn.attempt}, {txn.wait_info}"


def test_no_wake_up_is_lost_between_the_last_look_and_the_sleep(domain: Domain) -> None:
    """Ping-pong: each commit wakes the other thread, which is about to sleep or has just slept."""
    records, ball, count = [domain.record() for _ in range(2)], domain.cell(), 20_000
    run_n(2, lambda n: turn(records[n], ball, n, count), timeout=50)
    assert records[0].pinned_read(ball) == 2 * count
    assert domain.stats.parked == 0


def test_units_pass_through_a_bounded_buffer(domain: Domain) -> None:
    """Producers wait while it is full, consumers while it is empty; nothing is lost."""
    full, count = 2, 3_000
    size, passed = domain.cell(), domain.cell()
    records = [domain.record() for _ in range(4)]

    def move(n: int) -> None:
        txn, by = records[n], 1 if n % 2 else -1
        for _ in range(count):
            status = txn.begin()
            while True:
                if status is Status.OK:
                    status, value = txn.try_read(size)
                if status is Status.OK and value == (full if by == 1 else 0):
                    assert txn.retry() is Status.CONFLICT
                    status = txn.park(20.0)
                    assert status is Status.OK
                    continue
                if status is Status.OK:
                    status = txn.write(size, value + by)
                if status is Status.OK:
                    status = txn.add(passed, by == 1)
                if status is Status.OK:
                    status = txn.commit()
                if status is Status.OK:
                    break
                assert status is Status.CONFLICT
                status = txn.restart()

    run_n(4, move, timeout=50)
    assert records[0].pinned_read(size) == 0
    assert records[0].pinned_read(passed) == 2 * count
    stats = domain.stats
    assert stats.parks == stats.wakes
    assert stats.attempts == stats.commits + stats.aborts


def test_one_commit_wakes_in_the_order_of_arrival(domain: Domain) -> None:
    count = 12
    txns, cell, writer = [domain.record() for _ in range(count)], domain.cell(), domain.record()
    order = [(7 * number) % count for number in range(count)]  # not that of the records

    def sleeper(place: int) -> int:
        until_parked(domain, place)
        txn = txns[order[place]]
        assert sleep_until_changed(txn, [cell]) == [1]
        return int(lib.stm_txn_woken(txn.raw))

    def change() -> int:
        until_parked(domain, count)
        writer.set(cell, 1)
        return int(lib.stm_txn_woken(writer.raw))

    bodies: list[Callable[[], int]] = [lambda place=place: sleeper(place) for place in range(count)]  # type: ignore[misc]
    assert run_threads(*bodies, change) == [*range(1, count + 1), 0]


FORK = """
import os, sys, threading, traceback
sys.path.insert(0, "tests/core")
from harness import NOW, Domain, State, Status
from stm._core import ffi, lib

domain = Domain()
own, sleeper, writer = domain.record(), domain.record(), domain.record()
cells = [domain.cell() for _ in range(300)]

def park(count):
    assert sleeper.begin() is Status.OK
    for cell in cells[:count]:
        sleeper.read(cell)
    assert sleeper.retry() is Status.CONFLICT
    assert sleeper.park() is Status.OK
    assert sleeper.commit() is Status.OK

for count in (3, 30, 300):
    thread = threading.Thread(target=park, args=[count], daemon=True)
    thread.start()
    while domain.stats.parked == 0:
        pass
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            lib.stm_domain_fork_child(domain.raw, ffi.new("stm_txn *[]", [own.raw]), 1)
            assert domain.stats.parked == 0
            own.set(cells[0], 5)
            reused = domain.record()
            reused.set(cells[1], 5)
            assert reused.begin() is Status.OK
            reused.read(cells[0])
            assert reused.retry() is Status.CONFLICT
            second = threading.Thread(target=lambda: reused.park())
            second.start()
            while domain.stats.parked == 0:
                pass
            own.set(cells[0], 6)
            second.join()
            assert reused.state is State.ACTIVE
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert domain.stats.parked == 1
    writer.set(cells[0], count)
    thread.join()
domain.close()
"""


def test_child_of_a_fork_has_no_sleepers() -> None:
    run_script(FORK)
