"""on_commit and on_abort: their order, and nested blocks (INV-HOOK-2 and 4)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

import ame
import stm
from hooking import BodyError, run_and_catch
from stm.testing import forced_aborts, lose

pytestmark = pytest.mark.deadline(60)


# --- INV-HOOK-2: order -------------------------------------------------------------------


def test_on_commit_runs_in_the_order_of_registration_across_nested_blocks() -> None:
    """Catches: hooks of nested blocks that run first, or last."""
    log: list[int] = []

    @ame.atomic
    def body() -> None:
        ame.on_commit(log.append, 1)
        ame.run(ame.on_commit, log.append, 2)
        ame.on_commit(log.append, 3)
        with ame.atomic():
            ame.on_commit(log.append, 4)
        ame.on_commit(log.append, 5)
        assert log == []

    body()
    assert log == [1, 2, 3, 4, 5]


def test_on_abort_runs_last_registered_first() -> None:
    """Catches: cleanups in the order in which what they clean was made."""
    log: list[int] = []

    @ame.atomic
    def body() -> None:
        for number in range(5):
            ame.on_abort(log.append, number)
            ame.on_commit(log.append, -1)
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert log == [4, 3, 2, 1, 0]


def test_block_in_a_hook_runs_its_hooks_after_those_of_the_earlier_commit() -> None:
    """Catches: hooks of a later commit that overtake those of an earlier one."""
    log: list[str] = []

    @ame.atomic
    def later() -> None:
        ame.on_commit(log.append, "later")

    @ame.atomic
    def body() -> None:
        ame.on_commit(log.append, "first")
        ame.on_commit(later)
        ame.on_commit(lambda: log.append("last"))

    body()
    assert log == ["first", "last", "later"]


def test_chain_of_blocks_in_hooks_does_not_recurse() -> None:
    """Catches: hooks run from within hooks, until the stack is full."""
    count = 20_000
    done = ame.Ref(0)

    @ame.atomic
    def step() -> None:
        done.value += 1
        if done.value < count:
            ame.on_commit(step)

    step()
    assert done.value == count


def test_ten_thousand_hooks_run_in_order() -> None:
    """Catches: a list that loses what it holds when it grows."""
    log: list[int] = []

    @ame.atomic
    def body(error: bool) -> None:
        for number in range(10_000):
            ame.on_commit(log.append, number)
            ame.on_abort(log.append, number)
        if error:
            raise BodyError

    body(False)
    assert log == list(range(10_000))
    log.clear()
    with pytest.raises(BodyError):
        body(True)
    assert log == list(range(9999, -1, -1))


def test_cleanup_of_a_lost_attempt_in_a_hook_runs_before_the_next_attempt() -> None:
    """Catches: on_abort put off to the end of the hooks: it cleans up after the wrong attempt.

    "It is called after the attempt was undone [...] and before the next one begins".
    """
    log: list[str] = []

    @ame.atomic
    def inner() -> None:
        number = stm.attempt()
        log.append(f"attempt {number}")
        ame.on_abort(log.append, f"abort {number}")
        if number == 0:
            lose()

    @ame.atomic
    def body() -> None:
        ame.on_commit(inner)

    body()
    assert log == ["attempt 0", "abort 0", "attempt 1"]


# --- INV-HOOK-4: nested blocks -----------------------------------------------------------


def test_undone_nested_block_takes_its_on_commit_hooks_with_it() -> None:
    """Catches: an effect of what was undone."""
    log: list[int] = []

    @ame.atomic
    def body() -> None:
        ame.on_commit(log.append, 1)
        run_and_catch(lambda: ame.on_commit(log.append, 2))
        run_and_catch(lambda: ame.run(ame.on_commit, log.append, 3))
        ame.on_commit(log.append, 4)

    body()
    assert log == [1, 4]


@pytest.mark.parametrize("outer_fails", [False, True])
def test_cleanup_of_an_undone_nested_block_runs_once_when_the_outermost_has_ended(
    outer_fails: bool,
) -> None:
    """Catches: cleanups that run in the middle of the outer block, twice, or never."""
    log: list[Any] = []

    @ame.atomic
    def body() -> None:
        run_and_catch(lambda: ame.on_abort(lambda: log.append(ame.in_transaction())))
        log.append("body")
        if outer_fails:
            raise BodyError

    with contextlib.suppress(BodyError):
        body()
    assert log == ["body", False]


def test_cleanups_of_an_undone_nested_block_run_last_registered_first_after_a_commit() -> None:
    """Catches: cleanups in the order of registration where the outer block commits."""
    log: list[int] = []

    def inner() -> None:
        for number in range(3):
            ame.on_abort(log.append, number)

    @ame.atomic
    def body() -> None:
        run_and_catch(inner)

    body()
    assert log == [2, 1, 0]


def test_cleanup_of_an_undone_nested_block_runs_after_each_lost_attempt() -> None:
    """Catches: a due cleanup that is forgotten, or doubled, by a re-execution."""
    log: list[str] = []

    @ame.atomic
    def body() -> None:
        number = stm.attempt()
        ame.on_abort(log.append, f"outer {number}")
        run_and_catch(lambda: ame.on_abort(log.append, f"inner {number}"))

    with forced_aborts(1):
        body()
    assert log == ["inner 0", "outer 0", "inner 1"]


def test_cleanup_of_twice_undone_nested_blocks_runs_once() -> None:
    """Catches: a hook that each undone level adds again."""
    log: list[int] = []

    @ame.atomic
    def body() -> None:
        run_and_catch(lambda: run_and_catch(lambda: ame.on_abort(log.append, 1)))
        run_and_catch(lambda: None)

    body()
    assert log == [1]


def test_cleanup_of_a_nested_block_that_succeeded_belongs_to_the_outer_one() -> None:
    """Catches: cleanups that count as done when their block has ended well."""
    log: list[int] = []

    @ame.atomic
    def body(error: bool) -> None:
        ame.run(ame.on_abort, log.append, 1)
        if error:
            raise BodyError

    body(False)
    assert log == []
    with pytest.raises(BodyError):
        body(True)
    assert log == [1]


def test_nested_block_that_commits_on_its_exception_keeps_its_hooks() -> None:
    """Catches: an undo of hooks without an undo of writes."""
    log: list[str] = []

    @ame.atomic(commit_on=BodyError)
    def inner() -> None:
        ame.on_commit(log.append, "commit")
        ame.on_abort(log.append, "abort")
        raise BodyError

    @ame.atomic
    def body() -> None:
        with pytest.raises(BodyError):
            inner()

    body()
    assert log == ["commit"]


def test_alternative_that_retried_takes_its_on_commit_hooks_with_it() -> None:
    """Catches: effects of an alternative that was not taken, or its cleanup left out."""
    ref, log = ame.Ref(0), []

    def first() -> None:
        ame.on_commit(log.append, "first commit")
        ame.on_abort(log.append, "first abort")
        if ref.value == 0:
            ame.retry()

    def second() -> None:
        ame.on_commit(log.append, "second commit")
        ame.on_abort(log.append, "second abort")

    ame.or_else(first, second)
    assert log == ["first abort", "second commit"]
