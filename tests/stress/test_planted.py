"""Each workload of waiting, nesting and parts reports the bug that is planted here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

import ame
from stress.runner import Run, Workload, run_workload
from stress.workloads import watching
from stress.workloads.nesting import Nested, Refused, WithBlocks
from stress.workloads.parts import Locked, Split
from stress.workloads.waiting import Buffer, Item, Philosophers, Rendezvous, _Slots

SECONDS = 20.0  # at most: a violation ends the run


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """With the GIL: switch threads in the middle of blocks."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class HooksAtOnce(WithBlocks):
    """Does in the block what belongs into a hook."""

    name = "hooks-at-once"

    def end(self, who: int, plan) -> None:  # type: ignore[no-untyped-def]
        self.ledgers[who].done.append(plan.number)
        super().end(who, plan)


@ame.prepare
class LocalsOfEachAttempt(WithBlocks):
    """Keeps in a plain object what should be a local."""

    name = "locals-of-each-attempt"

    def blocks(self, who: int, plans) -> list[object]:  # type: ignore[no-untyped-def]
        trail: list[object] = []
        for plan in plans:
            try:
                with ame.atomic():
                    trail.append(plan.number)
                    self.begin(who, plan)
                    self.end(who, plan)
                    if plan.way == "raise":
                        raise Refused
            except Refused:
                pass
        numbers = [plan.number for plan in plans]
        self.run.require(trail == numbers, lambda: f"a list of each attempt: {trail}")
        expected, _ = self.expected(plans, returns=True)
        return expected


class NotNested(Nested):
    """A function in place of a nested block: what it wrote stays when it fails."""

    name = "not-nested"

    def in_function(self, body: Callable[[], None]) -> None:  # type: ignore[override]
        if ame.in_transaction():
            body()
        else:
            super().in_function(body)


class _Overwriting(_Slots):
    def put(self, item: Item, timeout: float | None) -> None:
        self.slots[self.last.value % len(self.slots)].value = item
        self.last.value += 1


class Overwrites(Buffer):
    """Puts where there is no place."""

    name = "overwrites"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.channels["slots"] = _Overwriting(1)


class SleepsOn(Buffer):
    """Consumers that nobody wakes when the producers have ended."""

    name = "sleeps-on"

    def end(self, timeout: float | None) -> tuple[int, str, int]:
        ame.retry()


class LeavesEarly(Rendezvous):
    """Takes what the next one has laid down, or nothing."""

    name = "leaves-early"

    @ame.atomic
    def pick_up(self, group: int, members: tuple[int, ...], who: int) -> None:
        giver = members[(members.index(who) + 1) % self.size]
        if self.table.get((group, giver)) is None:
            return
        self.tokens[who].value, self.table[group, giver] = self.table[group, giver], None


class Grabs(Philosophers):
    """Takes the second fork whoever has it."""

    name = "grabs"

    @ame.atomic
    def take_both(self, who: int, forks) -> None:  # type: ignore[no-untyped-def,override]
        self.take(who, forks[0])
        self.forks[forks[1]].value = who


class RestTwice(Split):
    """The rest of a block is done by a block of its own, and then once more."""

    name = "rest-twice"

    @ame.atomic
    def in_function(self, who: int, plan) -> None:  # type: ignore[no-untyped-def,override]
        number = self.give(who, plan.source, plan.amount, plan.losses)
        with ame.unprotected():
            self.noted(who, number)
            ame.run(self.take, who, plan.target, plan.amount)
        self.take(who, plan.target, plan.amount)


class NoSplit(Split):
    """One block where there should be two."""

    name = "no-split"

    @ame.atomic
    def in_function(self, who: int, plan) -> None:  # type: ignore[no-untyped-def,override]
        self.give(who, plan.source, plan.amount, 0)
        self.rests[who] += 1
        self.noted(who, self.parts[who].value)


class NotLocked(Locked):
    """A block that does not ask for the lock."""

    name = "not-locked"

    @ame.atomic
    def inside(self, who: int, number: int) -> bool:
        self.add(number)
        return True


PLANTED = [
    (HooksAtOnce, "hooks"),
    (LocalsOfEachAttempt, "a list of each attempt"),
    (NotNested, "became"),
    (Overwrites, "came out of"),
    (SleepsOn, "no progress for"),
    (LeavesEarly, "has left"),
    (Grabs, "fork"),
    (RestTwice, "is on the way, not"),
    (NoSplit, "have run"),
    (NotLocked, "pair"),
]


@pytest.mark.parametrize(("kind", "text"), PLANTED, ids=[kind.name for kind, _ in PLANTED])
def test_planted_bug_is_reported(
    kind: type[Workload], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = SECONDS
    if kind is SleepsOn:
        monkeypatch.setattr(watching, "PATIENCE_S", 0.5)
        seconds = 0.3
    outcome = run_workload(kind, seed=1, threads=3, seconds=seconds)
    assert any(text in found for found in outcome.violations), outcome.violations
    assert not outcome.stuck


def test_threads_that_do_not_get_on_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PATIENCE_S", 0.5)
    outcome = run_workload(SleepsOn, seed=1, threads=2, seconds=0.1)
    assert "sleeps-on-" in outcome.violations[0]
    assert "in consume" in outcome.violations[0]
