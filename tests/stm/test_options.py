"""Options of blocks: what they accept, max_attempts, read_only, irrevocable."""

from __future__ import annotations

import decimal
import fractions
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from stm.testing import forced_aborts
from support import Interference, wait_for

pytestmark = pytest.mark.deadline(60)

LINE = r"test_options\.py:\d+"


class BodyError(Exception):
    """Leaves a block."""


# --- validation --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, 0.0, 1, 0.5, float("inf"), decimal.Decimal("1.5")])
def test_timeout_is_a_number_of_seconds_or_none(value: Any) -> None:
    """Catches: numbers that are refused, or that overflow into an early deadline."""
    ref = ame.Ref(0)
    assert ame.atomic(timeout=value)(lambda: ref.update(lambda old: old + 1))() == 1
    assert ame.atomic(timeout=fractions.Fraction(1, 2))(lambda: 3)() == 3


@pytest.mark.parametrize("value", [1e9, 1e18, 1e308, float("inf"), 10**18])
def test_huge_timeout_is_no_timeout(value: Any) -> None:
    """Catches: nanoseconds that do not fit, so that the wait ends at once."""
    ref, woken = ame.Ref(0), threading.Event()

    @ame.atomic(timeout=value)
    def body() -> int:
        woken.set()
        if ref.value == 0:
            ame.retry()
        return ref.value

    def wake() -> None:
        wait_for(woken)
        ref.value = 1

    waker = threading.Thread(target=wake, daemon=True)
    waker.start()
    assert body() == 1
    waker.join(20)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (-0.001, ValueError),
        (float("nan"), ValueError),
        (float("-inf"), ValueError),
        (True, TypeError),
        ("1", TypeError),
        (b"1", TypeError),
        ([], TypeError),
        (1j, TypeError),
    ],
)
def test_wrong_timeout_is_refused_with_its_name(value: Any, error: Any) -> None:
    """Catches: a block that would wait for ever, or not at all."""
    with pytest.raises(error, match="timeout"):
        ame.atomic(timeout=value)
    with pytest.raises(error, match="timeout"):
        ame.run(lambda: ame.retry(timeout=value))


def test_timeout_too_large_for_a_float_is_refused() -> None:
    """Catches: an error that is dropped."""
    with pytest.raises(OverflowError):
        ame.atomic(timeout=10**400)


@pytest.mark.parametrize(
    "value", [0, -1, True, False, 1.0, "1", float("inf"), 10**30, -(10**30), [], 2**31]
)
def test_wrong_max_attempts_is_refused_with_its_name(value: Any) -> None:
    """Catches: a limit that is cut to 32 bits, or no limit at all."""
    with pytest.raises((ValueError, TypeError), match="max_attempts"):
        ame.atomic(max_attempts=value)


@pytest.mark.parametrize("value", [None, 1, 2, 2**31 - 1])
def test_max_attempts_is_a_positive_int_or_none(value: Any) -> None:
    """Catches: limits that are refused, or that end a block without conflicts."""
    assert ame.atomic(max_attempts=value)(lambda: 3)() == 3


@pytest.mark.parametrize(
    "value",
    [ValueError(), "ValueError", 3, int, [ValueError], (ValueError, 3), ((ValueError,),), object],
)
def test_wrong_commit_on_is_refused_with_its_name(value: Any) -> None:
    """Catches: a commit_on that matches nothing, or raises when an exception comes."""
    with pytest.raises(TypeError, match="commit_on"):
        ame.atomic(commit_on=value)


@pytest.mark.parametrize("value", [None, (), ValueError, BaseException, (ValueError, KeyError)])
def test_commit_on_is_a_class_or_a_tuple_of_them_or_none(value: Any) -> None:
    """Catches: the documented forms refused."""
    assert ame.atomic(commit_on=value)(lambda: 3)() == 3


def test_options_are_kept_alive_by_what_uses_them() -> None:
    """Catches: a tuple of commit_on that is gone when the exception comes."""
    ref = ame.Ref(0)

    def body() -> None:
        ref.value += 1
        raise BodyError

    functions = [ame.atomic(commit_on=(KeyError, type("Sub", (BodyError,), {}), BodyError))(body)]
    functions += [ame.atomic(body, commit_on=tuple([BodyError]))]  # type: ignore[call-overload]
    for _ in range(1000):
        (KeyError, object(), BodyError)
    for function in functions:
        with pytest.raises(BodyError):
            function()
    assert ref.value == 2


# --- max_attempts ------------------------------------------------------------------------


def losing(count: int, ref: ame.Ref[int], result: ame.Ref[int]) -> Callable[[], int]:
    """A body whose first `count` attempts another thread's write makes lose."""
    disturb = Interference(lambda: ref.update(lambda value: value + 1), times=count)

    def body() -> int:
        seen = ref.value
        disturb()
        result.value = seen
        return disturb.calls

    return body


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_block_that_loses_as_many_attempts_as_allowed_ends(limit: int) -> None:
    """Catches: a limit that is one off, or that lets the block run on."""
    ref, result = ame.Ref(0), ame.Ref(-1)
    runs = []
    body = losing(limit, ref, result)

    @ame.atomic(max_attempts=limit)
    def limited() -> None:
        runs.append(stm.attempt())
        body()

    with pytest.raises(ame.AttemptLimit):
        limited()
    assert runs == list(range(limit))
    assert result.value == -1
    assert not ame.in_transaction()


