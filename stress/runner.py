"""Runs one workload for some seconds in real threads, and reports what was violated.

Terms.  Violation: an invariant that did not hold, an exception that nobody expected, or a thread
that does not end.  A violation is put on the run's list the moment it is seen, by the attempt that
sees it: an attempt that is thrown away later must not have seen it either (opacity).
"""

from __future__ import annotations

import random
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

END_TIMEOUT_S = 60.0  # how long after the end a thread may still take
_MOST_KEPT = 20  # violations that are kept in full


class Violation(Exception):
    """An invariant of a workload does not hold."""


@final
class Run:
    """One run of a workload: its seed, its end, and what went wrong."""

    def __init__(self, seed: int, threads: int, seconds: float) -> None:
        self.seed = seed
        self.threads = threads
        self.violations: list[str] = []
        self._deadline = time.monotonic() + seconds
        self._stop = threading.Event()

    def rng(self, name: object) -> random.Random:
        """Return a random generator of its own for that part of the run."""
        return random.Random(f"{self.seed} {name}")

    def over(self) -> bool:
        """Tell whether the threads should end."""
        return self._stop.is_set() or time.monotonic() >= self._deadline

    def stop(self) -> None:
        """Make `over` true."""
        self._stop.set()

    def violated(self, message: str) -> None:
        """Report a violation, and end the run."""
        if len(self.violations) < _MOST_KEPT:
            self.violations.append(message)
        self.stop()

    def require(self, holds: bool, message: Callable[[], str]) -> None:
        """Report a violation unless it holds, and leave the block.

        Raises:
            Violation: It does not hold.
        """
        if not holds:
            text = message()
            self.violated(text)
            raise Violation(text)


class Workload(ABC):
    """Threads that work on shared transactional state, and what must be true of it."""

    name: ClassVar[str]

    def __init__(self, run: Run) -> None:
        self.run = run

    @abstractmethod
    def bodies(self) -> Sequence[Callable[[], int]]:
        """Return what each thread does until `run.over()`; each returns how much it did."""

    def check(self) -> None:  # noqa: B027 (most need none)
        """Check what must be true after all threads have ended.

        Raises:
            Violation: It is not.
        """

    def repeat(self, step: Callable[[random.Random], object], name: object) -> Callable[[], int]:
        """Return a body that calls `step` with a generator of its own until the run is over."""
        rng = self.run.rng(name)

        def body() -> int:
            count = 0
            while not self.run.over():
                step(rng)
                count += 1
            return count

        return body

    def many(
        self, step: Callable[[random.Random], object], *, spare: int = 0
    ) -> list[Callable[[], int]]:
        """Return `repeat(step)` for all threads of the run but `spare`, at least one."""
        count = max(1, self.run.threads - spare)
        return [self.repeat(step, f"thread {number}") for number in range(count)]


@dataclass(slots=True)
class Outcome:
    """What came out of one run."""

    workload: str
    seed: int
    steps: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    stuck: bool = False  # some thread did not end


def run_workload(kind: type[Workload], *, seed: int, threads: int, seconds: float) -> Outcome:
    """Run a workload and return what came out; never raises for what the threads do.

    Args:
        kind: The workload.
        seed: Of everything random in it (the schedule of the threads is not).
        threads: How many work at least; some workloads need two.
        seconds: How long.
    """
    run = Run(seed, threads, seconds)
    workload = kind(run)
    began = time.monotonic()
    done: list[int] = []
    bodies = workload.bodies()
    barrier = threading.Barrier(len(bodies))

    def work(body: Callable[[], int]) -> None:
        try:
            barrier.wait()
            done.append(body())
        except Violation as error:
            if not run.violations:
                run.violated(str(error))
        except BaseException:
            run.violated(f"an unexpected exception:\n{traceback.format_exc()}")

    workers = [
        threading.Thread(target=work, args=(body,), name=f"{kind.name}-{n}", daemon=True)
        for n, body in enumerate(bodies)
    ]
    for worker in workers:
        worker.start()
    deadline = began + seconds + END_TIMEOUT_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    stuck = [worker.name for worker in workers if worker.is_alive()]
    if stuck:
        run.violated(f"still running: {', '.join(stuck)}\n{_stacks()}")
    elif not run.violations:
        try:
            workload.check()
        except Violation as error:
            run.violated(str(error))
    return Outcome(
        kind.name, seed, sum(done), time.monotonic() - began, run.violations, bool(stuck)
    )


def _stacks() -> str:
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {ident}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)
