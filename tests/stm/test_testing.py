"""stm.testing: faults on request reach the blocks that can be executed again, and no others."""

from __future__ import annotations

import pytest

import ame
import stm
from stm import runtime as rt
from stm.testing import forced_aborts, lose

pytestmark = pytest.mark.deadline(30)

SITE = rt.site("file.py", 7, "function")


@pytest.mark.parametrize("count", [1, 3])
def test_forced_aborts_leave_read_only_with_blocks_alone(count: int) -> None:
    """Catches: IrrevocableError from a block that has nothing to lose."""
    ref = ame.Ref(1)
    space = {"ame": ame, "ref": ref}
    source = "def f():\n    with ame.atomic(read_only=True):\n        return ref.value\n"
    exec(source, space)  # without a source file: it cannot be rewritten
    with forced_aborts(count):
        assert space["f"]() == 1  # type: ignore[operator]
    assert not ame.in_transaction()


@pytest.mark.parametrize("count", [1, 3])
def test_forced_aborts_leave_read_only_blocks_by_hand_alone(count: int) -> None:
    """Catches: the same for a manager that nobody has rewritten."""
    ref = ame.Ref(1)
    manager = ame.atomic(read_only=True)
    with forced_aborts(count):
        manager.__enter__()
        assert ref.value == 1
        manager.__exit__(None, None, None)
    assert not ame.in_transaction()


def test_forced_aborts_leave_irrevocable_with_blocks_alone() -> None:
    """Catches: a block that is irrevocable as it cannot run again, and loses all the same."""
    ref = ame.Ref(0)
    space = {"ame": ame, "ref": ref}
    exec("def f():\n    with ame.atomic():\n        ref.value += 1\n", space)
    with forced_aborts(1):
        space["f"]()  # type: ignore[operator]
    assert ref.value == 1


def test_forced_aborts_lose_attempts_of_rewritten_blocks() -> None:
    """Catches: an exception for blocks that can run again."""
    ref = ame.Ref(0)
    attempts = []
    with forced_aborts(2):
        for () in rt.block(SITE, ame.atomic()):
            try:
                with rt.attempt():
                    attempts.append(stm.attempt())
                    ref.value += 1
            except rt.Rerun:
                pass
    assert (attempts, ref.value) == ([0, 1, 2], 1)


def test_lose_does_nothing_in_a_read_only_with_block() -> None:
    """Catches: an attempt doomed that nobody can start over."""
    ref = ame.Ref(1)
    manager = ame.atomic(read_only=True)
    manager.__enter__()
    lose()
    assert ref.value == 1
    manager.__exit__(None, None, None)
    assert not ame.in_transaction()
