"""What the core has to do, said in the simplest way: one list of versions per cell, for ever.

Nothing is ever cut, locked or indexed here. Each method predicts the outcome of the call of the
same name and changes the state of the model accordingly. One thing is learned instead of predicted:
at which version a plain block starts, which the core may choose (`starts`, `start_at`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness import Cause, State, Status

OK, CONFLICT, TIMEOUT = Status.OK, Status.CONFLICT, Status.TIMEOUT
READ_ONLY, MISUSE = Status.READ_ONLY, Status.MISUSE
IDLE, ACTIVE, SNAPSHOT = State.IDLE, State.ACTIVE, State.SNAPSHOT
READER, PROTECTED, DOOMED = State.READER, State.PROTECTED, State.DOOMED
WAITING = State.WAITING

REFUSING = (IDLE, DOOMED, WAITING)
WORD = (1 << 64) - 1
BORN_NOW = 1 << 63
FEW_READS = 64  # with more the core may find the conflict in the log instead of in the cells


@dataclass(slots=True)
class Version:
    number: int
    value: int
    born: int


@dataclass(slots=True)
class Write:
    value: int
    born: int
    is_add: bool
    nest: int  # the nested block that wrote it

    @property
    def is_void(self) -> bool:
        return self.is_add and self.value == 0


@dataclass(slots=True)
class Cell:
    is_raw: bool
    versions: list[Version]
    dead: bool = False

    @property
    def newest(self) -> Version:
        return self.versions[-1]

    def at(self, limit: int) -> Version:
        return next(v for v in reversed(self.versions) if v.number <= limit)


@dataclass(slots=True)
class Nested:
    """An open nested block: what to go back to."""

    serial: int
    writes: dict[int, Write]


@dataclass(slots=True)
class Block:
    """A record and the attempt that it runs."""

    last: int  # the newest version it has seen
    state: State = IDLE
    rv: int = 0
    began: int = 0  # rv at the start of the attempt
    fresh: bool = False  # rv was the clock at some time since the block began
    read_only: bool = False
    has_slot: bool = False
    label: int = 0
    attempt: int = 0
    lost: int = 0  # of these, how many lost a conflict
    reads: dict[int, None] = field(default_factory=dict)
    writes: dict[int, Write] = field(default_factory=dict)
    nested: list[Nested] = field(default_factory=list)
    nests: int = 0
    before_retry: State = IDLE
    records_all: bool = False  # a reader that has waited
    cause: Cause = Cause.NONE
    blamed: list[tuple[int | None, int]] = field(
        default_factory=list
    )  # (cell, version) that may be

    @property
    def serial(self) -> int:
        return self.nested[-1].serial if self.nested else 0

    def forget(self) -> None:
        self.reads.clear()
        self.writes.clear()
        self.nested.clear()


@dataclass(slots=True)
class Counts:
    commits: int = 0
    read_only: int = 0
    attempts: int = 0
    by_cause: list[int] = field(default_factory=lambda: [0] * 9)
    extensions: int = 0
    optional: int = 0  # more extensions that there may have been: those before a commit
    protected_attempts: int = 0
    upgrades: int = 0
    waits: int = 0
    parks: int = 0
    wakes: int = 0
    parked: int = 0


class Model:
    """A domain: cells, blocks, the clock, the protected slot."""

    def __init__(self, cells: list[Cell], blocks: int, lost_limit: int) -> None:
        self.cells = cells
        self.blocks = [Block(last=0) for _ in range(blocks)]
        self.lost_limit = lost_limit
        self.clock = 0
        self.floor = 0  # a block must not start below
        self.births = 0
        self.slot: Block | None = None
        self.marks: set[int] = set()  # cells that nobody but the slot's holder may overwrite
        self.writers: dict[int, tuple[int, int]] = {}  # version: label and number of the record
        self.counts = Counts()

    # --- begin and end ------------------------------------------------------------------------

    def begin(self, n: int, *, read_only: bool, protected: bool, label: int) -> Status:
        b = self.blocks[n]
        if b.state is not IDLE:
            return MISUSE
        b.read_only, b.label, b.attempt, b.lost = read_only, label, 0, 0
        b.records_all = False
        if protected and not self._take_slot(b):
            return TIMEOUT
        self._start(b, at_clock=read_only or protected)
        return OK

    def _take_slot(self, b: Block) -> bool:
        if self.slot is not None:
            self.counts.waits += 1
            return False
        self.slot = b
        b.has_slot = True
        return True

    def _start(self, b: Block, *, at_clock: bool) -> None:
        self.counts.attempts += 1
        b.fresh = at_clock
        b.state = READER if b.read_only else ACTIVE
        if b.has_slot:
            b.state = PROTECTED
            self.counts.protected_attempts += 1

    def starts(self, n: int) -> set[int]:
        """Return the versions at which the block that has just begun may read."""
        b = self.blocks[n]
        behind = not b.fresh and b.last >= self.floor
        return {self.clock, b.last} if behind else {self.clock}

    def start_at(self, n: int, rv: int) -> None:
        b = self.blocks[n]
        b.fresh = b.fresh or rv > b.last  # else it may have been behind without knowing it
        b.rv = b.began = b.last = rv

    def commit(self, n: int) -> Status:
        b = self.blocks[n]
        if b.state in REFUSING:
            return self._refused(b)
        writes = [c for c, w in b.writes.items() if not w.is_void]
        if not writes:
            self.counts.read_only += 1
        else:
            if b.state is ACTIVE:
                self.counts.optional += b.rv != self.clock
                if self._overwritten(b):
                    return self._doom_by_reads(b, Cause.COMMIT)
            if self.slot is not b and not self.marks.isdisjoint(writes):
                self.counts.waits += 1
                return TIMEOUT
            self._publish(n, b)
        self.counts.commits += 1
        self._finish(b)
        return OK

    def moved(self, n: int, rv: int) -> bool:
        """Say whether a commit that timed out may leave the block at rv: it is free to extend."""
        b = self.blocks[n]
        allowed = rv in {b.rv, self.clock}
        b.rv = b.last = rv
        return allowed

    def _publish(self, n: int, b: Block) -> None:
        self.clock += 1
        self.writers[self.clock] = (b.label, n + 1)
        b.last = self.clock
        births = 0
        for c, w in b.writes.items():
            cell = self.cells[c]
            if cell.dead or w.is_void:
                continue
            base = cell.newest.value if w.is_add else 0
            born = w.born
            if born & BORN_NOW:
                place = born - BORN_NOW + 1
                births = max(births, place)
                born = self.births + place
            cell.versions.append(Version(self.clock, (base + w.value) & WORD, born))
        self.births += births

    def restart(self, n: int) -> Status:
        b = self.blocks[n]
        if b.state is not DOOMED:
            return MISUSE
        self.counts.by_cause[b.cause] += 1
        b.forget()
        b.attempt += 1
        b.lost += 1
        if b.lost >= self.lost_limit and not b.has_slot and not self._take_slot(b):
            b.state = IDLE
            return TIMEOUT
        self._start(b, at_clock=True)
        return OK

    def rollback(self, n: int) -> None:
        b = self.blocks[n]
        if b.state is IDLE:
            return
        self.counts.by_cause[b.cause if b.state is DOOMED else Cause.USER] += 1
        self._finish(b)

    def _finish(self, b: Block) -> None:
        b.state = IDLE
        b.forget()
        self._give_up_slot(b)

    def _give_up_slot(self, b: Block) -> None:
        if b.has_slot:
            b.has_slot = False
            self.slot = None
            self.marks.clear()

    def make_irrevocable(self, n: int) -> Status:
        b = self.blocks[n]
        if b.state is PROTECTED or (b.state is READER and b.has_slot):
            return OK
        if b.state in REFUSING:
            return self._refused(b)
        if not self._take_slot(b):
            return TIMEOUT
        self.counts.upgrades += 1
        if b.state is READER:
            return OK  # it reads one version and writes nothing
        if b.state is not ACTIVE:
            return self._doom(b, Cause.UPGRADE, [(None, 0)])
        self.marks.update(b.reads)
        if self._overwritten(b):
            return self._doom_by_reads(b, Cause.UPGRADE)
        b.state = PROTECTED
        self.counts.protected_attempts += 1
        return OK

    # --- nesting and waiting ------------------------------------------------------------------

    def nest_begin(self, n: int) -> Status:
        b = self.blocks[n]
        if b.state in REFUSING:
            return self._refused(b)
        b.nests += 1
        b.nested.append(Nested(b.nests, {c: replace(w) for c, w in b.writes.items()}))
        return OK

    def nest_commit(self, n: int, level: int) -> None:
        del self.blocks[n].nested[level:]

    def nest_rollback(self, n: int, level: int) -> None:
        b = self.blocks[n]
        b.writes = b.nested[level].writes
        del b.nested[level:]
        if b.state is WAITING:
            b.state = b.before_retry

    def retry(self, n: int) -> Status:
        b = self.blocks[n]
        if b.state in REFUSING:
            return self._refused(b)
        b.before_retry, b.state = b.state, WAITING
        return CONFLICT

    def park(self, n: int) -> Status:
        """Predict what happens when there is no time to sleep."""
        b = self.blocks[n]
        if b.state is not WAITING:
            return MISUSE
        self.counts.by_cause[Cause.RETRY] += 1
        self._give_up_slot(b)
        unrecorded = b.before_retry is SNAPSHOT
        unrecorded |= b.before_retry is READER and not b.records_all
        changed = b.before_retry is not PROTECTED and bool(self._overwritten(b))
        b.records_all = b.read_only
        if not unrecorded and not changed:
            self.counts.parks += 1
            self._finish(b)
            return TIMEOUT
        b.forget()
        b.attempt += 1
        self._start(b, at_clock=True)
        return OK

    def _refused(self, b: Block) -> Status:
        return MISUSE if b.state is IDLE else CONFLICT

    # --- losing -------------------------------------------------------------------------------

    def doom(self, n: int, cause: Cause) -> None:
        b = self.blocks[n]
        if b.state not in (IDLE, DOOMED):
            self._doom(b, cause, [(None, 0)])

    def _doom(self, b: Block, cause: Cause, blamed: list[tuple[int | None, int]]) -> Status:
        b.state, b.cause, b.blamed = DOOMED, cause, blamed
        return CONFLICT

    def _doom_by_reads(self, b: Block, cause: Cause) -> Status:
        cells = self._overwritten(b)
        blamed: list[tuple[int | None, int]] = [(cells[0], self.cells[cells[0]].newest.number)]
        if len(b.reads) > FEW_READS:
            blamed = [(c, v.number) for c in cells for v in self.cells[c].versions]
            blamed = [(c, number) for c, number in blamed if number > b.rv]
        return self._doom(b, cause, blamed)

    def _overwritten(self, b: Block) -> list[int]:
        return [c for c in b.reads if self.cells[c].newest.number > b.rv]

    def _extend(self, b: Block) -> bool:
        if b.rv != self.clock:
            self.counts.extensions += 1
        if self._overwritten(b):
            return False
        b.rv = b.last = self.clock
        b.fresh = True
        return True

    # --- reads and writes ---------------------------------------------------------------------

    def read(self, n: int, c: int) -> tuple[Status, int]:
        b = self.blocks[n]
        if b.state in REFUSING:
            return self._refused(b), 0
        own = b.writes.get(c)
        if own is not None and not own.is_add:
            return OK, own.value
        if b.state is ACTIVE and self.cells[c].newest.number > b.rv and not self._extend(b):
            if b.writes:
                return self._doom_by_reads(b, Cause.READ), 0
            if not b.fresh:
                return self._doom_by_reads(b, Cause.STALE_START), 0
            b.state = SNAPSHOT
        if b.state is PROTECTED:
            self.marks.add(c)
        if b.state in (ACTIVE, PROTECTED) or (b.state is READER and b.records_all):
            b.reads[c] = None
        return OK, self._seen(b, c).value

    def _seen(self, b: Block, c: int) -> Version:
        """Return the version that the attempt sees, with what it added itself."""
        cell, own = self.cells[c], b.writes.get(c)
        seen = cell.newest if b.state is PROTECTED else cell.at(b.rv)
        if own is None:
            return seen
        if own.is_add:
            return Version(seen.number, (seen.value + own.value) & WORD, seen.born)
        return Version(0, own.value, own.born)

    def peek(self, n: int, c: int) -> tuple[Status, int, int]:
        b = self.blocks[n]
        if b.state in REFUSING:
            return self._refused(b), 0, 0
        seen = self._seen(b, c)
        return OK, seen.value, seen.born

    def _may_write(self, b: Block) -> Status:
        if b.state is SNAPSHOT:
            return self._doom(b, Cause.SNAPSHOT_WRITE, [(None, 0)])
        if b.state in REFUSING:
            return self._refused(b)
        return READ_ONLY if b.read_only else OK

    def write(self, n: int, c: int, value: int, born: int = 0) -> tuple[Status, int]:
        """Predict the status and the handle that is handed back."""
        b = self.blocks[n]
        status = self._may_write(b)
        if status is not OK:
            return status, 0
        own = b.writes.get(c)
        kept = own is None or own.nest < b.serial  # to go back to
        replaced = 0 if own is None or kept or self.cells[c].is_raw else own.value
        b.writes[c] = Write(value, born, is_add=False, nest=b.serial)
        return OK, replaced

    def add(self, n: int, c: int, delta: int) -> Status:
        b = self.blocks[n]
        status = self._may_write(b)
        if status is not OK or not self.cells[c].is_raw:
            return status if status is not OK else MISUSE
        own = b.writes.setdefault(c, Write(0, 0, is_add=True, nest=0))
        own.value = (own.value + delta) & WORD
        own.nest = max(own.nest, b.serial)
        return OK

    # --- outside of blocks --------------------------------------------------------------------

    def pinned_read(self, n: int, c: int) -> int:
        b = self.blocks[n]
        cell = self.cells[c]
        return cell.newest.value if b.state is IDLE else cell.at(b.rv).value

    def pinned_starts(self, n: int, c: int) -> set[int]:
        """Return the versions at which an idle record may be after a pinned read."""
        last = self.blocks[n].last
        behind = last >= self.floor and self.cells[c].newest.number <= last
        return {self.clock, last} if behind else {self.clock}

    def collect(self) -> None:
        self.floor = self.clock
        running = [b.began for b in self.blocks if b.state is not IDLE]
        if running and min(running) == self.clock:
            self.clock += 1  # an empty commit: whoever begins later can be told apart
            self.writers[self.clock] = (0, 0)

    def free_cell(self, c: int) -> None:
        self.cells[c].dead = True
