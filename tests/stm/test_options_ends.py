"""Options that end a block in other ways: timeout and commit_on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import ame
import stm
from sleepers import Sleepers
from stm.testing import forced_aborts
from support import Interference, in_thread, run_script, wait_for

pytestmark = pytest.mark.deadline(60)

SHORT = 0.05  # seconds that a test waits for a timeout
LINE = r"test_options_ends\.py:\d+"


class BodyError(Exception):
    """Leaves a block."""


class Holder:
    """Another thread in an irrevocable block with a label, which has read `refs`."""

    def __init__(self, *refs: ame.Ref[Any]) -> None:
        self._refs = refs
        self._inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        @ame.atomic(label="the holder", irrevocable=True)
        def hold() -> None:
            for ref in self._refs:
                ref.value  # noqa: B018
            self._inside.set()
            wait_for(self._leave)

        hold()

    def __enter__(self) -> None:
        self._thread.start()
        wait_for(self._inside)

    def __exit__(self, *exception: object) -> None:
        self._leave.set()
        self._thread.join(20)


# --- timeout -----------------------------------------------------------------------------


def test_timeout_counts_for_the_wait_for_an_irrevocable_block_at_the_start() -> None:
    """Catches: a begin that waits for ever."""
    runs: list[int] = []

    @ame.atomic(irrevocable=True, timeout=SHORT)
    def body() -> None:
        runs.append(1)

    with Holder():
        with pytest.raises(
            ame.TransactionTimeout, match=rf"{LINE} in .*body.*the holder"
        ) as caught:
            body()
        assert not ame.in_transaction()
    error = caught.value
    assert (error.holder, error.attempts, runs) == ("the holder", 1, [])
    assert error.seconds >= SHORT * 0.9
    assert isinstance(error, TimeoutError)
    body()
    assert runs == [1]


def test_timeout_counts_for_the_wait_in_irrevocable() -> None:
    """Catches: an upgrade that waits for ever, or keeps what was written."""
    ref = ame.Ref(0)

    @ame.atomic(timeout=SHORT)
    def body() -> None:
        ref.value = 1
        ame.irrevocable()

    with Holder(), pytest.raises(ame.TransactionTimeout) as caught:
        body()
    assert caught.value.holder == "the holder"
    assert ref.value == 0
    assert not ame.in_transaction()


def test_block_may_catch_the_timeout_of_irrevocable_and_commit() -> None:
    """Catches: a timeout that leaves the attempt unusable ("nothing was changed")."""
    ref = ame.Ref(0)

    @ame.atomic(timeout=SHORT)
    def body() -> None:
        ref.value = 1
        with pytest.raises(ame.TransactionTimeout):
            ame.irrevocable()
        assert not stm.is_irrevocable()
        ref.value += 1

    with Holder():
        body()
    assert ref.value == 2


def test_timeout_counts_for_the_wait_at_the_commit() -> None:
    """Catches: a commit over what an irrevocable block has read, or one that waits for ever."""
    ref, log = ame.Ref(0), []

    @ame.atomic(timeout=SHORT)
    def body() -> None:
        ame.on_commit(log.append, "commit")
        ame.on_abort(log.append, "abort")
        ref.value = 1

    with Holder(ref):
        with pytest.raises(ame.TransactionTimeout) as caught:
            body()
        assert (ref.value, log) == (0, ["abort"])
    assert caught.value.holder == "the holder"
    body()
    assert ref.value == 1


def test_commit_on_whose_commit_times_out_does_not_look_committed() -> None:
    """Catches: an exception that says `committed` (commit_on) for a block that was undone."""
    ref = ame.Ref(0)

    @ame.atomic(timeout=SHORT, commit_on=BodyError)
    def body() -> None:
        ref.value = 1
        raise BodyError

    with Holder(ref), pytest.raises(ame.TransactionTimeout) as caught:
        body()
    assert ref.value == 0
    assert isinstance(caught.value.__context__, BodyError)


def test_interrupt_while_commit_on_waits_for_its_commit_is_raised() -> None:
    """Catches: a Ctrl-C that the exception of the body replaces."""
    run_script(
        """
import os, signal, threading, time
import ame

ref = ame.Ref(0)
inside, leave = threading.Event(), threading.Event()

@ame.atomic(irrevocable=True)
def hold():
    ref.value
    inside.set()
    leave.wait(20)

@ame.atomic(commit_on=LookupError)
def body():
    ref.value = 1
    waiting.set()
    raise LookupError

def interrupt():
    waiting.wait(20)
    time.sleep(0.3)  # most likely in the commit by now; before it the test holds too
    os.kill(os.getpid(), signal.SIGINT)

waiting = threading.Event()
threads = [threading.Thread(target=each, daemon=True) for each in (hold, interrupt)]
for thread in threads:
    thread.start()
