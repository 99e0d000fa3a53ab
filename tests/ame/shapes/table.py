"""The table of a shape module: `TABLE = Table()`, then `@TABLE.shape` on each function.

A shape takes a context (`harness.Context`) and is a function, a generator function, a coroutine
function or an async generator function.  Rules that the self-checks of the harness enforce:

* each outermost block calls `c.enter()` exactly once, as its first act;
* what a lost attempt would repeat (notes, locals) is recorded after the block or by `on_commit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ALL = "all"  # each lost attempt is followed by another one
ONCE = "once"  # not rewritable: the block is irrevocable and runs once
CREATED = "created"  # as ALL where functions are rewritten at their creation (3.12), else as ANY
ANY = "any"  # the rewriter may do either


@dataclass(frozen=True)
class Shape:
    """One function of the table."""

    name: str
    function: Callable[..., Any]
    runs: str  # how often the body of a block that lost runs
    aborts: bool  # False: what it shows is documented as not restored; compared without aborts
    needs: tuple[str, ...]  # names of `ame` without which it is skipped


class Table:
    """The shapes of one module, in the order of the source."""

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}

    def add(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        runs: str = ALL,
        aborts: bool = True,
        needs: tuple[str, ...] = (),
    ) -> None:
        """Enter a callable that has no usable name of its own."""
        assert name not in self.shapes, name
        self.shapes[name] = Shape(name, function, runs, aborts, needs)

    def shape(self, function: Callable[..., Any] | None = None, **flags: Any) -> Any:
        """Decorator: enter the function, unchanged, under its name."""
        if function is None:
            return lambda function: self.shape(function, **flags)
        self.add(function, name=function.__name__, **flags)
        return function
