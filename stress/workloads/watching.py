"""A watchdog: threads that wait for each other must get on, or one of them has slept too long."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

import ame
from stress.runner import Run

PATIENCE_S = 10.0  # without progress of any thread
TURNS = 20  # of a round
_LOOK_S = 0.02


class GaveUp(Exception):
    """The run has failed: ends a thread that would wait for ever."""


@final
class Watch:
    """Sees that threads get on until all have ended; otherwise it reports where they stand."""

    def __init__(self, run: Run) -> None:
        self._run: Final = run
        self._steps: list[int] = []
        self._living: set[int] = set()
        self._hopeless: Final = ame.Ref(False)
        self._round = threading.Barrier(1)
        self._over = False

    def go_on(self) -> None:
        """Ask in a block, before it waits: wakes it when there is nothing to wait for any more.

        Raises:
            GaveUp: The run has failed.
        """
        if self._hopeless.value:
            raise GaveUp

    def bodies(
        self, lives: Sequence[Callable[[Callable[[], None]], None]]
    ) -> list[Callable[[], int]]:
        """Return what the threads do: `life(progress)` each, and one that watches them."""
        self._steps = [0] * len(lives)
        self._living = set(range(len(lives)))
        self._round = threading.Barrier(len(lives), action=self._end_round)

        def body(number: int, life: Callable[[Callable[[], None]], None]) -> Callable[[], int]:
            def progress() -> None:
                self._steps[number] += 1

            def work() -> int:
                try:
                    life(progress)
                except GaveUp:
                    pass
                finally:
                    self._living.discard(number)
                return self._steps[number]

            return work

        return [*(body(number, life) for number, life in enumerate(lives)), self._look]

    def turns(self) -> Iterator[None]:
        """Yield until the run is over; each round ends when all have ended their turns.

        So nobody who sleeps on for ever is woken by chance: there is a moment when nothing happens.

        Raises:
            GaveUp: The run has failed.
        """
        while not self._over:
            for _ in range(TURNS):
                if self._run.over():
                    break
                yield
            try:
                self._round.wait()
            except threading.BrokenBarrierError:
                raise GaveUp from None

    def _end_round(self) -> None:
        self._over = self._run.over()

    def _look(self) -> int:
        steps, since = -1, time.monotonic()
        while self._living:
            time.sleep(_LOOK_S)
            now = sum(self._steps) - len(self._living)
            if now != steps:
                steps, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                text = f"no progress for {PATIENCE_S:g} s after {self._steps} steps"
                self._run.violated(f"{text}\n{_stacks()}")
            if self._run.violations:
                self._hopeless.value = True
                self._round.abort()
                break
        return 0


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
