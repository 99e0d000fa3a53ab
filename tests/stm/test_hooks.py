"""on_commit and on_abort: once, outside of the block, after its end (INV-HOOK-1)."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any

import pytest

import ame
import stm
from hooking import BodyError, HookError, fail
from stm.testing import forced_aborts, lose
from support import Interference, in_thread, run_n

pytestmark = pytest.mark.deadline(60)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What sys.unraisablehook is told of."""
    errors: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: errors.append(event.exc_value))
    return errors


def test_on_commit_runs_after_the_commit_and_outside_of_any_block() -> None:
    """Catches: a hook called before the commit, or as part of the block."""
    ref, seen = ame.Ref(0), []

    def hook() -> None:
        seen.append((ame.in_transaction(), ref.value, in_thread(lambda: ref.value)))

    @ame.atomic
    def body() -> None:
        ame.on_commit(hook)
        ref.value = 1
        assert seen == []

    body()
    assert seen == [(False, 1, 1)]


def test_on_commit_has_run_when_the_block_returns_to_its_caller() -> None:
    """Catches: hooks put off until the thread's next block."""
    log: list[str] = []

    @ame.atomic
    def body() -> str:
        assert ame.on_commit(log.append, "hook") is None  # type: ignore[func-returns-value]
        return "result"

    log.append(body())
    assert log == ["hook", "result"]


@pytest.mark.parametrize("read_only", [False, True])
def test_on_commit_runs_for_a_block_that_only_reads(read_only: bool) -> None:
    """Catches: a commit path without hooks."""
    ref, log = ame.Ref(0), []

    @ame.atomic(read_only=read_only)
    def body() -> int:
        ame.on_commit(log.append, 1)
        return ref.value

    assert body() == 0
    assert log == [1]


def test_on_commit_does_not_run_when_an_exception_leaves_the_block() -> None:
    """Catches: a hook of an attempt that was undone."""
    log: list[int] = []

    @ame.atomic
    def body() -> None:
        ame.on_commit(log.append, 1)
        raise BodyError

    with pytest.raises(BodyError):
        body()
    ame.run(lambda: None)
    assert log == []


def test_on_abort_runs_when_an_exception_leaves_the_block_before_the_caller_gets_it() -> None:
    """Catches: cleaning up too late, or in the middle of the undo."""
    ref, seen = ame.Ref(0), []

    @ame.atomic
    def body() -> None:
        ame.on_abort(lambda: seen.append((ame.in_transaction(), ref.value)))
        ref.value = 1
        raise BodyError

    try:
        body()
    except BodyError:
        assert seen == [(False, 0)]
    else:
        pytest.fail("the exception was lost")


def test_on_abort_does_not_run_after_a_commit() -> None:
    """Catches: hooks of both kinds run at every end."""
    log: list[str] = []

    @ame.atomic
    def body() -> None:
        ame.on_abort(log.append, "abort")
        ame.on_commit(log.append, "commit")

    body()
    body()
    assert log == ["commit"] * 2


def test_hooks_of_re_executed_attempts_run_once_and_their_cleanups_before_the_next_attempt() -> (
    None
):
    """Catches: hooks that pile up over attempts; cleanups of lost attempts left out or too late."""
    ref, log, result = ame.Ref(0), [], ame.Ref(-1)
    disturb = Interference(lambda: ref.update(lambda value: value + 1), times=2)

    @ame.atomic
    def body() -> None:
        number = stm.attempt()
        log.append(f"attempt {number}")
        ame.on_commit(log.append, f"commit {number}")
        ame.on_abort(log.append, f"abort {number}")
        seen = ref.value
        disturb()
        result.value = seen

    body()
    assert log == ["attempt 0", "abort 0", "attempt 1", "abort 1", "attempt 2", "commit 2"]
    assert result.value == 2


