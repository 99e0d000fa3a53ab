"""Things that end while others use them: threads, values with finalizers; and no blocks at all."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import ame
import stm
from stress.runner import Run, Violation, Workload

CELLS = 8


class ThreadChurn(Workload):
    """Threads that live for a few blocks: every increment counts, and records are reused."""

    name = "thread-churn"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.count = ame.Ref(0)
        self.by_key: ame.Dict[int, int] = ame.Dict()
        self.started: list[int] = []

    @ame.atomic
    def increment(self, key: int) -> None:
        self.count.value += 1
        self.by_key[key] = self.by_key.get(key, 0) + 1

    def live(self, keys: list[int]) -> None:
        try:
            for key in keys:
                self.increment(key)
                self.started.append(key)
        except BaseException as error:
            self.run.violated(f"an unexpected exception in a short thread: {error!r}")

    def step(self, rng: random.Random) -> None:
        lives = [[rng.randrange(CELLS) for _ in range(rng.randrange(4))] for _ in range(3)]
        threads = [threading.Thread(target=self.live, args=(keys,)) for keys in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.many(self.step)

    def check(self) -> None:
        expected = Counter(self.started)
        if dict(self.by_key) != expected or self.count.value != expected.total():
            raise Violation(
                f"{expected.total()} increments, but the count is {self.count.value} and by key "
                f"{dict(self.by_key)}, not {dict(expected)}"
            )


class _Value:
    """Says when it ends, and then runs a transaction of its own."""

    __slots__ = ("__weakref__", "name", "workload")

    def __init__(self, workload: Finalizers, name: tuple[int, int]) -> None:
        self.workload = workload
        self.name = name
        workload.born.append(name)

    def __del__(self) -> None:
        self.workload.ended.append(self.name)
        self.workload.touched.value += 1


class Finalizers(Workload):
    """Every value ends exactly once, also those that only lost attempts have seen."""

    name = "finalizers"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.born: list[tuple[int, int]] = []
        self.ended: list[tuple[int, int]] = []
        self.touched = ame.Ref(0)
        self.refs: list[ame.Ref[_Value | None]] = [ame.Ref(None) for _ in range(CELLS)]
        self.items: ame.Dict[int, _Value] = ame.Dict()
        self.serials = [0] * run.threads

    def new(self, who: int) -> _Value:
        self.serials[who] += 1
        return _Value(self, (who, self.serials[who]))

    @ame.atomic
    def replace(self, who: int, number: int) -> None:
        self.refs[number].value = self.new(who)
        self.items[number] = self.new(who)

    @ame.atomic
    def move(self, number: int, other: int) -> None:
        a, b = self.refs[number], self.refs[other]
        a.value, b.value = b.value, a.value
        value = self.items.pop(number, None)
        if value is not None:
            self.items[other] = value

    @ame.atomic
    def look(self) -> None:
        for ref in self.refs:
            value = ref.value
            ok = value is None or value.workload is self
            self.run.require(ok, lambda: "a value that has ended is still there")

    def bodies(self) -> Sequence[Callable[[], int]]:
        return [self.body(who) for who in range(self.run.threads)]

    def body(self, who: int) -> Callable[[], int]:
        def step(rng: random.Random) -> None:
            kind = rng.randrange(10)
            number, other = rng.sample(range(CELLS), 2)
            if kind < 4:
                self.replace(who, number)
            elif kind < 7:
                self.move(number, other)
            elif kind == 7:
                self.refs[number].value = self.new(who)
            elif kind == 8:
                self.items.pop(number, None)
            else:
                self.look()

        return self.repeat(step, f"thread {who}")

    def check(self) -> None:
        for ref in self.refs:
            ref.value = None
        self.items.clear()
        for _ in range(3):
            stm.collect()
            gc.collect()
        twice = [name for name, count in Counter(self.ended).items() if count > 1]
        unknown = set(self.ended) - set(self.born)
        never = set(self.born) - set(self.ended)
        if twice or unknown or never:
            raise Violation(
                f"of {len(self.born)} values, ended twice: {twice[:10]}; never: "
                f"{sorted(never)[:10]} ({len(never)}); not born: {sorted(unknown)[:10]}"
            )


class Outside(Workload):
    """Single operations without a block are transactions: none is lost, none is seen half."""

    name = "outside"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.count = ame.Ref(0)
        self.pair = ame.Ref((0, 0))
        self.items: ame.Dict[int, int] = ame.Dict()
        self.pool: ame.Dict[tuple[int, int], int] = ame.Dict()
        self.put: list[tuple[int, int]] = []
        self.taken: list[tuple[int, int]] = []
        self.updates: list[int] = []

    @ame.atomic
    def in_block(self) -> None:
        a, b = self.pair.value
        self.run.require(a == b, lambda: f"half a pair: {a}, {b}")
        self.pair.value = (a + 1, b + 1)
        self.count.value += 1

    def bodies(self) -> Sequence[Callable[[], int]]:
        return [self.body(who) for who in range(self.run.threads)]

    def body(self, who: int) -> Callable[[], int]:
        serial = last = 0

        def step(rng: random.Random) -> None:
            nonlocal serial, last
            serial += 1
            if rng.random() < 0.5:
                self.count.update(lambda value: value + 1)
            else:
                self.in_block()
            self.updates.append(1)
            now = self.count.value
            self.run.require(now > last, lambda: f"the count went from {last} to {now}")
            last = now
            self.own_key(who, serial)
            self.give_and_take(who, serial, rng)

        return self.repeat(step, f"thread {who}")

    def own_key(self, who: int, serial: int) -> None:
        """Nobody else touches this key."""
        self.items[who] = serial
        seen = self.items[who]
        self.run.require(seen == serial, lambda: f"thread {who} wrote {serial} and read {seen}")
        if serial % 5 == 0:
            del self.items[who]
            self.run.require(who not in self.items, lambda: f"{who} is there after del")

    def give_and_take(self, who: int, serial: int, rng: random.Random) -> None:
        """Who pops a key is the only one who gets it."""
        self.pool[who, serial] = serial
        self.put.append((who, serial))
        for name in list(self.pool)[:3]:
            if self.pool.pop(name, None) is not None:
                self.taken.append(name)

    def check(self) -> None:
        if self.count.value != len(self.updates):
            raise Violation(f"{len(self.updates)} updates, but the count is {self.count.value}")
        there = Counter(self.taken) + Counter(list(self.pool))
        if there != Counter(self.put):
            wrong = (there - Counter(self.put)) + (Counter(self.put) - there)
            raise Violation(f"popped twice or lost: {list(wrong.items())[:10]}")
