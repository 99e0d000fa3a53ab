"""on_commit and on_abort: exceptions (INV-HOOK-3), lifetimes, finalizers."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from typing import Any

import pytest

import ame
import stm
from hooking import BodyError, Dropped, HookError, Knot, fail, run_and_catch
from stm.testing import forced_aborts

pytestmark = pytest.mark.deadline(60)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What sys.unraisablehook is told of."""
    errors: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: errors.append(event.exc_value))
    return errors


# --- INV-HOOK-3: exceptions --------------------------------------------------------------


def test_exception_of_an_on_commit_hook_is_reported_and_the_others_run(reported: Any) -> None:
    """Catches: a committed block that looks failed, or hooks skipped after an error."""
    log, error, ref = [], HookError("mine"), ame.Ref(0)

    @ame.atomic
    def body() -> int:
        ref.value = 1
        ame.on_commit(log.append, 1)
        ame.on_commit(fail, error)
        ame.on_commit(log.append, 2)
        return 3

    assert body() == 3
    assert (log, reported, ref.value) == ([1, 2], [error], 1)


def test_exception_of_an_on_abort_hook_does_not_replace_that_of_the_body(reported: Any) -> None:
    """Catches: an error of the body that its cleanup hides."""
    log, error = [], BodyError("mine")

    @ame.atomic
    def body() -> None:
        ame.on_abort(log.append, 1)
        ame.on_abort(fail, HookError())
        ame.on_abort(log.append, 2)
        raise error

    with pytest.raises(BodyError) as caught:
        body()
    assert caught.value is error
    assert log == [2, 1]
    assert [type(each) for each in reported] == [HookError]


def test_exception_of_a_cleanup_does_not_end_the_block_that_runs_again(reported: Any) -> None:
    """Catches: an exception left set when the next attempt begins."""

    @ame.atomic
    def body() -> int:
        ame.on_abort(fail, HookError())
        return stm.attempt()

    with forced_aborts(2):
        assert body() == 2
    assert [type(each) for each in reported] == [HookError] * 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_hook_is_raised_when_all_have_run(kind: Any, reported: Any) -> None:
    """Catches: a Ctrl-C that is reported and forgotten, or that drops the other hooks."""
    log, ref = [], ame.Ref(0)

    @ame.atomic
    def body() -> None:
        ref.value = 1
        ame.on_commit(fail, kind())
        ame.on_commit(log.append, 1)

    with pytest.raises(kind):
        body()
    assert (log, ref.value, reported) == ([1], 1, [])
    assert not ame.in_transaction()


def test_second_interrupt_in_hooks_is_reported(reported: Any) -> None:
    """Catches: two exceptions set at once."""

    @ame.atomic
    def body() -> None:
        ame.on_commit(fail, KeyboardInterrupt())
        ame.on_commit(fail, SystemExit())

    with pytest.raises(KeyboardInterrupt):
        body()
    assert [type(each) for each in reported] == [SystemExit]


def test_interrupt_in_a_cleanup_of_a_lost_attempt_ends_the_block() -> None:
    """Catches: a Ctrl-C between two attempts that is lost."""
    runs = []

    @ame.atomic
    def body() -> None:
        runs.append(1)
        ame.on_abort(fail, KeyboardInterrupt())

    with forced_aborts(1), pytest.raises(KeyboardInterrupt):
        body()
    assert runs == [1]
    assert not ame.in_transaction()
    ame.run(lambda: None)


@pytest.mark.parametrize("form", ["function", "with"])
def test_interrupt_in_a_cleanup_wins_over_the_exception_of_the_body(form: str) -> None:
    """Catches: a Ctrl-C that is only reported because another exception was on its way."""

    def body() -> None:
        ame.on_abort(fail, KeyboardInterrupt())
        raise BodyError

    def with_block() -> None:
        with ame.atomic():
            body()

    with pytest.raises(KeyboardInterrupt):
        ame.run(body) if form == "function" else with_block()


# --- lifetimes and finalizers ------------------------------------------------------------


