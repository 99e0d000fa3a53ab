"""Automatic Mutual Exclusion: atomic blocks on software transactional memory.

Blocks of different threads run in parallel, and always appear to have run one after another::

    accounts = ame.Dict({"ann": 100, "bob": 50})

    @ame.atomic
    def transfer(a, b, n):
        accounts[a] -= n
        accounts[b] += n
"""

from ame._control import Current, block_until, current
from ame._lock import Lock
from ame._loops import for_each, map
from ame._output import print
from ame._rewriting import doctor, prepare
from ame._strict import strict
from stm import (
    AttemptLimit,
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
    UntrackedMutable,
    atomic,
    in_transaction,
    irrevocable,
    on_abort,
    on_commit,
    or_else,
    retry,
    run,
    split,
    stats,
    unprotected,
)

__all__ = [
    # blocks
    "atomic",
    "prepare",
    "run",
    # control
    "Current",
    "block_until",
    "current",
    "in_transaction",
    "irrevocable",
    "on_abort",
    "on_commit",
    "or_else",
    "retry",
    "split",
    "unprotected",
    # state
    "Dict",
    "Ref",
    # side effects and locks
    "Lock",
    "print",
    # loops
    "for_each",
    "map",
    # tools
    "Cause",
    "Stats",
    "doctor",
    "stats",
    "strict",
    # errors
    "AttemptLimit",
    "IrrevocableError",
    "NotInTransaction",
    "OpenBlockError",
    "ReadOnlyError",
    "TransactionError",
    "TransactionTimeout",
    "UntrackedMutable",
]
