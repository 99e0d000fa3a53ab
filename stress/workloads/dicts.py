"""Dicts whose keys come and go: what an iteration sees, and what is protected by being absent."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import ame
from stress.runner import Run, Workload

KEYS = 48
FAR = 1 << 40  # absent keys are looked up below that


class DictChurn(Workload):
    """Length, membership and iteration agree; the order is that of the insertions.

    A value is who inserted it, a number that grows with each insertion of that thread, and for some
    a ticket: a number that grows with each insertion of all threads.
    """

    name = "dict-churn"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.items: ame.Dict[int, tuple[int, int, int]] = ame.Dict()
        self.tickets = ame.Ref(0)

    @ame.atomic
    def toggle(self, key: int, who: int, number: int, *, ticket: bool) -> None:
        if key in self.items:
            del self.items[key]
        else:
            self.insert(key, who, number, ticket=ticket)

    @ame.atomic
    def move_to_end(self, key: int, who: int, number: int) -> None:
        if self.items.pop(key, None) is not None:
            self.insert(key, who, number, ticket=True)

    def insert(self, key: int, who: int, number: int, *, ticket: bool) -> None:
        taken = -1
        if ticket:
            self.tickets.value += 1
            taken = self.tickets.value
        self.items[key] = (who, number, taken)

    @ame.atomic
    def look(self) -> None:
        items = self.items
        keys = list(items)
        pairs = list(items.items())
        require = self.run.require
        require(len(keys) == len(items), lambda: f"len {len(items)}, but {len(keys)} keys: {keys}")
        require(len(set(keys)) == len(keys), lambda: f"a key twice: {keys}")
        require(keys == [key for key, _ in pairs], lambda: f"keys {keys}, items {pairs}")
        require(keys == list(reversed(items))[::-1], lambda: f"reversed differs from {keys}")
        missing = [key for key, value in pairs if items.get(key) != value]
        require(not missing, lambda: f"in the iteration, but not there: {missing}")
        extra = [key for key in range(KEYS) if key in items and key not in keys]
        require(not extra, lambda: f"there, but not in the iteration: {extra}")
        self._check_order([value for _, value in pairs])

    def _check_order(self, values: list[tuple[int, int, int]]) -> None:
        tickets = [ticket for _, _, ticket in values if ticket >= 0]
        self.run.require(
            all(a < b for a, b in pairwise(tickets)),
            lambda: f"not in the order of insertion: tickets {tickets}",
        )
        last: dict[int, int] = {}
        for who, number, _ in values:
            self.run.require(
                last.get(who, -1) < number,
                lambda: f"not in the order of insertion of one thread: {values}",
            )
            last[who] = number

    def bodies(self) -> Sequence[Callable[[], int]]:
        return [self.body(who) for who in range(self.run.threads)]

    def body(self, who: int) -> Callable[[], int]:
        serial = 0

        def step(rng: random.Random) -> None:
            nonlocal serial
            serial += 1
            kind = rng.randrange(12)
            if kind < 8:
                self.toggle(rng.randrange(KEYS), who, serial, ticket=kind < 3)
            elif kind == 8:
                self.move_to_end(rng.randrange(KEYS), who, serial)
            elif kind == 9 and rng.random() < 0.05:
                self.items.clear()
            elif kind == 10:
                with ame.atomic():
                    self.look()
            else:
                self.look()

        return self.repeat(step, f"thread {who}")

    def check(self) -> None:
        self.look()


class AbsentKeys(Workload):
    """Of two keys at most one is there: who inserts one has seen that the other is absent.

    Looking up keys that are absent leaves entries that are swept when the index grows: while
    others insert, and while blocks that rely on the absence run.
    """

    name = "absent-keys"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.items: ame.Dict[int, int] = ame.Dict()

    @ame.atomic
    def switch(self, number: int, side: int, far: list[int]) -> None:
        key, other = 2 * number + side, 2 * number + 1 - side
        there = [absent for absent in far if absent in self.items]
        self.run.require(not there, lambda: f"never inserted, but there: {there}")
        if key in self.items:
            del self.items[key]
        elif other not in self.items:
            self.items[key] = number

    @ame.atomic
    def look(self) -> None:
        there = set(self.items)
        both = [n for n in range(KEYS) if 2 * n in there and 2 * n + 1 in there]
        self.run.require(not both, lambda: f"both keys of a pair are there: {both}")
        self.run.require(len(there) == len(self.items), lambda: f"{len(self.items)} of {there}")

    def step(self, rng: random.Random) -> None:
        if rng.random() < 0.9:
            far = [rng.randrange(2 * KEYS, FAR) for _ in range(rng.choice((0, 1, 1, 8, 40)))]
            self.switch(rng.randrange(KEYS), rng.randrange(2), far)
        else:
            self.look()

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.many(self.step)

    def check(self) -> None:
        self.look()