@pytest.mark.parametrize("limit", [2, 3])
def test_block_that_loses_fewer_attempts_than_allowed_commits(limit: int) -> None:
    """Catches: the same from the other side."""
    ref, result = ame.Ref(0), ame.Ref(-1)
    assert ame.atomic(max_attempts=limit)(losing(limit - 1, ref, result))() == limit
    assert result.value == limit - 1


def test_attempt_limit_says_what_happened_and_carries_it_as_data() -> None:
    """Catches: numbers mixed up, or a text without the place."""
    ref, result = ame.Ref(0), ame.Ref(-1)
    body = losing(2, ref, result)

    @ame.atomic(max_attempts=2)
    def limited() -> None:
        body()

    with pytest.raises(ame.AttemptLimit, match=rf"{LINE} in .*limited.* 2 attempts") as caught:
        limited()
    error = caught.value
    assert "limited" in error.block
    assert (error.attempts, error.cause, error.holder) == (2, ame.Cause.COMMIT, "")
    assert error.seconds >= 0
    assert isinstance(error, ame.TransactionError)
    assert not isinstance(error, TimeoutError)


def test_attempt_limit_knows_the_cause_of_the_last_attempt() -> None:
    """Catches: a cause that is looked up when the attempt is gone."""
    with forced_aborts(1), pytest.raises(ame.AttemptLimit) as caught:
        ame.atomic(max_attempts=1)(lambda: None)()
    assert caught.value.cause == ame.Cause.INJECTED
    assert caught.value.attempts == 1
    assert "1 attempt," in str(caught.value)


def test_limit_counts_each_call_of_the_block_anew() -> None:
    """Catches: a count that goes on over calls, or over blocks of a thread."""
    function = ame.atomic(max_attempts=2)(stm.attempt)
    with forced_aborts(1):
        assert [function() for _ in range(5)] == [1] * 5


def test_exception_of_the_body_does_not_count_as_a_lost_attempt() -> None:
    """Catches: a limit that swallows the exception of the body."""

    @ame.atomic(max_attempts=1)
    def body() -> None:
        raise BodyError

    with pytest.raises(BodyError):
        body()


def test_waiting_does_not_count_as_a_lost_attempt() -> None:
    """Catches: a block that cannot wait more than max_attempts times."""
    ref = ame.Ref(0)

    @ame.atomic(max_attempts=1)
    def body() -> int:
        if ref.value < 5:
            ame.on_abort(ref.update, lambda value: value + 1)
            ame.retry(timeout=20)
        return ref.value

    assert body() == 5


def test_limit_of_a_nested_block_is_not_that_of_the_outer_one() -> None:
    """Catches: a nested option that ends the whole block."""
    ref, result = ame.Ref(0), ame.Ref(-1)
    body = ame.atomic(max_attempts=1)(losing(1, ref, result))
    assert ame.run(body) == 2
    assert result.value == 1


def test_limit_of_the_outer_block_counts_for_conflicts_in_nested_ones() -> None:
    """Catches: a limit that conflicts of nested blocks pass by."""
    ref, result = ame.Ref(0), ame.Ref(-1)
    body = losing(1, ref, result)
    with pytest.raises(ame.AttemptLimit):
        ame.atomic(max_attempts=1)(lambda: ame.run(body))()
    assert result.value == -1


# --- read_only and irrevocable -----------------------------------------------------------


def test_read_only_block_that_becomes_irrevocable_stays_read_only() -> None:
    """Catches: an upgrade that forgets the option."""
    ref = ame.Ref(0)

    @ame.atomic(read_only=True)
    def body() -> None:
        ame.irrevocable()
        ref.value = 1

    with pytest.raises(ame.ReadOnlyError):
        body()
    assert ref.value == 0


def test_write_of_a_block_nested_in_a_read_only_one_is_refused() -> None:
    """Catches: a nested block that takes the option of the outer one away."""
    ref = ame.Ref(0)

    @ame.atomic(read_only=True)
    def body() -> None:
        ame.run(setattr, ref, "value", 1)

    with pytest.raises(ame.ReadOnlyError):
        body()
    assert ref.value == 0


def test_irrevocable_block_nested_in_another_makes_it_irrevocable() -> None:
    """Catches: an option that is dropped where the block is nested."""
    runs = []

    @ame.atomic(irrevocable=True)
    def inner() -> None:
        runs.append(stm.is_irrevocable())

    @ame.atomic
    def outer() -> bool:
        inner()
        return stm.is_irrevocable()

    with forced_aborts(3):
        assert outer() is True
    assert runs == [True]
