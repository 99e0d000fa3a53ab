"""Which expressions of `with` statements may be atomic blocks.

Generous: a manager that turns out to be something else behaves as ever, as `rt.block` passes it
through.
"""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from ame._rewrite._scope import Scope
from ame._rewrite._source import FunctionNode

__all__ = ["Resolver", "atomic_type", "is_atomic"]

_BLOCK = object()  # stands for an atomic object that does not exist yet
_UNKNOWN = object()


def atomic_type() -> type:
    """Returns the type `ame.atomic`."""
    from stm import atomic

    return atomic


def is_atomic(value: object) -> bool:
    """Whether `value` is `ame.atomic`, an object of that type, or makes one."""
    if isinstance(value, functools.partial):
        value = value.func
    return value is _BLOCK or value is atomic_type() or type(value) is atomic_type()


class Resolver:
    """Follows names and attributes as far as that runs no code of the user."""

    def __init__(self, namespace: Mapping[str, Any], closure: Mapping[str, Any]) -> None:
        self._namespace = namespace
        self._closure = closure
        self._sources: dict[Scope, dict[str, list[ast.AST]]] = {}
        self._busy: set[tuple[int, str]] = set()

    def is_candidate(self, expr: ast.expr, scopes: tuple[Scope, ...]) -> bool:
        """Whether `expr`, in the innermost of `scopes`, may be an atomic block's manager."""
        match expr:
            case ast.IfExp(body=first, orelse=second):
                return self.is_candidate(first, scopes) or self.is_candidate(second, scopes)
            case ast.BoolOp(values=values):
                return any(self.is_candidate(each, scopes) for each in values)
            case ast.NamedExpr(value=value):
                return self.is_candidate(value, scopes)
            case ast.Call(func=ast.Name(id="atomic") | ast.Attribute(attr="atomic")):
                return True
            case _:
                return self.is_ours(expr, scopes)

    def is_ours(self, expr: ast.expr, scopes: tuple[Scope, ...]) -> bool:
        """Whether `expr` certainly makes, or is, an atomic object, unless a name is rebound."""
        value = self._value(expr, scopes)
        return value is not atomic_type() and is_atomic(value)

    def _value(self, expr: ast.AST, scopes: tuple[Scope, ...]) -> object:
        match expr:
            case ast.Name(id=name):
                return self._name(name, scopes)
            case ast.Attribute(value=base, attr=name):
                return _attribute(self._value(base, scopes), name)
            case ast.NamedExpr(value=value):
                return self._value(value, scopes)
            case ast.Call(func=function):
                made = self._value(function, scopes)
                if isinstance(made, functools.partial):
                    made = made.func
                return _BLOCK if made is atomic_type() else _UNKNOWN
            case _:
                return _UNKNOWN

    def _name(self, name: str, scopes: tuple[Scope, ...]) -> object:
        for depth in range(len(scopes), 0, -1):
            scope = scopes[depth - 1]
            if name in scope.globals:
                break
            if name in scope.locals:
                found = self._local(name, scopes[:depth])
                # At module level (`ame run`), the namespace may know more.
                if found is not _UNKNOWN or not isinstance(scope.node, ast.Module):
                    return found
        else:
            if name in self._closure:
                return self._closure[name]
        return self._namespace.get(name, getattr(builtins, name, _UNKNOWN))

    def _local(self, name: str, scopes: tuple[Scope, ...]) -> object:
        """Returns what some assignment of a variable of the innermost scope gives."""
        scope = scopes[-1]
        if scope not in self._sources:
            self._sources[scope] = {}
            for bound, source in _assignments(scope.node):
                self._sources[scope].setdefault(bound, []).append(source)
        if (id(scope), name) in self._busy:  # x = x
            return _UNKNOWN
        self._busy.add((id(scope), name))
        try:
            for source in self._sources[scope].get(name, ()):
                value = self._assigned(name, source, scopes)
                if value is not _UNKNOWN:
                    return value
        finally:
            self._busy.discard((id(scope), name))
        return _UNKNOWN

    def _assigned(self, name: str, source: ast.AST, scopes: tuple[Scope, ...]) -> object:
        match source:
            case ast.Import(names=aliases):
                for alias in aliases:
                    if name == (alias.asname or alias.name.split(".")[0]):
                        return sys.modules.get(alias.name if alias.asname else name, _UNKNOWN)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                package = self._module(module or "", level)
                for alias in aliases:
                    if name == (alias.asname or alias.name):
                        return _attribute(package, alias.name)
            case _:
                return self._value(source, scopes)
        return _UNKNOWN

    def _module(self, name: str, level: int) -> object:
        if level:
            package = str(self._namespace.get("__package__") or "")
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - level + 1])
            name = f"{base}.{name}" if name else base
        return sys.modules.get(name, _UNKNOWN)


def _attribute(value: object, name: str) -> object:
    """Returns an attribute of a module or class, without running anything of theirs."""
    if isinstance(value, ModuleType):
        return vars(value).get(name, _UNKNOWN)
    if isinstance(value, type):
        for base in value.__mro__:
            if name in vars(base):
                return vars(base)[name]
    return _UNKNOWN


def _assignments(scope: FunctionNode | ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yields each name that `scope` itself imports or assigns, with the node that says what."""
    pending: list[ast.AST] = list(scope.body)
    while pending:
        node = pending.pop(0)
        match node:
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for alias in aliases:
                    yield alias.asname or alias.name.split(".")[0], node
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        yield target.id, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                yield name, value
        if not isinstance(node, FunctionNode | ast.ClassDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))
