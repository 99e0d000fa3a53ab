"""The benchmark script runs and has every row; how long things take is not tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    "__slots__ read",
    "@property read",
    "Ref.value read inside a block",
    "Ref.value read outside",
    "Ref.value write inside a block",
    "Ref.value write outside",
    "plain call",
    "empty @ame.atomic call",
    "with lock",
    "empty with ame.atomic()",
    "__slots__ objects, cold",
    "Refs in a block, cold",
    "Refs in a block, warm",
    "Refs in a read_only block, warm",
    "atomic function",
    "the same under one lock",
    "arithmetic: what the machine gives",
    "disjoint transfers, own Refs",
    "disjoint transfers, Refs of the main thread",
    "disjoint transfers and 2 us of work",
    "disjoint transfers and 10 us of work",
    "with, 2 us of work",
    "the same with block, own Refs, 2 us of work",
    "Dict increments, distinct keys",
    "plain loop",
    "ame.for_each, 2 workers",
    "Dict read inside a block",
    "Dict write inside a block",
    "Dict iterate inside a block",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:  # type: ignore[type-arg]
    file = tmp_path_factory.mktemp("benchmarks") / "costs.json"
    counts = ["--quick", "--rounds", "1", "--slice-ms", "0.1", "--reads", "100"]
    command = [sys.executable, str(ROOT / "benchmarks" / "costs.py"), *counts, "--json", str(file)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(file.read_text("utf-8"))


def test_every_row_is_there(finished: tuple[str, dict]) -> None:  # type: ignore[type-arg]
    printed, data = finished
    names = {row["name"].strip() for row in data["rows"]}
    assert [name for name in ROWS if name not in names] == []
    assert [name for name in names if name not in printed] == []


def test_ratios_have_peers_of_the_same_run(finished: tuple[str, dict]) -> None:  # type: ignore[type-arg]
    _, data = finished
    names = {row["name"].strip() for row in data["rows"]} | {"one thread"}
    with_peer = [row for row in data["rows"] if row["peer"] is not None]
    assert len(with_peer) > 20
    assert {row["peer"] for row in with_peer} <= names
    assert all(row["ratio"] is not None for row in with_peer)


def test_last_line_says_whether_the_machine_was_quiet(
    finished: tuple[str, dict],  # type: ignore[type-arg]
) -> None:
    printed, data = finished
    line = printed.rstrip().splitlines()[-1]
    assert re.match(r"machine: (quiet|NOT quiet)", line)
    assert line == data["machine"]["line"]


def test_large_targets_are_set_where_threads_are_free(
    finished: tuple[str, dict],  # type: ignore[type-arg]
) -> None:
    _, data = finished
    targets = {row["name"]: row["target"] for row in data["rows"] if row["target"] is not None}
    if not data["free_threaded"]:
        assert targets == {}
        return
    assert targets["empty @ame.atomic call"] == 1.2
    assert targets["disjoint transfers, own Refs"] == 1.2
    assert targets["ame.for_each, 2 workers"] == 1.8


def test_import_cost_shows_each_case() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "import_cost.py"), "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for row in "start, ame imported", "creating a closure":
        assert row in done.stdout
