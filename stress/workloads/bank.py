"""Money that moves and never gets more or less: over Refs, a Dict, with large readers, with I/O."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence

import ame
import stm
from stress.runner import Run, Violation, Workload

ACCOUNTS = 40
START = 100
ATTEMPTS = 4  # three lost ones, and a protected one that can't lose


class NotEnough(Exception):
    """The account that is to give has less: undoes the transfer."""


class BankRefs(Workload):
    """The sum is the same in every snapshot; nobody is below zero."""

    name = "bank-refs"
    size = ACCOUNTS

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.accounts = [ame.Ref(START) for _ in range(self.size)]

    def give(self, number: int, amount: int) -> int:
        """Add to an account and return what it has then."""
        account = self.accounts[number]
        account.value += amount
        return account.value

    def balances(self) -> list[int]:
        return [account.value for account in self.accounts]

    @ame.atomic
    def transfer(self, source: int, target: int, amount: int) -> None:
        """Gives first: what an exception has to undo."""
        self.give(target, amount)
        if self.give(source, -amount) < 0:
            raise NotEnough

    def check_sum(self) -> int:
        balances = self.balances()
        total = START * self.size
        ok = sum(balances) == total and min(balances) >= 0
        self.run.require(ok, lambda: f"the sum is {sum(balances)}, not {total}: {balances}")
        return sum(balances)

    @ame.atomic
    def snapshot(self) -> None:
        self.check_sum()

    @ame.atomic(read_only=True)
    def snapshot_declared(self) -> None:
        self.check_sum()

    def move(self, rng: random.Random) -> None:
        source, target = rng.sample(range(self.size), 2)
        with contextlib.suppress(NotEnough):
            self.transfer(source, target, rng.randrange(1, START))

    def step(self, rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.8:
            self.move(rng)
        elif kind < 0.88:
            self.snapshot()
        elif kind < 0.96:
            self.snapshot_declared()
        else:
            with ame.atomic():
                self.check_sum()

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.many(self.step)

    def check(self) -> None:
        self.check_sum()


class BankDict(BankRefs):
    """The same over a Dict whose accounts open with the first coin and close with the last."""

    name = "bank-dict"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.money: ame.Dict[int, int] = ame.Dict({n: START for n in range(self.size)})

    def give(self, number: int, amount: int) -> int:
        now = self.money.get(number, 0) + amount
        if now:
            self.money[number] = now
        else:
            del self.money[number]
        return now

    def balances(self) -> list[int]:
        by_value, by_item = list(self.money.values()), dict(self.money.items())
        self.run.require(
            by_value == list(by_item.values()) and len(self.money) == len(by_item),
            lambda: f"values {by_value}, items {by_item}, length {len(self.money)}",
        )
        return by_value


class LargeReaders(BankRefs):
    """A transaction that reads thousands and then writes ends within its attempts."""

    name = "large-readers"
    size = 3000

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.seen = ame.Ref(0)
        self.audits = ame.Ref(0)

    @ame.atomic
    def audit(self) -> None:
        attempt = stm.attempt()
        self.run.require(attempt < ATTEMPTS, lambda: f"attempt number {attempt} of a reader")
        self.seen.value = self.check_sum()
        self.audits.value += 1

    @ame.atomic
    def rewrite(self) -> None:
        """Move one from each account to the next: reads and writes all of them."""
        attempt = stm.attempt()
        self.run.require(attempt < ATTEMPTS, lambda: f"attempt number {attempt} of a rewriter")
        for number in range(self.size):
            self.give(number, 1)
        for account in self.accounts:
            account.value -= 1
        self.check_sum()

    def read(self, rng: random.Random) -> None:
        kind = rng.randrange(4)
        (self.snapshot, self.snapshot_declared, self.audit, self.rewrite)[kind]()

    def bodies(self) -> Sequence[Callable[[], int]]:
        readers = max(1, self.run.threads // 2)
        writers = self.many(self.move, spare=readers)
        return [*writers, *(self.repeat(self.read, f"reader {n}") for n in range(readers))]


class IrrevocableMix(BankRefs):
    """What follows `ame.irrevocable()` happens exactly once per block that commits."""

    name = "irrevocable-mix"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.count = ame.Ref(0)
        self.printed: list[int] = []  # plain: keeps what a block did twice

    def say(self) -> None:
        self.count.value += 1
        self.printed.append(self.count.value)

    @ame.atomic
    def upgraded(self, source: int, target: int) -> None:
        self.give(source, -1)
        ame.irrevocable()
        self.say()
        self.give(target, 1)

    @ame.atomic(irrevocable=True)
    def from_start(self, source: int, target: int) -> None:
        self.say()
        self.give(source, -1)
        self.give(target, 1)

    def step(self, rng: random.Random) -> None:
        source, target = rng.sample(range(self.size), 2)
        kind = rng.randrange(10)
        if kind == 0:
            self.upgraded(source, target)
        elif kind == 1:
            self.from_start(source, target)
        elif kind == 2:
            with ame.atomic(irrevocable=True):
                self.say()
                self.give(source, -1)
                self.give(target, 1)
        elif kind == 3:
            self.snapshot()
        else:
            self.move(rng)

    def check_sum(self) -> int:
        """Accounts may fall below zero here."""
        total = sum(self.balances())
        self.run.require(total == START * self.size, lambda: f"the sum is {total}")
        return total

    def check(self) -> None:
        super().check()
        expected = list(range(1, self.count.value + 1))
        if self.printed != expected:
            raise Violation(
                f"{len(self.printed)} irrevocable parts ran for {len(expected)} blocks; "
                f"the last are {self.printed[-10:]}"
            )
