"""`python -m ame run`: a script or module, the blocks at its module level rewritten too."""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import io
import os
import sys
import types
from typing import Any

__all__ = ["add_parser", "compile_program", "run_module", "run_script"]


def compile_program(text: str, filename: str, namespace: dict[str, Any]) -> types.CodeType:
    """Returns the code of a program whose globals will be `namespace`, its blocks rewritten.

    Raises:
        SyntaxError: it is no program.
    """
    from ame._rewrite._codes import compile_tree, pairs, swap
    from ame._rewrite._registry import registry
    from ame._rewrite._resolve import Resolver
    from ame._rewrite._source import Refused
    from ame._rewrite._transform import Rewriter

    plain = compile(text, filename, "exec", dont_inherit=True)
    try:
        tree = compile(text, filename, "exec", _AST_ONLY, dont_inherit=True)
        rewriter = Rewriter(Resolver(namespace, {}), module_level=True)
        rewriter.rewrite(tree)
        new = swap(compile_tree(tree, filename, 0), rewriter.sites)
    except Refused:
        return plain
    with registry.lock:
        for before, after in pairs(plain, new):
            registry.add(before, after)
        for place in rewriter.refused:
            registry.refuse(filename, place.line, place.qualname, place.reason or "")
        for place in rewriter.sites.values():
            registry.accept(filename, place.line, place.qualname)
    return new


_AST_ONLY = 0x400  # ast.PyCF_ONLY_AST


def run_script(path: str, arguments: list[str]) -> None:
    """Runs the script at `path` as `python path arguments...` does.

    Raises:
        OSError: it cannot be read.
        BaseException: what the script lets out.
    """
    filename = os.path.abspath(path)
    with io.open_code(filename) as file:
        text = importlib.util.decode_source(file.read())
    sys.argv[:] = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    module = types.ModuleType("__main__")
    loader = importlib.machinery.SourceFileLoader("__main__", filename)
    vars(module).update(__file__=filename, __loader__=loader, __cached__=None, __spec__=None)
    _execute(module, text, filename)


def run_module(name: str, arguments: list[str]) -> None:
    """Runs the module or package `name` as `python -m name arguments...` does.

    Raises:
        ImportError: there is no such module, or it has no source.
        BaseException: what the module lets out.
    """
    sys.argv[:] = ["-m", *arguments]
    sys.path[0] = os.getcwd()
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name = f"{name}.__main__"
        spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module named {name}")
    get_source = getattr(spec.loader, "get_source", None)
    text = get_source(name) if get_source is not None else None
    if text is None or spec.origin is None:
        raise ImportError(f"no source of {name}")
    sys.argv[0] = spec.origin
    module = types.ModuleType("__main__")
    vars(module).update(
        __file__=spec.origin,
        __loader__=spec.loader,
        __spec__=spec,
        __package__=spec.parent,
        __cached__=spec.cached,
    )
    _execute(module, text, spec.origin)


def _execute(module: types.ModuleType, text: str, filename: str) -> None:
    """Runs a program as `__main__`; leaves our frames out of the traceback of what it raises."""
    namespace = vars(module)
    namespace.setdefault("__package__", None)
    namespace["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = module
    try:
        code = compile_program(text, filename, namespace)
    except SyntaxError as error:
        _report(error.with_traceback(None))
        raise SystemExit(1) from None
    try:
        exec(code, namespace)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        inside = error.__traceback__
        _report(error.with_traceback(inside.tb_next if inside is not None else None))
        raise SystemExit(1) from None


def _report(error: BaseException) -> None:
    """Prints `error` as the interpreter does at its end."""
    sys.excepthook(type(error), error, error.__traceback__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the `run` command to the command line."""
    parser = commands.add_parser(
        "run",
        help="run a script or module, with the blocks at its module level re-executable too",
        description="Run a Python program like `python` does. Blocks at its module level are "
        "executed again when they lose a conflict; otherwise they run irrevocably.",
        usage="%(prog)s [-h] (SCRIPT | -m MODULE) [ARGUMENT ...]",
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module")
    parser.add_argument("program", metavar="SCRIPT", help="the script, or with -m the module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    parser.set_defaults(run=_command)


def _command(options: argparse.Namespace) -> int:
    """Run the program; return the exit status for one that ends."""
    run = run_module if options.module else run_script
    try:
        run(options.program, options.arguments)
    except (ImportError, OSError) as error:
        print(f"ame run: {error}", file=sys.stderr)
        return 2
    return 0
