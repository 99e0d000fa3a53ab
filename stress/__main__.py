"""The command line: `python -m stress [--workload NAME] [--threads N] [--seconds S] [--seed N]`."""

from __future__ import annotations

import argparse
import os
import random
import sys

import stm
from stress.runner import Outcome, run_workload
from stress.workloads import WORKLOADS


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stress",
        description="Run threads against invariants; exit 1 on a violation.",
    )
    parser.add_argument("--workload", default="all", choices=["all", *WORKLOADS], metavar="NAME",
                        help=f"all, or one of: {', '.join(WORKLOADS)}")  # fmt: skip
    parser.add_argument("--threads", type=int, default=4, help="threads per workload (4)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each workload (5)")
    parser.add_argument("--seed", type=int, help="of what is random; by default a new one")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be 1 or more, not {options.threads}")
    if not options.seconds > 0:
        parser.error(f"--seconds must be above 0, not {options.seconds}")
    return options


def _report(outcome: Outcome, options: argparse.Namespace) -> None:
    rate = outcome.steps / max(outcome.seconds, 1e-9)
    word = "VIOLATED" if outcome.violations else "ok"
    print(f"{outcome.workload:18} {word:8} {outcome.steps:>10,} steps {rate:>12,.0f}/s", flush=True)
    for text in outcome.violations:
        print(f"  {text}")
    if outcome.violations:
        print(
            f"  again: python -m stress --workload {outcome.workload} --threads {options.threads}"
            f" --seconds {options.seconds:g} --seed {outcome.seed}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the workloads; return 1 if an invariant was violated, else 0."""
    options = _options(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    sys.setswitchinterval(1e-5)  # with the GIL: many switches in the middle of blocks
    failed = False
    for name in WORKLOADS if options.workload == "all" else [options.workload]:
        outcome = run_workload(
            WORKLOADS[name], seed=seed, threads=options.threads, seconds=options.seconds
        )
        _report(outcome, options)
        failed = failed or bool(outcome.violations)
        if outcome.stuck:
            print("a thread hangs: stopping here", flush=True)
            sys.stdout.flush()
            os._exit(1)
    print(stm.stats())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
