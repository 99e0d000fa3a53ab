"""docs/semantics.md proves what it says: each statement cites a test, each cited test exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "semantics.md"
LINES = 260
CITATION = re.compile(r"\[(tests/[^\s\]:]+)::(\w+)(?:\[[^\]\s]*\])?\]")
ANY_LINK_TO_TESTS = re.compile(r"\[[^\]\s]*tests/[^\]]*\]")
ITEM = re.compile(r"(?:\*|\d+\.) ")
SENTENCE_END = re.compile(r"[.:?!](?=\s|$)")


@functools.cache
def functions_of(path: Path) -> frozenset[str]:
    """The functions defined at the top of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def citation_problems(text: str) -> list[str]:
    """What is wrong with the node ids: malformed, no such file, no such test."""
    found = [f"not a node id: {each}" for each in ANY_LINK_TO_TESTS.findall(CITATION.sub("", text))]
    for file, name in CITATION.findall(text):
        path = ROOT / file
        if not path.is_file():
            found.append(f"no file {file}")
        elif not name.startswith("test_") or name not in functions_of(path):
            found.append(f"no test {name} in {file}")
    return found


def statements(text: str) -> list[str]:
    """Each list item, or line outside of lists, of the sections; without headings and code."""
    sections = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.M).partition("\n## ")[2]
    found: list[str] = []
    for line in sections.splitlines()[1:]:
        if line.startswith("  ") and found:
            found[-1] += "\n" + line.strip()
        elif line.strip() and not line.startswith("#"):
            found.append(line)
    return found


def statement_problems(text: str) -> list[str]:
    """The statements that nothing proves.

    A list item ends with a citation.  A line outside of lists may only introduce what follows.
    """
    found = []
    for each in statements(text):
        if ITEM.match(each):
            if not re.search(CITATION.pattern + r"$", each):
                found.append(f"nothing proves: {each}")
        elif not each.endswith(":") or len(SENTENCE_END.findall(each)) > 1:
            found.append(f"a statement outside of a list: {each}")
    return found


def test_every_cited_test_exists() -> None:
    assert citation_problems(PAGE.read_text("utf-8")) == []


def test_every_statement_cites_its_proof() -> None:
    assert statement_problems(PAGE.read_text("utf-8")) == []


def test_page_is_read_and_short() -> None:
    """Catches: checks that pass because they find nothing."""
    text = PAGE.read_text("utf-8")
    assert len(text.splitlines()) <= LINES
    assert len(statements(text)) > 80
    assert len(CITATION.findall(text)) >= len(statements(text)) - text.count(":\n")


GOOD = "tests/contracts/test_semantics.py::test_page_is_read_and_short"
MISTAKES = {
    "no such file": "[tests/contracts/test_nothing.py::test_page_is_read_and_short]",
    "no such test": "[tests/contracts/test_semantics.py::test_nothing]",
    "no test function": "[tests/contracts/test_semantics.py::statements]",
    "no function": "[tests/contracts/test_semantics.py]",
    "a class too many": "[tests/contracts/test_semantics.py::Class::test_every_cited_test_exists]",
}
UNPROVED = {
    "item": f"* One.\n  [{GOOD}]\n* Two.\n",
    "numbered": f"1. One.\n  [{GOOD}]\n2. Two.\n",
    "more after the citation": f"* One. [{GOOD}] Two.\n",
    "paragraph": f"All is well.\n* One. [{GOOD}]\n",
    "paragraph with an introduction": f"All is well. And so:\n* One. [{GOOD}]\n",
    "in the second section": f"* One. [{GOOD}]\n\n## Second\n\n* Two.\n",
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_self_check_wrong_citation_is_noticed(mistake: str) -> None:
    assert citation_problems(f"# Page\n\n## First\n\n* One. {mistake}\n")


@pytest.mark.parametrize("section", UNPROVED.values(), ids=UNPROVED.keys())
def test_self_check_statement_without_proof_is_noticed(section: str) -> None:
    assert statement_problems(f"# Page\n\nFree text.\n\n## First\n\n{section}")


def test_self_check_proved_statements_pass() -> None:
    code = "```python\nprint(1)  # 1\n```\n"
    text = f"# Page\n\nFree.\n\n## First\n\nIn order:\n\n1. One\n  two.\n  [{GOOD}[a-1]]\n\n{code}"
    assert citation_problems(text) == statement_problems(text) == []
