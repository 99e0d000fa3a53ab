"""The examples in the README run, and print what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import run_script

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.M)


CASES = [(d.name, n, code) for d in DOCUMENTS for n, code in enumerate(blocks(d))]


@pytest.mark.parametrize(("name", "number", "code"), CASES, ids=[f"{n}-{i}" for n, i, _ in CASES])
def test_example_runs_and_prints_what_it_says(name: str, number: int, code: str) -> None:
    expected = re.findall(r"^\s*print\(.*?\)\s+# (.+)$", code, re.M)
    printed = run_script(code).stdout.splitlines()
    assert printed == expected


def test_readme_has_an_example() -> None:
    assert blocks(ROOT / "README.md")
