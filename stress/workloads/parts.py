"""Blocks that commit half-way, and locks that blocks see through."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial

import ame
import stm
from stm.testing import lose
from stress.runner import Run, Violation, Workload
from stress.workloads.watching import Watch

ACCOUNTS = 6


class Refused(Exception):
    """Leaves a block and undoes its rest."""


@ame.prepare
class Split(Workload):
    """Money is in an account or on its way; each part commits once, and the rest runs once."""

    name = "split"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.accounts = [ame.Ref(0) for _ in range(ACCOUNTS)]
        self.on_way = [ame.Ref(0) for _ in range(run.threads)]  # between two parts of a block
        self.parts = [ame.Ref(0) for _ in range(run.threads)]  # that committed, as they say
        self.hooks: list[list[int]] = [[] for _ in range(run.threads)]
        self.rests = [0] * run.threads  # plain: keeps what runs twice

    def check_sum(self) -> None:
        there = [account.value for account in self.accounts]
        way = [ref.value for ref in self.on_way]
        total = sum(there) + sum(way)
        self.run.require(total == 0, lambda: f"the sum is {total}: {there} and on the way {way}")

    @ame.atomic
    def snapshot(self) -> None:
        self.check_sum()

    @ame.atomic(read_only=True)
    def snapshot_declared(self) -> None:
        self.check_sum()

    # --- the parts -------------------------------------------------------------------

    def note(self, who: int) -> None:
        self.parts[who].value += 1
        ame.on_commit(self.hooks[who].append, self.parts[who].value)

    def noted(self, who: int, number: int) -> None:
        """All hooks of the parts before have run, in order."""
        hooks = self.hooks[who]
        ok = len(hooks) == number and (not hooks or hooks[-1] == number)
        self.run.require(ok, lambda: f"after {number} parts the hooks of {hooks[-5:]} have run")

    def give(self, who: int, source: int, amount: int, losses: int) -> int:
        self.accounts[source].value -= amount
        self.on_way[who].value += amount
        self.check_sum()
        self.note(who)
        if stm.attempt() < losses:
            lose()
        return self.parts[who].value

    def take(self, who: int, target: int, amount: int) -> None:
        self.rests[who] += 1
        now = self.on_way[who].value
        self.run.require(now == amount, lambda: f"{now} is on the way, not {amount}")
        self.check_sum()
        self.accounts[target].value += amount
        self.on_way[who].value = 0
        self.note(who)

    def between(self, who: int, number: int) -> None:
        self.noted(who, number)
        self.run.require(not stm.in_transaction(), lambda: "a block goes on in unprotected()")
        self.snapshot()

    # --- the blocks --------------------------------------------------------------------

    @ame.atomic
    def in_function(self, who: int, plan: _Plan) -> None:
        number = self.give(who, plan.source, plan.amount, plan.losses)
        ame.split()
        self.noted(who, number)
        self.take(who, plan.target, plan.amount)
        if plan.fails:
            raise Refused

    def in_with(self, who: int, plan: _Plan) -> None:
        runs = 0
        with ame.atomic():
            runs += 1
            number = self.give(who, plan.source, plan.amount, plan.losses)
            ame.split()
            self.run.require(runs == 1, lambda: f"the first part of a block has run {runs} times")
            self.take(who, plan.target, plan.amount)
            if plan.fails:
                raise Refused
        self.run.require(number > 0, lambda: "a local of the first part is gone")

    @ame.atomic
    def unprotected(self, who: int, plan: _Plan) -> None:
        number = self.give(who, plan.source, plan.amount, plan.losses)
        with ame.unprotected():
            self.between(who, number)
            if plan.fails and plan.amount % 2:
                raise Refused
        self.take(who, plan.target, plan.amount)
        if plan.fails:
            raise Refused

    def unprotected_in_with(self, who: int, plan: _Plan) -> None:
        with ame.atomic():
            number = self.give(who, plan.source, plan.amount, plan.losses)
            with ame.unprotected():
                self.between(who, number)
                with ame.atomic():
                    self.check_sum()
            self.take(who, plan.target, plan.amount)
            ame.split()
            self.noted(who, number + 1)
            if plan.fails:
                self.accounts[plan.target].value += 1  # undone: this part alone
                raise Refused

    def plan(self, rng: random.Random) -> _Plan:
        source, target = rng.sample(range(ACCOUNTS), 2)
        losses = rng.choice([0, 0, 0, 1, 2])
        return _Plan(source, target, rng.randrange(1, 9), losses, rng.random() < 0.2)

    def step(self, who: int, rng: random.Random) -> None:
        plan = self.plan(rng)
        block = rng.choice(
            [self.in_function, self.in_with, self.unprotected, self.unprotected_in_with]
        )
        rests, parts = self.rests[who], self.parts[who].value
        cut = block == self.unprotected and plan.fails and plan.amount % 2  # in between
        try:
            block(who, plan)
        except Refused:
            self.run.require(plan.fails, lambda: f"{plan} failed")
            done = 2 if block == self.unprotected_in_with else 1
        else:
            self.run.require(not plan.fails, lambda: f"{plan} did not fail")
            done = 2
        now, ran = self.parts[who].value - parts, self.rests[who] - rests
        self.run.require(now == done, lambda: f"{now} parts are committed, not {done}: {plan}")
        self.run.require(ran == (not cut), lambda: f"the rest ran {ran} times: {plan}")
        self.noted(who, parts + done)
        if done == 1:
            self.bring_home(who, plan)
        (self.snapshot, self.snapshot_declared)[rng.randrange(2)]()

    @ame.atomic
    def bring_home(self, who: int, plan: _Plan) -> None:
        left = self.on_way[who].value
        self.run.require(left == plan.amount, lambda: f"{left} is on the way: {plan}")
        self.accounts[plan.source].value += left
        self.on_way[who].value = 0

    def bodies(self) -> Sequence[Callable[[], int]]:
        threads = range(self.run.threads)
        return [self.repeat(partial(self.step, who), f"thread {who}") for who in threads]

    def check(self) -> None:
        self.check_sum()
        for who, parts in enumerate(self.parts):
            if self.hooks[who] != list(range(1, parts.value + 1)):
                raise Violation(f"{parts.value} parts of {who}, hooks {self.hooks[who][-9:]}")


class _Plan:
    """One transfer in two parts."""

    def __init__(self, source: int, target: int, amount: int, losses: int, fails: bool) -> None:
        self.source, self.target, self.amount = source, target, amount
        self.losses, self.fails = losses, fails

    def __repr__(self) -> str:
        return f"{vars(self)}"


@ame.prepare
class Locked(Workload):
    """Code with locks and code with blocks exclude each other: x == y is never seen half-way."""

    name = "lock"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.watch = Watch(run)
        self.locks = [ame.Lock(), ame.Lock()]
        self.pairs = [(ame.Ref(0), ame.Ref(0)) for _ in self.locks]
        self.holders: list[int | None] = [None for _ in self.locks]  # plain: of locks, outside
        self.added = [[0 for _ in self.locks] for _ in range(max(2, run.threads))]

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.watch.bodies([partial(self.live, who) for who in range(len(self.added))])

    def look(self, number: int) -> int:
        x, y = self.pairs[number]
        first, second = x.value, y.value
        self.run.require(first == second, lambda: f"pair {number}: x {first}, y {second}")
        return first

    def add(self, number: int) -> None:
        x, y = self.pairs[number]
        value = self.look(number) + 1
        x.value = value  # outside of blocks: everybody sees that y is not there yet
        if not stm.in_transaction() and value % 4 == 0:
            time.sleep(1e-5)
        y.value = value
        self.look(number)

    # --- outside of blocks -----------------------------------------------------------

    def held(self, who: int, number: int, work: Callable[[], object]) -> None:
        """Do it while nobody else may hold the lock."""
        now, self.holders[number] = self.holders[number], who
        self.run.require(now is None, lambda: f"{who} and {now} both hold lock {number}")
        work()
        now, self.holders[number] = self.holders[number], None
        self.run.require(now == who, lambda: f"{now} has taken lock {number} from {who}")

    def outside(self, who: int, number: int) -> bool:
        with self.locks[number]:
            self.held(who, number, lambda: self.add(number))
        return True

    def outside_with_block(self, who: int, number: int) -> bool:
        """The block inside must not ask for the lock."""
        with self.locks[number]:
            self.held(who, number, lambda: ame.run(self.add, number))
        return True

    def impatient(self, who: int, number: int) -> bool:
        lock = self.locks[number]
        taken = lock.acquire(blocking=False) if who % 2 else lock.acquire(timeout=0.001)
        if taken:
            self.held(who, number, lambda: self.add(number))
            lock.release()
        return taken

    def handed_over(self, who: int, number: int) -> bool:
        """Taken by a block, which holds it from its commit on, and given back by another."""

        def take() -> None:
            self.locks[number].acquire()
            self.look(number)

        def give() -> None:
            self.locks[number].release()
            self.add(number)

        ame.run(take)
        self.held(who, number, lambda: self.look(number))
        ame.run(give)
        return True

    # --- in blocks -------------------------------------------------------------------

    @ame.atomic
    def inside(self, who: int, number: int) -> bool:
        with self.locks[number]:
            self.add(number)
        return True

    def inside_with(self, who: int, number: int) -> bool:
        with ame.atomic(), self.locks[number]:
            self.add(number)
            return True

    @ame.atomic
    def both(self, who: int, number: int) -> bool:
        """In any order: blocks hold nothing while they wait."""
        with self.locks[number]:
            first = self.look(number)
            with self.locks[1 - number]:
                self.look(1 - number)
                self.add(number)
            self.run.require(self.look(number) == first + 1, lambda: "what was added is gone")
        return True

    @ame.atomic
    def refused(self, who: int, number: int) -> bool:
        """An exception leaves the lock and undoes what was done."""

        def inner() -> None:
            with self.locks[number]:
                self.add(number)
                raise Refused

        try:
            ame.run(inner)
        except Refused:
            with self.locks[number]:
                self.look(number)
        return False

    @ame.atomic(read_only=True)
    def reading(self, who: int, number: int) -> bool:
        with self.locks[number]:
            self.look(number)
        return False

    def live(self, who: int, progress: Callable[[], None]) -> None:
        rng = self.run.rng(f"thread {who}")
        ways = [self.outside, self.outside_with_block, self.impatient, self.handed_over]
        blocks = [self.inside, self.inside_with, self.both, self.refused, self.reading]
        for _ in self.watch.turns():
            number = rng.randrange(len(self.locks))
            way = rng.choice(ways if rng.random() < 0.4 else blocks)
            self.added[who][number] += way(who, number)
            progress()

    def check(self) -> None:
        for number, pair in enumerate(self.pairs):
            total = sum(added[number] for added in self.added)
            values = [ref.value for ref in pair]
            if values != [total, total] or self.locks[number].locked():
                raise Violation(f"pair {number} is {values} after {total} additions")
