"""Records what every attempt reads and writes, and has the checker look for an order.

Every attempt, also one that is lost, leaves a record in a plain list of its thread: its first read
and last write of each key, with values that nobody else writes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import ame
from stress.checker import Transaction, chains_are_whole, check
from stress.runner import Run, Violation, Workload

KEYS = 8
MOST = 10_000  # blocks of a thread: what the checker does in a second or two

_Plan = list[tuple[int, bool]]  # key, and whether it is also written


class Undo(Exception):
    """Undoes a block on purpose."""


class HistoryRefs(Workload):
    """The history of all attempts is strictly serializable, the lost ones included."""

    name = "history-refs"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.make()
        self.histories: list[list[Transaction]] = [[] for _ in range(run.threads)]

    def make(self) -> None:
        self.refs = [ame.Ref[Any](("start", key)) for key in range(KEYS)]

    def get(self, key: int) -> Any:
        return self.refs[key].value

    def set(self, key: int, value: Any) -> None:
        self.refs[key].value = value

    def get_all(self) -> dict[int, Any]:
        return {key: self.get(key) for key in range(KEYS)}

    def read(self, one: Transaction, key: int, value: Any) -> None:
        expected = one.writes.get(key, one.reads.get(key, value))
        self.run.require(
            value == expected,
            lambda: f"{one.name} reads {value!r} of {key}, where it had {expected!r}",
        )
        one.reads.setdefault(key, value)

    def attempt(
        self, history: list[Transaction], name: str, began: int, plan: _Plan, extra: str
    ) -> None:
        name = f"{name}.{len(history)}"
        one = Transaction(name, committed=False, began=began)
        history.append(one)
        for number, (key, writes) in enumerate(plan):
            self.read(one, key, self.get(key))
            if writes:
                value = (name, number)
                one.writes[key] = value
                self.set(key, value)
            if extra == "irrevocable" and number == 0:
                ame.irrevocable()
        if extra == "all":
            for key, value in self.get_all().items():
                self.read(one, key, value)
        if extra == "undo":
            raise Undo

    block = ame.atomic(attempt)
    block_declared = ame.atomic(read_only=True)(attempt)

    def step(self, rng: random.Random, history: list[Transaction], name: str) -> None:
        keys = [rng.randrange(KEYS) for _ in range(rng.randrange(1, 6))]
        extra = rng.choice(("", "", "", "all", "undo", "irrevocable"))
        kind = rng.randrange(10)
        plan = [(key, kind < 7 and rng.random() < 0.5) for key in keys]
        began = time.perf_counter_ns()
        try:
            if kind == 9 and extra != "irrevocable":
                self.block_declared(history, name, began, plan, extra)
            elif kind == 8:
                with ame.atomic():
                    self.attempt(history, name, began, plan, extra)
            elif kind == 7:
                self.attempt(history, name, began, plan[:1], "")  # one read without a block
            else:
                self.block(history, name, began, plan, extra)
        except Undo:
            return
        history[-1].committed = True
        history[-1].ended = time.perf_counter_ns()

    def bodies(self) -> Sequence[Callable[[], int]]:
        return [self.body(who) for who in range(self.run.threads)]

    def body(self, who: int) -> Callable[[], int]:
        rng = self.run.rng(f"thread {who}")
        history = self.histories[who]

        def body() -> int:
            count = 0
            while count < MOST and not self.run.over():
                self.step(rng, history, f"thread {who} block {count}")
                count += 1
            return count

        return body

    def check(self) -> None:
        initial = {key: ("start", key) for key in range(KEYS)}
        history = [one for part in self.histories for one in part]
        problems = check(history, initial)
        problems += chains_are_whole(history, initial, self.get_all())
        if problems:
            text = "\n".join(str(problem) for problem in problems[:5])
            raise Violation(f"{len(problems)} problems in {len(history)} attempts:\n{text}")


class HistoryDict(HistoryRefs):
    """The same over the values of a Dict; some blocks read all of them by iterating."""

    name = "history-dict"

    def make(self) -> None:
        self.items: ame.Dict[int, Any] = ame.Dict({key: ("start", key) for key in range(KEYS)})

    def get(self, key: int) -> Any:
        return self.items[key]

    def set(self, key: int, value: Any) -> None:
        self.items[key] = value

    def get_all(self) -> dict[int, Any]:
        return dict(self.items.items())