def test_on_abort_runs_outside_of_the_lost_attempt() -> None:
    """Catches: a cleanup that runs in an attempt which is lost, and so can do nothing."""
    cleanups = ame.Ref(0)
    seen = []

    def clean() -> None:
        seen.append(ame.in_transaction())
        cleanups.update(lambda count: count + 1)

    @ame.atomic
    def body() -> None:
        ame.on_abort(clean)

    with forced_aborts(2):
        body()
    assert seen == [False, False]
    assert cleanups.value == 2


def test_attempt_after_a_cleanup_sees_what_the_cleanup_wrote() -> None:
    """Catches: an attempt that begins before the cleanups of the lost one have committed."""
    ref, seen = ame.Ref(0), []

    @ame.atomic
    def body() -> None:
        seen.append(ref.value)
        ame.on_abort(ref.update, lambda value: value + 1)

    with forced_aborts(2):  # loses the first attempts of the cleanups too
        body()
    assert seen == [0, 1, 2]
    assert ref.value == 2


def test_hooks_of_a_block_whose_attempts_are_used_up_run_once() -> None:
    """Catches: AttemptLimit that skips cleanups, or commits."""
    log: list[str] = []

    @ame.atomic(max_attempts=2)
    def body() -> None:
        ame.on_commit(log.append, "commit")
        ame.on_abort(log.append, f"abort {stm.attempt()}")

    with forced_aborts(5), pytest.raises(ame.AttemptLimit):
        body()
    assert log == ["abort 0", "abort 1"]


def test_on_abort_runs_before_retry_sleeps() -> None:
    """Catches: a cleanup put off until something changes, or whose change does not wake."""
    ref, log = ame.Ref(0), []

    def hook() -> None:
        log.append(ame.in_transaction())
        ref.value = 1

    @ame.atomic
    def body() -> int:
        ame.on_commit(log.append, "commit")
        ame.on_abort(hook)
        if ref.value == 0:
            ame.retry(timeout=20)
        return ref.value

    assert body() == 1
    assert log == [False, "commit"]


def test_hooks_when_retry_times_out() -> None:
    """Catches: cleanups that run twice, before the sleep and at the end."""
    ref, log = ame.Ref(0), []

    @ame.atomic
    def body() -> None:
        ame.on_commit(log.append, "commit")
        ame.on_abort(log.append, "abort")
        assert ref.value == 0
        ame.retry(timeout=0.01)

    with pytest.raises(ame.TransactionTimeout):
        body()
    assert log == ["abort"]


def test_commit_on_runs_the_hooks_of_a_commit_and_keeps_the_exception() -> None:
    """Catches: a commit with an exception that is taken for an undo, or loses the exception."""
    log: list[str] = []

    @ame.atomic(commit_on=BodyError)
    def body() -> None:
        ame.on_abort(log.append, "abort")
        ame.on_commit(log.append, "commit")
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert log == ["commit"]


def test_outside_of_a_block_on_commit_calls_at_once_and_on_abort_never() -> None:
    """Catches: a function called by both kinds of code that works in one of them only."""
    log: list[Any] = []
    ame.on_commit(log.append, 1)
    ame.on_abort(log.append, 2)
    assert log == [1]
    with pytest.raises(HookError):
        ame.on_commit(fail, HookError())
    ame.run(lambda: None)
    assert log == [1]


def test_on_commit_in_a_hook_calls_at_once() -> None:
    """Catches: a hook that is taken for a part of the block that has ended."""
    log: list[int] = []

    def hook() -> None:
        ame.on_commit(log.append, 1)
        log.append(2)

    ame.run(ame.on_commit, hook)
    assert log == [1, 2]


@pytest.mark.parametrize("register", [ame.on_commit, ame.on_abort])
def test_verbs_of_a_block_raise_in_a_hook(register: Any, reported: list[Any]) -> None:
    """Catches: a hook that finds the record of the block that has ended."""

    @ame.atomic
    def body() -> None:
        register(ame.retry)
        register(ame.split)
        register(ame.irrevocable)
        register(stm.attempt)
        if register is ame.on_abort:
            raise BodyError

    with contextlib.suppress(BodyError):
        body()
    assert [type(error) for error in reported] == [ame.NotInTransaction] * 4


