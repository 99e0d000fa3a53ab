"""All workloads by name."""

from __future__ import annotations

from stress.runner import Workload
from stress.workloads.bank import BankDict, BankRefs, IrrevocableMix, LargeReaders
from stress.workloads.dicts import AbsentKeys, DictChurn
from stress.workloads.histories import HistoryDict, HistoryRefs
from stress.workloads.lives import Finalizers, Outside, ThreadChurn
from stress.workloads.nesting import Nested, WithBlocks
from stress.workloads.pairs import Pairs, WriteSkew
from stress.workloads.parts import Locked, Split
from stress.workloads.waiting import Buffer, Philosophers, Rendezvous

_ALL: tuple[type[Workload], ...] = (
    BankRefs,
    BankDict,
    Pairs,
    WriteSkew,
    LargeReaders,
    IrrevocableMix,
    DictChurn,
    AbsentKeys,
    ThreadChurn,
    Finalizers,
    Outside,
    HistoryRefs,
    HistoryDict,
    WithBlocks,
    Nested,
    Buffer,
    Rendezvous,
    Philosophers,
    Split,
    Locked,
)

WORKLOADS: dict[str, type[Workload]] = {kind.name: kind for kind in _ALL}
