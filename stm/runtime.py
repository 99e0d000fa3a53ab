"""What the code of rewritten functions calls; see csrc/py/stmpy_with.c for its shape.

The rewriter puts this module into the constants of the code, so that no name of the program can
get in the way.
"""

from __future__ import annotations

from builtins import NameError, globals
from collections.abc import Iterator, Mapping
from typing import Any

from stm._core import _UNBOUND as UNBOUND
from stm._core import BlockRerun as Rerun
from stm._core import Site as site
from stm._core import _attempt as attempt
from stm._core import _block as block
from stm._core import _leaving as leaving
from stm._core import _set_rewriter as set_rewriter

__all__ = [
    "UNBOUND",
    "NameError",
    "Rerun",
    "attempt",
    "block",
    "block_in",
    "globals",
    "leaving",
    "restore",
    "set_rewriter",
    "site",
]


def block_in(
    where: site, manager: object, namespace: dict[str, Any], names: tuple[str, ...]
) -> Iterator[tuple[()]]:
    """As `block`, for names that are keys of `namespace`, the globals of a script."""
    saved = {name: namespace[name] for name in names if name in namespace}
    for _ in block(where, manager):
        restore(namespace, names, saved)
        yield ()


def restore(namespace: dict[str, Any], names: tuple[str, ...], saved: Mapping[str, Any]) -> None:
    """Gives each of `names` its saved value again, or deletes it if it had none."""
    for name in names:
        if name in saved:
            namespace[name] = saved[name]
        else:
            namespace.pop(name, None)
