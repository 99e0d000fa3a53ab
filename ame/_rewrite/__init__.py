"""The source rewriter: makes `with ame.atomic():` blocks re-executable.

Imported when the first function needs it, as it needs `ast`.

Note [The parts]: `_source` finds the source, `_scope` the variables, `_resolve` the blocks;
`_transform` (with `_nodes`) changes the tree; `_codes` compiles and compares; `_registry`
remembers; `_engine` does it to a function, `_entry` when one is first called, `_prepare` when the
user says so.
"""

from ame._rewrite._engine import install, rewrite
from ame._rewrite._entry import first_call, first_entry, new_code, suspends
from ame._rewrite._prepare import Doctor, doctor, prepare
from ame._rewrite._registry import Block
from ame._rewrite._source import Refused

__all__ = [
    "Block",
    "Doctor",
    "Refused",
    "doctor",
    "first_call",
    "first_entry",
    "install",
    "new_code",
    "prepare",
    "rewrite",
    "suspends",
]
