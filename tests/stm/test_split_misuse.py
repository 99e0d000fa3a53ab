"""split and unprotected where they cannot work, or not in time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from splitting import BodyError, each_way, elsewhere, with_slot_held
from stm.testing import lose

pytestmark = pytest.mark.deadline(60)

LINE = r"test_split_misuse\.py:\d+"


# --- misuse ------------------------------------------------------------------------------


@each_way
def test_outside_of_a_block_it_raises(part: Any) -> None:
    """Catches: a block that begins where none was."""
    with pytest.raises(ame.NotInTransaction):
        part()
    assert not ame.in_transaction()


@each_way
@pytest.mark.parametrize("nesting", ["function", "with", "or_else", "two levels"])
def test_in_a_nested_block_it_raises_and_names_the_outer_one(part: Any, nesting: str) -> None:
    """Catches: half of an outer block that is committed."""
    ref = ame.Ref(0)

    def nested() -> None:
        ref.value = 1
        if nesting == "with":
            with ame.atomic():
                part()
        elif nesting == "or_else":
            ame.or_else(part)
        elif nesting == "function":
            ame.run(part)
        else:
            ame.run(lambda: ame.run(part))

    @ame.atomic
    def outermost() -> None:
        try:
            nested()
        finally:
            assert ame.in_transaction()
            assert elsewhere(ref) == (0,)

    with pytest.raises(ame.OpenBlockError, match=LINE + r" in .*outermost"):
        outermost()
    assert ref.value == 0


@each_way
def test_refused_split_leaves_the_block_as_it_was(part: Any) -> None:
    """Catches: a refusal that has ended or upgraded the block already."""
    ref = ame.Ref(0)

    @ame.atomic
    def body() -> None:
        ref.value = 1
        with pytest.raises(ame.OpenBlockError):
            ame.run(part)
        assert not stm.is_irrevocable()
        assert elsewhere(ref) == (0,)
        ref.value += 1
        part()
        ref.value += 1

    body()
    assert ref.value == 3


@each_way
def test_retry_after_the_split_raises_and_names_the_block(part: Any) -> None:
    """Catches: a block that waits although its first part cannot be undone."""
    ref = ame.Ref(0)

    @ame.atomic
    def splitting() -> None:
        ref.value = 1
        part()
        ame.retry(timeout=5)

    with pytest.raises(ame.IrrevocableError, match=LINE + r" in .*splitting.*split\(\)"):
        splitting()
    assert ref.value == 1


@each_way
def test_in_a_lost_attempt_it_commits_nothing(part: Any) -> None:
    """Catches: a commit of a doomed attempt."""
    ref, runs = ame.Ref(0), []

    @ame.atomic
    def body() -> None:
        runs.append(ref.value)
        ref.value += 1
        if stm.attempt() == 0:
            lose()
        part()

    body()
    assert (runs, ref.value) == ([0, 0], 1)


# --- the slot is taken -------------------------------------------------------------------


@each_way
def test_rest_that_cannot_begin_in_time_ends_the_block_with_a_timeout(part: Any) -> None:
    """Catches: a timeout that ends with the first part; a rest without a transaction."""
    first, rest = ame.Ref(0), ame.Ref(0)

    @ame.atomic(timeout=0.05)
    def body() -> None:
        first.value = 1
        part()
        rest.value = 1

    with pytest.raises(ame.TransactionTimeout):
        with_slot_held(body)
    assert (first.value, rest.value) == (1, 0)
    assert not ame.in_transaction()
    body()
    assert rest.value == 1


@each_way
@pytest.mark.parametrize(
    "operation", ["write", "read", "insert", "length", "nest", "split", "again"]
)
def test_rest_that_could_not_begin_does_nothing_when_the_body_goes_on(
    part: Any, operation: str
) -> None:
    """Catches: operations on a record without an attempt: lost in silence, or committed anyway."""
    first, rest, table = ame.Ref(0), ame.Ref(0), ame.Dict(a=1)
    operations: dict[str, Callable[[], object]] = {
        "write": lambda: setattr(rest, "value", 1),
        "read": lambda: rest.value,
        "insert": lambda: table.update(b=1),
        "length": lambda: len(table),
        "nest": lambda: ame.run(setattr, rest, "value", 1),
        "split": ame.split,
        "again": ame.irrevocable,
    }
    went_on = []

    @ame.atomic(timeout=0.05)
    def body() -> None:
        first.value = 1
        try:
            part()
        except ame.TransactionTimeout:
            operations[operation]()
            went_on.append(1)

    with pytest.raises((ame.TransactionError, SystemError)):
        with_slot_held(body)
    assert went_on == []
    assert (first.value, rest.value, len(table)) == (1, 0, 1)
    assert not ame.in_transaction()


def test_block_that_goes_on_after_a_caught_exception_of_unprotected_gets_the_timeout() -> None:
    """Catches: a rest that did not begin in time, and says so in no or strange words.

    The exception on its way out of `unprotected` may hide the timeout; the rest must not.
    """
    first, rest = ame.Ref(0), ame.Ref(0)

    @ame.atomic(timeout=0.05)
    def body() -> None:
        first.value = 1
        try:
            with ame.unprotected():
                raise BodyError
        except BodyError:
            pass
        rest.value = 1

    with pytest.raises(ame.TransactionTimeout):
        with_slot_held(body)
    assert (first.value, rest.value) == (1, 0)
    assert not ame.in_transaction()


@each_way
def test_body_that_swallows_the_timeout_of_its_rest_does_not_look_committed(part: Any) -> None:
    """Catches: a block that returns as if its rest had been a transaction."""

    @ame.atomic(timeout=0.05)
    def body() -> None:
        with contextlib.suppress(ame.TransactionTimeout):
            part()

    with pytest.raises((ame.TransactionError, SystemError)):
        with_slot_held(body)
    assert not ame.in_transaction()
    body()
