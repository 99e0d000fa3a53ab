"""The examples in the README and in docs run, and print what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import run_script

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.M)


def fences(text: str) -> list[str]:
    """The lines that begin or end code, as a Markdown reader sees them."""
    return re.findall(r"^ *(?:`{3,}|~{3,}).*$", text, re.M)


CASES = [(d.name, n, code) for d in DOCUMENTS for n, code in enumerate(blocks(d))]


@pytest.mark.parametrize(("name", "number", "code"), CASES, ids=[f"{n}-{i}" for n, i, _ in CASES])
def test_example_runs_and_prints_what_it_says(name: str, number: int, code: str) -> None:
    expected = re.findall(r"^\s*print\(.*?\)\s+# (.+)$", code, re.M)
    printed = run_script(code).stdout.splitlines()
    assert printed == expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_code_is_passed_over(document: Path) -> None:
    """Catches: examples that do not run, as their fences are written in some other way."""
    text = document.read_text("utf-8")
    assert set(fences(text)) <= {"```", "```python"}
    assert fences(text).count("```python") == len(blocks(document))


@pytest.mark.parametrize("name", ["README.md", "docs/semantics.md"])
def test_document_has_an_example(name: str) -> None:
    assert (ROOT / name) in DOCUMENTS
    assert blocks(ROOT / name)
