"""What each operation of `ame` costs, as ratios to what a program would do without it.

    python benchmarks/costs.py [--quick] [--json FILE]

Every figure is measured next to its peer, in the same rounds of the same run (`_measure.py`); the
last line says whether the machine was quiet enough to believe it.  The operations are in
`_bodies.py`; README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _bodies import (
    Property,
    Slot,
    call_loop,
    collatz,
    empty_loop,
    increment_loop,
    iterate_items,
    locked_transfer_loop,
    make_pairs,
    nothing,
    pass_loop,
    plain_nothing,
    plain_transfer,
    read_all,
    read_all_declared,
    read_all_in_block,
    read_items,
    read_loop,
    read_loop_in_block,
    transfer,
    transfer_loop,
    with_atomic_loop,
    with_lock_loop,
    with_work_loop,
    work_loop,
    write_items,
    write_loop,
    write_loop_in_block,
)
from _measure import (
    Body,
    Machine,
    Plan,
    Row,
    as_data,
    calibration,
    count_for,
    less,
    per_operation,
    ratios,
    spread,
    table,
    two_against_one,
    without_collections,
)

import ame

FULL = Plan(rounds=15, slice_s=0.02, reads=100_000)
QUICK = Plan(rounds=5, slice_s=0.005, reads=100_000)
ACCOUNTS = 1000
COLLATZ_S = 0.005  # one iteration of the loop
COLD_BYTES = 1 << 26  # read in between to push the objects out of the caches

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def bind(fn: Callable[..., object], *first: object) -> Body:
    return lambda count: fn(*first, count)


def rows_of(
    section: str, figures: dict[str, list[float]], peers: dict[str, str | None]
) -> list[Row]:
    """Return one row per figure, each with the ratio to its peer where it has one."""
    return [
        Row(
            section,
            name,
            spread(values),
            peer := peers.get(name),
            ratios(values, figures[peer]) if peer is not None else None,
        )
        for name, values in figures.items()
    ]


def cost_of_access(plan: Plan) -> list[Row]:
    bodies = {
        "empty loop": empty_loop,
        "__slots__ read": bind(read_loop, Slot(1)),
        "@property read": bind(read_loop, Property(1)),
        "Ref.value read inside a block": bind(read_loop_in_block, ame.Ref(1)),
        "Ref.value read outside": bind(read_loop, ame.Ref(1)),
        "__slots__ write": bind(write_loop, Slot(1)),
        "Ref.value write inside a block": bind(write_loop_in_block, ame.Ref(1)),
        "Ref.value write outside": bind(write_loop, ame.Ref(1)),
    }
    figures = less(per_operation(bodies, plan), "empty loop")
    peers: dict[str, str | None] = {
        name: "__slots__ write" if "write" in name else "@property read" for name in figures
    }
    peers["@property read"] = peers["__slots__ write"] = None
    return rows_of("access, over the empty loop", figures, peers)


def cost_of_blocks(plan: Plan) -> list[Row]:
    bodies = {
        "empty loop": empty_loop,
        "plain call": bind(call_loop, plain_nothing),
        "empty @ame.atomic call": bind(call_loop, nothing),
        "with lock": bind(with_lock_loop, threading.Lock()),
        "empty with ame.atomic()": with_atomic_loop,
    }
    figures = less(per_operation(bodies, plan), "empty loop")
    peers: dict[str, str | None] = {
        "empty @ame.atomic call": "plain call",
        "empty with ame.atomic()": "with lock",
    }
    return rows_of("empty blocks, over the empty loop", figures, peers)


def cost_of_large_reads(plan: Plan) -> list[Row]:
    """Time one transaction over many Refs, after something else filled the caches, and again."""
    slots = [Slot(n) for n in range(plan.reads)]
    refs = [ame.Ref(n) for n in range(plan.reads)]
    other = bytes(COLD_BYTES)
    cases: dict[str, tuple[Callable[[list[Any]], object], list[Any]]] = {
        "__slots__ objects": (read_all, slots),
        "Refs in a block": (read_all_in_block, refs),
        "Refs in a read_only block": (read_all_declared, refs),
    }
    figures: dict[str, list[float]] = {
        f"{name}, {heat}": [] for heat in ("cold", "warm") for name in cases
    }
    with without_collections():
        for _ in range(plan.rounds):
            for name, (fn, holders) in cases.items():
                other.count(b"\1")
                for heat in ("cold", "warm"):
                    began = time.perf_counter_ns()
                    fn(holders)
                    elapsed = time.perf_counter_ns() - began
                    figures[f"{name}, {heat}"].append(elapsed / len(holders))
    peers: dict[str, str | None] = {
        f"{name}, {heat}": f"__slots__ objects, {heat}"
        for heat in ("cold", "warm")
        for name in cases
        if not name.startswith("__")
    }
    return rows_of(f"one transaction of {plan.reads:,} reads, per read", figures, peers)


def cost_of_transfers(plan: Plan) -> list[Row]:
    plain, refs = make_pairs(Slot, ACCOUNTS), make_pairs(ame.Ref, ACCOUNTS)
    bodies = {
        "plain function": bind(transfer_loop, plain_transfer, plain),
        "the same under one lock": bind(locked_transfer_loop, threading.Lock(), plain),
        "atomic function": bind(transfer_loop, transfer, refs),
    }
    figures = per_operation(bodies, plan)
    rows = rows_of(
        f"transfer (2 reads, 2 writes), {ACCOUNTS:,} accounts, one thread",
        figures,
        {"the same under one lock": "plain function", "atomic function": "plain function"},
    )
    lock = "the same under one lock"
    name = "atomic function"
    against = ratios(figures[name], figures[lock])
    return [*rows, Row(rows[0].section, f"{name} ", spread(figures[name]), lock, against)]


def steps_for(seconds: float) -> int:
    def elapsed_ns(count: int) -> int:
        began = time.perf_counter_ns()
        calibration(count)
        return time.perf_counter_ns() - began

    return max(1, count_for(elapsed_ns, 0.005) * int(seconds * 1e9) // 5_000_000)


def cost_of_with_blocks(plan: Plan) -> list[Row]:
    """Compare `with ame.atomic()` with a decorated function, the same body in both."""
    pairs = make_pairs(ame.Ref, ACCOUNTS)
    rows = []
    for micros in 2, 10:
        steps = steps_for(micros * 1e-6)
        function, block = f"@ame.atomic, {micros} us of work", f"with, {micros} us of work"
        figures = per_operation(
            {function: bind(work_loop, pairs, steps), block: bind(with_work_loop, pairs, steps)},
            plan,
        )
        rows += rows_of("a transfer with work, one thread", figures, {block: function})
    return rows


def cost_of_two_threads(plan: Plan) -> list[Row]:
    """Compare the total of two threads with one; each thread has its own accounts or keys."""
    lock = threading.Lock()
    half = ACCOUNTS // 2
    counts = ame.Dict({key: 0 for key in range(ACCOUNTS)})

    def refs(number: int) -> Body:
        return bind(transfer_loop, transfer, make_pairs(ame.Ref, half, number))

    def locked(number: int) -> Body:
        return bind(locked_transfer_loop, lock, make_pairs(Slot, half, number))

    def plain(number: int) -> Body:
        return bind(transfer_loop, plain_transfer, make_pairs(Slot, half, number))

    def working(steps: int) -> Callable[[int], Body]:
        return lambda number: bind(work_loop, make_pairs(ame.Ref, half, number), steps)

    def with_block(steps: int) -> Callable[[int], Body]:
        return lambda number: bind(with_work_loop, make_pairs(ame.Ref, half, number), steps)

    def keys(number: int) -> Body:
        return bind(increment_loop, counts, [number * half + n for n in range(half)])

    short, long = steps_for(2e-6), steps_for(10e-6)
    goal, good = (None, None) if GIL else (1.2, 1.7)
    cases: list[tuple[str, Callable[[int], Body], bool, float | None]] = [
        ("arithmetic: what the machine gives", lambda _: calibration, False, None),
        ("plain call", lambda _: bind(call_loop, plain_nothing), False, None),
        ("empty @ame.atomic call", lambda _: bind(call_loop, nothing), False, goal),
        ("plain transfers, own accounts", plain, False, None),
        ("disjoint transfers, own Refs", refs, False, goal),
        ("disjoint transfers, Refs of the main thread", refs, True, goal),
        ("the same under one lock", locked, False, None),
        ("disjoint transfers and 2 us of work", working(short), False, goal),
        ("disjoint transfers and 10 us of work", working(long), False, goal),
        ("the same with block, own Refs, 2 us of work", with_block(short), False, good),
        ("the same with block, own Refs, 10 us of work", with_block(long), False, good),
        ("Dict increments, distinct keys", keys, False, None),
    ]
    section = "two threads, per operation in total; ratio: throughput of two over one"
    rows = []
    for name, make, by_main, target in cases:
        one, two = two_against_one(make, plan, by_main=by_main)
        rows.append(Row(section, name, spread(two), "one thread", ratios(one, two), target))
    return rows


def cost_of_loops(plan: Plan) -> list[Row]:
    limit, elapsed = 2, 0.0
    while elapsed < COLLATZ_S:
        limit += limit // 4 + 1
        began = time.perf_counter()
        collatz(limit)
        elapsed = time.perf_counter() - began
    items = [limit] * max(4, int(plan.slice_s * 20 / COLLATZ_S))
    plain: list[float] = []
    parallel: list[float] = []
    for _ in range(plan.rounds):
        began = time.perf_counter_ns()
        for item in items:
            collatz(item)
        plain.append((time.perf_counter_ns() - began) / len(items))
        began = time.perf_counter_ns()
        ame.for_each(collatz, items, workers=2)
        parallel.append((time.perf_counter_ns() - began) / len(items))
    section = f"loop over {len(items)} items of about 5 ms, no sharing; ratio: speed-up"
    goal = None if GIL else 1.8
    return [
        Row(section, "plain loop", spread(plain)),
        Row(
            section,
            "ame.for_each, 2 workers",
            spread(parallel),
            "plain loop",
            ratios(plain, parallel),
            goal,
        ),
    ]


def cost_of_dicts(plan: Plan) -> list[Row]:
    keys = list(range(ACCOUNTS))
    rows: list[Row] = []
    for verb, fn in ("read", read_items), ("write", write_items), ("iterate", iterate_items):
        mapping = ame.Dict({key: 0 for key in keys})
        bodies = {
            f"dict {verb}": bind(pass_loop, fn, dict.fromkeys(keys, 0), keys),
            f"Dict {verb} inside a block": bind(pass_loop, ame.atomic(fn), mapping, keys),
            f"Dict {verb} outside": bind(pass_loop, fn, mapping, keys),
        }
        passes = per_operation(bodies, plan)
        figures = {name: [ns / len(keys) for ns in passes[name]] for name in passes}
        peers: dict[str, str | None] = {name: f"dict {verb}" for name in list(bodies)[1:]}
        rows += rows_of(f"{len(keys):,} keys, one pass at a time, per key", figures, peers)
    return rows


SECTIONS = [
    cost_of_access,
    cost_of_blocks,
    cost_of_large_reads,
    cost_of_transfers,
    cost_of_with_blocks,
    cost_of_two_threads,
    cost_of_loops,
    cost_of_dicts,
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What each operation of ame costs.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="rounds of each group")
    parser.add_argument("--slice-ms", type=float, help="milliseconds per measurement")
    parser.add_argument("--reads", type=int, help="reads of the large transaction")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    base = QUICK if options.quick else FULL
    plan = Plan(
        rounds=max(1, options.rounds or base.rounds),
        slice_s=options.slice_ms / 1e3 if options.slice_ms else base.slice_s,
        reads=max(1, options.reads or base.reads),
    )
    machine = Machine(plan)
    rows: list[Row] = []
    for section in SECTIONS:
        rows += section(plan)
        machine.sample()
    report = machine.report()
    print(table(rows))
    print()
    if GIL:
        print("This Python has its GIL: two threads take turns, and no target applies to them.")
    print(report["line"])
    if options.json is not None:
        data = {"machine": report, "free_threaded": not GIL, "rows": as_data(rows)}
        options.json.write_text(json.dumps(data, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
