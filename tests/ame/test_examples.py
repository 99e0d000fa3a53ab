"""Each example runs as a script, does what its text says, and is short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from support import ROOT

EXAMPLES = ROOT / "examples"
HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


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
    return done.stdout


def number_after(words: str, text: str) -> int:
    found = re.search(re.escape(words) + r" (\d+)", text)
    assert found, f"no number after {words!r} in\n{text}"
    return int(found[1])


def test_bank_keeps_the_total() -> None:
    assert number_after("transfers:", output("bank")) == 10_000
    assert number_after("total:", output("bank")) == 2_000


def test_rollback_puts_everything_back() -> None:
    first, error, last = output("rollback").splitlines()
    assert first == "sold 5, left: {'table': 1, 'chair': 2, 'lamp': 1}"
    assert error == "not enough: lamp"
    assert last == first


def test_parallel_map_gives_the_results_in_order() -> None:
    text = output("parallel_map")
    assert "same results in the same order: True" in text
    assert "longest: 350 steps from 77031" in text


def test_naive_word_count_is_right_whatever_conflicts() -> None:
    text = output("word_count_naive")
    assert number_after("words counted:", text) == 40 * 20_000
    assert number_after("transactions:", text) == 40
    conflicts = number_after("conflicts:", text)  # how many is up to the scheduler
    assert number_after("attempts:", text) == 40 + conflicts


def test_word_count_with_own_keys_never_conflicts() -> None:
    text = output("word_count")
    assert "own keys: 0 conflicts" in text
    assert number_after("words counted:", text) == 40 * 20_000
    assert text.endswith("both equal: True\n")


def test_each_ticket_is_printed_once() -> None:
    text = output("tickets")
    assert number_after("tickets printed:", text) == 200
    assert "each number once and in order: True" in text


@pytest.mark.parametrize("name", NAMES)
def test_example_is_short_and_says_what_it_shows(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) < 60
    assert ast.get_docstring(tree), "no comment at its head"
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "main" in functions


def test_every_example_has_a_test_of_its_output() -> None:
    """Catches: an example that nobody looks at."""
    tests = "".join(path.read_text("utf-8") for path in HERE.glob("test_examples*.py"))
    assert [name for name in NAMES if f'output("{name}")' not in tests] == []
