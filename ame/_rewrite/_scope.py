"""Which names a piece of code binds, and which variables a function has.

A name is *bound* where it is stored or deleted: the block has to restore both.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ame._rewrite._source import FunctionNode

__all__ = ["Scope", "bindings", "bound_by", "mangled", "target_names"]

_HIDDEN = ("@py", ".")  # pytest's temporary variables and ours: always stored before they are read


class _Collector(ast.NodeVisitor):
    """Counts what the visited nodes bind in their own scope, and gathers its declarations."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()
        self.from_inside: set[str] = set()  # what scopes inside of this one declare nonlocal

    def bind(self, name: str | None) -> None:
        if name is not None and not name.startswith(_HIDDEN):
            self.counts[name] += 1

    def visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.bind(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        self.globals.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.nonlocals.update(node.names)

    def visit_alias(self, node: ast.alias) -> None:
        if node.name != "*":
            self.bind(node.asname or node.name.split(".")[0])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.bind(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.bind(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self.bind(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.bind(node.rest)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit_all([node.target, node.value])

    def visit_TypeAlias(self, node: Any) -> None:  # 3.12; its value is a scope of its own
        self.visit(node.name)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit_all([*node.args.defaults, *node.args.kw_defaults])

    def visit_FunctionDef(self, node: FunctionNode) -> None:
        self.bind(node.name)
        self.visit_all([*node.decorator_list, *node.args.defaults, *node.args.kw_defaults])
        inside = Scope.of(node)
        self.from_inside |= inside.nonlocals | (inside.from_inside - inside.locals)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.bind(node.name)
        self.visit_all([*node.decorator_list, *node.bases, *node.keywords])
        inside = _Collector()
        inside.visit_all(node.body)
        self.from_inside |= inside.nonlocals | inside.from_inside

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit_all([node.iter, *node.ifs])  # not its target, a variable of its own


def bindings(nodes: Iterable[ast.AST | None]) -> Counter[str]:
    """Returns how often `nodes` bind each name, not counting scopes inside of them."""
    collector = _Collector()
    collector.visit_all(nodes)
    return collector.counts


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """A function or a module, and its variables."""

    node: FunctionNode | ast.Module
    parameters: frozenset[str]
    counts: Counter[str]
    locals: frozenset[str]
    globals: frozenset[str]
    nonlocals: frozenset[str]
    from_inside: frozenset[str]
    unstable: frozenset[str] = field(default=frozenset())  # names that something here deletes

    @classmethod
    def of(cls, node: FunctionNode | ast.Module) -> Scope:
        """Returns the scope of `node`."""
        collector = _Collector()
        collector.visit_all(node.body)
        parameters = frozenset() if isinstance(node, ast.Module) else _parameters(node.args)
        declared = collector.globals | collector.nonlocals
        return cls(
            node,
            parameters,
            collector.counts,
            (parameters | collector.counts.keys()) - declared,
            frozenset(collector.globals),
            frozenset(collector.nonlocals),
            frozenset(collector.from_inside),
            frozenset(_deleted(node)),
        )

    def restored(self, block: Counter[str]) -> list[str]:
        """Returns the names whose values a block that binds the names `block` has to restore."""
        own = (self.locals | self.nonlocals) - self.globals
        return sorted((block.keys() | self.from_inside) & own)


def _parameters(arguments: ast.arguments) -> frozenset[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    return frozenset(each.arg for each in every)


def _deleted(node: ast.AST) -> set[str]:
    """Returns the names that something in `node` deletes, in scopes inside of it too."""
    names = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Del):
            names.add(each.id)
        elif isinstance(each, ast.ExceptHandler) and each.name is not None:
            names.add(each.name)
    return names


def target_names(target: ast.expr | None) -> set[str]:
    """Returns the names that an assignment to `target` binds."""
    return set() if target is None else set(bindings([target]))


def bound_by(statement: ast.stmt) -> set[str]:
    """Returns names that are certainly bound once `statement` has run to its end."""
    match statement:
        case ast.Assign(targets=targets):
            return set().union(*(target_names(each) for each in targets))
        case ast.AnnAssign(target=target, value=ast.expr()) | ast.AugAssign(target=target):
            return target_names(target)
        case ast.Import() | ast.ImportFrom() as statement:
            return set(bindings(statement.names))
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.With(items=items):
            return target_names(items[0].optional_vars)
        case _:
            return set()


def mangled(name: str, class_name: str | None) -> str:
    """Returns the name under which a function in the class `class_name` keeps `name`."""
    stem = (class_name or "").lstrip("_")
    if not stem or not name.startswith("__") or name.endswith("__") or "." in name:
        return name
    return f"_{stem}{name}"
