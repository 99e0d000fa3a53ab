"""How `costs.py` measures: interleaved rounds, ratios within a round, two threads against one.

Terms.  Body: a function that does an operation `count` times.  Round: each body of a group once,
in turning order.  Every ratio is one of two figures of the same round, so a machine that gets
slower or faster between rounds does not change it; the table shows medians and quartiles.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil

Body = Callable[[int], object]  # does something that many times
Maker = Callable[[int], Body]  # makes the body of the thread of that number

_DISTURBED = 0.03  # part of the time that a thread may have waited for a processor
_TRIES = 6  # of a measurement with threads, until it was not disturbed

_QUIET_SPREAD = 0.10  # the calibration loop may vary by that part
_QUIET_OTHERS = 0.15  # processors that other programs may use


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: `rounds` rounds, `slice_s` seconds per body and round."""

    rounds: int
    slice_s: float
    reads: int  # objects read by one large transaction


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: nanoseconds per operation, and a ratio to a peer of the same run."""

    section: str
    name: str
    ns: Spread
    peer: str | None = None
    ratio: Spread | None = None
    target: float | None = None  # the ratio is to be that or more

    def verdict(self) -> str:
        if self.target is None or self.ratio is None:
            return ""
        return f">= {self.target:g} {'met' if self.ratio.median >= self.target else 'MISSED'}"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles (of fewer than four values: the ends)."""
    if len(values) < 4:
        return Spread(statistics.median(values), min(values), max(values))
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the spread of the ratios of two bodies, round by round."""
    return spread([a / max(b, 1e-3) for a, b in zip(above, below, strict=True)])


@contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector, which stops all threads, out of what is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _elapsed_ns(body: Body, count: int) -> int:
    began = time.perf_counter_ns()
    body(count)
    return time.perf_counter_ns() - began


def count_for(elapsed_ns: Callable[[int], float], seconds: float) -> int:
    """Return how many operations take about that long."""
    count = 1
    while True:
        elapsed = elapsed_ns(count)
        if elapsed * 3 >= seconds * 1e9:
            return max(1, int(count * seconds * 1e9 / elapsed))
        count *= 2


def per_operation(bodies: Mapping[str, Body], plan: Plan) -> dict[str, list[float]]:
    """Run every body in each round, and return its nanoseconds per operation, by round."""
    with without_collections():
        for body in bodies.values():
            body(1)  # the first call of a function with `with` blocks has it rewritten
        counts = {
            name: count_for(lambda count, body=body: _elapsed_ns(body, count), plan.slice_s)
            for name, body in bodies.items()
        }
        figures: dict[str, list[float]] = {name: [] for name in bodies}
        names = list(bodies)
        for number in range(plan.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                figures[name].append(_elapsed_ns(bodies[name], counts[name]) / counts[name])
    return figures


def less(figures: Mapping[str, list[float]], empty: str) -> dict[str, list[float]]:
    """Return the figures over those of the empty loop of the same round."""
    base = figures[empty]
    return {
        name: [value - nothing for value, nothing in zip(values, base, strict=True)]
        for name, values in figures.items()
        if name != empty
    }


def _waited_ns() -> int:
    """Return how long this thread has waited for a processor (0 where the system can't tell)."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _pin(number: int) -> None:
    """Give this thread a processor of its own, where the system can do that.

    Without it the scheduler tends to wake both threads on one processor, and leaves them there for
    as long as a measurement takes.
    """
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[number % len(usable)]})


def team_ns(
    make: Maker, threads: int, count: int, *, by_main: bool = False, tries: int = _TRIES
) -> float:
    """Return nanoseconds from the barrier until the last of the threads has done `count` each.

    When another program took a processor away from a thread meanwhile, it is measured again; after
    that many tries the least disturbed one counts.

    Args:
        make: Called in each thread before the barrier, so that its objects belong to the thread.
        threads: How many.
        count: Operations of each thread.
        by_main: `make` is called by this thread instead.
        tries: How often at most.
    """
    best: tuple[float, int] | None = None
    for _ in range(tries):
        elapsed, waited = _team_once(make, threads, count, by_main)
        part = waited / max(elapsed, 1)
        if best is None or part < best[0]:
            best = part, elapsed
        if part <= _DISTURBED:
            break
    assert best is not None
    return best[1]


