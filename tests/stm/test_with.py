"""The runtime of rewritten `with` blocks, called by hand as the rewriter has it called."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import ame
import stm
from stm import runtime as rt
from stm import testing
from support import Interference, in_thread

pytestmark = pytest.mark.deadline(30)

SITE = rt.site("file.py", 7, "function")
BLOCK = type(rt.block(SITE, ame.atomic()))


def run(manager: Any, body: Any, *saved: Any) -> list[tuple[Any, ...]]:
    """Execute body(*saved) in a block as rewritten code does, and return what was yielded."""
    yielded = []
    for values in rt.block(SITE, manager, *saved):
        yielded.append(values)
        try:
            with rt.attempt():
                body(*values)
        except rt.Rerun:
            pass
    return yielded


def test_block_that_commits_runs_once_with_what_was_saved() -> None:
    ref = ame.Ref(0)

    def body(a: int, b: int) -> None:
        ref.value = a + b

    assert run(ame.atomic(), body, 1, 2) == [(1, 2)]
    assert ref.value == 3
    assert not ame.in_transaction()


@pytest.mark.parametrize("losses", [1, 2, 3])
def test_lost_attempts_run_again_with_what_was_saved(losses: int) -> None:
    ref = ame.Ref(0)

    def body(a: list[int]) -> None:
        ref.value += 1

    saved: list[int] = []
    with testing.forced_aborts(losses):
        assert run(ame.atomic(), body, saved) == [(saved,)] * (losses + 1)
    assert ref.value == 1


def test_exception_of_a_doomed_body_is_swallowed() -> None:
    ref = ame.Ref(0)
    runs = []

    def body() -> None:
        runs.append(1)
        ref.value += 1
        if len(runs) == 1:
            testing.lose()
            raise LookupError

    run(ame.atomic(), body)
    assert (ref.value, len(runs)) == (1, 2)


def test_exception_rolls_back_and_leaves() -> None:
    ref = ame.Ref(0)

    def body() -> None:
        ref.value = 1
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(ame.atomic(), body)
    assert ref.value == 0
    assert not ame.in_transaction()


def test_return_from_the_body_of_a_lost_attempt_is_dropped() -> None:
    ref = ame.Ref(0)

    def function() -> int:
        for () in rt.block(SITE, ame.atomic()):
            try:
                with rt.attempt():
                    ref.value += 1
                    return stm.attempt()
            except rt.Rerun:
                pass
        return -1

    with testing.forced_aborts(2):
        assert function() == 2
    assert ref.value == 1


def test_manager_of_somebody_else_is_handed_through_once() -> None:
    entered = []

    @contextlib.contextmanager
    def manager() -> Iterator[str]:
        entered.append("in")
        yield "value"
        entered.append("out")

    values = []
    for () in rt.block(SITE, manager()):
        try:
            with rt.attempt() as value:
                values.append(value)
        except rt.Rerun:
            values.append("again")
    assert (values, entered) == (["value"], ["in", "out"])


def test_manager_of_somebody_else_that_swallows_ends_the_loop() -> None:
    with pytest.raises(StopIteration):
        blocks = rt.block(SITE, contextlib.suppress(LookupError))
        next(blocks)
        with rt.attempt():
            raise LookupError
        next(blocks)


def test_no_manager_is_an_ordinary_error() -> None:
    with pytest.raises(TypeError, match="context manager"):
        run(object(), lambda: None)


def test_nested_block_passes_the_loss_to_the_outermost() -> None:
    ref = ame.Ref(0)
    outer, inner = [], []

    def nested() -> None:
        inner.append(stm.attempt())
        ref.value += 1

    def body() -> None:
        outer.append(stm.attempt())
        run(ame.atomic(), nested)

    with testing.forced_aborts(2):
        run(ame.atomic(), body)
    assert (outer, inner, ref.value) == ([0, 1, 2], [0, 1, 2], 1)


def test_nested_block_that_fails_is_undone_alone() -> None:
    ref = ame.Ref(0)

    def nested() -> None:
        ref.value = 5
        raise LookupError

    def body() -> None:
        ref.value = 1
        with contextlib.suppress(LookupError):
            run(ame.atomic(), nested)
        assert ref.value == 1

    run(ame.atomic(), body)
    assert ref.value == 1


def test_options_of_the_manager_count() -> None:
    ref = ame.Ref(0)

    def body() -> None:
        ref.value = 1
        raise LookupError

    with pytest.raises(LookupError):
        run(ame.atomic(commit_on=LookupError), body)
    assert ref.value == 1
    with testing.forced_aborts(3), pytest.raises(ame.AttemptLimit, match=r"file\.py:7") as caught:
        run(ame.atomic(max_attempts=2), lambda: None)
    assert caught.value.attempts == 2


def test_retry_sleeps_until_a_change() -> None:
    ref = ame.Ref(0)
    seen = []

    def body() -> None:
        seen.append(ref.value)
        if not ref.value:
            Interference(lambda: setattr(ref, "value", 1))()
            ame.retry()

    run(ame.atomic(), body)
    assert seen == [0, 1]


def test_interrupt_between_two_attempts_ends_the_block() -> None:
    """Catches: a lost attempt that stays the thread's block for ever."""

    def function() -> None:
        for () in rt.block(SITE, ame.atomic()):
            try:
                with rt.attempt():
                    pass
            except rt.Rerun:
                raise KeyboardInterrupt from None

    with testing.forced_aborts(1), pytest.raises(KeyboardInterrupt):
        function()
    assert not ame.in_transaction()


