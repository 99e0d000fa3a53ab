"""The layout of the project: who may include and import whom, sizes, invariants, public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "csrc" / "core"
LINES = 500
SOURCES = {".py", ".pyi", ".c", ".h", ".md", ".toml"}
ROOT_HEADER_LAYER = 0  # of headers without a number: they stand below all others
LAYER = re.compile(r"/\* Layer (\d+)")
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^">]+)[">]', re.MULTILINE)
INVARIANT = re.compile(r"^ \* INV-([A-Z]+)-(\d+)  \S", re.MULTILINE)
GUARD = re.compile(r"Guarded by (.*?)(?:\.\s*\n|\*/)", re.DOTALL)
GUARD_PATH = re.compile(r"tests/[\w/]+(?:\.py)?")
PUBLIC_PACKAGES = ["ame", "stm"]
# What each header may include although it says no layer: the interface and the platform.
UNNUMBERED = {"stm_api.h", "stm_atomic.h", "stm_platform.h", "stm_fault.h"}

core_headers = sorted(CORE.glob("*.h"))
core_sources = sorted(CORE.glob("*.c"))
host_sources = sorted((ROOT / "csrc" / "py").glob("*.c"))
each_core_source = pytest.mark.parametrize("path", core_sources, ids=lambda path: path.name)
each_c_source = pytest.mark.parametrize(
    "path", [*core_sources, *host_sources], ids=lambda path: path.name
)


def includes(path: Path) -> list[str]:
    return INCLUDE.findall(path.read_text())


def layer_of(path: Path) -> int | None:
    found = LAYER.match(path.read_text())
    return int(found[1]) if found else None


def head_comment(path: Path) -> str:
    return path.read_text().split("*/", 1)[0] + "*/"


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Every (module, name) that a Python file imports; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import in line {node.lineno}"
            yield from ((node.module or "", alias.name) for alias in node.names)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def project_files() -> list[Path]:
    """The files that are or will be under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        names = [name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        folders = ["ame", "stm", "csrc", "tests", "scripts", "examples", "benchmarks", "stress"]
        names = [str(p.relative_to(ROOT)) for f in folders for p in (ROOT / f).rglob("*")]
    paths = [ROOT / name for name in names]
    return [path for path in paths if path.suffix in SOURCES and path.is_file()]


def test_there_is_something_to_check() -> None:
    assert len(core_headers) > 10
    assert len(core_sources) > 10
    assert len(host_sources) > 5


@pytest.mark.parametrize("path", [*core_headers, *core_sources], ids=lambda path: path.name)
def test_core_knows_nothing_of_python(path: Path) -> None:
    text = path.read_text()
    assert not [name for name in includes(path) if name in {"Python.h", "structmember.h"}]
    assert not [name for name in includes(path) if name.startswith("stmpy_")]
    assert not re.search(r"\bPy[A-Z_]\w*\(", text)


@pytest.mark.parametrize("path", core_headers, ids=lambda path: path.name)
def test_core_header_includes_no_higher_layer(path: Path) -> None:
    layer = layer_of(path)
    if layer is None:
        assert path.name in UNNUMBERED, f"{path.name} does not begin with 'Layer n:'"
        layer = ROOT_HEADER_LAYER
    for name in includes(path):
        if not (CORE / name).is_file():
            continue
        other = layer_of(CORE / name)
        assert (other or ROOT_HEADER_LAYER) <= layer, f"{path.name} ({layer}): {name} ({other})"


def test_core_headers_include_each_other_in_no_circle() -> None:
    edges = {path.name: set(includes(path)) for path in core_headers}
    left = dict(edges)
    while left:
        ready = [name for name, needs in left.items() if not needs & left.keys()]
        assert ready, f"a circle among {sorted(left)}"
        for name in ready:
            del left[name]


@pytest.mark.parametrize("path", modules("stm"), ids=lambda path: path.name)
def test_stm_never_imports_ame(path: Path) -> None:
    assert not [module for module, _ in imported(path) if module.split(".")[0] == "ame"]


@pytest.mark.parametrize("path", modules("ame"), ids=lambda path: path.name)
def test_ame_imports_public_names_of_stm_only(path: Path) -> None:
    public = set(importlib.import_module("stm").__all__)
    public |= {each.stem for each in (ROOT / "stm").glob("[a-z]*.py")}  # public modules
    for module, name in imported(path):
        assert not module.startswith("stm."), f"{path.name} imports {module}"
        if module == "stm" and name:
            assert name in public, f"{path.name} imports stm.{name}"
    private = re.findall(r"\bstm\._\w+", path.read_text())
    assert not private


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_all_is_what_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    names = list(module.__all__)
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []
    visible = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    source = {name for found, name in imported(ROOT / package / "__init__.py") if found == "typing"}
    assert visible - source - {"annotations"} == set(names)


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_public_names_have_docstrings(package: str) -> None:
    module = importlib.import_module(package)
    quiet = {"DictItems", "DictKeys", "DictValues"}  # views, as the built-in ones
    silent = [n for n in module.__all__ if n not in quiet and not getattr(module, n).__doc__]
    assert silent == []


def test_no_file_is_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in project_files()}
    assert lengths
    too_long = {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > LINES}
    assert too_long == {}


@each_c_source
def test_c_file_opens_with_its_invariants(path: Path) -> None:
    head = head_comment(path)
    assert head.startswith("/* ")
    found = INVARIANT.findall(head)
    assert found, f"{path.name} names no INV-X-n"
    assert len({family for family, _ in found}) == 1
    assert [int(number) for _, number in found] == list(range(1, len(found) + 1))


@each_core_source
def test_core_file_names_the_test_that_guards_it(path: Path) -> None:
    guard = GUARD.search(head_comment(path))
    assert guard, f"{path.name} has no 'Guarded by'"


@each_c_source
def test_guarding_tests_exist(path: Path) -> None:
    guard = GUARD.search(head_comment(path))
    named = GUARD_PATH.findall(guard[1]) if guard else []
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_invariants_that_are_referred_to_exist() -> None:
    files = [*core_headers, *core_sources, *(ROOT / "csrc" / "py").glob("*.[ch]")]
    texts = {path.name: path.read_text() for path in files}
    defined = {f"{f}-{n}" for text in texts.values() for f, n in INVARIANT.findall(text)}
    wrong = {
        f"{name}: INV-{label}"
        for name, text in texts.items()
        for label in re.findall(r"INV-([A-Z]+-\d+)", text)
        if label not in defined
    }
    assert wrong == set()


def test_conditional_compilation_is_in_few_core_files() -> None:
    guard = re.compile(r"^#ifn?def STM\w*_H\b|^#ifndef STM_\w+_H$")
    users = {
        path.name
        for path in [*core_headers, *core_sources]
        for line in path.read_text().splitlines()
        if re.match(r"\s*#\s*if", line) and not guard.match(line)
    }
    assert len(users) <= 3, users
