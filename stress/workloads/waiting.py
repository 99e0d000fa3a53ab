"""Threads that wait for each other by retry: a buffer, groups that meet, philosophers."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import ame
from stress.runner import Run, Violation, Workload
from stress.workloads.watching import Watch

Item = tuple[int, str, int]  # producer, channel, its number among those of both
Progress = Callable[[], None]

_CHANNELS = ("slots", "keys")
_EARLY_S = 1e-3  # of a timer that may be coarse
_END: Final = (-1, "", -1)


class _Channel(ABC):
    """A queue that has no place for more than `capacity`; whoever finds none waits."""

    @abstractmethod
    def put(self, item: Item, timeout: float | None) -> None: ...

    @abstractmethod
    def take(self, timeout: float | None) -> Item: ...


class _Slots(_Channel):
    """A ring of Refs.  Writes first and looks then: waiting has something to undo."""

    def __init__(self, capacity: int) -> None:
        self.slots = [ame.Ref[Item | None](None) for _ in range(capacity)]
        self.first, self.last = ame.Ref(0), ame.Ref(0)

    def put(self, item: Item, timeout: float | None) -> None:
        place = self.slots[self.last.value % len(self.slots)]
        self.last.value += 1
        was, place.value = place.value, item
        if was is not None:
            ame.retry(timeout=timeout)

    def take(self, timeout: float | None) -> Item:
        place = self.slots[self.first.value % len(self.slots)]
        self.first.value += 1
        item, place.value = place.value, None
        if item is None:
            ame.retry(timeout=timeout)
        return item


class _Keys(_Channel):
    """The first and last key of a Dict, which keeps the order of the commits."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items: ame.Dict[tuple[int, int], Item] = ame.Dict()

    def put(self, item: Item, timeout: float | None) -> None:
        ame.block_until(lambda: len(self.items) < self.capacity, timeout=timeout)
        self.items[item[0], item[2]] = item

    def take(self, timeout: float | None) -> Item:
        for key in self.items:
            return self.items.pop(key)
        ame.retry(timeout=timeout)


