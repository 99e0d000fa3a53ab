"""The demo: both loops give the same index, and its report says what happened."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import ame
from ame import _demo
from ame.__main__ import main
from ame._demo_index import (
    Index,
    ModuleStats,
    find_files,
    index_file,
    merge_module,
    read_module,
)
from support import ROOT, in_thread

ROWS = (
    "files",
    "lines",
    "plain loop",
    "parallel loop",
    "gc threshold",
    "speed-up",
    "results",
    "transactions",
    "attempts",
    "conflicts",
    "protected",
    "time lost",
    "top symbols",
)
MODULES = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package of small modules that all use the same symbols and import one another."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("import os\n")
    for number in range(1, MODULES):
        lines = ["import os", "from . import prices", f"from .part{number - 1} import total"]
        lines += [f"def total{n}(price):\n    return price + tax" for n in range(number * 5)]
        (package / f"part{number}.py").write_text("\n".join(lines) + "\n")
    return tmp_path


def report_on(folder: Path, *, workers: int = 2) -> _demo.DemoReport:
    return _demo.run_demo(folder, find_files(folder), workers=workers)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_both_loops_give_the_same_index(folder: Path, workers: int) -> None:
    """`run_demo` exits when they differ; what it reports are the true counts."""
    report = report_on(folder, workers=workers)

    functions = 5 * sum(range(1, MODULES))
    symbols = dict(report.top_symbols)
    assert report.files == report.transactions == MODULES
    assert symbols["price"] == 2 * functions  # the argument and its use
    assert symbols["tax"] == functions
    assert dict(report.top_imported)["os"] == MODULES
    assert dict(report.top_imported)["shop"] == MODULES - 1
    assert report.attempts - report.transactions == report.conflicts
    assert report.workers == workers


def test_collector_is_left_as_it_was(folder: Path) -> None:
    before = gc.get_threshold()
    report_on(folder)
    assert gc.get_threshold() == before
    assert gc.isenabled()


def test_lost_iteration_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a comparison that accepts an incomplete result."""

    def forgetful(fn: Callable[[object], object], items: Iterable[object], **_: object) -> None:
        for item in list(items)[:-1]:
            fn(item)

    monkeypatch.setattr(ame, "for_each", forgetful)
    with pytest.raises(SystemExit, match=r"the results differ: \w+\[") as caught:
        report_on(folder)
    assert caught.value.code not in (0, None)


