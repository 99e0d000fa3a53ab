"""Drives the core and its model with the same program, step by step, and compares everything.

A program is a string of bytes, so that it is cheap to draw: `HEADER` bytes for the set-up, then
`STEP` bytes per step. Zeros are steps that do nothing, so a failure shrinks well.
Most steps that the core would refuse as misuse are turned into something that makes sense. A
`Discrepancy` prints a straight-line script of calls of the core that shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from harness import NOW, Cause, Domain, State, Status, versions
from model import BORN_NOW, Cell, Model, Version

from stm._core import ffi, lib

HEADER, STEP, STEPS = 2, 3, 32
PROGRAM_SIZE = HEADER + STEP * STEPS
RECORDS = 4
RAW, HANDLES = 4, 2  # cells
FILLERS = 70  # more cells, in some programs: enough that the core indexes the read set
WIDE = 12  # of them are written at once: more than the log lists when its ring is small
NEVER = 1000  # lost attempts
DEPTH = 5  # nested blocks
MANY = 1 << 32  # handles are numbers from here on


class Discrepancy(AssertionError):
    """The core did not do what the model says."""


class Step(NamedTuple):
    """One decoded step: who, on which cell, and a number that each operation uses its own way."""

    n: int
    c: int
    arg: int


class Run:
    """One program on a domain of its own."""

    def __init__(self, program: bytes, bugs: int = 0) -> None:
        head, focus = program[0], program[1]
        self.program = program
        self.bugs = bugs
        self.ring = 4 if head & 1 else 4096
        self.lost_limit = (NEVER, 1, 2, 3)[head >> 1 & 3]
        self.records = (4, 2, 3, 2)[focus & 3]  # that the program drives
        self.focus = (6, 2, 3, 2)[focus >> 2 & 3]  # cells that it uses
        fillers = FILLERS if head & 24 == 24 else 0
        self.handles = MANY
        self.released: list[int] = []
        self.returned: list[int] = []  # handles that a later write of the same block replaced
        self.trace: list[str] = []
        self.out = ffi.new("stm_value *")
        self.born = ffi.new("uint64_t *")
        self.found = ffi.new("stm_conflict *")
        self.s = [[ffi.new("stm_savepoint *") for _ in range(DEPTH)] for _ in range(RECORDS)]
        self.domain = Domain(log=self.ring, release=self.released.append)
        self.domain.plant(bugs)
        self.domain.lost_limit(self.lost_limit)
        self.raw = self.domain.raw
        self.t = [self.domain.record().raw for _ in range(RECORDS)]
        self.c = [self.domain.cell(10 + n) for n in range(RAW)]
        self.c += [self.domain.handle_cell(self.new_handle()) for _ in range(HANDLES)]
        self.c += [self.domain.cell(0) for _ in range(fillers)]
        self.fillers = range(RAW + HANDLES, len(self.c))
        self.live = list(range(RAW + HANDLES))
        values = [10 + n for n in range(RAW)] + [MANY + 1 + n for n in range(HANDLES)]
        values += [0] * fillers
        is_raw = [True] * RAW + [False] * HANDLES + [True] * fillers
        cells = [Cell(r, [Version(0, v, 0)]) for r, v in zip(is_raw, values, strict=True)]
        self.model = Model(cells, RECORDS, self.lost_limit)
        self.model.counts.commits = self.model.counts.read_only = RECORDS  # warming them up
        self.model.counts.attempts = RECORDS

    def new_handle(self) -> int:
        self.handles += 1
        return self.handles

    def steps(self) -> Iterator[tuple[int, Step]]:
        for at in range(HEADER, len(self.program), STEP):
            code, where, arg = self.program[at : at + STEP]
            if code:
                cells = min(len(self.live), self.focus)
                c = self.live[(where >> 2) % cells]
                yield code, Step((where & 3) % self.records, c, arg)

    def execute(self) -> None:
        for code, step in self.steps():
            operation, wanted = OPERATIONS[code]
            if step.arg & 15:  # else see that it is refused
                state = self.model.blocks[step.n].state
                if wanted is Wanted.RUNNING and state is State.IDLE:
                    self.begin(step)
                elif wanted is Wanted.RUNNING and state is State.DOOMED:
                    self.restart(step)
                elif wanted is Wanted.RUNNING and state is State.WAITING:
                    (self.nest_rollback if step.arg & 16 else self.park)(step)
                elif (wanted is Wanted.IDLE and state is not State.IDLE) or (
                    (wanted is Wanted.DOOMED and state is not State.DOOMED)
                    or (wanted is Wanted.WAITING and state is not State.WAITING)
                ):
                    operation = Run.read
            operation(self, step)
        self.finish()

    # --- comparing ----------------------------------------------------------------------------

    def call(self, text: str, got: object, expected: object) -> None:
        self.trace.append(f"print({text!r}, {text})  # {got}")
        if got != expected:
            self.fail(f"{text} gave {got}, expected {expected}")

    def fail(self, problem: str) -> None:
        raise Discrepancy(f"{problem}\n\n{self.script(problem)}")

    def same(self, what: str, got: object, expected: object) -> None:
        if got != expected:
            self.fail(f"{what} is {got}, expected {expected}")

    def compare(self, n: int) -> None:
        """Compare what can be seen of a record, and the clock."""
        t, b = self.t[n], self.model.blocks[n]
        got = (
            lib.stm_txn_state(t),
            lib.stm_txn_writes(t),
            lib.stm_txn_attempt(t),
            lib.stm_domain_clock(self.raw),
        )
        expected = (b.state, len(b.writes), b.attempt, self.model.clock)
        if got != expected:
            self.fail(f"state, writes, attempt, clock of t[{n}]: {got}, expected {expected}")
        if b.state in (State.IDLE, State.DOOMED):
            return
        self.same(f"read version of t[{n}]", lib.stm_txn_read_version(t), b.rv)
        if lib.stm_txn_reads(t) < len(b.reads):
            self.fail(f"t[{n}] recorded {lib.stm_txn_reads(t)} of its {len(b.reads)} reads")

    def compare_conflict(self, n: int) -> None:
        b, got = self.model.blocks[n], self.found
        lib.stm_txn_conflict(self.t[n], got)
        self.same(f"cause of the conflict of t[{n}]", Cause(got.cause), b.cause)
        named = self.c.index(got.cell) if got.cell != ffi.NULL else None
        if (named, got.version) not in b.blamed:
            self.fail(f"t[{n}] blames cell and version {named, got.version}, not one of {b.blamed}")
        writer = self.model.writers[got.version] if got.version else (0, 0)
        self.same("its writer", (got.writer_label, got.writer_thread), writer)
        self.same("its loser", (got.loser_label, got.attempt), (b.label, b.attempt))

    def after(self, n: int, was: State) -> None:
        self.compare(n)
        state = self.model.blocks[n].state
        if state is State.DOOMED and was is not State.DOOMED:
            self.compare_conflict(n)

    # --- operations ---------------------------------------------------------------------------

    def begin(self, s: Step, flags: int = 0) -> None:
        label = s.arg >> 4
        expected = self.model.begin(
            s.n,
            read_only=bool(flags & lib.STM_BEGIN_READ_ONLY),
            protected=bool(flags & lib.STM_BEGIN_PROTECTED),
            label=label,
        )
        got = lib.stm_begin(self.t[s.n], flags, label, NOW)
        self.call(f"lib.stm_begin(t[{s.n}], {flags}, {label}, {NOW})", got, expected)
        self.started(s.n, expected)

    def started(self, n: int, status: Status) -> None:
        if status is Status.OK:
            rv = lib.stm_txn_read_version(self.t[n])
            if rv not in self.model.starts(n):
                self.fail(f"t[{n}] starts at {rv}, not one of {self.model.starts(n)}")
            self.model.start_at(n, rv)
        self.compare(n)

    def begin_reader(self, s: Step) -> None:
        self.begin(s, lib.STM_BEGIN_READ_ONLY)

    def begin_protected(self, s: Step) -> None:
        read_only = lib.STM_BEGIN_READ_ONLY if s.arg & 3 == 0 else 0
        self.begin(s, lib.STM_BEGIN_PROTECTED | read_only)

    def restart(self, s: Step) -> None:
        expected = self.model.restart(s.n)
        got = lib.stm_restart(self.t[s.n], NOW)
        self.call(f"lib.stm_restart(t[{s.n}], {NOW})", got, expected)
        self.started(s.n, expected)

    def commit(self, s: Step) -> None:
        was = self.model.blocks[s.n].state
        expected = self.model.commit(s.n)
        self.call(f"lib.stm_commit(t[{s.n}])", lib.stm_commit(self.t[s.n]), expected)
        rv = lib.stm_txn_read_version(self.t[s.n])
        if expected is Status.TIMEOUT and not self.model.moved(s.n, rv):
            self.fail(f"the commit that timed out left t[{s.n}] at {rv}")
        self.after(s.n, was)

    def set(self, s: Step) -> None:
        """Commit; an idle record writes one cell in a block of its own."""
        state = self.model.blocks[s.n].state
        if state is State.IDLE and s.arg & 15:
            self.begin(s)
            self.write(s)
        self.commit(s)

    def rollback(self, s: Step) -> None:
        self.model.rollback(s.n)
        self.call(f"lib.stm_rollback(t[{s.n}])", lib.stm_rollback(self.t[s.n]), None)
        self.compare(s.n)

    def make_irrevocable(self, s: Step) -> None:
        was = self.model.blocks[s.n].state
        expected = self.model.make_irrevocable(s.n)
        got = lib.stm_make_irrevocable(self.t[s.n], NOW)
        self.call(f"lib.stm_make_irrevocable(t[{s.n}], {NOW})", got, expected)
        self.after(s.n, was)

    def doom(self, s: Step) -> None:
        was = self.model.blocks[s.n].state
        self.model.doom(s.n, Cause.INJECTED)
        text = f"lib.stm_doom(t[{s.n}], {Cause.INJECTED.value})"
        self.call(text, lib.stm_doom(self.t[s.n], Cause.INJECTED), None)
        self.after(s.n, was)

    def nest_begin(self, s: Step) -> None:
        level = len(self.model.blocks[s.n].nested)
        if level == DEPTH:
            self.nest_rollback(s)
            return
        expected = self.model.nest_begin(s.n)
        got = lib.stm_nest_begin(self.t[s.n], self.s[s.n][level])
        self.call(f"lib.stm_nest_begin(t[{s.n}], s[{s.n}][{level}])", got, expected)
        self.compare(s.n)

    def _level(self, s: Step) -> int:
        """Return the innermost open level, now and then the one around it; -1: none."""
        levels = len(self.model.blocks[s.n].nested)
        return levels - 2 if levels > 1 and s.arg & 96 == 96 else levels - 1

    def nest_commit(self, s: Step) -> None:
        level = self._level(s)
        if level < 0:
            self.nest_begin(s)
            return
        self.model.nest_commit(s.n, level)
        got = lib.stm_nest_commit(self.t[s.n], self.s[s.n][level])
        self.call(f"lib.stm_nest_commit(t[{s.n}], s[{s.n}][{level}])", got, None)
        self.compare(s.n)

    def nest_rollback(self, s: Step) -> None:
        level = self._level(s)
        if level < 0:
            self.nest_begin(s)
            return
        self.model.nest_rollback(s.n, level)
        got = lib.stm_nest_rollback(self.t[s.n], self.s[s.n][level])
        self.call(f"lib.stm_nest_rollback(t[{s.n}], s[{s.n}][{level}])", got, None)
        self.compare(s.n)

    def nest_release(self, s: Step) -> None:
        self.call(f"lib.stm_nest_release(t[{s.n}])", lib.stm_nest_release(self.t[s.n]), None)
        self.compare(s.n)

    def retry(self, s: Step) -> None:
        expected = self.model.retry(s.n)
        self.call(f"lib.stm_retry(t[{s.n}])", lib.stm_retry(self.t[s.n]), expected)
        self.compare(s.n)

    def park(self, s: Step) -> None:
        expected = self.model.park(s.n)
        self.call(f"lib.stm_park(t[{s.n}], {NOW})", lib.stm_park(self.t[s.n], NOW), expected)
        self.started(s.n, expected)

    def check_handle(self, c: int, value: int) -> None:
        if value in self.released and not self.model.cells[c].is_raw:
            self.fail(f"c[{c}] shows the handle {value}, which has been released")

    def read(self, s: Step) -> None:
        was = self.model.blocks[s.n].state
        status, value = self.model.read(s.n, s.c)
        self.out[0] = 0
        got = lib.stm_read(self.t[s.n], self.c[s.c], self.out), self.out[0]
        expected = (status, value) if status is Status.OK else (status, got[1])
        self.call(f"lib.stm_read(t[{s.n}], c[{s.c}], out), out[0]", got, expected)
        self.check_handle(s.c, got[1])
        self.after(s.n, was)

    def peek(self, s: Step) -> None:
        status, *values = self.model.peek(s.n, s.c)
        self.out[0] = 0  # what a refused peek leaves there is not an answer
        got = lib.stm_peek(self.t[s.n], self.c[s.c], self.out, self.born)
        seen = (got, self.out[0], self.born[0])
        expected = (status, *values) if status is Status.OK else (status, *seen[1:])
        text = f"lib.stm_peek(t[{s.n}], c[{s.c}], out, born), out[0], born[0]"
        self.call(text, seen, expected)
        self.check_handle(s.c, seen[1])
        self.compare(s.n)

    def write(self, s: Step, born: int = 0) -> None:
        was = self.model.blocks[s.n].state
        value = s.arg if self.model.cells[s.c].is_raw else self.new_handle()
        expected = self.model.write(s.n, s.c, value, born)
        if born:
            got = lib.stm_write_born(self.t[s.n], self.c[s.c], value, born, self.out), self.out[0]
            text = f"lib.stm_write_born(t[{s.n}], c[{s.c}], {value}, {born}, out), out[0]"
        else:
            got = lib.stm_write(self.t[s.n], self.c[s.c], value, self.out), self.out[0]
            text = f"lib.stm_write(t[{s.n}], c[{s.c}], {value}, out), out[0]"
        self.call(text, got, expected)
        if got[1]:
            self.returned.append(got[1])
        if got[0] != Status.OK and not self.model.cells[s.c].is_raw:
            self.returned.append(value)
        self.after(s.n, was)

    def write_born(self, s: Step) -> None:
        self.write(s, born=BORN_NOW | s.arg & 3 if s.arg & 4 else s.arg | 1)

    def add(self, s: Step) -> None:
        was = self.model.blocks[s.n].state
        delta = s.arg % 7 - 3
        expected = self.model.add(s.n, s.c, delta)
        got = lib.stm_add(self.t[s.n], self.c[s.c], delta)
        self.call(f"lib.stm_add(t[{s.n}], c[{s.c}], {delta})", got, expected)
        self.after(s.n, was)

    def read_fillers(self, s: Step) -> None:
        """Read so much that the core indexes it, from where it does not extend by itself."""
        b = self.model.blocks[s.n]
        if not self.fillers or self.fillers[-1] in b.reads:
            return
        if b.state is State.ACTIVE and not (b.fresh and b.rv == self.model.clock):
            self.doom(s)
            self.restart(s)
        for c in self.fillers:
            self.read(Step(s.n, c, 0))

    def write_fillers(self, s: Step) -> None:
        for c in self.fillers[:WIDE]:
            self.write(Step(s.n, c, s.arg))

    def pinned_read(self, s: Step) -> None:
        t, b = self.t[s.n], self.model.blocks[s.n]
        lib.stm_pin(t)
        got = lib.stm_pinned_read(t, self.c[s.c])
        lib.stm_unpin(t)
        self.trace.append(f"lib.stm_pin(t[{s.n}])")
        text = f"lib.stm_pinned_read(t[{s.n}], c[{s.c}])"
        self.call(text, got, self.model.pinned_read(s.n, s.c))
        self.trace.append(f"lib.stm_unpin(t[{s.n}])")
        self.check_handle(s.c, got)
        if b.state is State.IDLE:
            rv, allowed = lib.stm_txn_read_version(t), self.model.pinned_starts(s.n, s.c)
            if rv not in allowed:
                self.fail(f"after the pinned read t[{s.n}] is at {rv}, not one of {allowed}")
            b.last = rv
        self.compare(s.n)

    def collect(self, s: Step) -> None:
        self.model.collect()
        self.call("lib.stm_domain_collect(d)", lib.stm_domain_collect(self.raw), None)
        self.compare(s.n)

    def free_cell(self, s: Step) -> None:
        if len(self.live) > 3:
            self.live.remove(s.c)
            self.model.free_cell(s.c)
            del self.domain.cells[self.c[s.c]]
            got = lib.stm_cell_free(self.raw, self.c[s.c])
            self.call(f"lib.stm_cell_free(d, c[{s.c}])", got, None)
            self.compare(s.n)

    # --- the end ------------------------------------------------------------------------------

    def finish(self) -> None:
        """Look at everything once more, end all blocks, and see that nothing is left over."""
        for n, b in enumerate(self.model.blocks):
            if b.state not in (State.IDLE, State.DOOMED):
                for c in self.live:
                    self.peek(Step(n, c, 0))
            self.rollback(Step(n, 0, 0))
        for c in (*self.live, *self.fillers):
            self.pinned_read(Step(0, c, 0))
        self.compare_stats()
        for txn in list(self.domain.records):
            self.domain.free_record(txn)
        self.trace.append("for record in t: lib.stm_txn_free(record)")
        self.collect(Step(0, 0, 0))
        counts = {c: versions(self.c[c]) for c in (*self.live, *self.fillers)}
        self.same("versions per cell", counts, dict.fromkeys(counts, 1))
        stats = self.domain.stats
        left = {"nodes": stats.nodes - len(self.domain.cells) - 1, "retired": stats.retired}
        self.same("what is left over", left, {"nodes": 0, "retired": 0})
        gone = self.released + self.returned
        kept = [self.model.cells[c] for c in self.live]
        held = [cell.newest.value for cell in kept if not cell.is_raw]
        self.same("handles", sorted(gone + held), list(range(MANY + 1, self.handles + 1)))
        self.domain.close()

    def compare_stats(self) -> None:
        got, counts = self.domain.stats, self.model.counts
        names = [name for name in counts.__slots__ if name not in ("extensions", "optional")]
        expected = {name: getattr(counts, name) for name in names}
        expected["by_cause"] = tuple(counts.by_cause)
        self.same("stats", {name: getattr(got, name) for name in expected}, expected)
        if not 0 <= got.extensions - counts.extensions <= counts.optional:
            self.fail(f"{got.extensions} extensions, expected {counts}")
        self.same("aborts", got.aborts, sum(counts.by_cause))
        self.same("attempts", got.attempts, got.commits + got.aborts)
        self.same("records", got.transactions, RECORDS)

    def script(self, problem: str) -> str:
        """Return a program that does the calls so far, one after the other."""
        cells = [f"    lib.stm_cell_new(d, lib.STM_CELL_RAW, {10 + n})," for n in range(RAW)]
        cells += [
            f"    lib.stm_cell_new(d, lib.STM_CELL_HANDLE, {MANY + 1 + n})," for n in range(HANDLES)
        ]
        lines = [
            "from stm._core import ffi, lib",
            "",
            'out, born = ffi.new("stm_value *"), ffi.new("uint64_t *")',
            f"d = lib.stm_domain_new(ffi.NULL, {self.ring})",
            f"lib.stm_domain_plant(d, {self.bugs})",
            f"lib.stm_domain_set_lost_limit(d, {self.lost_limit})",
            f"t = [lib.stm_txn_new(d) for _ in range({RECORDS})]",
            f's = [[ffi.new("stm_savepoint *") for _ in range({DEPTH})] for _ in t]',
            "c = [",
            *cells,
            "]",
            f"c += [lib.stm_cell_new(d, lib.STM_CELL_RAW, 0) for _ in range({len(self.fillers)})]",
            "for record in t:  # warm up",
            f"    lib.stm_begin(record, 0, 0, {NOW})",
            "    lib.stm_read(record, c[0], out)",
            "    lib.stm_commit(record)",
            *self.trace,
            *(f"# {line}" for line in problem.splitlines()),
        ]
        return "\n".join(lines) + "\n"


def run(program: bytes, bugs: int = 0) -> None:
    """Run a program on the core and on the model.

    Raises:
        Discrepancy: They differ. The domain is left as it is then.
    """
    Run(program, bugs).execute()


class Wanted(Enum):
    """In which state of the block an operation makes sense."""

    ANY = 0
    IDLE = 1
    RUNNING = 2
    DOOMED = 3
    WAITING = 4


def _table(*weights: tuple[int, Callable[[Run, Step], None], Wanted]) -> list[Any]:
    """Spread operations over the 255 codes by weight; code 0 is no step."""
    spread = [(operation, wanted) for weight, operation, wanted in weights for _ in range(weight)]
    assert len(spread) == 255
    return [None, *spread]


OPERATIONS = _table(
    (14, Run.begin, Wanted.IDLE),
    (8, Run.begin_reader, Wanted.IDLE),
    (5, Run.begin_protected, Wanted.IDLE),
    (49, Run.read, Wanted.RUNNING),
    (10, Run.peek, Wanted.RUNNING),
    (35, Run.write, Wanted.RUNNING),
    (8, Run.write_born, Wanted.RUNNING),
    (16, Run.add, Wanted.RUNNING),
    (36, Run.set, Wanted.ANY),
    (6, Run.restart, Wanted.DOOMED),
    (4, Run.rollback, Wanted.ANY),
    (6, Run.make_irrevocable, Wanted.RUNNING),
    (11, Run.nest_begin, Wanted.RUNNING),
    (5, Run.nest_commit, Wanted.RUNNING),
    (6, Run.nest_rollback, Wanted.RUNNING),
    (3, Run.nest_release, Wanted.ANY),
    (4, Run.retry, Wanted.RUNNING),
    (3, Run.park, Wanted.WAITING),
    (6, Run.pinned_read, Wanted.ANY),
    (5, Run.collect, Wanted.ANY),
    (2, Run.free_cell, Wanted.ANY),
    (2, Run.doom, Wanted.ANY),
    (6, Run.read_fillers, Wanted.RUNNING),
    (5, Run.write_fillers, Wanted.RUNNING),
)
