"""Runs a shape on an engine, writes down all that can be seen of it, and predicts its runs.

An *engine* is the real runtime, or `serial.Engine`.  A *mode* says which attempts lose, and where.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import importlib.util
import inspect
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shapes import serial
from shapes.table import ALL, ANY, CREATED, ONCE, Shape

FOLDER = Path(__file__).resolve().parent
PACKAGE = "shapes_under_test"  # the modules of both sides believe to be in it
ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
NEWER = {"modern": (3, 12), "newest": (3, 14)}  # modules whose syntax older Pythons don't know
OWN = {"__init__", "table", "serial", "harness", "planted"}  # files that hold no shapes
MODULES = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if path.stem not in OWN and sys.version_info >= NEWER.get(path.stem, (3,))
)


class EngineLike(Protocol):
    """What the harness asks of a runtime."""

    ame: Any

    def in_transaction(self) -> bool: ...
    def is_irrevocable(self) -> bool: ...
    def attempt(self) -> int: ...
    def lose(self) -> None: ...
    def forced_aborts(self, count: int) -> contextlib.AbstractContextManager[object]: ...


@dataclass(frozen=True)
class Mode:
    """The first `count` attempts of each outermost block lose at `where`."""

    where: str  # "commit" or "point"
    count: int

    def __str__(self) -> str:
        return f"{self.count}-at-{self.where}"


MODES = [
    Mode("commit", 0),
    Mode("commit", 1),
    Mode("commit", 3),
    Mode("point", 1),
    Mode("point", 3),
]


@dataclass
class Outcome:
    """All that can be seen of one run."""

    result: str = ""
    error: list[str] = field(default_factory=list)  # the exception and those it refers to
    records: list[Any] = field(default_factory=list)  # locals and notes, in their order
    state: dict[str, str] = field(default_factory=dict)  # what is in the exposed Refs and Dicts
    trouble: list[str] = field(default_factory=list)


class Context:
    """What a shape gets as `c`."""

    def __init__(self, engine: EngineLike, mode: Mode, path: Path) -> None:
        self._engine = engine
        self._mode = mode
        self._path = str(path)
        self._exposed: dict[str, Any] = {}
        self.runs = 0
        self.outcome = Outcome()
        self.ref = self.expose("ref", engine.ame.Ref(0))
        self.table = self.expose("table", engine.ame.Dict())
        self._entered = self.expose("entered", engine.ame.Ref(0))

    def __repr__(self) -> str:
        return "<c>"

    def expose(self, name: str, value: Any) -> Any:
        """Compare the last value of a Ref or Dict, too."""
        self._exposed[name] = value
        return value

    def enter(self) -> None:
        """The body of an outermost block begins."""
        self.runs += 1
        if isinstance(self._engine, serial.Engine):
            self._engine.blocks[-1].enters += 1
        if not self._engine.in_transaction():
            self.outcome.trouble.append("a body ran outside of a transaction")
        self._entered.value += 1

    def point(self) -> None:
        """A place where the attempt may lose."""
        engine = self._engine
        if not engine.in_transaction():
            return
        if isinstance(engine, serial.Engine):
            engine.blocks[-1].points += 1
        may_lose = self._mode.where == "point" and not engine.is_irrevocable()
        if may_lose and engine.attempt() < self._mode.count:
            engine.lose()

    def note(self, *what: Any) -> None:
        """Record a side effect."""
        self.outcome.records.append(("note", *[self.show(each) for each in what]))

    def shot(self, names: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what `locals()` shows now, for `note` or `locals` at the commit.

        Names that can't be written in a program are the rewriter's own.
        """
        return tuple(
            sorted(f"{name}={self.show(value)}" for name, value in names.items() if _written(name))
        )

    def locals(self, names: Mapping[str, Any] | tuple[str, ...]) -> None:
        """Record the local variables (or a shot of them); not in a block."""
        shot = names if isinstance(names, tuple) else self.shot(names)
        self.outcome.records.append(("locals", shot))

    def describe(self, error: BaseException) -> list[str]:
        """Return the type, message, lines in the shape's file, cause and context."""
        return _describe(error, self._path, set())

    def show(self, value: Any) -> str:
        """Return a text that is the same for equal values of both sides."""
        kind = type(value).__name__
        if kind == "Ref":
            return f"Ref({self.show(value.value)})"
        if kind == "Dict" or isinstance(value, dict):
            items = sorted(f"{self.show(key)}: {self.show(each)}" for key, each in value.items())
            return f"{kind}{{{', '.join(items)}}}"
        if isinstance(value, (list, tuple)) and kind in ("list", "tuple"):
            return f"{kind}({', '.join(self.show(each) for each in value)})"
        if isinstance(value, BaseException):
            return str(self.describe(value))
        if kind in ("atomic", "AtomicFunction", "module") or isinstance(value, types.ModuleType):
            return f"<{getattr(value, '__name__', kind)}>"
        return ADDRESS.sub("", repr(value))

    def close(self) -> None:
        """Read the exposed state."""
        self.outcome.state = {name: self.show(each) for name, each in self._exposed.items()}


