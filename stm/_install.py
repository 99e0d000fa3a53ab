"""Installs the CPython types into the extension module, once per process.

The extension is a cffi module; one cffi call adds the heap types and functions to it, which find
their exception classes on the module itself.  The hooks that need Python's own registries (garbage
collector, fork, exit) are registered here.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import sys
import warnings
from collections import abc
from typing import Any

from stm import _core, _errors

_ERRORS = (
    "TransactionAborted",
    "TransactionTimeout",
    "NotInTransaction",
    "IrrevocableError",
    "OpenBlockError",
    "ReadOnlyError",
    "TransactionError",
    "UntrackedMutable",
    "BlockRerun",
)


def _long_wait(label: str, seconds: float) -> None:
    """Warns that a thread has been waiting for the protected transaction for long."""
    who = f"the block {label!r}" if label else "a block without a label"
    warnings.warn(
        f"a transaction has been waiting for {seconds:.0f} s for {who}, which is irrevocable or "
        "protected: look there for a wait or a long computation (label= names blocks)",
        RuntimeWarning,
        stacklevel=2,
    )


def _hide_aborts() -> None:
    """Keeps Python from reporting the abort of an attempt that met a finalizer.

    A finalizer that runs in an attempt belongs to it.  When the attempt is lost, the finalizer's
    next transactional operation raises `TransactionAborted`, which Python would print as "Exception
    ignored in ...".  It is no error, and nothing of the attempt is kept.
    """
    report = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        if unraisable.exc_type is not _errors.TransactionAborted:
            report(unraisable)

    sys.unraisablehook = hook


def _refuse_inside(name: str) -> None:
    """Makes a function of `os` that forks raise inside of a block.

    The child would hold one half of a transaction, whose other half ends in the parent.  Python
    has no hook that can refuse a fork but audit hooks, which would cost every audited call of the
    program something.
    """
    fork = getattr(os, name, None)
    if fork is None:
        return

    @functools.wraps(fork)
    def checked() -> Any:
        if _core.in_transaction():
            where = _core.block_info()[1]
            raise _errors.OpenBlockError(
                f"os.{name}() inside of {where}: the block would end twice, in parent and child; "
                "fork before it or in ame.on_commit()"
            )
        return fork()

    setattr(os, name, checked)


def install() -> None:
    """Adds the types to `stm._core`; does nothing the second time.

    Raises:
        ImportError: not in the main interpreter, or no memory.
    """
    if _core.lib.stmpy_get_domain() != _core.ffi.NULL:
        if not hasattr(_core, "Ref"):  # another interpreter of this process has installed them
            raise ImportError(
                "ame works in the main interpreter of a process only, and this is another one; "
                "use threads, or processes"
            )
        return
    for name in _ERRORS:
        setattr(_core, name, getattr(_errors, name))
    _core._long_wait = _long_wait
    _core._limit_error = _errors.limit_error
    _core._strict_error = _errors.strict_error
    if _core.lib.stmpy_install(id(_core)) != 0:
        raise ImportError("stm._core could not be installed; the reason stands above")
    _hide_aborts()
    abc.MutableMapping.register(_core.Dict)
    abc.KeysView.register(_core.DictKeys)
    abc.ValuesView.register(_core.DictValues)
    abc.ItemsView.register(_core.DictItems)
    gc.callbacks.append(_core._on_collection)
    atexit.register(_core._quit)
    for name in ("fork", "forkpty"):
        _refuse_inside(name)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_core._after_fork_child)
