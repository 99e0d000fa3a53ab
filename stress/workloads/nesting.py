"""Blocks that run again: locals of `with` blocks, nested blocks that fail, hooks that run once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final

import ame
import stm
from stm.testing import lose
from stress.runner import Run, Violation, Workload

ACCOUNTS = 8
CELLS = 10
KEYS = 4
_WAYS = ("through", "through", "continue", "break", "return", "raise")


class Refused(Exception):
    """Leaves a block and undoes it."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one `with` block does; drawn before, as a generator of numbers is not restored."""

    number: int
    moves: tuple[tuple[int, int, int], ...]
    way: str
    early: int  # attempts that it loses on purpose after it has begun
    late: int  # and at its end
    irrevocable: bool


@dataclass(slots=True)
class _Ledger:
    """Plain notes of a thread: what attempts and hooks have done."""

    begun: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)


@ame.prepare
class WithBlocks(Workload):
    """Blocks in ordinary functions: locals as if each had run once, one hook per commit."""

    name = "with-blocks"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.accounts = [ame.Ref(0) for _ in range(ACCOUNTS)]
        self.commits = [ame.Ref(0) for _ in range(run.threads)]
        self.ledgers = [_Ledger() for _ in range(run.threads)]
        self.kept: list[list[int]] = [[] for _ in range(run.threads)]  # which must have committed

    def bodies(self) -> Sequence[Callable[[], int]]:
        return [partial(self.live, who) for who in range(self.run.threads)]

    def plan(self, rng: random.Random, number: int) -> _Plan:
        losses = rng.choice([(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 2)])
        moves = [
            (*rng.sample(range(ACCOUNTS), 2), rng.randrange(9)) for _ in range(rng.choice([1, 2]))
        ]
        return _Plan(number, tuple(moves), rng.choice(_WAYS), *losses, rng.random() < 0.03)

    # --- what blocks do -----------------------------------------------------------

    def begin(self, who: int, plan: _Plan) -> None:
        ledger = self.ledgers[who]
        ame.on_abort(ledger.undone.append, plan.number)
        ledger.begun.append(plan.number)
        if stm.attempt() < plan.early:
            lose()
        total = sum(account.value for account in self.accounts)
        self.run.require(total == 0, lambda: f"the sum is {total}")

    def move(self, source: int, target: int, amount: int) -> None:
        self.accounts[source].value -= amount
        with ame.atomic():
            self.accounts[target].value += amount

    def end(self, who: int, plan: _Plan) -> None:
        self.commits[who].value += 1
        if plan.irrevocable:
            ame.irrevocable()
        ame.on_commit(self.ledgers[who].done.append, plan.number)
        if stm.attempt() < plan.early + plan.late:
            lose()

    # --- the functions under test -----------------------------------------------------

    def blocks(self, who: int, plans: Sequence[_Plan]) -> list[object]:
        """Return a trail of locals that each block changes before, between and at its ends."""
        entered = moved = 0
        trail: tuple[object, ...] = ()
        for plan in plans:
            try:
                with ame.atomic():
                    entered += 1
                    trail += (plan.number,)
                    self.begin(who, plan)
                    for source, target, amount in plan.moves:
                        self.move(source, target, amount)
                        moved += amount
                    self.end(who, plan)
                    way = plan.way
                    if way == "continue":
                        continue
                    if way == "break":
                        break
                    if way == "return":
                        return ["return", entered, moved, trail]
                    if way == "raise":
                        raise Refused(plan.number)
                    trail += ("end",)
            except Refused:
                trail += ("refused",)
            trail += ("after", entered)
        else:
            trail += ("else",)
        return ["fell", entered, moved, trail]

    def closure(self, who: int, plans: Sequence[_Plan]) -> list[object]:
        """The same for names that an inner function assigns, in a generator expression too."""
        entered = moved = 0
        trail: tuple[object, ...] = ()

        def one(plan: _Plan) -> bool:
            nonlocal entered, moved, trail
            here = 0

            def enter() -> None:
                nonlocal here
                here += 1

            with ame.atomic():
                enter()
                entered += here
                trail += (plan.number,)
                self.begin(who, plan)
                for move in plan.moves:
                    self.move(*move)
                moved += sum(amount * here for _, _, amount in plan.moves)
                self.end(who, plan)
                if plan.way == "raise":
                    raise Refused(plan.number)
                if plan.way == "through":
                    trail += ("end",)
                return plan.way not in {"break", "return"}

        for plan in plans:
            try:
                if not one(plan):
                    break
            except Refused:
                trail += ("refused",)
            if plan.way != "continue":
                trail += ("after", entered)
        else:
            trail += ("else",)
        return ["fell", entered, moved, trail]

    def expected(self, plans: Sequence[_Plan], *, returns: bool) -> tuple[list[object], list[int]]:
        """What runs once returns, and the numbers of the blocks that commit."""
        entered = moved = 0
        trail: list[object] = []
        kept = []
        for plan in plans:
            entered += 1
            moved += sum(amount for _, _, amount in plan.moves)
            trail.append(plan.number)
            if plan.way != "raise":
                kept.append(plan.number)
            if plan.way == "return" and returns:
                return ["return", entered, moved, tuple(trail)], kept
            if plan.way in {"break", "return"}:
                break
            if plan.way == "through":
                trail.append("end")
            if plan.way == "raise":
                trail.append("refused")
            if plan.way != "continue":
                trail += ["after", entered]
        else:
            trail.append("else")
        return ["fell", entered, moved, tuple(trail)], kept

    def live(self, who: int) -> int:
        rng = self.run.rng(f"thread {who}")
        numbers = count(1)
        steps = 0
        while not self.run.over():
            plans = [self.plan(rng, next(numbers)) for _ in range(rng.randrange(1, 5))]
            returns = rng.random() < 0.6
            got = (self.blocks if returns else self.closure)(who, plans)
            expected, kept = self.expected(plans, returns=returns)
            self.run.require(got == expected, lambda: f"{got}, not {expected}: {plans}")  # noqa: B023
            self.kept[who] += kept
            done = self.ledgers[who].done
            ok = done[-len(kept) :] == kept or not kept
            self.run.require(ok, lambda: f"hooks {done[-9:]} after the commits {kept}")  # noqa: B023
            steps += len(kept)
        return steps

    def check(self) -> None:
        total = sum(account.value for account in self.accounts)
        if total:
            raise Violation(f"the sum is {total}")
        for ledger, commits, kept in zip(self.ledgers, self.commits, self.kept, strict=True):
            ends = sorted(ledger.done + ledger.undone)
            if ledger.done != kept or commits.value != len(kept) or ends != ledger.begun:
                raise Violation(
                    f"{len(kept)} blocks committed, {commits.value} as they say, and "
                    f"{len(ledger.done)} hooks; {len(ledger.begun)} attempts, "
                    f"{len(ledger.undone)} cleanups"
                )


