"""Each workload runs for a moment without a violation; a broken invariant is reported."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

import ame
from stress import __main__ as command
from stress.runner import Run, Workload, run_workload
from stress.workloads import WORKLOADS
from stress.workloads.histories import HistoryRefs
from support import gil_enabled, seeded

SECONDS = 0.3


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """With the GIL: switch threads in the middle of blocks."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload_keeps_its_invariant(name: str) -> None:
    seed = seeded().randrange(1 << 32)
    outcome = run_workload(WORKLOADS[name], seed=seed, threads=3, seconds=SECONDS)
    assert outcome.violations == []
    assert outcome.steps > 0


class Torn(Workload):
    """Reads two Refs without a block: nothing keeps them together."""

    name = "torn"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.x, self.y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def write(self) -> None:
        self.x.value += 1
        self.y.value += 1

    def step(self, rng: random.Random) -> None:
        self.write()
        first = self.x.value
        self.write()
        second = self.y.value
        self.run.require(first == second, lambda: f"x was {first}, then y {second}")

    def bodies(self) -> Sequence[Callable[[], int]]:
        return self.many(self.step)


class Failing(Workload):
    name = "failing"

    def bodies(self) -> Sequence[Callable[[], int]]:
        return [lambda: 1 // 0]


class NotAtomic(HistoryRefs):
    """Records as if it were a block, but each operation is a transaction of its own."""

    name = "not-atomic"

    block = block_declared = HistoryRefs.attempt

    def step(self, rng: random.Random, history: list, name: str) -> None:  # type: ignore[type-arg]
        self.block(history, name, 0, [(0, True), (1, True)], "")
        history[-1].committed = True


def test_broken_invariant_is_reported() -> None:
    outcome = run_workload(Torn, seed=1, threads=2, seconds=20.0)
    assert any("x was" in text for text in outcome.violations)


def test_unexpected_exception_is_a_violation() -> None:
    outcome = run_workload(Failing, seed=1, threads=2, seconds=0.1)
    assert len(outcome.violations) == 1
    assert "ZeroDivisionError" in outcome.violations[0]


def test_history_of_operations_that_are_not_in_a_block_is_caught() -> None:
    seconds = 3.0 if gil_enabled() else 1.0
    outcome = run_workload(NotAtomic, seed=1, threads=3, seconds=seconds)
    assert any("problems in" in text or "reads" in text for text in outcome.violations)


def test_command_prints_the_seed_first(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--workload", "pairs", "--threads", "2", "--seconds", "0.1", "--seed", "7"]
    assert command.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "seed 7"
    assert lines[1].startswith("pairs")


def test_command_fails_and_tells_how_to_repeat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WORKLOADS, "torn", Torn)
    arguments = ["--workload", "torn", "--threads", "2", "--seconds", "20", "--seed", "7"]
    assert command.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "VIOLATED" in printed
    assert "--workload torn --threads 2 --seconds 20 --seed 7" in printed


@pytest.mark.parametrize(
    "arguments", [["--workload", "none"], ["--threads", "0"], ["--seconds", "0"]]
)
def test_command_refuses_bad_options(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    assert raised.value.code == 2