def test_lost_update_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a comparison of keys alone."""

    def repeating(fn: Callable[[object], object], items: Iterable[object], **_: object) -> None:
        for item in [*items, *items]:
            fn(item)

    monkeypatch.setattr(ame, "for_each", repeating)
    with pytest.raises(SystemExit, match=r"symbols\['\w+'\] is \d+ from the parallel loop"):
        report_on(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [("syntax", b"def f(:\n"), ("nul", b"x = 1\0\n"), ("coding", b"# coding: no-such-coding\n")],
)
def test_file_that_does_not_parse_is_skipped_in_both_loops(
    folder: Path, name: str, content: bytes
) -> None:
    (folder / f"{name}.py").write_bytes(content)
    report = report_on(folder)
    assert (report.files, report.skipped) == (MODULES + 1, 1)
    assert report.transactions == MODULES + 1


def test_file_that_vanished_is_skipped(folder: Path) -> None:
    files = find_files(folder)
    files[0].path.unlink()
    report = _demo.run_demo(folder, files, workers=2)
    assert report.skipped == 1


def test_one_iteration_collects_what_is_in_the_file(tmp_path: Path) -> None:
    package = tmp_path / "a" / "b"
    package.mkdir(parents=True)
    (package / "c.py").write_text(
        "import os.path, sys\n"
        "from .. import x\n"
        "from .d import y\n"
        "class C:\n"
        "    async def f(self, n):\n"
        "        return self.n + n\n"
    )
    (file,) = find_files(tmp_path)
    module = read_module(file)
    assert not isinstance(module, str)
    assert module.name == "a.b.c"
    assert module.imports == {"os.path", "sys", "a", "a.b.d"}
    assert module.symbols == {"C": 1, "f": 1, "self": 2, "n": 3}
    assert dataclasses.replace(module.stats, nodes=0) == ModuleStats(
        lines=6, nodes=0, functions=1, classes=1, imports=3
    )


def test_relative_imports_in_a_package_start_from_the_package(tmp_path: Path) -> None:
    package = tmp_path / "a" / "b"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import x\nfrom .c import y\nfrom ..d import z\n")
    (file,) = find_files(tmp_path)
    module = read_module(file)
    assert not isinstance(module, str)
    assert module.imports == {"a.b", "a.b.c", "a.d"}


def test_iteration_reads_shared_state_last(folder: Path) -> None:
    """Another commit during the long part (reading and parsing) must not cost an attempt.

    This is what keeps the demo's iterations from conflicting.
    """
    index = Index(ame.Dict(), ame.Dict(), ame.Dict(), ame.Dict())
    first, second = find_files(folder)[:2]
    ame.run(index_file, index, first)
    attempts = []

    def iteration() -> None:
        attempts.append(1)
        module = read_module(second)
        assert not isinstance(module, str)
        if len(attempts) == 1:
            in_thread(lambda: index.symbols.update({"price": 1000}))
        merge_module(index, module)

    ame.run(iteration)
    assert len(attempts) == 1
    assert index.symbols["price"] > 1000


def test_files_come_largest_first_and_always_in_the_same_order(folder: Path) -> None:
    files = find_files(folder)
    sizes = [file.size for file in files]
    assert sizes == sorted(sizes, reverse=True)
    assert files == find_files(folder)
    assert len({file.module for file in files}) == len(files)


def test_limit_takes_files_of_all_sizes(folder: Path) -> None:
    files = find_files(folder)
    few = find_files(folder, limit=3)
    assert [files.index(file) for file in few] == [0, 4, 8]
    assert find_files(folder, limit=1000) == files


def test_two_files_never_have_one_name(tmp_path: Path) -> None:
    """Catches: two iterations that write the same key, so that the last one wins."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "__init__.py").write_text("x = 1\n")
    (tmp_path / "a.py").write_text("y = 2\n")
    names = {file.module for file in find_files(tmp_path)}
    assert len(names) == 2
    assert report_on(tmp_path).files == 2


def test_installed_packages_are_left_out(folder: Path) -> None:
    for name in ("site-packages", "dist-packages"):
        (folder / name).mkdir()
        (folder / name / "other.py").write_text("x = 1\n")
    assert len(find_files(folder)) == MODULES


def test_table_has_all_rows(folder: Path) -> None:
    text = _demo.format_report(report_on(folder))
    starts = [line.strip() for line in text.splitlines()]
    for row in ROWS:
        assert any(line.startswith(row) for line in starts), f"no row {row!r} in\n{text}"
    assert "  price " in text


def test_table_says_where_it_cannot_be_faster(folder: Path) -> None:
    report = report_on(folder)
    with_gil = _demo.format_report(dataclasses.replace(report, gil=True))
    assert "cannot be faster here" in with_gil.replace("\n", " ")
    free = _demo.format_report(dataclasses.replace(report, gil=False, workers=2))
    assert "cannot be faster" not in free
    one = _demo.format_report(dataclasses.replace(report, gil=False, workers=1))
    assert "With one worker" in one


def test_json_has_the_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--dir", str(folder), "--workers", "2", "--files", "5", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["files"] == figures["transactions"] == 5
    assert figures["speed_up"] > 0
    assert {"serial_seconds", "parallel_seconds", "conflicts", "seconds_lost"} <= figures.keys()


@pytest.mark.parametrize("name", [".", "no-such-folder"])
def test_nothing_to_index_is_said_clearly(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--dir", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ame demo: ")
    assert "give" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--files", "few"], ["--files", "-1"]])
def test_bad_number_is_said_clearly(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", *arguments])
    assert caught.value.code == 2
    assert "not a whole number of at least 1" in capsys.readouterr().err


def test_command_without_a_subcommand_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_command_line_runs_on_the_standard_library() -> None:
    paths = os.pathsep.join(path for path in [*sys.path, str(ROOT)] if path)
    done = subprocess.run(
        [sys.executable, "-m", "ame", "demo", "--files", "20", "--workers", "2"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    table = {line[2:16].strip(): line[16:].split() for line in done.stdout.splitlines()}
    assert table["files"][0] == "20"
    assert table["transactions"][0] == "20"
    assert table["results"] == ["equal"]
