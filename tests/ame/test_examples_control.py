"""The examples of waiting and control: each runs as a script and does what its text says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from functools import cache

import pytest

from support import ROOT

EXAMPLES = ROOT / "examples"
NAMES = [
    "bank_or_else",
    "bounded_buffer",
    "cache",
    "crawler",
    "dining_philosophers",
    "lock_migration",
    "santa_claus",
]


@cache
def output(name: str) -> str:
    """Run an example in a process of its own; return what it printed."""
    paths = os.pathsep.join(path for path in [*sys.path, str(ROOT)] if path)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def test_philosophers_all_eat_and_never_beside_each_other() -> None:
    assert output("dining_philosophers").splitlines() == [
        "meals: 1500, each had its share: True",
        "neighbours who ate at the same time: 0",
    ]


def test_santa_serves_every_group_and_the_reindeer_first() -> None:
    assert output("santa_claus").splitlines() == [
        "toys delivered: 10, elves advised: 40",
        "both were ready, and first came: toys",
    ]


def test_buffers_hand_on_everything_in_order() -> None:
    assert output("bounded_buffer") == "items: 3000, in order: True\n"


def test_bank_pays_from_where_there_is_money_or_waits_for_it() -> None:
    first, second, third, fourth, last = output("bank_or_else").splitlines()
    assert first == "80 from giro"
    assert second == "200 from savings"
    waited = re.fullmatch(
        r"900 not paid after (\d\.\d) s, although it watched \['giro', 'savings'\]", third
    )
    assert waited and float(waited[1]) >= 0.1
    assert fourth == "900 from giro, when there was money"
    assert last == "left: {'giro': 120, 'savings': 300}"


def test_cache_loads_once_and_keeps_nobody_waiting_for_other_keys() -> None:
    assert output("cache").splitlines() == [
        "served while 'slow' was being loaded: 4",
        "answers: 7, right: True, loads: ['a', 'b', 'c', 'slow']",
    ]


def test_crawler_fetches_each_page_once_and_ends() -> None:
    assert output("crawler").splitlines() == [
        "pages: 2000, each once: True",
        "left to do: 0, busy: 0",
    ]


def test_old_and_new_code_never_see_each_other_half_done() -> None:
    assert output("lock_migration") == "totals that were seen: [800], transfers: 4000\n"


@pytest.mark.parametrize("name", NAMES)
def test_example_is_done_soon(name: str) -> None:
    """Each takes less than three seconds; one of three runs, as the machine may be busy."""
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        output.__wrapped__(name)
        seconds.append(time.monotonic() - began)
        if seconds[-1] < 3:
            return
    raise AssertionError(seconds)