def _written(name: str) -> bool:
    return name.isidentifier()


def _describe(error: BaseException, path: str, seen: set[int]) -> list[str]:
    if id(error) in seen:
        return ["(again)"]
    seen.add(id(error))
    lines = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename == path:
            lines.append(f"{step.tb_lineno} in {code.co_qualname}")
        step = step.tb_next
    parts = [f"{type(error).__qualname__}: {ADDRESS.sub('', str(error))}", *lines]
    parts += [f"note {note}" for note in getattr(error, "__notes__", ())]
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            parts += ["holds", *_describe(each, path, seen)]
    if error.__cause__ is not None:
        parts += ["from", *_describe(error.__cause__, path, seen)]
    if error.__context__ is not None:
        hidden = " (hidden)" if error.__suppress_context__ else ""
        parts += ["while" + hidden, *_describe(error.__context__, path, seen)]
    return parts


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


def _call(function: Callable[..., Any], c: Context) -> Any:
    result = function(c)
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    if inspect.isasyncgen(result):
        return asyncio.run(_collect(result))
    if inspect.isgenerator(result):
        return list(result)
    return result


def run_shape(shape: Shape, engine: EngineLike, mode: Mode, path: Path) -> tuple[Outcome, int]:
    """Run the shape; return what was seen, and how often bodies of its blocks began."""
    c = Context(engine, mode, path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", SyntaxWarning)
        if mode.where == "commit" and mode.count:
            stack.enter_context(engine.forced_aborts(mode.count))
        try:
            c.outcome.result = c.show(_call(shape.function, c))
        except BaseException as error:
            c.outcome.error = c.describe(error)
    if engine.in_transaction():
        c.outcome.trouble.append("a block was left open")
    c.close()
    return c.outcome, c.runs


def expected_runs(
    shape: Shape, blocks: list[serial.Block], mode: Mode, rewritten_at_creation: bool
) -> range:
    """Return how often the bodies may begin in this mode, from what the serial run did."""
    once = sum(block.enters for block in blocks)
    least = most = 0
    for block in blocks:
        lost = mode.count if mode.where == "commit" or block.points else 0
        most += block.enters * (lost + 1)
        # whether a forced abort hits an attempt that ends with an exception is left open
        certain = block.ok or mode.where == "point"
        least += block.enters * (lost + 1 if certain else 1)
    if shape.runs == ONCE:
        return range(once, once + 1)
    if shape.runs == ANY or (shape.runs == CREATED and not rewritten_at_creation):
        return range(once, most + 1)
    assert shape.runs in (ALL, CREATED), shape.runs
    return range(least, most + 1)


def reference(name: str, shape_name: str) -> tuple[Outcome, list[serial.Block]]:
    """Run a shape of the module on the serial engine, as ordinary Python."""
    engine = serial.Engine()
    shape = load_serial(name, engine)[shape_name]
    outcome, _ = run_shape(shape, engine, Mode("commit", 0), path_of(name))
    return outcome, engine.blocks


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.py"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Compile without the warnings about `return` in `finally`, which shapes mean."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        yield


def load_serial(
    name: str,
    engine: serial.Engine,
    translate: Callable[[str, Path], types.CodeType] | None = None,
) -> dict[str, Shape]:
    """Load a module of shapes for which `ame` is the engine's stand-in, at any time.

    `translate` compiles the source in a way of its own (the planted rewriters).
    """
    path = path_of(name)

    def import_(target: str, *args: Any, **kwargs: Any) -> Any:
        return engine.ame if target == "ame" else __import__(target, *args, **kwargs)

    source = path.read_text()
    with _quiet():
        if translate is None:
            code = compile(source, str(path), "exec", dont_inherit=True)
        else:
            code = translate(source, path)
        module = types.ModuleType(f"{PACKAGE}.{name}")
        module.__file__ = str(path)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": import_}
        sys.modules[module.__name__] = module  # dataclasses look there
        exec(code, vars(module))
    return dict(module.TABLE.shapes)


def load_real(name: str) -> types.ModuleType:
    """Load a module of shapes anew, with the real `ame`."""
    full = f"{PACKAGE}.{name}"
    spec = importlib.util.spec_from_file_location(full, path_of(name))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    with _quiet():
        spec.loader.exec_module(module)
    return module


def preparable(module: types.ModuleType) -> list[Any]:
    """Return the functions (under their decorators) and classes that the module defines."""
    table = [shape.function for shape in module.TABLE.shapes.values()]
    found: dict[int, Any] = {}
    for value in [*vars(module).values(), *table]:
        plain = (
            value if isinstance(value, type) else inspect.unwrap(value) if callable(value) else 0
        )
        own = getattr(plain, "__module__", None) == module.__name__
        if own and isinstance(plain, (type, types.FunctionType)):
            found[id(plain)] = plain
    return list(found.values())
