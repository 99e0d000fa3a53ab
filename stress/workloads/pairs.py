"""Invariants over two Refs: always equal, and a condition that each write checks on both."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import ame
from stress.runner import Run, Workload

PAIRS = 6


class Pairs(Workload):
    """x == y in every attempt, also in those that are thrown away."""

    name = "pairs"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.pairs = [(ame.Ref(0), ame.Ref(0)) for _ in range(PAIRS)]
        self.out = ame.Ref(0)

    def look(self, number: int) -> int:
        x, y = self.pairs[number]
        first = x.value
        second = y.value
        again = x.value
        self.run.require(
            first == second == again,
            lambda: f"pair {number}: x was {first}, then y {second}, then x {again}",
        )
        return first

    @ame.atomic
    def write(self, numbers: Sequence[int], *, y_first: bool) -> None:
        for number in numbers:
            value = self.look(number) + 1
            x, y = self.pairs[number]
            for ref in (y, x) if y_first else (x, y):
                ref.value = value
            self.look(number)

    @ame.atomic
    def read(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.look(number)

    @ame.atomic
    def read_after_write(self, numbers: Sequence[int]) -> None:
        """An attempt that has written can't go on as a reader of an old snapshot."""
        self.out.value += 1
        for number in numbers:
            self.look(number)

    @ame.atomic
    def swallow(self, numbers: Sequence[int]) -> None:
        """What the abort raises is caught: the attempt must still come to nothing."""
        try:  # noqa: SIM105 (the bare `except:` is the point)
            self.write(numbers, y_first=False)
        except:  # noqa: E722
            pass
        try:  # noqa: SIM105
            self.read(numbers)
        except:  # noqa: E722
            pass

    def step(self, rng: random.Random) -> None:
        numbers = rng.sample(range(PAIRS), rng.randrange(1, PAIRS))
        kind = rng.randrange(8)
        if kind < 3:
            self.write(numbers, y_first=kind == 0)
        elif kind < 5:
            self.read(numbers)
        elif kind == 5:
            self.read_after_write(numbers)
        elif kind == 6:
            self.swallow(numbers)
        else:
            with ame.atomic():
                self.read(numbers)
                self.write(numbers[:1], y_first=True)

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.many(self.step)

    def check(self) -> None:
        for number in range(PAIRS):
            self.look(number)


class WriteSkew(Workload):
    """Who takes 5 from one account has seen both, and the other has not been taken from."""

    name = "write-skew"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.pairs = [(ame.Ref(5), ame.Ref(0)) for _ in range(PAIRS)]

    def total(self, number: int) -> int:
        a, b = self.pairs[number]
        total = a.value + b.value
        self.run.require(total in {0, 5}, lambda: f"pair {number}: the total is {total}")
        return total

    @ame.atomic
    def toggle(self, number: int, side: int) -> None:
        """Take 5 from either side if both have 5 together, else give 5 to it."""
        amount = -5 if self.total(number) == 5 else 5
        self.pairs[number][side].value += amount

    @ame.atomic
    def look(self) -> None:
        for number in range(PAIRS):
            self.total(number)

    def step(self, rng: random.Random) -> None:
        if rng.random() < 0.9:
            self.toggle(rng.randrange(PAIRS), rng.randrange(2))
        else:
            self.look()

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.many(self.step)

    def check(self) -> None:
        self.look()
