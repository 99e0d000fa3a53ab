"""The core against its model: interleaved transactions from one thread, everything predicted.

`model_run.run` raises at the first value, status, state, conflict or counter that differs.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_run import PROGRAM_SIZE, Discrepancy, run

from stm._core import lib
from support import run_script

EXAMPLES = 10_000
MOST = 2_000  # programs until a planted bug has to be found
SEED = 20261120


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(st.binary(min_size=PROGRAM_SIZE, max_size=PROGRAM_SIZE))
def test_core_does_what_the_model_says(program: bytes) -> None:
    run(program)


def first_discrepancy(bugs: int) -> Discrepancy | None:
    source = random.Random(SEED)
    for _ in range(MOST):
        try:
            run(source.randbytes(PROGRAM_SIZE), bugs)
        except Discrepancy as found:
            return found
    return None


@pytest.mark.parametrize(
    "bug",
    [
        "STM_BUG_SKIP_EXTEND",
        "STM_BUG_SKIP_COMMIT",
        "STM_BUG_NO_FLOOR",
        "STM_BUG_IGNORE_GUARD",
        "STM_BUG_STALE_SNAPSHOT",
    ],
)
def test_model_finds_a_planted_bug(bug: str) -> None:
    assert first_discrepancy(getattr(lib, bug)) is not None


def test_model_finds_nothing_in_the_same_programs_without_a_bug() -> None:
    assert first_discrepancy(0) is None


def test_discrepancy_prints_a_script_that_shows_it() -> None:
    found = first_discrepancy(lib.STM_BUG_SKIP_COMMIT)
    assert found is not None
    problem, _, script = str(found).partition("\n\n")
    last = run_script(script).stdout.splitlines()[-1]
    call, _, expected = problem.partition(" gave ")
    assert last == f"{call} {expected.partition(',')[0]}"