def test_arguments_of_every_kind_arrive() -> None:
    """Catches: keyword arguments that are lost or mixed up with positional ones."""
    calls: list[Any] = []

    def hook(*args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))

    @ame.atomic
    def body() -> None:
        ame.on_commit(hook)
        ame.on_commit(hook, 1, 2)
        ame.on_commit(hook, fn=1, on_abort=2)
        ame.on_commit(hook, *range(20), **{f"k{n}": n for n in range(20)})

    body()
    assert calls == [
        ((), {}),
        ((1, 2), {}),
        ((), {"fn": 1, "on_abort": 2}),
        (tuple(range(20)), {f"k{n}": n for n in range(20)}),
    ]


@pytest.mark.parametrize("register", [ame.on_commit, ame.on_abort])
@pytest.mark.parametrize("arguments", [(), (3,), (None, 1)])
def test_what_is_not_callable_is_refused_inside_and_outside(register: Any, arguments: Any) -> None:
    """Catches: an error that shows up at the commit only, where it reaches nobody."""
    name = "on_commit" if register is ame.on_commit else "on_abort"
    with pytest.raises(TypeError, match=name):
        register(*arguments)
    with pytest.raises(TypeError, match=name):
        ame.run(register, *arguments)


@pytest.mark.parametrize("register", [ame.on_commit, ame.on_abort])
def test_registering_in_a_lost_attempt_gives_the_attempt_up(register: Any) -> None:
    """Catches: hooks registered in an attempt that is lost already."""
    log: list[int] = []
    went_on = []

    @ame.atomic
    def body() -> None:
        if stm.attempt() == 0:
            lose()
            try:
                register(log.append, 1)
            finally:
                went_on.append(stm.in_transaction())
        log.append(2)

    body()
    assert (log, went_on) == ([2], [True])


def test_hooks_run_in_the_thread_of_their_block() -> None:
    """Catches: lists of hooks that threads share."""
    threads: dict[int, set[int]] = {}

    def body(number: int) -> int:
        mine = threads[number] = set()
        for _ in range(200):
            ame.run(lambda: ame.on_commit(lambda: mine.add(threading.get_ident())))
        return threading.get_ident()

    idents = run_n(4, body)
    assert [threads[number] for number in range(4)] == [{ident} for ident in idents]


def test_irrevocable_block_has_given_the_slot_up_when_its_hooks_run() -> None:
    """Catches: a hook that waits for another thread which waits for the block."""
    done = []

    @ame.atomic
    def body() -> None:
        ame.irrevocable()
        ame.on_commit(lambda: in_thread(lambda: ame.run(ame.irrevocable)))
        ame.on_commit(lambda: ame.run(ame.irrevocable))
        ame.on_commit(done.append, 1)

    body()
    assert done == [1]


def test_operation_that_is_a_block_of_its_own_runs_the_hooks_of_its_function() -> None:
    """Catches: Ref.update, which runs a block without the name, without its hooks."""
    ref, log = ame.Ref(0), []

    def fn(value: int) -> int:
        ame.on_commit(lambda: log.append(ref.value))
        return value + 1

    ref.update(fn)
    assert log == [1]


def test_cleanup_of_a_lost_attempt_may_wait_as_long_as_any_block() -> None:
    """Catches: a cleanup that gets the short patience of code which interrupts a wait."""
    flag, log = ame.Ref(0), []
    timer = threading.Timer(1.5, setattr, (flag, "value", 1))  # more than that patience

    def hook() -> None:
        timer.start()
        ame.block_until(lambda: flag.value, timeout=20)
        log.append("done")

    @ame.atomic
    def body() -> None:
        ame.on_abort(hook)
        if stm.attempt() == 0:
            lose()

    body()
    timer.join(20)
    assert log == ["done"]
