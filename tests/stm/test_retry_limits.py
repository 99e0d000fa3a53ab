"""retry that cannot wait, or not for long: errors, and timeouts that say what was waited for."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import ame
from sleepers import Sleepers, expires, names_a_line, parked, waiter
from support import in_thread, repeat_until, run_threads, then_set

pytestmark = pytest.mark.deadline(60)


# --- errors ---------------------------------------------------------------------------------------


def test_retry_outside_of_a_block_raises() -> None:
    with pytest.raises(ame.NotInTransaction, match=r"retry\(\)"):
        ame.retry()
    with pytest.raises(ame.NotInTransaction):
        ame.retry(timeout=1)


@pytest.mark.parametrize("read_only", [False, True])
def test_retry_with_nothing_read_names_the_block(read_only: bool) -> None:
    """Catches: a sleep for ever."""

    @ame.atomic(read_only=read_only)
    def block() -> None:
        ame.retry()

    with pytest.raises(ame.TransactionError) as caught:
        block()
    assert "block" in str(caught.value)
    assert names_a_line(__file__, str(caught.value)), caught.value
    assert not ame.in_transaction()


def test_retry_with_only_writes_raises_and_undoes_them() -> None:
    y = ame.Ref(0)

    @ame.atomic
    def block() -> None:
        y.value = 1
        ame.retry()

    with pytest.raises(ame.TransactionError, match="read"):
        block()
    assert y.value == 0


def test_retry_with_nothing_read_and_a_timeout_waits_for_that() -> None:
    def block() -> None:
        ame.retry(timeout=0.05)

    error = expires(lambda: ame.run(block))
    assert error.waited_on == []
    assert error.seconds >= 0.05


def test_retry_in_an_irrevocable_block_raises() -> None:
    x = ame.Ref(0)

    @ame.atomic(irrevocable=True)
    def declared() -> None:
        x.value = 1
        ame.retry()

    @ame.atomic
    def upgraded() -> None:
        x.value = 1
        ame.irrevocable()
        ame.retry(timeout=1)

    for block in (declared, upgraded):
        with pytest.raises(ame.IrrevocableError) as caught:
            block()
        assert names_a_line(__file__, str(caught.value)), caught.value
        assert x.value == 0
        in_thread(lambda: ame.run(ame.irrevocable))  # its place is free again


def test_retry_after_split_raises_and_keeps_what_was_split_off() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> None:
        x.value = 1
        ame.split()
        y.value = x.value
        ame.retry()

    with pytest.raises(ame.IrrevocableError):
        block()
    assert (x.value, y.value) == (1, 0)
    in_thread(lambda: ame.run(ame.irrevocable))


def test_retry_before_split_waits() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> None:
        if not x.value:
            ame.retry()
        x.value = 2
        ame.split()
        y.value = x.value

    sleepers = Sleepers(block)
    x.value = 1
    sleepers.join()
    assert (x.value, y.value) == (2, 2)


def test_retry_inside_of_unprotected_is_outside_of_a_block() -> None:
    x = ame.Ref(0)

    @ame.atomic
    def block() -> None:
        x.value = 1
        with ame.unprotected():
            ame.retry()

    with pytest.raises(ame.NotInTransaction):
        block()
    assert not ame.in_transaction()


def test_block_inside_of_unprotected_may_wait() -> None:
    x = ame.Ref(0)
    wait, _ = waiter(lambda: x.value == 2)

    @ame.atomic
    def block() -> int:
        x.value = 1
        with ame.unprotected():
            wait()
        return x.value

    sleepers = Sleepers(block)
    assert x.value == 1
    x.value = 2
    assert sleepers.join() == [2]


@pytest.mark.parametrize("bad", ["1", True, [], object(), 1j])
def test_timeout_that_is_no_number_is_a_type_error(bad: object) -> None:
    x = ame.Ref(0)

    def block() -> None:
        x.value = x.value + 1
        ame.retry(timeout=bad)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="timeout"):
        ame.run(block)
    with pytest.raises(TypeError, match="timeout"):
        ame.atomic(timeout=bad)  # type: ignore[call-overload]
    assert x.value == 0


@pytest.mark.parametrize("bad", [-1, -0.001, float("-inf"), float("nan")])
def test_timeout_below_zero_is_a_value_error(bad: float) -> None:
    x = ame.Ref(0)

    def block() -> None:
        x.value = x.value + 1
        ame.retry(timeout=bad)

    with pytest.raises(ValueError, match="timeout"):
        ame.run(block)
    with pytest.raises(ValueError, match="timeout"):
        ame.atomic(timeout=bad)
    assert x.value == 0


def test_retry_takes_its_timeout_by_name_only() -> None:
    def call(*arguments: object, **named: object) -> None:
        ame.run(lambda: ame.retry(*arguments, **named))  # type: ignore[arg-type]

    for arguments, named in (((1,), {}), ((), {"seconds": 1}), ((1,), {"timeout": 1})):
        with pytest.raises(TypeError, match="timeout"):
            call(*arguments, **named)


# --- timeouts -------------------------------------------------------------------------------------


def test_timeout_says_what_it_waited_for() -> None:
    x, y = ame.Ref("x"), ame.Ref("y")
    table: ame.Dict[Any, int] = ame.Dict({"a": 1, "b": 2})

    @ame.atomic
    def block() -> None:
        y.value = "written only"
        assert x.value == "x"
        assert table["a"] == 1
        assert ("absent", 1) not in table
        ame.retry(timeout=0.05)

    error = expires(block)
    assert error.seconds >= 0.05
    assert error.attempts == 1
    assert names_a_line(__file__, error.block)
    assert "block" in error.block
    assert error.cause is ame.Cause.RETRY
    assert isinstance(error, TimeoutError)
    waited_on = error.waited_on
    assert len(waited_on) == 3
    assert waited_on[0] is x
    assert waited_on[1][0] is table
    assert waited_on[1][1] == "a"
    assert waited_on[2][0] is table
    assert waited_on[2][1] == ("absent", 1)
    assert "retry()" in str(error)
    assert names_a_line(__file__, str(error))
    assert (x.value, y.value) == ("x", "y")


def test_timeout_names_a_dict_whose_length_or_keys_were_read() -> None:
    table: ame.Dict[str, int] = ame.Dict({"a": 1})
    for look in (len, list):

        def block(look: Callable[[Any], object] = look) -> None:
            look(table)
            ame.retry(timeout=0)

        waited_on = expires(lambda block=block: ame.run(block)).waited_on
        assert waited_on
        assert all(thing is table for thing in waited_on)


def test_objects_that_are_gone_are_missing_from_what_was_waited_on() -> None:
    x = ame.Ref(0)

    @ame.atomic
    def block() -> None:
        local = ame.Ref(1)
        assert x.value == 0
        assert local.value == 1
        del local
        ame.retry(timeout=0)

    error = expires(block)
    gc.collect()
    assert error.waited_on == [x]


def test_timeout_of_the_block_ends_the_wait() -> None:
    x = ame.Ref(0)

    @ame.atomic(timeout=0.05)
    def block() -> None:
        if not x.value:
            ame.retry()

    error = expires(block)
    assert error.seconds >= 0.05
    assert error.waited_on == [x]


@pytest.mark.parametrize(("of_block", "of_retry"), [(0.05, 50), (50, 0.05)])
def test_the_smaller_timeout_counts(of_block: float, of_retry: float) -> None:
    x = ame.Ref(0)

    @ame.atomic(timeout=of_block)
    def block() -> None:
        if not x.value:
            ame.retry(timeout=of_retry)

    assert 0.05 <= expires(block).seconds < 25


@pytest.mark.parametrize("place", ["retry", "block"])
def test_timeout_counts_from_the_first_wait_through_all_executions(place: str) -> None:
    """Catches: a timeout that begins anew at each wake-up, and so never comes."""
    x = ame.Ref(0)
    ended = threading.Event()

    @ame.atomic(timeout=0.3 if place == "block" else None)
    def block() -> None:
        if x.value >= 0:
            ame.retry(timeout=0.3 if place == "retry" else None)

    def wait() -> ame.TransactionTimeout:
        began = time.monotonic()
        error = expires(block)
        assert time.monotonic() - began >= 0.3
        return error

    def disturb() -> None:
        x.value += 1
        ended.wait(0.02)

    error, _ = run_threads(then_set(ended, wait), repeat_until(ended, disturb))
    assert isinstance(error, ame.TransactionTimeout)
    assert error.attempts > 2
    assert 0 < error.seconds < 20


def test_timeout_comes_although_what_was_read_changes_all_the_time() -> None:
    """Catches: a deadline that is looked at only by those who really sleep."""
    x = ame.Ref(0)
    ended = threading.Event()

    @ame.atomic
    def block() -> None:
        if x.value >= 0:
            ame.retry(timeout=0.2)

    def disturb() -> None:
        x.value += 1

    run_threads(then_set(ended, lambda: expires(block)), *[repeat_until(ended, disturb)] * 2)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("place", ["retry", "block"])
def test_timeout_of_zero_does_not_wait(place: str, read_only: bool) -> None:
    x = ame.Ref(0)
    runs = 0

    @ame.atomic(timeout=0 if place == "block" else None, read_only=read_only)
    def block() -> int:
        nonlocal runs
        runs += 1
        if not x.value:
            ame.retry(timeout=0 if place == "retry" else None)
        return x.value

    error = expires(block)
    assert error.attempts == runs
    assert error.seconds < 5
    x.value = 1
    assert block() == 1


@pytest.mark.parametrize("timeout", [None, 1000, 1e300, float("inf"), Decimal(60)])
def test_wake_up_comes_before_a_distant_timeout(timeout: float | None) -> None:
    """Catches: a deadline that overflows."""
    x = ame.Ref(0)

    @ame.atomic(timeout=timeout)
    def block() -> int:
        if not x.value:
            ame.retry(timeout=timeout)
        return x.value

    sleepers = Sleepers(block)
    x.value = 3
    assert sleepers.join() == [3]


def test_timeout_of_a_nested_block_that_has_ended_does_not_count() -> None:
    """Catches: a function with a timeout that limits all later waits of those who call it."""
    x, y = ame.Ref(0), ame.Ref(1)

    @ame.atomic(timeout=0)
    def hasty() -> int:
        return y.value

    @ame.atomic
    def block() -> int:
        hasty()
        if not x.value:
            ame.retry()
        return x.value

    sleepers = Sleepers(block)
    x.value = 2
    assert sleepers.join() == [2]


def test_timeout_of_an_open_nested_block_counts() -> None:
    x = ame.Ref(0)

    @ame.atomic(timeout=0.05)
    def hasty() -> None:
        if not x.value:
            ame.retry()

    @ame.atomic(timeout=50)
    def block() -> None:
        hasty()

    assert 0.05 <= expires(block).seconds < 25


def test_timeout_of_one_block_is_gone_with_it() -> None:
    """Catches: a deadline that is left behind in the thread."""
    x = ame.Ref(0)

    @ame.atomic(timeout=0)
    def hasty() -> None:
        if not x.value:
            ame.retry(timeout=0)

    wait, _ = waiter(lambda: x.value)

    def both() -> int:
        expires(hasty)
        return wait()

    sleepers = Sleepers(both)
    x.value = 4
    assert sleepers.join() == [4]


def test_timeout_runs_the_abort_hooks_once() -> None:
    x = ame.Ref(0)
    calls: list[str] = []

    @ame.atomic
    def block() -> None:
        ame.on_abort(calls.append, "abort")
        ame.on_commit(calls.append, "commit")
        if not x.value:
            ame.retry(timeout=0.01)

    expires(block)
    assert calls == ["abort"]


def test_block_that_timed_out_can_be_called_again() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> None:
        y.value += 1
        if not x.value:
            ame.retry(timeout=0.01)

    before = parked()
    for _ in range(20):
        expires(block)
    assert parked() == before
    x.value = 1
    block()
    assert y.value == 1
