"""The core as Python objects: a domain that cleans up after itself, transactions with statuses.

Thin on purpose: one method is one call of `lib`, and nothing here decides anything. Records are
warmed up (see `Domain.record`), so that what a test sees does not depend on the time it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from stm._core import ffi, lib

Cell = Any  # stm_cell *
FOREVER = -1.0  # seconds: no deadline
NOW = 0.0  # seconds: a call that would have to wait times out


class Status(IntEnum):
    OK = lib.STM_OK
    CONFLICT = lib.STM_CONFLICT
    NO_MEMORY = lib.STM_NO_MEMORY
    TIMEOUT = lib.STM_TIMEOUT
    INTERRUPTED = lib.STM_INTERRUPTED
    READ_ONLY = lib.STM_READ_ONLY
    MISUSE = lib.STM_MISUSE


class State(IntEnum):
    IDLE = lib.STM_IDLE
    ACTIVE = lib.STM_ACTIVE
    SNAPSHOT = lib.STM_SNAPSHOT
    READER = lib.STM_READER
    PROTECTED = lib.STM_PROTECTED
    DOOMED = lib.STM_DOOMED
    WAITING = lib.STM_WAITING


class Cause(IntEnum):
    NONE = lib.STM_CAUSE_NONE
    READ = lib.STM_CAUSE_READ
    COMMIT = lib.STM_CAUSE_COMMIT
    STALE_START = lib.STM_CAUSE_STALE_START
    SNAPSHOT_WRITE = lib.STM_CAUSE_SNAPSHOT_WRITE
    UPGRADE = lib.STM_CAUSE_UPGRADE
    USER = lib.STM_CAUSE_USER
    INJECTED = lib.STM_CAUSE_INJECTED
    RETRY = lib.STM_CAUSE_RETRY


@dataclass(frozen=True, slots=True)
class Conflict:
    cause: Cause
    cell: Cell  # None where no single cell is to blame
    version: int
    writer_label: int
    writer_thread: int
    loser_label: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Stats:
    commits: int
    read_only: int
    attempts: int
    aborts: int
    by_cause: tuple[int, ...]
    extensions: int
    protected_attempts: int
    upgrades: int
    waits: int
    seconds_waited: float
    parks: int
    wakes: int
    parked: int
    seconds_lost: float
    clock: int
    transactions: int
    nodes: int
    retired: int


@dataclass(frozen=True, slots=True)
class WaitInfo:
    for_change: bool
    holder_label: int
    seconds: float


class Txn:
    """One transaction record; each method is the call of the same name."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self._out = ffi.new("stm_value *")
        self._born = ffi.new("uint64_t *")
        self.replaced = 0  # what the last write handed back

    def begin(self, flags: int = 0, *, label: int = 0, timeout: float = FOREVER) -> Status:
        return Status(lib.stm_begin(self.raw, flags, label, timeout))

    def commit(self) -> Status:
        return Status(lib.stm_commit(self.raw))

    def restart(self, timeout: float = FOREVER) -> Status:
        return Status(lib.stm_restart(self.raw, timeout))

    def rollback(self) -> None:
        lib.stm_rollback(self.raw)

    def make_irrevocable(self, timeout: float = FOREVER) -> Status:
        return Status(lib.stm_make_irrevocable(self.raw, timeout))

    def doom(self, cause: Cause = Cause.USER) -> None:
        lib.stm_doom(self.raw, cause)

    def nest_begin(self) -> tuple[Status, Any]:
        savepoint = ffi.new("stm_savepoint *")
        return Status(lib.stm_nest_begin(self.raw, savepoint)), savepoint

    def nest(self) -> Any:
        """Begin a nested block and require that it works."""
        status, savepoint = self.nest_begin()
        assert status is Status.OK, status
        return savepoint

    def nest_commit(self, savepoint: Any) -> None:
        lib.stm_nest_commit(self.raw, savepoint)

    def nest_rollback(self, savepoint: Any) -> None:
        lib.stm_nest_rollback(self.raw, savepoint)

    def nest_release(self) -> None:
        lib.stm_nest_release(self.raw)

    def retry(self) -> Status:
        return Status(lib.stm_retry(self.raw))

    def park(self, timeout: float = FOREVER) -> Status:
        return Status(lib.stm_park(self.raw, timeout))

    def try_read(self, cell: Cell) -> tuple[Status, int]:
        status = Status(lib.stm_read(self.raw, cell, self._out))
        return status, self._out[0]

    def read(self, cell: Cell) -> int:
        """Read and require that it works."""
        status, value = self.try_read(cell)
        assert status is Status.OK, status
        return value

    def try_peek(self, cell: Cell) -> tuple[Status, int, int]:
        status = Status(lib.stm_peek(self.raw, cell, self._out, self._born))
        return status, self._out[0], self._born[0]

    def write(self, cell: Cell, value: int) -> Status:
        status = Status(lib.stm_write(self.raw, cell, value, self._out))
        self.replaced = self._out[0]
        return status

    def write_born(self, cell: Cell, value: int, born: int) -> Status:
        status = Status(lib.stm_write_born(self.raw, cell, value, born, self._out))
        self.replaced = self._out[0]
        return status

    def add(self, cell: Cell, delta: int) -> Status:
        return Status(lib.stm_add(self.raw, cell, delta))

    def pinned_read(self, cell: Cell) -> int:
        lib.stm_pin(self.raw)
        value: int = lib.stm_pinned_read(self.raw, cell)
        lib.stm_unpin(self.raw)
        return value

    def set(self, cell: Cell, value: int, *, label: int = 0) -> None:
        """Write one cell in a transaction of its own."""
        assert self.begin(label=label) is Status.OK
        assert self.write(cell, value) is Status.OK
        assert self.commit() is Status.OK

    @property
    def state(self) -> State:
        return State(lib.stm_txn_state(self.raw))

    @property
    def attempt(self) -> int:
        return int(lib.stm_txn_attempt(self.raw))

    @property
    def read_version(self) -> int:
        return int(lib.stm_txn_read_version(self.raw))

    @property
    def reads(self) -> int:
        return int(lib.stm_txn_reads(self.raw))

    @property
    def writes(self) -> int:
        return int(lib.stm_txn_writes(self.raw))

    def read_cell(self, place: int) -> Cell:
        return lib.stm_txn_read_cell(self.raw, place)

    @property
    def wait_info(self) -> WaitInfo:
        out = ffi.new("stm_wait_info *")
        lib.stm_txn_wait_info(self.raw, out)
        return WaitInfo(bool(out.for_change), out.holder_label, out.seconds)

    @property
    def conflict(self) -> Conflict:
        out = ffi.new("stm_conflict *")
        lib.stm_txn_conflict(self.raw, out)
        return Conflict(
            cause=Cause(out.cause),
            cell=None if out.cell == ffi.NULL else out.cell,
            version=out.version,
            writer_label=out.writer_label,
            writer_thread=out.writer_thread,
            loser_label=out.loser_label,
            attempt=out.attempt,
        )


