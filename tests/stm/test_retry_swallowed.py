"""retry and user code that gets in its way: handlers, `finally`, options, lost attempts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

import ame
from sleepers import Sleepers, parked, wait_until
from stm.testing import lose

pytestmark = pytest.mark.deadline(60)


def test_bare_except_cannot_swallow_a_retry() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def block() -> str:
        try:
            if not x.value:
                ame.retry()
        except:  # noqa: E722
            pass
        return f"went on with {x.value}"

    @ame.atomic
    def stubborn() -> str:
        for _ in range(3):
            try:
                if not x.value:
                    ame.retry()
            except BaseException:
                with contextlib.suppress(BaseException):
                    y.value += 1
        return "done"

    sleepers = Sleepers(block, stubborn)
    x.value = 1
    assert sleepers.join() == ["went on with 1", "done"]
    assert y.value == 0


def test_operations_after_a_swallowed_retry_raise() -> None:
    """Catches: an attempt that goes on with what it sees although it was given up."""
    x = ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict()
    refused: list[str] = []
    operations: dict[str, Callable[[], object]] = {
        "read": lambda: x.value,
        "write": lambda: setattr(x, "value", 5),
        "update": lambda: x.update(lambda value: value + 1),
        "dict": lambda: table.get("k"),
        "len": lambda: len(table),
        "insert": lambda: table.update(k=1),
        "hook": lambda: ame.on_commit(print, "never"),
        "irrevocable": ame.irrevocable,
        "split": ame.split,
        "nested": lambda: ame.run(lambda: x.value),
        "retry": ame.retry,
        "or_else": lambda: ame.or_else(lambda: x.value),
    }

    @ame.atomic
    def block() -> None:
        if x.value:
            return
        for name, operation in operations.items():
            with contextlib.suppress(BaseException):
                ame.retry()
            try:
                operation()
            except Exception:
                pass
            except BaseException:
                refused.append(name)

    sleepers = Sleepers(block)
    x.value = 1
    sleepers.join()
    assert refused == list(operations)
    assert dict(table.items()) == {}


def test_return_in_finally_cannot_swallow_a_retry() -> None:
    x = ame.Ref(0)
    results: list[int] = []

    @ame.atomic
    def block() -> int:
        value = x.value
        try:
            if not value:
                ame.retry()
        finally:
            results.append(value)
            return value  # noqa: B012

    sleepers = Sleepers(block)
    x.value = 2
    assert sleepers.join() == [2]
    assert results == [0, 2]


def test_exception_that_replaces_a_retry_is_not_shown() -> None:
    x = ame.Ref(0)

    @ame.atomic
    def block() -> int:
        try:
            if not x.value:
                ame.retry()
        except BaseException:
            raise ValueError from None
        return x.value

    sleepers = Sleepers(block)
    x.value = 2
    assert sleepers.join() == [2]


def test_retry_is_not_an_exception_to_commit_on() -> None:
    """Catches: `commit_on` that takes the signal of retry for an exception of the user."""
    x, y = ame.Ref(0), ame.Ref(0)

    @ame.atomic(commit_on=BaseException)
    def block() -> None:
        y.value += 1
        if not x.value:
            ame.retry()

    sleepers = Sleepers(block)
    assert y.value == 0
    x.value = 1
    sleepers.join()
    assert y.value == 1


def test_waiting_is_not_counted_against_max_attempts() -> None:
    x = ame.Ref(0)

    @ame.atomic(max_attempts=1)
    def block() -> int:
        if x.value < 3:
            ame.retry()
        return x.value

    sleepers = Sleepers(block)
    for _ in range(3):
        x.value += 1
        wait_until(lambda: parked() > 0 or sleepers.ended == 1)
    assert sleepers.join() == [3]


def test_attempt_that_has_lost_runs_again_instead_of_sleeping() -> None:
    x = ame.Ref(0)
    runs = 0

    @ame.atomic
    def block() -> int:
        nonlocal runs
        runs += 1
        assert x.value == 0
        if runs == 1:
            lose()
            ame.retry()
        return runs

    assert block() == 2


def test_attempt_number_grows_with_each_execution() -> None:
    x = ame.Ref(0)
    seen: list[int] = []

    @ame.atomic
    def block() -> None:
        seen.append(ame.current().attempt)
        if not x.value:
            ame.retry()

    sleepers = Sleepers(block)
    x.value = 1
    sleepers.join()
    assert seen == [0, 1]
