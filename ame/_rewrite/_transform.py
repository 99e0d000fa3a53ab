"""Puts each block that may be atomic into a loop that executes it until it has committed.

`with EXPR as t: BODY`, where BODY assigns `x`, which is bound before, and `z`, which may not be::

    try: z
    except NameError: z = rt.UNBOUND
    for (t, x, z) in rt.block(SITE, EXPR, rt.UNBOUND, x, z):
        del t
        if z is rt.UNBOUND: del z
        try:
            with rt.attempt() as t:
                BODY
        except rt.Rerun:
            pass

INV-REWRITE-1  The iterator lives on the value stack and yields, for each attempt, the values that
               the names had before the first: no variables of ours, nothing in `locals()`.
INV-REWRITE-2  `rt.Rerun` comes from the end of `with`, so what BODY was about to do (return, break,
               continue) is dropped and the loop goes round.
INV-REWRITE-3  `break` and `continue` that aim at a loop outside set a variable just before they
               leave our loop, and it is deleted right after it.
INV-REWRITE-4  A node of ours has the place of the `with` item, one of the user's its own.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from ame._rewrite._nodes import BREAK, CONTINUE, Exits, Leaving, Maker
from ame._rewrite._resolve import Resolver
from ame._rewrite._scope import Scope, bindings, bound_by, mangled, target_names
from ame._rewrite._source import FunctionNode, suites

__all__ = ["Place", "Rewriter"]

_SITE = "\0ame\0site\0{}"


@dataclass(frozen=True, slots=True)
class Place:
    """A block: where it is, and why it is left alone (None: it is not)."""

    line: int
    qualname: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Context:
    """What is known where a statement stands."""

    scopes: tuple[Scope, ...] = ()
    prefix: str = ""
    class_name: str | None = None
    in_class_body: bool = False
    in_loop: bool = False
    bound: frozenset[str] = frozenset()

    @property
    def function(self) -> Scope | None:
        """The function whose own statement it is."""
        if self.in_class_body or not self.scopes or isinstance(self.scopes[-1].node, ast.Module):
            return None
        return self.scopes[-1]

    @property
    def where(self) -> str:
        """The qualified name of the function, class or module."""
        return self.prefix.removesuffix(".<locals>") or "<module>"

    def with_bound(self, names: set[str]) -> _Context:
        return replace(self, bound=self.bound | names) if names else self


class Rewriter:
    """Rewrites the blocks of a tree in place.

    Attributes:
        sites: the rewritten blocks by the placeholder of their site.
        refused: the blocks that were left alone.
    """

    def __init__(
        self,
        resolver: Resolver,
        extra_lines: frozenset[int] = frozenset(),
        *,
        module_level: bool = False,
    ) -> None:
        self._resolver = resolver
        self._extra_lines = extra_lines
        self._module_level = module_level
        self._flags = 0
        self.sites: dict[str, Place] = {}
        self.refused: list[Place] = []

    def rewrite(self, tree: ast.Module) -> None:
        """Rewrites the blocks of `tree`, a module or the chain of a function."""
        scopes = (Scope.of(tree),) if self._module_level else ()
        tree.body = self._suite(tree.body, _Context(scopes))

    # --- statements -----------------------------------------------------------------------

    def _suite(self, body: list[ast.stmt], context: _Context) -> list[ast.stmt]:
        result = []
        for statement in body:
            bound = bound_by(statement)  # before it is changed
            result += self._statement(statement, context)
            context = context.with_bound(bound)
        return result

    def _statement(self, statement: ast.stmt, context: _Context) -> list[ast.stmt]:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(statement, context)
            case ast.ClassDef():
                self._class(statement, context)
            case ast.With():
                return self._with(statement, context)
            case ast.For() | ast.AsyncFor() | ast.While():
                inside = replace(context, in_loop=True)
                target = getattr(statement, "target", None)
                statement.body = self._suite(
                    statement.body, inside.with_bound(target_names(target))
                )
                statement.orelse = self._suite(statement.orelse, context)
            case _:
                for suite in suites(statement):
                    suite[:] = self._suite(suite, context)
        return [statement]

    def _function(self, node: FunctionNode, context: _Context) -> None:
        scope = Scope.of(node)
        inside = _Context(
            (*context.scopes, scope),
            f"{_qualified(context.prefix, node.name)}.<locals>",
            context.class_name,
            bound=scope.parameters,
        )
        node.body = self._suite(node.body, inside)

    def _class(self, node: ast.ClassDef, context: _Context) -> None:
        inside = _Context(
            context.scopes, _qualified(context.prefix, node.name), node.name, in_class_body=True
        )
        node.body = self._suite(node.body, inside)

    # --- blocks ----------------------------------------------------------------------------

    def _with(self, statement: ast.With, context: _Context) -> list[ast.stmt]:
        index = self._first_candidate(statement, context)
        if index is None:
            return self._plain_with(statement, context)
        item = statement.items[index]
        reason = self._reason(context)
        if reason is not None:
            self.refused.append(Place(item.context_expr.lineno, context.where, reason))
            return self._plain_with(statement, context)
        before, after = statement.items[:index], statement.items[index + 1 :]
        if after:
            inner = ast.With(after, statement.body, **Maker(statement).place)
            body: list[ast.stmt] = [inner]
        else:
            body = statement.body
        block = self._block(item, body, context.with_bound(_targets(before)))
        if not before:
            return block
        statement.items = before
        statement.body = block
        return [statement]

    def _first_candidate(self, statement: ast.With, context: _Context) -> int | None:
        for index, item in enumerate(statement.items):
            if self._is_candidate(item.context_expr, context):
                return index
        return None

    def _plain_with(self, statement: ast.With, context: _Context) -> list[ast.stmt]:
        inside = context.with_bound(_targets(statement.items))
        statement.body = self._suite(statement.body, inside)
        return [statement]

    def _is_candidate(self, expr: ast.expr, context: _Context) -> bool:
        lines = range(expr.lineno, (expr.end_lineno or expr.lineno) + 1)
        if not self._extra_lines.isdisjoint(lines):
            return True
        return self._resolver.is_candidate(expr, context.scopes)

    def _block(self, item: ast.withitem, body: list[ast.stmt], context: _Context) -> list[ast.stmt]:
        """Returns the statements that stand for `with item: body`."""
        names = bindings([item.optional_vars, *body])
        inside = context.with_bound(target_names(item.optional_vars))
        body = self._suite(body, inside)
        make = Maker(item.context_expr)
        site = _SITE.format(len(self.sites))
        self.sites[site] = Place(item.context_expr.lineno, context.where)
        body = [Leaving(site).visit(each) for each in body]
        function = context.function
        if function is None:
            before, loop = self._module_loop(make, site, item, sorted(names))
        else:
            before, loop = self._function_loop(make, site, item, names, function, context)
        loop.body.append(self._attempt(make, item.optional_vars, body))
        return [*before, loop, *self._exits(make, loop, body)]

    def _reason(self, context: _Context) -> str | None:
        if context.in_class_body:
            return "class body"
        if context.function is None and not self._module_level:
            return "module level"
        return None

    def _attempt(self, make: Maker, target: ast.expr | None, body: list[ast.stmt]) -> ast.stmt:
        attempt = ast.withitem(make.call(make.runtime("attempt")), target)
        block = ast.With([attempt], body, **make.place)
        return make.attempt([block], make.runtime("Rerun"), make.nothing())

    def _function_loop(
        self,
        make: Maker,
        site: str,
        item: ast.withitem,
        counts: Counter[str],
        scope: Scope,
        context: _Context,
    ) -> tuple[list[ast.stmt], ast.For]:
        """Returns what comes before the loop, and the loop with the start of its body."""
        before, saved = [], []
        start: list[ast.stmt] = []
        names = scope.restored(counts)
        simple = self._is_simple(item.context_expr, context)
        for name in names:
            if name in context.bound and name not in scope.unstable:
                saved.append(make.load(name))
            elif _certainly_unbound(name, counts, scope, context):
                saved.append(make.runtime("UNBOUND"))
                start.append(make.delete(name))
            else:
                unbound = make.runtime("UNBOUND")
                start.append(make.when(make.load(name), ast.Is(), unbound, make.delete(name)))
                if simple:
                    before.append(_mark_if_unbound(make, name))
                    saved.append(make.load(name))
                else:
                    saved.append(_read_if_bound(make, mangled(name, context.class_name)))
        call = make.call(make.runtime("block"), make.constant(site), item.context_expr, *saved)
        return before, ast.For(make.names(names), call, start, [], **make.place)

    def _module_loop(
        self, make: Maker, site: str, item: ast.withitem, names: list[str]
    ) -> tuple[list[ast.stmt], ast.For]:
        """The same at module level: the runtime saves and restores the globals by name."""
        keys = ast.Tuple([make.constant(name) for name in names], ast.Load(), **make.place)
        call = make.call(
            make.runtime("block_in"),
            make.constant(site),
            item.context_expr,
            make.call(make.builtin("globals")),
            keys,
        )
        return [], ast.For(make.names([]), call, [], [], **make.place)

    def _is_simple(self, expr: ast.expr, context: _Context) -> bool:
        """Whether evaluating `expr` can neither bind a name nor, short of a mistake, raise."""
        match expr:
            case ast.Call(func=function, args=args, keywords=keywords):
                values = [*args, *(each.value for each in keywords)]
                if not all(isinstance(each, ast.Constant) for each in values):
                    return False
            case _:
                function = expr
        while isinstance(function, ast.Attribute):
            function = function.value
        return isinstance(function, ast.Name) and self._resolver.is_ours(expr, context.scopes)

    def _exits(self, make: Maker, loop: ast.For, body: list[ast.stmt]) -> list[ast.stmt]:
        """Has `break` and `continue` of `body` reach their loop; returns what follows ours."""
        flag = f".ame_exit{self._flags}"
        exits = Exits(flag)
        body[:] = _flat(exits.visit, body)
        if not exits.found:
            return []
        self._flags += 1
        loop.orelse = [make.assign(flag, make.constant(0))]
        after: list[ast.stmt] = []
        for way, leave in ((BREAK, ast.Break), (CONTINUE, ast.Continue)):
            if way in exits.found:
                then = make.delete(flag), leave(**make.place)
                after.append(make.when(make.load(flag), ast.Eq(), make.constant(way), *then))
        return [*after, make.delete(flag)]


def _qualified(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _targets(items: list[ast.withitem]) -> set[str]:
    return set().union(*(target_names(each.optional_vars) for each in items))


def _flat(
    visit: Callable[[ast.stmt], ast.stmt | list[ast.stmt]], body: list[ast.stmt]
) -> list[ast.stmt]:
    result: list[ast.stmt] = []
    for each in body:
        changed = visit(each)
        result += changed if isinstance(changed, list) else [changed]
    return result


def _certainly_unbound(name: str, counts: Counter[str], scope: Scope, context: _Context) -> bool:
    """Whether only the block itself binds `name`, and is reached once per call."""
    return (
        not context.in_loop
        and name in scope.locals
        and name not in scope.parameters
        and name not in scope.from_inside
        and scope.counts[name] == counts[name]
    )


def _mark_if_unbound(make: Maker, name: str) -> ast.stmt:
    """Returns `try: name`, `except NameError: name = UNBOUND`."""
    return make.attempt(
        [ast.Expr(make.load(name), **make.place)],
        make.builtin("NameError"),
        make.assign(name, make.runtime("UNBOUND")),
    )


def _read_if_bound(make: Maker, name: str) -> ast.expr:
    """Returns `locals().get(name, UNBOUND)`, which has no moment in which the mark can be seen."""
    variables = make.call(make.builtin("locals"))
    return make.call(make.attribute(variables, "get"), make.constant(name), make.runtime("UNBOUND"))
