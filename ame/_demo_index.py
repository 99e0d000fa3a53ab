"""What the demo computes: an index of Python source files, filled one file at a time.

`index_file` is the body of the demo's loop. The plain loop calls it with plain dicts, the parallel
loop with `ame.Dict`s as one transaction per file: the code is the same. It works in two steps,
which is what keeps large transactions from conflicting:

1. `read_module` parses one file and collects everything into objects of its own;
2. `merge_module` adds the result to the shared tables, last and quickly.

So an iteration of some milliseconds touches shared state only in its last fraction of a
millisecond, and loses only to an iteration that commits in exactly that time.
"""

from __future__ import annotations

import ast
import contextlib
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Index",
    "Module",
    "ModuleStats",
    "SourceFile",
    "find_files",
    "index_file",
    "merge_module",
    "read_module",
    "standard_library",
]

_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__"})

# CPython 3.11 counts the depth of what it parses for all threads together, and raises SystemError
# when a callback of the garbage collector lets another thread parse meanwhile.
_PARSER = threading.Lock() if sys.version_info < (3, 12) else contextlib.nullcontext()

# The field that holds the identifier, for each kind of node that has one. Looked up by the exact
# type: cheaper than trying `isinstance` or `match` on one class after the other for every node.
_NAMED: Mapping[type, str] = {
    ast.Name: "id",
    ast.Attribute: "attr",
    ast.arg: "arg",
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to index: where it lies, its dotted module name, its size in bytes."""

    path: Path
    module: str
    size: int

    @property
    def package(self) -> str:
        """The package that relative imports in this file start from."""
        if self.path.name == "__init__.py":
            return self.module
        return self.module.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class ModuleStats:
    """What is counted for each module. Frozen: a value in shared state is replaced, not changed."""

    lines: int
    nodes: int
    functions: int
    classes: int
    imports: int


@dataclass(frozen=True, slots=True)
class Module:
    """Everything one file adds to the index; belongs to the iteration that made it."""

    name: str
    stats: ModuleStats
    symbols: dict[str, int]
    imports: frozenset[str]


@dataclass(frozen=True, slots=True)
class Index:
    """The result: plain dicts in the plain loop, `ame.Dict`s in the parallel one.

    `symbols` counts each identifier over all files. `modules` has the statistics of each module,
    `imports` the modules that it imports, `skipped` the reason if it could not be indexed.
    """

    symbols: MutableMapping[str, int]
    modules: MutableMapping[str, ModuleStats]
    imports: MutableMapping[str, frozenset[str]]
    skipped: MutableMapping[str, str]


def standard_library() -> Path:
    """Return the folder with the standard library of the running Python."""
    return Path(sysconfig.get_paths()["stdlib"])


def find_files(folder: Path, *, limit: int | None = None) -> list[SourceFile]:
    """Return the Python files below `folder`, largest first, without installed packages.

    Largest first keeps the last file that runs short, so that no worker waits long for another at
    the end. Files of the same size are in the order of their paths: the same list every time.
    `limit` keeps that many, evenly over the list, so that the sizes stay mixed.

    Raises `ValueError` when `limit` is below 1, `NotADirectoryError` when `folder` is not a folder,
    `FileNotFoundError` when no Python file is in it.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give the number of files to index, 1 or more")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give one that holds Python files")
    files = []
    names: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if not _NOT_LIBRARY.isdisjoint(inside.parts) or not path.is_file():
            continue
        name = _module_name(inside)
        if name in names:  # `a.py` beside `a/__init__.py`: every file has a name of its own
            name = inside.as_posix()
        names.add(name)
        files.append(SourceFile(path, name, path.stat().st_size))
    if not files:
        raise FileNotFoundError(f"no Python file (*.py) below {folder}; give another folder")
    files.sort(key=lambda file: (-file.size, file.path))
    if limit is None or limit >= len(files):
        return files
    return [files[i * len(files) // limit] for i in range(limit)]


def index_file(index: Index, file: SourceFile) -> None:
    """Index one file: the body of the loop, run again from its start when it lost a conflict."""
    module = read_module(file)
    if isinstance(module, str):
        index.skipped[file.module] = module
    else:
        merge_module(index, module)


def read_module(file: SourceFile) -> Module | str:
    """Parse `file` and return what it adds to the index, or why it can't be indexed.

    Reads no shared state, so however long it takes, it gives no other iteration cause to conflict.
    """
    try:
        source = file.path.read_bytes()
        with _PARSER:
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
        return type(error).__name__
    symbols: dict[str, int] = {}
    imports: set[str] = set()
    named = _NAMED
    nodes = functions = classes = statements = 0
    for node in _walk(tree):
        nodes += 1
        kind = type(node)
        field = named.get(kind)
        if field is not None:
            symbol = getattr(node, field)
            symbols[symbol] = symbols.get(symbol, 0) + 1
            if kind is ast.ClassDef:
                classes += 1
            elif field == "name":
                functions += 1
        elif kind is ast.Import or kind is ast.ImportFrom:
            imports.update(_imported(node, file.package))
            statements += 1
    stats = ModuleStats(
        lines=source.count(b"\n"),
        nodes=nodes,
        functions=functions,
        classes=classes,
        imports=statements,
    )
    return Module(file.module, stats, symbols, frozenset(imports))


def merge_module(index: Index, module: Module) -> None:
    """Add one module to the shared tables: the only part that can meet other iterations.

    `modules` and `imports` have a key for each iteration of its own, so they never conflict (the
    opposite, one entry per imported module that lists who imports it, would: everyone imports
    `sys`). The counts in `symbols` are shared by all.
    """
    index.modules[module.name] = module.stats
    index.imports[module.name] = module.imports
    symbols = index.symbols
    for symbol, count in module.symbols.items():
        symbols[symbol] = symbols.get(symbol, 0) + count


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield `tree` and the nodes below it, outermost first.

    As `ast.walk`, except that it asks for the fields of a kind of node once per tree and leaves
    out `ctx`. Both are objects that all threads share (one tuple per kind, one `Load` for all
    names), and on free-threaded Python each use of a shared object counts a reference to it
    atomically: threads that do so all the time slow each other down.
    """
    fields: dict[type, list[str]] = {}
    found = [tree]
    for node in found:
        yield node
        kind = type(node)
        names = fields.get(kind)
        if names is None:
            names = fields[kind] = [field for field in kind._fields if field != "ctx"]
        for name in names:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found.extend([item for item in value if isinstance(item, ast.AST)])
            elif isinstance(value, ast.AST):
                found.append(value)


def _imported(node: ast.AST, package: str) -> list[str]:
    """Return the full names of the modules that an import statement in `package` names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [_absolute(node.module or "", node.level, package)]
    return []


def _module_name(inside: Path) -> str:
    """Return the dotted name of the module in a file, given its path below the folder."""
    parts = inside.with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1] or ("__init__",)
    return ".".join(parts)


def _absolute(target: str, level: int, package: str) -> str:
    """Return the full name of the module that `from {level dots}{target} import ...` names."""
    if level == 0:
        return target
    parents = package.split(".")
    base = ".".join(parents[: len(parents) - level + 1])
    return f"{base}.{target}".strip(".")