class Domain:
    """A domain with its cells and records; `close` frees all of it in the right order."""

    def __init__(
        self, *, log: int = 4096, release: Callable[[int], None] | None = None, **hooks: Any
    ) -> None:
        self.hooks = ffi.new("stm_hooks *")
        self._callbacks = self._install(release, hooks)
        self.raw = lib.stm_domain_new(self.hooks, log)
        assert self.raw != ffi.NULL
        self.cells: dict[Cell, None] = {}
        self.records: list[Txn] = []
        self._warm_up = lib.stm_cell_new(self.raw, lib.STM_CELL_RAW, 0)

    def _install(self, release: Callable[[int], None] | None, hooks: dict[str, Any]) -> list[Any]:
        kept = []
        if release is not None:
            kept.append(ffi.callback("void(stm_value)", release))
            self.hooks.release = kept[-1]
        if "detach" in hooks:
            kept.append(ffi.callback("void *(void)", hooks["detach"]))
            self.hooks.detach = kept[-1]
        if "attach" in hooks:
            kept.append(ffi.callback("int(void *)", hooks["attach"]))
            self.hooks.attach = kept[-1]
        return kept

    def cell(self, value: int = 0) -> Cell:
        """Make a raw cell."""
        return self._keep(lib.stm_cell_new(self.raw, lib.STM_CELL_RAW, value))

    def handle_cell(self, value: int = 0) -> Cell:
        """Make a cell of handles, which go to the `release` hook."""
        return self._keep(lib.stm_cell_new(self.raw, lib.STM_CELL_HANDLE, value))

    def _keep(self, cell: Cell) -> Cell:
        assert cell != ffi.NULL
        self.cells[cell] = None
        return cell

    def free_cell(self, cell: Cell) -> None:
        del self.cells[cell]
        lib.stm_cell_free(self.raw, cell)

    def record(self) -> Txn:
        """Make a record that has read before.

        The first read of a new record needs memory, and looks at the time to see whether it should
        extend. After it, an attempt of less than 64 reads does nothing that depends on the time.
        """
        raw = lib.stm_txn_new(self.raw)
        assert raw != ffi.NULL
        txn = Txn(raw)
        self.records.append(txn)
        assert txn.begin() is Status.OK
        txn.read(self._warm_up)
        assert txn.commit() is Status.OK
        return txn

    def free_record(self, txn: Txn) -> None:
        self.records.remove(txn)
        lib.stm_txn_free(txn.raw)

    def label(self, text: str) -> int:
        return int(lib.stm_label_intern(self.raw, text.encode()))

    def label_text(self, label: int) -> str:
        return str(ffi.string(lib.stm_label_text(self.raw, label)).decode())

    def plant(self, bugs: int) -> None:
        lib.stm_domain_plant(self.raw, bugs)

    def lost_limit(self, attempts: int) -> None:
        lib.stm_domain_set_lost_limit(self.raw, attempts)

    def inject_aborts(self, attempts: int) -> None:
        lib.stm_domain_inject_aborts(self.raw, attempts)

    def collect(self) -> None:
        lib.stm_domain_collect(self.raw)

    @property
    def clock(self) -> int:
        return int(lib.stm_domain_clock(self.raw))

    @property
    def stats(self) -> Stats:
        out = ffi.new("stm_stats *")
        lib.stm_domain_stats(self.raw, out)
        names = [name for name in Stats.__slots__ if name != "by_cause"]
        causes = tuple(int(n) for n in out.aborts_by_cause)
        return Stats(by_cause=causes, **{name: getattr(out, name) for name in names})

    def close(self) -> None:
        for txn in self.records:
            lib.stm_txn_free(txn.raw)
        for cell in self.cells:
            lib.stm_cell_free(self.raw, cell)
        lib.stm_cell_free(self.raw, self._warm_up)
        lib.stm_domain_free(self.raw)


def wait_to_park(txn: Txn, cells: list[Cell], flags: int = 0) -> None:
    """Begin, read, and ask to wait for a change."""
    assert txn.begin(flags) is Status.OK
    for cell in cells:
        txn.read(cell)
    assert txn.retry() is Status.CONFLICT


def versions(cell: Cell) -> int:
    """Return how many versions a cell has."""
    return int(lib.stm_cell_versions(cell))


@contextmanager
def open_domain(**options: Any) -> Iterator[Domain]:
    """Make a domain, and free it when the test has passed (a failed one may leave it broken)."""
    domain = Domain(**options)
    yield domain
    domain.close()