inside.wait(20)
try:
    body()
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("no KeyboardInterrupt")
assert ref.value == 0
leave.set()
threads[0].join(20)
"""
    )


def test_timeout_of_the_block_counts_for_retry() -> None:
    """Catches: retry() without a timeout of its own that ignores that of the block."""
    ref = ame.Ref(0)

    @ame.atomic(timeout=SHORT)
    def body() -> None:
        assert ref.value == 0
        ame.retry()

    with pytest.raises(ame.TransactionTimeout, match=r"retry\(\)") as caught:
        body()
    error = caught.value
    assert error.cause == ame.Cause.RETRY
    assert error.waited_on == [ref]
    assert (error.attempts, error.holder) == (1, "")


def test_timeout_of_a_nested_block_counts_for_retry_in_it() -> None:
    """Catches: a nested timeout without effect."""
    ref = ame.Ref(0)

    @ame.atomic(timeout=SHORT)
    def inner() -> None:
        assert ref.value == 0
        ame.retry()

    with pytest.raises(ame.TransactionTimeout):
        ame.run(inner)


def test_timeout_of_a_nested_block_ends_with_it() -> None:
    """Catches: the deadline of a nested block that ends a later wait of the outer one."""
    ref = ame.Ref(0)
    inner = ame.atomic(timeout=0)(lambda: None)

    @ame.atomic
    def outer() -> int:
        inner()
        if ref.value == 0:
            ame.retry()
        return ref.value

    waiter = Sleepers(outer)
    ref.value = 1
    assert waiter.join() == [1]


def test_computing_takes_no_time_of_the_timeout() -> None:
    """Catches: a deadline for the whole block in place of one for its waits.

    "a wait that would last longer ends the block": starting over is no wait.
    """
    ref = ame.Ref(0)
    other = threading.Event()

    @ame.atomic(timeout=0)
    def body() -> None:
        ref.value += 1
        other.wait(0.01)

    with forced_aborts(2):
        body()
    assert ref.value == 1


def test_timeout_zero_does_not_end_a_block_that_need_not_wait() -> None:
    """Catches: a limit of no seconds that ends blocks without a wait."""
    ref = ame.Ref(0)

    @ame.atomic(timeout=0, irrevocable=True)
    def body() -> None:
        ref.value += 1

    body()
    assert ref.value == 1


def test_timeout_error_is_the_same_class_for_users_of_both_hierarchies() -> None:
    """Catches: an error that `except TimeoutError` or `except TransactionError` misses."""
    assert issubclass(ame.TransactionTimeout, TimeoutError)
    assert issubclass(ame.TransactionTimeout, ame.TransactionError)
    assert issubclass(ame.AttemptLimit, ame.TransactionError)


# --- commit_on ---------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [BodyError, (KeyError, BodyError), Exception, BaseException])
def test_commit_on_commits_and_lets_the_exception_go_on(classes: Any) -> None:
    """Catches: a commit without the exception, or the other way round."""
    ref, table, error = ame.Ref(0), ame.Dict(a=1), BodyError("mine")

    @ame.atomic(commit_on=classes)
    def body() -> None:
        ref.value = 1
        table["b"] = 2
        raise error

    with pytest.raises(BodyError) as caught:
        body()
    assert caught.value is error
    assert caught.value.__context__ is None
    assert (ref.value, dict(table.items())) == (1, {"a": 1, "b": 2})
    assert in_thread(lambda: ref.value) == 1


@pytest.mark.parametrize("classes", [None, (), KeyError, (KeyError, ValueError)])
def test_other_exceptions_undo(classes: Any) -> None:
    """Catches: an option that commits on everything."""
    ref = ame.Ref(0)

    @ame.atomic(commit_on=classes)
    def body() -> None:
        ref.value = 1
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert ref.value == 0


def test_commit_on_of_a_with_block() -> None:
    """Catches: an option for functions only."""
    ref = ame.Ref(0)
    with pytest.raises(BodyError):
        with ame.atomic(commit_on=BodyError):
            ref.value = 1
            raise BodyError
    with pytest.raises(KeyError):
        with ame.atomic(commit_on=BodyError):
            ref.value = 2
            raise KeyError
    assert ref.value == 1


def test_commit_on_with_a_conflict_executes_the_block_again() -> None:
    """Catches: an exception of an attempt that read what is not true any more."""
    ref, result = ame.Ref(0), ame.Ref(-1)
    disturb = Interference(lambda: setattr(ref, "value", 5))

    @ame.atomic(commit_on=BodyError)
    def body() -> str:
        seen = ref.value
        disturb()
        result.value = seen
        if seen == 0:
            raise BodyError
        return "no exception"

    assert body() == "no exception"
    assert result.value == 5


def test_commit_on_everything_does_not_commit_a_lost_attempt() -> None:
    """Catches: the private exception of a lost attempt taken for one of the body."""
    first, second, result = ame.Ref(0), ame.Ref(0), ame.Ref(-1)

    def write() -> None:
        first.value = second.value = 5

    disturb = Interference(lambda: ame.run(write))

    @ame.atomic(commit_on=BaseException)
    def body() -> None:
        seen = first.value
        result.value = -2
        disturb()
        result.value = seen + second.value

    body()
    assert result.value == 10


def test_commit_on_everything_does_not_commit_a_waiting_attempt() -> None:
    """Catches: the same for retry()."""
    ref, result = ame.Ref(0), ame.Ref(-1)

    @ame.atomic(commit_on=BaseException)
    def body() -> None:
        result.value = ref.value
        if ref.value == 0:
            ame.on_abort(setattr, ref, "value", 1)
            ame.retry(timeout=20)

    body()
    assert result.value == 1


def test_class_whose_check_is_hostile_does_not_decide() -> None:
    """Catches: __subclasscheck__ of a metaclass called with the block half closed."""
    ref = ame.Ref(0)

    class Meta(type):
        def __subclasscheck__(cls, other: type) -> bool:
            raise LookupError

        def __instancecheck__(cls, other: object) -> bool:
            raise LookupError

    class Hostile(Exception, metaclass=Meta):
        pass

    @ame.atomic(commit_on=Hostile)
    def body() -> None:
        ref.value = 1
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert ref.value == 0