def test_iterator_that_is_dropped_before_its_block_begins_leaves_nothing() -> None:
    next(rt.block(SITE, ame.atomic()))
    ref = ame.Ref(0)
    run(ame.atomic(), lambda: setattr(ref, "value", 1))
    assert ref.value == 1
    with pytest.raises(SystemError):
        rt.attempt()


def test_iterator_is_refused_in_another_thread() -> None:
    blocks = rt.block(SITE, ame.atomic())

    def use() -> None:
        with pytest.raises(ame.OpenBlockError, match=r"file\.py:7"):
            next(blocks)

    in_thread(use)


def test_leaving_in_another_thread_raises_there_and_leaves_it_open_here() -> None:
    for () in rt.block(SITE, ame.atomic()):
        with rt.attempt():
            block = next(each for each in gc.get_objects() if type(each) is BLOCK)

            def leave(block: Any = block) -> None:
                with pytest.raises(ame.OpenBlockError):
                    block.__exit__(None, None, None)

            in_thread(leave)
            assert ame.in_transaction()
    assert not ame.in_transaction()


def test_yield_in_an_open_block_is_refused() -> None:
    def generator() -> Iterator[int]:
        for () in rt.block(SITE, ame.atomic()):
            with rt.attempt():
                yield rt.leaving(SITE, 1)

    with pytest.raises(ame.OpenBlockError, match=r"yield or await inside of .*file\.py:7"):
        next(generator())
    assert rt.leaving(SITE, 1) == 1
    assert not ame.in_transaction()


def test_saved_values_are_let_go() -> None:
    class Value:
        pass

    value = Value()
    seen = weakref.ref(value)
    run(ame.atomic(), lambda _: None, value)
    del value
    gc.collect()
    assert seen() is None


def test_finalizers_between_attempts_do_not_disturb_the_block() -> None:
    """Catches: a block of a finalizer that takes the pending or lost block for its own."""
    ref, other = ame.Ref(0), ame.Ref(0)

    class Noisy:
        def __del__(self) -> None:
            run(ame.atomic(), lambda: None)

    def body(value: Any) -> None:
        ref.value += 1

    with testing.forced_aborts(2):
        for value in rt.block(SITE, ame.atomic(), None):
            Noisy()
            try:
                with rt.attempt():
                    body(value)
                    Noisy()
            except rt.Rerun:
                Noisy()
    assert (ref.value, other.value) == (1, 0)
