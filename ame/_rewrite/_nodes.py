"""Small trees, all at one place of the source, and the visitors that run over the body of a block.

Terms: a *placeholder* is a string constant that is swapped for an object after compilation, so that
generated code needs no names.
"""

from __future__ import annotations

import ast
from typing import Any

__all__ = ["BREAK", "CONTINUE", "BUILTINS", "RUNTIME", "Exits", "Leaving", "Maker"]

RUNTIME = "\0ame\0runtime"
BUILTINS = "\0ame\0builtins"

BREAK, CONTINUE = 1, 2


class Maker:
    """Makes nodes at the place of one node of the user's."""

    def __init__(self, at: ast.AST) -> None:
        self.place: dict[str, Any] = {
            name: getattr(at, name)
            for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")
        }

    def constant(self, value: object) -> ast.expr:
        return ast.Constant(value, **self.place)  # type: ignore[arg-type]

    def load(self, name: str) -> ast.expr:
        return ast.Name(name, ast.Load(), **self.place)

    def names(self, names: list[str]) -> ast.expr:
        elements: list[ast.expr] = [ast.Name(name, ast.Store(), **self.place) for name in names]
        return ast.Tuple(elements, ast.Store(), **self.place)

    def runtime(self, name: str) -> ast.expr:
        return ast.Attribute(self.constant(RUNTIME), name, ast.Load(), **self.place)

    def builtin(self, name: str) -> ast.expr:
        return ast.Attribute(self.constant(BUILTINS), name, ast.Load(), **self.place)

    def call(self, function: ast.expr, *arguments: ast.expr) -> ast.expr:
        return ast.Call(function, list(arguments), [], **self.place)

    def attribute(self, value: ast.expr, name: str) -> ast.expr:
        return ast.Attribute(value, name, ast.Load(), **self.place)

    def assign(self, name: str, value: ast.expr) -> ast.stmt:
        return ast.Assign([ast.Name(name, ast.Store(), **self.place)], value, **self.place)

    def delete(self, name: str) -> ast.stmt:
        return ast.Delete([ast.Name(name, ast.Del(), **self.place)], **self.place)

    def when(self, left: ast.expr, operator: ast.cmpop, right: ast.expr, *then: ast.stmt) -> ast.If:
        return ast.If(
            ast.Compare(left, [operator], [right], **self.place), list(then), [], **self.place
        )

    def attempt(self, body: list[ast.stmt], error: ast.expr, then: ast.stmt) -> ast.stmt:
        """Makes `try: body`, `except error: then`."""
        handler = ast.ExceptHandler(error, None, [then], **self.place)
        return ast.Try(body, [handler], [], [], **self.place)

    def nothing(self) -> ast.stmt:
        return ast.Pass(**self.place)


class _OwnScope(ast.NodeTransformer):
    """Visits a body but not the scopes inside of it."""

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(each) for each in node.decorator_list]
        self._defaults(node.args)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [self.visit(each) for each in node.decorator_list]
        node.bases = [self.visit(each) for each in node.bases]
        node.keywords = [self.visit(each) for each in node.keywords]
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._defaults(node.args)
        return node

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        node.generators[0].iter = self.visit(node.generators[0].iter)
        return node

    def _defaults(self, arguments: ast.arguments) -> None:
        arguments.defaults = [self.visit(each) for each in arguments.defaults]
        arguments.kw_defaults = [
            None if each is None else self.visit(each) for each in arguments.kw_defaults
        ]


class Leaving(_OwnScope):
    """Makes each place where a body lets other code run check that its block is not open."""

    def __init__(self, site: str) -> None:
        self._site = site

    def _checked(self, value: ast.expr) -> ast.expr:
        make = Maker(value)
        return make.call(make.runtime("leaving"), make.constant(self._site), value)

    def visit_Yield(self, node: ast.Yield) -> ast.AST:
        self.generic_visit(node)
        node.value = self._checked(node.value or Maker(node).constant(None))
        return node

    def visit_YieldFrom(self, node: ast.YieldFrom) -> ast.AST:
        self.generic_visit(node)
        node.value = self._checked(node.value)
        return node

    def visit_Await(self, node: ast.Await) -> ast.AST:
        """Checks before the value is made: a coroutine that nothing awaits is warned about."""
        self.generic_visit(node)
        make = Maker(node.value)
        first = self._checked(make.constant(None))
        both = ast.Tuple([first, node.value], ast.Load(), **make.place)
        node.value = ast.Subscript(both, make.constant(1), ast.Load(), **make.place)
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        node.iter = self._checked(node.iter)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        node.items[0].context_expr = self._checked(node.items[0].context_expr)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        if node.is_async:
            node.iter = self._checked(node.iter)
        return node


class Exits(_OwnScope):
    """Turns `break` and `continue` that aim at a loop outside into `flag = ...; break`."""

    def __init__(self, flag: str) -> None:
        self._flag = flag
        self.found: set[int] = set()

    def _replace(self, node: ast.stmt, way: int) -> list[ast.stmt]:
        self.found.add(way)
        make = Maker(node)
        return [make.assign(self._flag, make.constant(way)), ast.Break(**make.place)]

    def visit_Break(self, node: ast.Break) -> list[ast.stmt]:
        return self._replace(node, BREAK)

    def visit_Continue(self, node: ast.Continue) -> list[ast.stmt]:
        return self._replace(node, CONTINUE)

    def visit_For(self, node: ast.For | ast.AsyncFor | ast.While) -> ast.AST:
        orelse: list[ast.stmt] = []
        for each in node.orelse:
            changed = self.visit(each)
            orelse += changed if isinstance(changed, list) else [changed]
        node.orelse = orelse
        return node

    visit_AsyncFor = visit_For
    visit_While = visit_For

    def generic_visit(self, node: ast.AST) -> ast.AST:
        return node if isinstance(node, ast.expr) else super().generic_visit(node)