# --- trees ------------------------------------------------------------------------------

FORMS: Final = ("function", "run", "with", "keeps", "or_else")


@dataclass(frozen=True, slots=True)
class Node:
    """A block and the blocks in it."""

    number: int
    form: str
    adds: tuple[tuple[int, int], ...]  # cell, amount
    keys: tuple[tuple[int, int | None], ...]  # key, value or None to delete it
    parts: tuple[Node, ...]
    fails: bool
    losses: int

    def is_kept(self) -> bool:
        return not self.fails or self.form == "keeps"

    def kept(self) -> Iterator[Node]:
        """Itself and what is in it, in order of execution, without what is undone."""
        if self.is_kept():
            yield self
            for part in self.parts:
                yield from part.kept()

    def all(self) -> Iterator[Node]:
        yield self
        for part in self.parts:
            yield from part.all()


@dataclass(slots=True)
class _Notes:
    """What the hooks of one tree have noted, and the plain model of the thread's keys."""

    done: list[int] = field(default_factory=list)
    undone: list[tuple[int, int]] = field(default_factory=list)  # attempt, block
    attempt: int = 0
    keys: dict[int, int] = field(default_factory=dict)


@ame.prepare
class Nested(Workload):
    """Trees of nested blocks keep exactly what no failing block encloses; hooks as well."""

    name = "nested"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.cells = [ame.Ref(0) for _ in range(CELLS)]
        self.items: ame.Dict[tuple[int, int], int] = ame.Dict()  # of a thread, key
        self.kept: ame.Dict[tuple[int, int], tuple[tuple[int, int], ...]] = ame.Dict()
        self.notes = [_Notes() for _ in range(run.threads)]

    def bodies(self) -> Sequence[Callable[[], int]]:
        return [
            self.repeat(partial(self.step, who, count(1)), f"thread {who}")
            for who in range(self.run.threads)
        ]

    def grow(self, rng: random.Random, numbers: Iterator[int], depth: int) -> Node:
        number = next(numbers)
        few = range(rng.randrange(3))
        adds = tuple((rng.randrange(CELLS), rng.randrange(1, 9)) for _ in few)
        some = range(rng.randrange(3))
        keys = tuple((rng.randrange(KEYS), rng.choice([None, number])) for _ in some)
        parts = tuple(
            self.grow(rng, numbers, depth + 1)
            for _ in range(
                rng.choice([1, 2, 3]) if rng.random() < (0.9, 0.6, 0.3, 0.1)[depth] else 0
            )
            if depth < 3
        )
        losses = 1 if rng.random() < 0.04 else 0
        form = rng.choice(FORMS)
        return Node(number, form, adds, keys, parts, rng.random() < 0.35, losses)

    # --- ways to open a block -----------------------------------------------------------

    @ame.atomic
    def in_function(self, body: Callable[[], None]) -> None:
        body()

    @ame.atomic(commit_on=Refused)
    def in_keeping(self, body: Callable[[], None]) -> None:
        body()

    def in_with(self, body: Callable[[], None]) -> None:
        with ame.atomic():
            body()

    def in_or_else(self, who: int, number: int, body: Callable[[], None]) -> None:
        """The first alternative writes, and waits: nothing of it is left for the second."""

        def waits() -> None:
            self.cells[number % CELLS].value += 1000
            self.items[who, number % KEYS] = -1
            ame.on_commit(self.notes[who].done.append, -number)
            ame.on_abort(self.notes[who].undone.append, (stm.attempt(), -number))
            ame.retry()

        ame.or_else(waits, body)

    def open(self, who: int, node: Node, body: Callable[[], None]) -> None:
        if node.form == "function":
            self.in_function(body)
        elif node.form == "run":
            ame.run(body)
        elif node.form == "with":
            self.in_with(body)
        elif node.form == "keeps":
            self.in_keeping(body)
        else:
            self.in_or_else(who, node.number, body)

    # --- what they do ---------------------------------------------------------------------

    def look(self, who: int, tree: Node) -> tuple[list[int], list[int | None]]:
        cells = sorted({cell for node in tree.all() for cell, _ in node.adds})
        values = [self.cells[cell].value for cell in cells]
        return values, [self.items.get((who, key)) for key in range(KEYS)]

    def inside(self, who: int, node: Node) -> None:
        notes = self.notes[who]
        ame.on_commit(notes.done.append, node.number)
        ame.on_abort(notes.undone.append, (stm.attempt(), node.number))
        for cell, amount in node.adds:
            self.cells[cell].value += amount
        for key, value in node.keys:
            if value is None:
                self.items.pop((who, key), None)
            else:
                self.items[who, key] = value
        for part in node.parts:
            self.nest(who, part)
        if stm.attempt() < node.losses:
            lose()
        if node.fails:
            raise Refused(node.number)

    def nest(self, who: int, part: Node) -> None:
        before = self.look(who, part)
        try:
            self.open(who, part, partial(self.inside, who, part))
        except Refused as error:
            args = error.args
            ok = part.fails and args == (part.number,)
            self.run.require(ok, lambda: f"Refused{args} came out of block {part}")
        else:
            self.run.require(not part.fails, lambda: f"nothing came out of block {part}")
        if not part.is_kept():
            after = self.look(who, part)
            self.run.require(after == before, lambda: f"{before} became {after}: {part}")

    def whole(self, who: int, serial: int, tree: Node) -> None:
        self.notes[who].attempt = stm.attempt()
        before, _ = self.look(who, tree)
        cells = sorted({cell for node in tree.all() for cell, _ in node.adds})
        sums = dict.fromkeys(cells, 0)
        for node in tree.kept():
            for cell, amount in node.adds:
                sums[cell] += amount
        try:
            self.inside(who, tree)
        finally:
            expected = [value + sums[cell] for value, cell in zip(before, cells, strict=True)]
            if tree.is_kept():
                after, _ = self.look(who, tree)
                ok = after == expected
                self.run.require(ok, lambda: f"{before} became {after}, not {expected}: {tree}")
                self.kept[who, serial] = tuple(sums.items())

    def step(self, who: int, serials: Iterator[int], rng: random.Random) -> None:
        tree = self.grow(rng, count(1), 0)
        notes = self.notes[who]
        notes.done.clear()
        notes.undone.clear()
        failed = False
        try:
            self.open(who, tree, partial(self.whole, who, next(serials), tree))
        except Refused:
            failed = True
        self.run.require(failed == tree.fails, lambda: f"failed: {failed}, but {tree}")
        for node in tree.kept():
            for key, value in node.keys:
                if value is None:
                    notes.keys.pop(key, None)
                else:
                    notes.keys[key] = value
        self.check_hooks(notes, tree)

    def check_hooks(self, notes: _Notes, tree: Node) -> None:
        """Those of the kept blocks in order; cleanups of the others, last registered first."""
        done = [node.number for node in tree.kept()]
        order = [
            number
            for node in tree.all()
            for number in (
                (-node.number, node.number) if node.form == "or_else" else (node.number,)
            )
        ]
        undone = [number for number in reversed(order) if number not in done]
        last = [number for attempt, number in notes.undone if attempt == notes.attempt]
        ok = notes.done == done and last == undone
        ok = ok and len(set(notes.undone)) == len(notes.undone)
        self.run.require(
            ok,
            lambda: (
                f"hooks {notes.done}, not {done}; cleanups {notes.undone}, of which in attempt "
                f"{notes.attempt} {undone} were due: {tree}"
            ),
        )

    def check(self) -> None:
        sums = [0] * CELLS
        for effects in self.kept.values():
            for cell, amount in effects:
                sums[cell] += amount
        values = [cell.value for cell in self.cells]
        if values != sums:
            raise Violation(f"the cells are {values}, but {sums} was kept")
        for who, notes in enumerate(self.notes):
            keys = {key: value for (of, key), value in self.items.items() if of == who}
            if keys != notes.keys:
                raise Violation(f"keys of thread {who}: {keys}, not {notes.keys}")
