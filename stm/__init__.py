"""The low level under `ame`: transactions, transactional types, statistics.

Programs import `ame`; this package is for those who build on the runtime itself.  `stm._core` is
the extension: the C core through cffi (``lib``, ``ffi``) and the CPython types.
"""

from stm._install import install as _install

_install()

from stm._causes import Cause  # noqa: E402  (the types exist from here on)
from stm._core import (  # noqa: E402
    AtomicFunction,
    Dict,
    DictItems,
    DictKeys,
    DictValues,
    Ref,
    atomic,
    attempt,
    attempt_locals,
    block_info,
    cancel_wait,
    collect,
    in_transaction,
    irrevocable,
    is_irrevocable,
    on_abort,
    on_commit,
    or_else,
    retry,
    run,
    run_block,
    set_strict,
    split,
    unprotected,
)
from stm._errors import (  # noqa: E402
    AttemptLimit,
    IrrevocableError,
    NotInTransaction,
    OpenBlockError,
    ReadOnlyError,
    TransactionError,
    TransactionTimeout,
    UntrackedMutable,
)
from stm._stats import Stats, stats  # noqa: E402

__all__ = [
    "AtomicFunction",
    "AttemptLimit",
    "Cause",
    "Dict",
    "DictItems",
    "DictKeys",
    "DictValues",
    "IrrevocableError",
    "NotInTransaction",
    "OpenBlockError",
    "ReadOnlyError",
    "Ref",
    "Stats",
    "TransactionError",
    "TransactionTimeout",
    "UntrackedMutable",
    "atomic",
    "attempt",
    "attempt_locals",
    "block_info",
    "cancel_wait",
    "collect",
    "in_transaction",
    "irrevocable",
    "is_irrevocable",
    "on_abort",
    "on_commit",
    "or_else",
    "retry",
    "run",
    "run_block",
    "set_strict",
    "split",
    "stats",
    "unprotected",
]
