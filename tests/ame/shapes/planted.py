"""Rewriters for the self-tests of the harness: one that is right, and wrong ones.

They translate a whole module before it runs, for `serial.Engine`: enough to show that each shape
can be satisfied, and that a rewriter with a known bug is noticed.  In an `ame` program they would
be of no use: they take any call of `atomic` or of its usual aliases for a block.
"""

from __future__ import annotations

import ast
import types
from pathlib import Path

ALIASES = {"atomic", "tx"}
BLOCK_NAMES = {"block"}  # variables that hold a block, and functions that are `atomic`
LOCALS, CARRY, FLAGS, STATEMENT, LINES, FINALLY, SUPPRESS = (
    "locals of a lost attempt are kept",
    "unbound locals stay bound after a lost attempt",
    "break and continue of the body are lost",
    "managers before the block are entered again",
    "line numbers are off by one",
    "an exception of the body is dropped",
    "an attempt that lost counts as the result",
)
BUGS = [LOCALS, CARRY, FLAGS, STATEMENT, LINES, FINALLY, SUPPRESS]
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
PARTS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def translate(source: str, path: Path, bug: str | None = None) -> types.CodeType:
    """Compile a module of shapes with its blocks in retry loops."""
    tree = _Blocks(bug).visit(ast.parse(source))
    if bug == LINES:
        ast.increment_lineno(tree)
    return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)


def _is_block(item: ast.withitem) -> bool:
    value = item.context_expr
    if isinstance(value, ast.Name):
        return value.id in BLOCK_NAMES
    if not isinstance(value, ast.Call):
        return False
    called = value.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ALIASES or (name in BLOCK_NAMES and not value.args)


class _Bound(ast.NodeVisitor):
    """The names that a body binds or deletes in its own scope."""

    def __init__(self, body: list[ast.stmt]) -> None:
        self.names: dict[str, None] = {}
        self.walk(body)

    def walk(self, nodes: list[ast.stmt]) -> None:
        for node in nodes:
            self.visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, SCOPES):
            self.add(getattr(node, "name", None))
            return
        if isinstance(node, PARTS):
            for each in ast.walk(node):
                if isinstance(each, ast.NamedExpr):
                    self.add(each.target.id)
            return
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            self.add(node.id)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            self.add(node.name)
        elif isinstance(node, ast.MatchMapping):
            self.add(node.rest)
        elif isinstance(node, ast.alias):
            self.add(node.asname or node.name.partition(".")[0])
        super().generic_visit(node)

    def add(self, name: str | None) -> None:
        if name is not None:
            self.names[name] = None


class _Jumps(ast.NodeTransformer):
    """Turns the jumps that leave the body into a flag and a `break` of the retry loop."""

    def __init__(self, flag: str) -> None:
        self.flag = flag

    def visit_For(self, node: ast.For) -> ast.AST:
        node.orelse = [self.visit(each) for each in node.orelse]
        node.orelse = [one for each in node.orelse for one in _listed(each)]
        return node

    visit_While = visit_AsyncFor = visit_For  # type: ignore[assignment]

    def visit_FunctionDef(self, node: ast.AST) -> ast.AST:
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef

    def visit_Break(self, node: ast.Break) -> list[ast.stmt]:
        return [_assign(self.flag, ast.Constant("break"), node), node]

    def visit_Continue(self, node: ast.Continue) -> list[ast.stmt]:
        jump = ast.copy_location(ast.Break(), node)
        return [_assign(self.flag, ast.Constant("continue"), node), jump]


def _listed(value: object) -> list[ast.stmt]:
    return value if isinstance(value, list) else [value]  # type: ignore[list-item]


def _assign(name: str, value: ast.expr, where: ast.AST) -> ast.stmt:
    made = ast.Assign([ast.Name(name, ast.Store())], value)
    return ast.fix_missing_locations(ast.copy_location(made, where))


def _parse(text: str, where: ast.AST, names: dict[str, str]) -> list[ast.stmt]:
    """Parse a template at the line of a node; the names in capitals are replaced."""
    nodes = ast.parse(text).body
    for node in nodes:
        for each in ast.walk(node):
            if isinstance(each, ast.Name):
                each.id = names.get(each.id, each.id)
            if hasattr(each, "lineno"):
                ast.copy_location(each, where)
    return nodes