def _team_once(make: Maker, threads: int, count: int, by_main: bool) -> tuple[int, int]:
    """Return the time, and how long the thread waited that waited longest for a processor."""
    barrier = threading.Barrier(threads)
    spans: list[tuple[int, int, int]] = []
    errors: list[BaseException] = []

    def work(number: int, body: Body | None) -> None:
        try:
            _pin(number)
            if body is None:
                body = make(number)
            body(max(1, count // 20))  # warm up: caches, specialised bytecode
            barrier.wait()
            waited = _waited_ns()
            began = time.perf_counter_ns()
            body(count)
            ended = time.perf_counter_ns()
            spans.append((began, ended, _waited_ns() - waited))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    workers = [
        threading.Thread(target=work, args=(number, make(number) if by_main else None))
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    elapsed = max(ended for _, ended, _ in spans) - min(began for began, _, _ in spans)
    return elapsed, max(waited for _, _, waited in spans)


def two_against_one(
    make: Maker, plan: Plan, *, by_main: bool = False
) -> tuple[list[float], list[float]]:
    """Return, by round, nanoseconds per operation of one thread, and of two threads in total.

    The second is the time that both need, over the operations of both: half of the first where
    nothing holds them up.
    """
    with without_collections():
        seconds = 2 * plan.slice_s  # long against waking up the threads
        count = count_for(lambda n: team_ns(make, 1, n, by_main=by_main, tries=1), seconds)
        one: list[float] = []
        two: list[float] = []
        for number in range(plan.rounds):
            for threads in (1, 2) if number % 2 else (2, 1):
                elapsed = team_ns(make, threads, count, by_main=by_main)
                (one if threads == 1 else two).append(elapsed / (threads * count))
    return one, two


def calibration(count: int) -> int:
    """Do arithmetic that touches nothing shared; `count` steps of it.

    Constants above 256 would be counted objects that the threads share, and cost twice the time.
    """
    value = 7
    for _ in range(count):
        value = (value * 5 + 3) & 255
    return value


class Machine:
    """Watches whether other programs disturb: calibration loops, and processors they used."""

    def __init__(self, plan: Plan) -> None:
        self._count = count_for(lambda n: _elapsed_ns(calibration, n), min(plan.slice_s, 0.005))
        self._loops: list[float] = []
        self._load = psutil.getloadavg()[0]
        self._began = time.monotonic()
        self._busy = self._busy_s()
        self.sample()

    @staticmethod
    def _busy_s() -> float:
        """Return processor seconds that others than this process have used since boot."""
        times = psutil.cpu_times()
        away = times.idle + getattr(times, "iowait", 0.0)
        # `guest` is part of `user` already
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        own = psutil.Process().cpu_times()
        return float(total - away - own.user - own.system)

    def sample(self) -> None:
        """Time the calibration loop: the best of three."""
        best = min(_elapsed_ns(calibration, self._count) for _ in range(3))
        self._loops.append(best / self._count)

    def report(self) -> dict[str, Any]:
        """Return what was seen, with `quiet` and a `line` that says it."""
        self.sample()
        seconds = max(time.monotonic() - self._began, 1e-3)
        others = max(0.0, (self._busy_s() - self._busy) / seconds)
        varied = max(self._loops) / min(self._loops) - 1
        quiet = varied <= _QUIET_SPREAD and others <= _QUIET_OTHERS
        load = psutil.getloadavg()[0]
        word = "quiet" if quiet else "NOT quiet (the figures are noise; run it again)"
        line = (
            f"machine: {word}: the calibration loop varied by {varied:.0%} over "
            f"{len(self._loops)} samples, other programs used {others:.2f} processors of "
            f"{psutil.cpu_count()}, load average {self._load:.1f} before and {load:.1f} after"
        )
        return {
            "quiet": quiet,
            "calibration_spread": varied,
            "others_processors": others,
            "load_before": self._load,
            "load_after": load,
            "processors": psutil.cpu_count(),
            "seconds": seconds,
            "python": sys.version,
            "line": line,
        }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, one block per section."""
    width = max(len(row.name) for row in rows) + 2
    lines: list[str] = []
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines += ["", section, f"  {'':{width}}{'ns':>10} {'quartiles':>19}   ratio to peer"]
        part = f"({_short(row.ns.low)} .. {_short(row.ns.high)})"
        line = f"  {row.name:{width}}{_short(row.ns.median):>10} {part:>19}"
        if row.ratio is not None:
            ratio = row.ratio
            line += f"   {ratio.median:.2f} ({ratio.low:.2f} .. {ratio.high:.2f}) x {row.peer}"
        verdict = row.verdict()
        lines.append(f"{line}  [{verdict}]" if verdict else line)
    return "\n".join(lines[1:])


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def as_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain dictionaries, for JSON."""
    return [{**asdict(row), "verdict": row.verdict()} for row in rows]
