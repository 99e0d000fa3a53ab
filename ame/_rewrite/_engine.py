"""Rewrites function objects: source, tree, code, and the proof that it is the same function.

INV-ENGINE-1  A function is changed only if its source, compiled as it stands, gives the very code
              that the function runs.
INV-ENGINE-2  The outermost function is rewritten with all functions in it, so that the closures it
              creates from then on are ready.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

from ame._rewrite._codes import (
    compile_tree,
    find_code,
    future_flags,
    nested,
    pairs,
    same_code,
    swap,
)
from ame._rewrite._registry import registry
from ame._rewrite._resolve import Resolver, is_atomic
from ame._rewrite._source import Outermost, Refused, chain_of, find
from ame._rewrite._transform import Rewriter

__all__ = ["install", "mentions_atomic", "rewrite"]

_CHANGED = "its source has changed since it was compiled"
_PYTEST = "@pytest_ar"  # the global through which rewritten asserts reach pytest


def rewrite(function: FunctionType, extra_lines: frozenset[int] = frozenset()) -> CodeType | None:
    """Returns the code that executes the blocks of `function` again when they lose.

    Args:
        function: any function with source; one inside of another is rewritten as a part of it.
        extra_lines: lines with `with` items that are blocks although they do not look like it.

    Returns:
        None if there is nothing to do: no blocks, or rewritten already.

    Raises:
        Refused: its blocks cannot be rewritten.
    """
    with registry.lock:
        current = function.__code__
        if current.co_name.startswith("<"):  # a lambda or the like has no statements
            return None
        original = registry.original(current)
        if not extra_lines and registry.is_known(original):
            new = registry.rewritten(original)
            return None if new is current else new
        outer, text = find(original, function.__globals__)
        key = original.co_filename, outer.first_line, outer.qualname
        known = registry.extra_lines(key)
        lines = registry.extra_lines(key, extra_lines)
        if lines != known or not registry.is_known(original):
            _compile_anew(function, original, outer, text, lines)
        new = registry.rewritten(original)
        return None if new is current else new


def _compile_anew(
    function: FunctionType,
    original: CodeType,
    outer: Outermost,
    text: str,
    lines: frozenset[int],
) -> None:
    """Registers the new code for `original` and all code inside of it.

    Raises:
        Refused: its source does not give that code.
    """
    namespace = function.__globals__
    tree, same = _verified_tree(original, outer, text, namespace)
    rewriter = Rewriter(Resolver(namespace, _closure(function)), lines)
    rewriter.rewrite(tree)
    for place in rewriter.refused:
        registry.refuse(original.co_filename, place.line, place.qualname, place.reason or "")
    if not rewriter.sites:
        registry.add(original, None)
        return
    flags = future_flags(original)
    whole = swap(compile_tree(tree, original.co_filename, flags), rewriter.sites)
    new = find_code(whole, original)
    if new is None or new.co_freevars != original.co_freevars:
        raise Refused("its variables would change")  # a mistake of ours
    for before, after in pairs(original, new):
        registry.add(before, after)
    for before, after in pairs(same, whole):  # the functions around it, for `original()`
        if not registry.is_new(after):
            registry.add(before, after)
    for place in rewriter.sites.values():
        registry.accept(original.co_filename, place.line, place.qualname)


def _verified_tree(
    original: CodeType, outer: Outermost, text: str, namespace: Mapping[str, Any]
) -> tuple[ast.Module, CodeType]:
    """Returns the tree that compiles to `original`, and what the whole tree compiles to.

    Raises:
        Refused: the source gives other code.
    """
    flags = future_flags(original)
    tries = [False, True] if _PYTEST in namespace else [False]
    for with_pytest in tries:
        tree = chain_of(outer)
        if with_pytest:
            _rewrite_asserts(tree, text)
        whole = compile_tree(tree, original.co_filename, flags)
        code = find_code(whole, original)
        if code is not None and same_code(code, original):
            return tree, whole
    raise Refused(_CHANGED)


def _rewrite_asserts(tree: ast.Module, text: str) -> None:
    """Does to `tree` what pytest has done to the module.

    Raises:
        Refused: this pytest does it in another way.
    """
    config = next(
        (each.config for each in sys.meta_path if type(each).__name__ == "AssertionRewritingHook"),  # type: ignore[attr-defined]
        None,
    )
    try:
        from _pytest.assertion.rewrite import rewrite_asserts

        rewrite_asserts(tree, text.encode(), None, config)
    except Exception as error:  # private to pytest
        raise Refused("pytest has rewritten its asserts in a way that ame cannot follow") from error


def _closure(function: FunctionType) -> dict[str, Any]:
    """Returns the values of the free variables of `function` that have one."""
    values = {}
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not yet
            continue
    return values


def install(function: FunctionType, extra_lines: frozenset[int] = frozenset()) -> bool:
    """Gives `function` its rewritten code; returns whether that changed anything.

    Raises:
        Refused: its blocks cannot be rewritten.
    """
    with registry.lock:
        new = rewrite(function, extra_lines)
        if new is None or new is function.__code__:
            return False
        function.__code__ = new
        return True


def mentions_atomic(function: FunctionType) -> bool:
    """Whether `function`, or a function in it, names something that may begin a block."""
    for code in nested(function.__code__):
        names = {*code.co_names, *code.co_freevars}
        if "atomic" in names or any(is_atomic(function.__globals__.get(each)) for each in names):
            return True
    return any(is_atomic(value) for value in _closure(function).values())
