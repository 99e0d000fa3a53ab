"""Memory that runs out: each allocation of a fixed scenario fails once, one per run.

A call that fails says so, has changed nothing, and works when it is repeated. At the end nothing is
left over, but for one object whose retirement could not be noted (leaked rather than freed early).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import NOW, Status

from stm._core import ffi, lib

MORE = 20_000  # allocations; far more than the scenario makes
CELLS = 200


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    lib.stm_fault_arm(0)


class Scenario:
    """One run; counts the calls that said that there was no memory."""

    def __init__(self) -> None:
        self.failures = 0
        self.out = ffi.new("stm_value *")
        self.released: list[int] = []
        self.release = ffi.callback("void(stm_value)", self.released.append)
        self.hooks = ffi.new("stm_hooks *", {"release": self.release})

    def make(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call what answers NULL or 0 when there is no memory, twice if need be."""
        made = function(*arguments)
        if not made:
            self.failures += 1
            made = function(*arguments)
        assert made
        return made

    def call(self, function: Callable[..., int], *arguments: object) -> None:
        """Call what answers a status, twice if need be."""
        status = Status(function(*arguments))
        if status is Status.NO_MEMORY:
            self.failures += 1
            status = Status(function(*arguments))
        assert status is Status.OK

    def run(self) -> int:
        """Run it all. Returns how many versions are left that nobody can reach."""
        d = self.make(lib.stm_domain_new, self.hooks, 4)
        t, writer = [self.make(lib.stm_txn_new, d) for _ in range(2)]
        raw = [self.make(lib.stm_cell_new, d, lib.STM_CELL_RAW, n) for n in range(CELLS)]
        handles = [self.make(lib.stm_cell_new, d, lib.STM_CELL_HANDLE, n + 1) for n in range(20)]
        label = self.make(lib.stm_label_intern, d, b"scenario")
        assert ffi.string(lib.stm_label_text(d, label)) == b"scenario"
        self.large_block(t, writer, raw, handles)
        self.lost_block(t, writer, raw)
        self.nested_blocks(t, raw, handles)
        self.waiting_block(t, writer, raw)
        assert [self.read_alone(writer, cell) for cell in raw[:3]] == [1000, 77, 3]
        for cell in (*raw, *handles):
            lib.stm_cell_free(d, cell)
        lib.stm_txn_free(t)
        lib.stm_txn_free(writer)
        lib.stm_domain_collect(d)
        stats = ffi.new("stm_stats *")
        lib.stm_domain_stats(d, stats)
        assert stats.retired == 0
        assert stats.attempts == stats.commits + stats.aborts
        assert sorted(self.released) == sorted([*range(1, 21), *range(101, 121)])
        lib.stm_domain_free(d)
        return int(stats.nodes)

    def large_block(self, t: Any, writer: Any, raw: list[Any], handles: list[Any]) -> None:
        """Read and write so much that everything grows and is indexed."""
        self.call(lib.stm_begin, t, 0, 0, NOW)
        for number, cell in enumerate(raw[:-1]):
            self.call(lib.stm_read, t, cell, self.out)
            assert self.out[0] == number
        for number, cell in enumerate(handles):
            self.call(lib.stm_write, t, cell, 101 + number, self.out)
            assert self.out[0] == 0
        self.call(lib.stm_begin, writer, 0, 0, NOW)
        self.call(lib.stm_add, writer, raw[-1], 1)
        self.call(lib.stm_commit, writer)
        self.call(lib.stm_read, t, raw[-1], self.out)  # extends
        assert self.out[0] == CELLS
        self.call(lib.stm_write, t, raw[0], 1000, self.out)
        for cell in raw[2:]:
            self.call(lib.stm_add, t, cell, 1)
        self.call(lib.stm_read, t, raw[2], self.out)
        assert self.out[0] == 3
        assert lib.stm_commit(t) == Status.OK  # allocates nothing

    def lost_block(self, t: Any, writer: Any, raw: list[Any]) -> None:
        self.call(lib.stm_begin, t, 0, 0, NOW)
        self.call(lib.stm_read, t, raw[1], self.out)
        self.call(lib.stm_write, t, raw[1], 50, self.out)
        self.call(lib.stm_begin, writer, 0, 0, NOW)
        self.call(lib.stm_write, writer, raw[1], 77, self.out)
        assert lib.stm_commit(writer) == Status.OK
        assert lib.stm_commit(t) == Status.CONFLICT
        assert lib.stm_restart(t, NOW) == Status.OK
        self.call(lib.stm_make_irrevocable, t, NOW)
        lib.stm_rollback(t)

    def nested_blocks(self, t: Any, raw: list[Any], handles: list[Any]) -> None:
        """Write everything twice in nested blocks, and undo it."""
        points = [ffi.new("stm_savepoint *") for _ in range(2)]
        self.call(lib.stm_begin, t, 0, 0, NOW)
        self.call(lib.stm_add, t, raw[0], 1)
        for point in points:
            self.call(lib.stm_nest_begin, t, point)
            for number, cell in enumerate(handles):
                self.call(lib.stm_write, t, cell, 201 + number, self.out)
                assert self.out[0] == 0
            for cell in raw[:40]:
                self.call(lib.stm_add, t, cell, 1)
        self.call(lib.stm_read, t, raw[0], self.out)
        assert self.out[0] == 1003
        lib.stm_nest_commit(t, points[1])
        lib.stm_nest_rollback(t, points[0])
        self.call(lib.stm_read, t, raw[0], self.out)
        assert (self.out[0], lib.stm_txn_writes(t)) == (1001, 1)
        lib.stm_nest_release(t)
        assert sorted(self.released[-40:]) == sorted([*range(201, 221)] * 2)
        del self.released[-40:]
        lib.stm_rollback(t)

    def waiting_block(self, t: Any, writer: Any, raw: list[Any]) -> None:
        """Park a reader: it records what it reads, and indexes it if it can."""
        self.call(lib.stm_begin, t, lib.STM_BEGIN_READ_ONLY, 0, NOW)
        for status in (Status.OK, Status.OK, Status.TIMEOUT):
            for cell in raw[3:]:
                self.call(lib.stm_read, t, cell, self.out)
            assert lib.stm_retry(t) == Status.CONFLICT
            if status is Status.OK:
                self.call(lib.stm_begin, writer, 0, 0, NOW)
                self.call(lib.stm_add, writer, raw[50], 1)
                assert lib.stm_commit(writer) == Status.OK
            assert lib.stm_park(t, NOW) == status

    def read_alone(self, t: Any, cell: Any) -> int:
        lib.stm_pin(t)
        value = lib.stm_pinned_read(t, cell)
        lib.stm_unpin(t)
        return int(value)


def allocations() -> int:
    """Return how many allocations the scenario makes, or one more."""
    lib.stm_fault_arm(MORE)
    assert Scenario().run() == 0
    raw = lib.stm_domain_new(ffi.NULL, 4)
    left = MORE
    while raw != ffi.NULL:
        lib.stm_domain_free(raw)
        raw = lib.stm_domain_new(ffi.NULL, 4)
        left -= 3
    return left


def test_scenario_works_when_memory_does_not_run_out() -> None:
    scenario = Scenario()
    assert scenario.run() == 0
    assert scenario.failures == 0


def test_every_allocation_may_fail_once() -> None:
    count = allocations()
    assert count > 200
    silent = 0  # failures that a call could make up for
    for n in range(1, count + 1):
        lib.stm_fault_arm(n)
        scenario = Scenario()
        leaked = scenario.run()
        lib.stm_fault_arm(0)
        assert scenario.failures <= 1
        assert leaked == 0 or (leaked <= 2 and scenario.failures == 0), n
        silent += scenario.failures == 0
    assert silent <= 20


def test_fault_that_is_not_armed_never_fires() -> None:
    lib.stm_fault_arm(0)
    assert Scenario().run() == 0