@ame.prepare
class Buffer(Workload):
    """Each item is taken once, in the order of its producer and channel; nobody sleeps on."""

    name = "buffer"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.watch = Watch(run)
        capacity = run.rng("capacity").choice([1, 1, 2, 5])
        self.channels: dict[str, _Channel] = {"slots": _Slots(capacity), "keys": _Keys(capacity)}
        self.hurry = run.rng("hurry").choice([0, 0, 0.3])  # without: nothing hides a lost wake-up
        self.producers = max(1, run.threads // 2)
        self.consumers = max(1, run.threads - self.producers)
        self.active = ame.Ref(self.producers)
        self.sent: ame.Dict[tuple[int, str], int] = ame.Dict()  # the last number
        self.seen: ame.Dict[tuple[int, str], int] = ame.Dict()
        self.put_items: list[Item] = []
        self.taken: list[list[Item]] = [[] for _ in range(self.consumers)]

    def bodies(self) -> Sequence[Callable[[], int]]:
        lives = [partial(self.produce, who) for who in range(self.producers)]
        lives += [partial(self.consume, who) for who in range(self.consumers)]
        return self.watch.bodies(lives)

    # --- putting ------------------------------------------------------------------

    def put(self, who: int, channel: str, timeout: float | None) -> Item:
        self.watch.go_on()
        number = self.sent.get((who, channel), 0) + 1
        self.sent[who, channel] = number
        item = who, channel, number
        self.channels[channel].put(item, timeout)
        return item

    @ame.atomic
    def put_into(self, who: int, channel: str, timeout: float | None) -> Item:
        return self.put(who, channel, timeout)

    def put_anywhere(self, who: int, channels: Sequence[str], timeout: float | None) -> Item:
        first, second = channels
        return ame.or_else(
            lambda: self.put(who, first, None), lambda: self.put(who, second, timeout)
        )

    def put_in_with(self, who: int, channel: str, timeout: float | None) -> Item:
        with ame.atomic():
            return self.put(who, channel, timeout)

    def produce(self, who: int, progress: Progress) -> None:
        rng = self.run.rng(f"producer {who}")
        while not self.run.over():
            channels = rng.sample(_CHANNELS, 2)
            timeout = self.timeout(rng)
            put: Callable[[float | None], Item] = rng.choice(
                [
                    lambda timeout, channels=channels: self.put_into(who, channels[0], timeout),
                    lambda timeout, channels=channels: self.put_anywhere(who, channels, timeout),
                    lambda timeout, channels=channels: self.put_in_with(who, channels[0], timeout),
                ]
            )
            item = self.within(timeout, put)
            if item is not None:
                self.put_items.append(item)
                progress()  # who times out for ever has not got on
            if rng.random() < 0.002:
                time.sleep(0.002)  # all others sleep by then
        self.active.update(lambda active: active - 1)

    # --- taking -------------------------------------------------------------------

    def take(self, channel: str, timeout: float | None = None) -> Item:
        item = self.channels[channel].take(timeout)
        who, of, number = item
        last = self.seen.get((who, of), 0)
        ok = number == last + 1 and of == channel
        self.run.require(ok, lambda: f"{item} came out of {channel} after number {last}")
        self.seen[who, of] = number
        return item

    def end(self, timeout: float | None) -> Item:
        if self.active.value:
            ame.retry(timeout=timeout)
        return _END

    def take_any(self, channels: Sequence[str], timeout: float | None) -> list[Item]:
        self.watch.go_on()
        takes = [partial(self.take, channel) for channel in channels]
        return [ame.or_else(*takes, lambda: self.end(timeout))]

    @ame.atomic
    def take_one(self, channels: Sequence[str], timeout: float | None) -> list[Item]:
        return self.take_any(channels, timeout)

    @ame.atomic
    def take_two(self, channels: Sequence[str], timeout: float | None) -> list[Item]:
        items = self.take_any(channels, timeout)
        more = [partial(self.take, channel) for channel in channels]
        return [*items, ame.or_else(*more, lambda: _END)]

    def take_in_with(self, channels: Sequence[str], timeout: float | None) -> list[Item]:
        items: list[Item] = []
        with ame.atomic():
            items = items + self.take_any(channels, timeout)
            return items

    def consume(self, who: int, progress: Progress) -> None:
        rng = self.run.rng(f"consumer {who}")
        ended = False
        while not ended:
            channels = rng.sample(_CHANNELS, 2)
            timeout = self.timeout(rng)
            take = rng.choice([self.take_one, self.take_two, self.take_in_with])
            items = self.within(timeout, partial(take, channels)) or []
            ended = items[:1] == [_END]
            self.taken[who] += [item for item in items if item is not _END]
            if items:
                progress()

    def timeout(self, rng: random.Random) -> float | None:
        return rng.choice([0.0, 1e-4, 2e-3]) if rng.random() < self.hurry else None

    def within(self, timeout: float | None, wait: Callable[[float | None], Any]) -> Any:
        """Return what it returns, or None if it ends with its timeout, and no earlier."""
        began = time.monotonic()
        try:
            return wait(timeout)
        except ame.TransactionTimeout:
            took = time.monotonic() - began
            ok = timeout is not None and took >= timeout - _EARLY_S
            self.run.require(ok, lambda: f"a wait of {timeout} s ended after {took:.4f} s")
            return None

    def check(self) -> None:
        taken = [item for items in self.taken for item in items]
        if sorted(taken) != sorted(self.put_items):
            lost = set(self.put_items) - set(taken)
            more = set(taken) - set(self.put_items)
            raise Violation(
                f"{len(self.put_items)} items were put and {len(taken)} taken; lost: "
                f"{sorted(lost)[:10]}, from nowhere: {sorted(more)[:10]}"
            )
        for items in self.taken:
            last: dict[tuple[int, str], int] = {}
            for who, channel, number in items:
                if last.get((who, channel), 0) >= number:
                    raise Violation(f"{channel} of {who}: {number} after {last[who, channel]}")
                last[who, channel] = number


@ame.prepare
class Rendezvous(Workload):
    """Groups form in a hall and pass tokens round a table: none leaves before all have come."""

    name = "rendezvous"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.watch = Watch(run)
        self.size = run.rng("size").choice([2, 2, 3])
        self.members = max(self.size, run.threads)
        self.active = ame.Ref(self.members)
        self.hall: ame.Ref[tuple[int, ...]] = ame.Ref(())
        self.groups = ame.Ref(0)
        self.places: ame.Dict[int, tuple[int, tuple[int, ...]]] = ame.Dict()  # of a member
        self.table: ame.Dict[tuple[int, int], int | None] = ame.Dict()  # None: taken
        self.tokens = [ame.Ref[int | None](who) for who in range(self.members)]
        self.present = [0] * self.members  # plain: the number of its group, while it is there
        self.met = ame.Ref(0)

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.watch.bodies([partial(self.live, who) for who in range(self.members)])

    @ame.atomic
    def arrive(self, who: int) -> None:
        waiting = (*self.hall.value, who)
        if len(waiting) == self.size:
            self.groups.value += 1
            for member in waiting:
                self.places[member] = self.groups.value, waiting
            waiting = ()
        self.hall.value = waiting

    def find_group(self, who: int) -> tuple[int, tuple[int, ...]] | None:
        """Wait for a group; None: there are too few for one."""
        with ame.atomic():
            self.watch.go_on()
            place = self.places.pop(who, None)
            if place is not None:
                return place
            if self.active.value >= self.size:
                ame.retry()
            self.hall.value = tuple(member for member in self.hall.value if member != who)
            return None

    @ame.atomic
    def lay_down(self, group: int, who: int) -> None:
        self.table[group, who] = self.tokens[who].value
        self.tokens[who].value = None

    @ame.atomic
    def pick_up(self, group: int, members: tuple[int, ...], who: int) -> None:
        """Wait for all of the group, and take what the next one has laid down."""
        self.watch.go_on()
        for member in members:
            if (group, member) not in self.table:
                ame.retry()
        giver = members[(members.index(who) + 1) % self.size]
        token, self.table[group, giver] = self.table[group, giver], None
        ok = token is not None and self.tokens[who].value is None
        self.run.require(ok, lambda: f"{who} has got token {token} of {giver}")
        self.tokens[who].value = token
        self.met.value += 1
        if all(self.table[group, member] is None for member in members):  # the last to leave
            for member in members:
                del self.table[group, member]

    def live(self, who: int, progress: Progress) -> None:
        last: int | None = 0
        while last is not None and not self.run.over():
            self.arrive(who)
            last = self.meet(who, last)
            progress()
        self.active.update(lambda active: active - 1)

    def meet(self, who: int, last: int) -> int | None:
        """Return the number of the group."""
        place = self.find_group(who)
        if place is None:
            return None
        group, members = place
        ok = who in members and len(set(members)) == self.size and group > last
        self.run.require(ok, lambda: f"{who} is in group {place} after {last}")
        self.present[who] = group
        self.lay_down(group, who)
        self.pick_up(group, members, who)
        came = [self.present[member] for member in members]
        self.run.require(min(came) >= group, lambda: f"{who} has left {place}, at {came}")
        return group

    def check(self) -> None:
        tokens = {token.value for token in self.tokens}
        met, groups = self.met.value, self.groups.value
        left = dict(self.table), dict(self.places), self.hall.value
        if tokens != set(range(self.members)) or met != groups * self.size or any(left):
            raise Violation(f"tokens {tokens}, {met} met in {groups} groups, left over: {left}")


class Philosophers(Workload):
    """Who has both forks is the only one: neighbours never eat at once, and all get on."""

    name = "philosophers"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.watch = Watch(run)
        self.seats = max(2, run.threads)
        self.forks = [ame.Ref[int | None](None) for _ in range(self.seats)]
        self.in_use: list[int | None] = [None] * self.seats  # plain: the forks keep others out
        self.meals = [ame.Ref(0) for _ in range(self.seats)]
        self.eaten = [0] * self.seats

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.watch.bodies([partial(self.live, who) for who in range(self.seats)])

    def take(self, who: int, fork: int) -> None:
        self.watch.go_on()
        was, self.forks[fork].value = self.forks[fork].value, who
        if was is not None:
            ame.retry()

    @ame.atomic
    def take_both(self, who: int, forks: Sequence[int]) -> None:
        for fork in forks:
            self.take(who, fork)

    @ame.atomic
    def try_both(self, who: int, forks: Sequence[int]) -> bool:
        def both() -> bool:
            for fork in forks:
                ame.run(self.take, who, fork)
            return True

        return ame.or_else(both, lambda: False)

    @ame.atomic
    def put_back(self, who: int, forks: Sequence[int]) -> None:
        for fork in forks:
            now = self.forks[fork].value
            self.run.require(now == who, lambda: f"fork {fork} of {who} is with {now}")  # noqa: B023
            self.forks[fork].value = None
        self.meals[who].value += 1

    def live(self, who: int, progress: Progress) -> None:
        rng = self.run.rng(f"seat {who}")
        for _ in self.watch.turns():
            forks = [who, (who + 1) % self.seats]
            rng.shuffle(forks)  # in any order: nobody holds one while waiting for the other
            if rng.random() < 0.7:
                self.take_both(who, forks)
            elif not self.try_both(who, forks):
                continue
            self.eat(who, forks, rng)
            self.put_back(who, forks)
            progress()

    def eat(self, who: int, forks: Sequence[int], rng: random.Random) -> None:
        for fork in forks:
            now = self.in_use[fork]
            self.run.require(now is None, lambda: f"{who} and {now} eat with fork {fork}")  # noqa: B023
            self.in_use[fork] = who
        for _ in range(rng.randrange(50)):
            pass
        for fork in forks:
            self.in_use[fork] = None
        self.eaten[who] += 1

    def check(self) -> None:
        held = [fork.value for fork in self.forks]
        meals = [meal.value for meal in self.meals]
        if meals != self.eaten or any(owner is not None for owner in held):
            raise Violation(f"forks held by {held}, meals {meals}, eaten {self.eaten}")