class Target:
    """Something that a weak reference can watch."""

    def hook(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("end", ["commit", "abort", "nested undo", "lost attempts"])
def test_hooks_and_their_arguments_are_let_go_when_the_block_has_ended(end: str) -> None:
    """Catches: references to hooks, run or not, that stay with the thread."""
    watched = []

    def register() -> None:
        for add in (ame.on_commit, ame.on_abort):
            target, argument, named = Target(), Target(), Target()
            watched.extend(weakref.ref(each) for each in (target, argument))
            add(target.hook, argument)
            watched.append(weakref.ref(named))
            add(lambda *, named: None, named=named)

    @ame.atomic
    def body() -> None:
        if end == "nested undo":
            run_and_catch(register)
        else:
            register()
        if end == "abort":
            raise BodyError

    def call() -> None:
        with contextlib.suppress(BodyError):
            body()

    with forced_aborts(2 if end == "lost attempts" else 0):
        call()
    assert len(watched) in (6, 18)
    assert [each() for each in watched] == [None] * len(watched)


def test_each_hook_is_let_go_when_it_has_run() -> None:
    """Catches: a long list of hooks that keeps everything alive until its end."""
    alive = []

    @ame.atomic
    def body() -> None:
        target = Target()
        watch = weakref.ref(target)
        ame.on_commit(target.hook)
        ame.on_commit(lambda: alive.append(watch()))

    body()
    assert alive == [None]


def test_finalizer_in_a_block_registers_with_the_block() -> None:
    """Catches: a hook of a finalizer that is lost, or that runs before the commit."""
    log: list[str] = []

    @ame.atomic
    def body(error: bool) -> None:
        value = Dropped(lambda: ame.on_commit(log.append, "finalizer"))
        del value
        log.append("body")
        if error:
            raise BodyError

    body(False)
    assert log == ["body", "finalizer"]
    log.clear()
    with pytest.raises(BodyError):
        body(True)
    assert log == ["body"]


def test_hook_of_a_finalizer_found_by_a_collection_does_not_wait_for_the_block() -> None:
    """Catches: hooks of unrelated code that vanish with the block it interrupted."""
    log: list[str] = []

    def act() -> None:
        ame.run(lambda: ame.on_commit(log.append, "finalizer"))

    @ame.atomic
    def body() -> None:
        ame.on_commit(log.append, "body")
        Knot(act)
        gc.collect()
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert log == ["finalizer"]


def test_collection_in_a_hook_keeps_the_hooks_that_are_left() -> None:
    """Catches: a list of due hooks that the block of a finalizer empties or replaces."""
    log: list[str] = []

    def act() -> None:
        ame.run(lambda: ame.on_commit(log.append, "finalizer"))

    def hook() -> None:
        Knot(act)
        gc.collect()

    @ame.atomic
    def body() -> None:
        ame.on_commit(hook)
        ame.on_commit(log.append, "last")

    body()
    assert log == ["last", "finalizer"]


def test_finalizer_of_a_dropped_hook_may_register_hooks() -> None:
    """Catches: a list of hooks that changes while the undo walks over it."""
    log: list[int] = []

    def hold(value: object) -> None:
        log.append(-1)

    def inner() -> None:
        for number in range(50):
            value = Dropped(lambda number=number: ame.on_commit(log.append, number))  # type: ignore[misc]
            ame.on_commit(hold, value)
            del value

    @ame.atomic
    def body() -> None:
        ame.on_commit(log.append, 100)
        run_and_catch(inner)
        ame.on_commit(log.append, 200)

    body()
    assert (log[0], log[-1]) == (100, 200)
    assert sorted(log[1:-1]) == list(range(50))


def test_finalizer_of_a_value_that_a_rollback_drops_calls_on_commit_at_once() -> None:
    """Catches: a hook registered with a block that has ended already."""
    ref, log = ame.Ref[object](None), []

    @ame.atomic
    def body() -> None:
        ref.value = Dropped(lambda: ame.on_commit(log.append, ame.in_transaction()))
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert log == [False]
