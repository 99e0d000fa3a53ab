"""`atomic(...)` objects: they may end before their blocks do, and are garbage like any object."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from hooking import BodyError
from stm import runtime as rt
from support import in_thread

pytestmark = pytest.mark.deadline(30)


junk: list[bytes] = []


def enter_and_forget(**options: Any) -> None:
    """Begin a block by hand; its manager is dead when this returns."""
    manager = ame.atomic(**options)
    manager.__enter__()
    del manager
    gc.collect()
    junk.extend(bytes(size) for size in range(16, 400, 4))  # takes the place of what was freed


def leave(error: BaseException | None = None) -> None:
    ame.atomic().__exit__(None if error is None else type(error), error, None)


def test_label_of_an_open_block_outlives_its_manager() -> None:
    """Catches: options read through a pointer into a freed object."""
    enter_and_forget(label="a label")
    assert stm.block_info()[0] == "a label"
    leave()
    assert not ame.in_transaction()


@pytest.mark.parametrize("part", ["split", "unprotected"])
def test_block_goes_on_after_a_split_without_its_manager(part: str) -> None:
    """Catches: the rest of a block that begins with options of a freed object."""
    ref = ame.Ref(0)
    enter_and_forget(label="a label")
    before = stm.block_info()[:2]
    ref.value = 1
    if part == "split":
        ame.split()
    else:
        with ame.unprotected():
            enter_and_forget(label="another")
            leave()
    assert stm.block_info()[:2] == before
    ref.value += 1
    leave()
    assert ref.value == 2


def test_read_only_block_stays_read_only_without_its_manager() -> None:
    """Catches: flags of the rest that come from a freed object."""
    ref = ame.Ref(0)
    enter_and_forget(read_only=True)
    ame.split()
    with pytest.raises(ame.ReadOnlyError):
        ref.value = 1
    leave()
    assert ref.value == 0


def test_open_block_outlives_the_class_in_its_commit_on() -> None:
    """Catches: an exception compared with a class that is gone."""

    def begin() -> weakref.ref[type]:
        class LocalError(Exception):
            pass

        enter_and_forget(commit_on=LocalError)
        return weakref.ref(LocalError)

    ref = ame.Ref(0)
    seen = begin()
    ref.value = 1
    gc.collect()
    assert seen() is None
    leave(BodyError())
    assert (ame.in_transaction(), ref.value) == (False, 0)


def cycle_through_the_class() -> Any:
    class LocalError(Exception):
        pass

    LocalError.manager = ame.atomic(commit_on=LocalError)  # type: ignore[attr-defined]
    return LocalError


def cycle_through_a_tuple() -> Any:
    class LocalError(Exception):
        pass

    LocalError.manager = ame.atomic(  # type: ignore[attr-defined]
        commit_on=(KeyError, LocalError)
    )
    return LocalError


def cycle_that_was_used() -> Any:
    kind = cycle_through_the_class()
    ref = ame.Ref(0)
    with pytest.raises(kind), kind.manager:
        ref.value = 1
        raise kind
    assert ref.value == 1
    return kind


def cycle_through_an_atomic_function() -> Any:
    class LocalError(Exception):
        pass

    @ame.atomic(commit_on=LocalError)
    def function() -> None:
        pass

    LocalError.function = function  # type: ignore[attr-defined]
    function()
    return LocalError


def cycle_through_a_block() -> Any:
    kind = cycle_through_the_class()
    for _ in rt.block(rt.site("file.py", 1, "function"), kind.manager, kind):
        with rt.attempt():
            pass
    return kind


@pytest.mark.parametrize(
    "make",
    [
        cycle_through_the_class,
        cycle_through_a_tuple,
        cycle_that_was_used,
        cycle_through_an_atomic_function,
        cycle_through_a_block,
    ],
)
def test_manager_in_a_cycle_with_its_commit_on_is_collected(make: Callable[[], Any]) -> None:
    """Catches: a manager whose options the garbage collector does not see."""
    seen = in_thread(lambda: weakref.ref(make()))
    gc.collect()
    gc.collect()
    assert seen() is None


def test_manager_in_a_cycle_is_not_collected_while_a_function_needs_it() -> None:
    """Catches: a collector that clears what is in use."""

    class LocalError(Exception):
        pass

    manager = ame.atomic(commit_on=LocalError)
    LocalError.manager = manager  # type: ignore[attr-defined]
    ref = ame.Ref(0)

    @manager
    def body(value: int) -> None:
        ref.value = value
        raise LocalError

    del manager
    for value in range(1, 4):
        gc.collect()
        with pytest.raises(LocalError):
            body(value)
        assert ref.value == value