class _Blocks(ast.NodeTransformer):
    """Puts each block into its retry loop, the inner ones first."""

    def __init__(self, bug: str | None) -> None:
        self.bug = bug
        self.count = 0
        self.declared: list[set[str]] = [set()]
        self.kinds: list[type[ast.AST]] = [ast.Module]
        self.loops = [0]

    def scope(self, node: ast.AST) -> ast.AST:
        names = {
            name for each in ast.walk(node) if isinstance(each, ast.Global) for name in each.names
        }
        self.declared.append(names)
        self.kinds.append(type(node))
        self.loops.append(0)
        self.generic_visit(node)
        self.declared.pop()
        self.kinds.pop()
        self.loops.pop()
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = scope

    def loop(self, node: ast.For | ast.While | ast.AsyncFor) -> ast.AST:
        self.loops[-1] += 1
        rest, node.orelse = node.orelse, []
        self.generic_visit(node)
        self.loops[-1] -= 1
        node.orelse = [one for each in rest for one in _listed(self.visit(each))]
        return node

    visit_For = visit_While = visit_AsyncFor = loop

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        at = next((n for n, item in enumerate(node.items) if _is_block(item)), None)
        if at is None or self.kinds[-1] in (ast.Module, ast.ClassDef):
            return node
        first = 0 if self.bug == STATEMENT else at
        body = self.retry(node, at, first)
        if first == 0:
            return body
        return ast.copy_location(ast.With(node.items[:first], body), node)

    def retry(self, node: ast.With, at: int, first: int) -> list[ast.stmt]:
        self.count += 1
        prefix = f".{self.count}"  # no program can write such a name
        block, flag = f"{prefix}block", f"{prefix}flag"
        names = [n for n in _Bound(node.body).names if n not in self.declared[-1]]
        for item in node.items[at:]:
            if item.optional_vars is not None:
                found = _Bound([ast.Expr(item.optional_vars)]).names
                names += [n for n in found if n not in names]
        body = node.body
        if self.loops[-1]:
            body = [one for each in body for one in _listed(_Jumps(flag).visit(each))]
        item = node.items[at]
        begin = [
            _assign(block, item.context_expr, node),
            *self.save(node, names, prefix),
        ]
        item.context_expr = ast.copy_location(ast.Name(block, ast.Load()), item.context_expr)
        attempt = ast.copy_location(ast.With(node.items[first:], body), node)
        text = (
            "while True:\n"
            "    FLAG = ''\n"
            "    BLOCK.optimistic = True\n"
            "    try:\n"
            "        ATTEMPT\n"
            "    finally:\n"
            "        if BLOCK.lost:\n"
            "            RESTORE\n"
            "            continue\n"
            "    break\n"
        )
        if self.bug == FINALLY:
            text = text.replace("    break\n", "").replace(
                "            continue\n", "            continue\n        break\n"
            )
        if self.bug == SUPPRESS:
            text = text.replace("            continue\n", "            break\n")
        made = _parse(text, node, {"FLAG": flag, "BLOCK": block})
        made[0] = _Fill(attempt, self.restore(node, names, prefix)).visit(made[0])
        if self.loops[-1] and self.bug != FLAGS:
            jumps = "if FLAG == 'break': break\nif FLAG == 'continue': continue\n"
            made += _parse(jumps, node, {"FLAG": flag})
        return begin + made

    def save(self, node: ast.AST, names: list[str], prefix: str) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for name in names:
            text = "SAVED = ()\ntry:\n    SAVED = (NAME,)\nexcept ():\n    pass\n"
            part = _parse(text, node, {"SAVED": f"{prefix}{name}", "NAME": name})
            made += _catch_all(part)
        return made

    def restore(self, node: ast.AST, names: list[str], prefix: str) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        if self.bug == LOCALS:
            return [ast.copy_location(ast.Pass(), node)]
        for name in names:
            text = (
                "if SAVED:\n    NAME, = SAVED\nelse:\n    try:\n        del NAME\n    except ():\n"
            )
            text += "        pass\n"
            if self.bug == CARRY:
                text = "if SAVED:\n    NAME, = SAVED\n"
            made += _catch_all(_parse(text, node, {"SAVED": f"{prefix}{name}", "NAME": name}))
        return made or [ast.copy_location(ast.Pass(), node)]


def _catch_all(nodes: list[ast.stmt]) -> list[ast.stmt]:
    """Make the handlers bare: the name of an exception could be a local variable."""
    for node in nodes:
        for each in ast.walk(node):
            if isinstance(each, ast.ExceptHandler):
                each.type = None
    return nodes


class _Fill(ast.NodeTransformer):
    """Puts the attempt and the restoring statements into the template."""

    def __init__(self, attempt: ast.stmt, restore: list[ast.stmt]) -> None:
        self.parts: dict[str, list[ast.stmt]] = {"ATTEMPT": [attempt], "RESTORE": restore}

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | list[ast.stmt]:
        name = getattr(node.value, "id", "")
        return self.parts.get(name, node)

    def visit_With(self, node: ast.With) -> ast.With:
        return node
