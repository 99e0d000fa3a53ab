"""Finds the source of a code object and its outermost function in it.

Terms: the *chain* of a function is the module reduced to its imports, the classes around the
outermost function and that function itself, with everything nested in it.  Compiled, it gives the
same code objects as the whole file does.  (The imports matter: `name.f()` compiles to other code
where `name` is imported by the module.)
"""

from __future__ import annotations

import ast
import copy
import linecache
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

__all__ = ["FunctionNode", "Outermost", "Refused", "chain_of", "find", "lines_of", "parse"]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_CACHED_FILES = 16


class Refused(Exception):
    """A function or a block of it cannot be rewritten; the text says why."""


@dataclass(frozen=True, slots=True)
class Outermost:
    """A function that is in no other function, its module's imports, the classes around it."""

    imports: tuple[ast.stmt, ...]
    classes: tuple[ast.ClassDef, ...]
    node: FunctionNode
    first_line: int
    last_line: int

    @property
    def qualname(self) -> str:
        """The name by which the module reaches it."""
        return ".".join([*(each.name for each in self.classes), self.node.name])


@dataclass(frozen=True, slots=True)
class _File:
    lines: list[str]
    text: str
    functions: tuple[Outermost, ...]


_files: OrderedDict[str, _File] = OrderedDict()


def lines_of(code: CodeType, namespace: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the file that `code` was compiled from.

    Raises:
        Refused: there is no source.
    """
    from_code = getattr(linecache, "_getlines_from_code", None)  # 3.13: the prompt and -c
    lines: list[str] = list(from_code(code) or ()) if from_code is not None else []
    if not lines:
        linecache.checkcache(code.co_filename)
        lines = linecache.getlines(code.co_filename, _for_loader(namespace))
    if not lines:
        raise Refused("no source")
    return lines


def _for_loader(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the globals of a module by which `linecache` finds its loader."""
    names = "__name__", "__loader__", "__spec__"
    return {name: namespace[name] for name in names if name in namespace}


def parse(text: str, filename: str) -> ast.Module:
    """Returns the tree of the program `text`.

    Raises:
        Refused: it is not a program.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first compilation has shown them
            tree = compile(text, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Refused(f"its source cannot be parsed ({type(error).__name__})") from error
    assert isinstance(tree, ast.Module)
    return tree


def find(code: CodeType, namespace: Mapping[str, Any]) -> tuple[Outermost, str]:
    """Returns the outermost function around `code`, and the text of its file.

    Raises:
        Refused: there is no source, or not that function in it.
    """
    file = _load(code, namespace)
    for function in file.functions:
        if function.first_line <= code.co_firstlineno <= function.last_line:
            return function, file.text
    raise Refused("its source has changed since it was compiled")


def _load(code: CodeType, namespace: Mapping[str, Any]) -> _File:
    """Returns the parsed file of `code`, from the cache if its lines are the same."""
    lines = lines_of(code, namespace)
    known = _files.get(code.co_filename)
    if known is not None and (known.lines is lines or known.lines == lines):
        _files.move_to_end(code.co_filename)
        return known
    text = "".join(lines)
    body = parse(text, code.co_filename).body
    imports = tuple(_imports(body))
    functions = tuple(
        Outermost(imports, classes, node, *_line_range(node))
        for classes, node in _outermost(body, ())
    )
    file = _File(lines, text, functions)
    _files[code.co_filename] = file
    while len(_files) > _CACHED_FILES:
        _files.popitem(last=False)
    return file


def _imports(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields the import statements of a module in `body`, not those of its classes."""
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        elif not isinstance(statement, FunctionNode | ast.ClassDef):
            for suite in suites(statement):
                yield from _imports(suite)


def _outermost(
    body: list[ast.stmt], classes: tuple[ast.ClassDef, ...]
) -> Iterator[tuple[tuple[ast.ClassDef, ...], FunctionNode]]:
    """Yields the functions in `body` that are in no other function, with their classes."""
    for statement in body:
        if isinstance(statement, FunctionNode):
            yield classes, statement
        elif isinstance(statement, ast.ClassDef):
            yield from _outermost(statement.body, (*classes, statement))
        else:
            for suite in suites(statement):
                yield from _outermost(suite, classes)


def _line_range(node: FunctionNode) -> tuple[int, int]:
    """Returns the first line of a function, that of its decorators, and its last one."""
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return first, node.end_lineno or node.lineno


def suites(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yields the lists of statements directly inside a compound statement."""
    for name in ("body", "orelse", "finalbody"):
        suite = getattr(statement, name, None)
        if isinstance(suite, list):
            yield suite
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body


def chain_of(function: Outermost) -> ast.Module:
    """Returns a tree of the chain of `function`; the caller may change it.

    Raises:
        Refused: the function is nested too deeply to be copied.
    """
    try:
        node: ast.stmt = copy.deepcopy(function.node)
    except RecursionError as error:
        raise Refused("it is nested too deeply") from error
    for outer in reversed(function.classes):
        around = ast.ClassDef(
            name=outer.name, bases=[], keywords=[], body=[node], decorator_list=[]
        )
        if sys.version_info >= (3, 12):
            around.type_params = copy.deepcopy(outer.type_params)
        node = ast.copy_location(around, outer)
    return ast.Module(body=[*function.imports, node], type_ignores=[])
