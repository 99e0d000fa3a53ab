"""Automatic Mutual Exclusion: atomic blocks on software transactional memory.

Blocks of different threads run in parallel, and always appear to have run one after another::

    accounts = ame.Dict({"ann": 100, "bob": 50})

    @ame.atomic
    def transfer(a, b, n):
        accounts[a] -= n
        accounts[b] += n
"""

from typing import NoReturn

from ame._loops import for_each, map
from stm import (
    Cause,
    Dict,
    IrrevocableError,
    NotInTransaction,
    OpenBlockError,
    ReadOnlyError,
    Ref,
    Stats,
    TransactionError,
    TransactionTimeout,
    atomic,
    in_transaction,
    irrevocable,
    run,
    stats,
)

__all__ = [
    # blocks
    "atomic",
    "run",
    # control
    "in_transaction",
    "irrevocable",
    # state
    "Dict",
    "Ref",
    # loops
    "for_each",
    "map",
    # tools
    "Cause",
    "Stats",
    "stats",
    # errors
    "IrrevocableError",
    "NotInTransaction",
    "OpenBlockError",
    "ReadOnlyError",
    "TransactionError",
    "TransactionTimeout",
]

_NOT_YET = {
    "retry": "wait outside of the block (threading.Condition) and enter it again",
    "or_else": "test the conditions in one block and branch there",
    "block_until": "wait outside of the block (threading.Condition) and enter it again",
    "on_commit": "do it after the block",
    "on_abort": "do it after the block",
    "unprotected": "leave the block and begin another one",
    "split": "leave the block and begin another one",
    "current": "use ame.in_transaction() or ame.stats()",
    "Struct": "use one ame.Ref per field",
    "List": "use an ame.Dict with int keys",
    "Set": "use an ame.Dict whose values are None",
    "Counter": "use an ame.Ref, or an ame.Dict with one key per thread or item",
    "Queue": "use queue.Queue outside of blocks",
    "ThreadLocal": "use threading.local",
    "share": "build the ame types by hand",
    "snapshot": "read into plain objects inside one block",
    "Pool": "use ame.for_each or ame.map",
    "trace": "use ame.stats()",
    "conflicts": "use ame.stats()",
}


def __getattr__(name: str) -> NoReturn:
    """Says of a planned name what to do until it is there."""
    if name in _NOT_YET:
        raise AttributeError(
            f"ame.{name} is planned but not in this version; until then: {_NOT_YET[name]}",
            name=name,
        )
    raise AttributeError(f"module 'ame' has no attribute {name!r}", name=name)
