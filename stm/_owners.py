"""Which objects own the cells that a block has read: looked up when an error is asked for it."""

from __future__ import annotations

import gc
from typing import Any

from stm import _core


def find_owners(cells: tuple[int, ...]) -> list[Any]:
    """Returns the `Ref` and the ``(Dict, key)`` of each address, in their order.

    Searches all objects that the garbage collector knows.  An address whose owner is gone has no
    entry in the result; a `Dict` whose size or shape was read stands there without a key.
    """
    wanted = set(cells)
    found: dict[int, Any] = {}
    for candidate in gc.get_objects() if wanted else ():
        kind = type(candidate)
        if issubclass(kind, _core.Ref | _core.Dict) and not getattr(kind, "_internal", False):
            for address, key in candidate._cells().items():
                if address in wanted:
                    found[address] = candidate if key is None else (candidate, key[0])
    return [found[address] for address in cells if address in found]
