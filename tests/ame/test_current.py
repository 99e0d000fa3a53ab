"""current(), and the faults that stm.testing makes: forced_aborts, lose."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import ame
import stm
from stm.testing import forced_aborts, lose
from support import Interference, in_thread, run_n

pytestmark = pytest.mark.deadline(60)

LINE = r"test_current\.py:\d+"


class BodyError(Exception):
    """Leaves a block."""


# --- current ------------------------------------------------------------------------------


def test_current_outside_of_a_block_raises() -> None:
    """Catches: data of the block that ran last."""
    ame.run(ame.current)
    with pytest.raises(ame.NotInTransaction, match=r"current\(\)"):
        ame.current()
    with pytest.raises(ame.NotInTransaction):
        ame.run(lambda: in_thread(ame.current))


def test_current_tells_the_label_and_the_place() -> None:
    """Catches: the label of another block, or a place without file and line."""

    @ame.atomic(label="my label")
    def labelled() -> ame.Current:
        return ame.current()

    @ame.atomic
    def named() -> ame.Current:
        return ame.current()

    assert labelled().label == "my label"
    assert named().label == named.__qualname__
    for now in (labelled(), named()):
        assert "test_current.py:" in now.where
    assert "named" in named().where
    assert ame.run(ame.current).label == ""
    assert stm.run_block("other", ame.current).label == "other"


def test_current_of_a_nested_block_is_that_of_the_outermost_but_for_the_depth() -> None:
    """Catches: nested labels that replace the outer one, or a depth that is not restored."""

    def inner() -> ame.Current:
        with ame.atomic(label="with"):
            return ame.current()

    @ame.atomic(label="outer")
    def outer() -> list[ame.Current]:
        first = ame.current()
        second = ame.atomic(label="inner")(inner)()
        with pytest.raises(BodyError):
            ame.run(fail)
        return [first, second, ame.current()]

    def fail() -> None:
        raise BodyError

    seen = outer()
    assert [now.depth for now in seen] == [1, 3, 1]
    assert {now.label for now in seen} == {"outer"}
    assert len({now.where for now in seen}) == 1


def test_current_counts_distinct_values_read_and_written() -> None:
    """Catches: repeats counted, own writes counted as reads, or the two mixed up."""
    refs = [ame.Ref(0) for _ in range(10)]
    seen: list[tuple[int, int]] = []

    def note() -> None:
        now = ame.current()
        seen.append((now.reads, now.writes))

    @ame.atomic
    def body() -> None:
        note()
        for _ in range(2):
            for ref in refs[:3]:
                ref.value  # noqa: B018
        note()
        for value in (1, 2):
            for ref in refs[:4]:
                ref.value = value
        note()

    body()
    assert seen == [(0, 0), (3, 0), (3, 4)]


def test_current_takes_back_the_writes_of_an_undone_block_but_not_its_reads() -> None:
    """Catches: counts of what is not there, or reads that are forgotten."""
    read, written, outer = ame.Ref(0), ame.Ref(0), ame.Ref(0)

    def inner() -> None:
        read.value  # noqa: B018
        written.value = outer.value = 5
        assert ame.current().writes == 2
        raise BodyError

    @ame.atomic
    def body() -> tuple[int, int]:
        outer.value = 1
        with pytest.raises(BodyError):
            ame.run(inner)
        now = ame.current()
        return now.reads, now.writes

    assert body() == (1, 1)


def test_current_counts_the_attempts() -> None:
    """Catches: a count that starts at one, or that is that of the thread."""

    @ame.atomic
    def body() -> int:
        seen.append(ame.current().attempt)
        return ame.current().attempt

    seen: list[int] = []
    with forced_aborts(2):
        assert body() == 2
    assert body() == 0
    assert seen == [0, 1, 2, 0]


def test_current_tells_whether_the_block_is_irrevocable() -> None:
    """Catches: a flag of the attempt before."""

    @ame.atomic
    def body() -> list[bool]:
        before = ame.current().irrevocable
        ame.irrevocable()
        return [before, ame.current().irrevocable]

    assert body() == [False, True]
    assert body() == [False, True]
    assert ame.atomic(irrevocable=True)(ame.current)().irrevocable is True
    assert ame.run(ame.current).irrevocable is False


def test_current_is_a_record_that_does_not_change() -> None:
    """Catches: a live view, or one that can be written."""
    ref = ame.Ref(0)

    @ame.atomic
    def body() -> ame.Current:
        now = ame.current()
        ref.value += 1
        return now

    now = body()
    assert (now.reads, now.writes) == (0, 0)
    with pytest.raises(AttributeError):
        now.label = "other"  # type: ignore[misc]


def test_current_conflicts_with_nothing() -> None:
    """Catches: questions that are reads."""
    ref, other = ame.Ref(0), ame.Ref(0)
    disturb = Interference(lambda: setattr(ref, "value", 1))

    @ame.atomic
    def body() -> None:
        ame.current()
        disturb()
        ame.current()
        other.value = 1

    body()
    assert disturb.calls == 1


def test_current_after_a_split_tells_of_the_rest() -> None:
    """Catches: counts of the part that is committed."""
    ref = ame.Ref(0)

    @ame.atomic(label="splits")
    def body() -> ame.Current:
        ref.value += 1
        ame.split()
        return ame.current()

    now = body()
    assert (now.reads, now.writes, now.depth, now.label) == (0, 0, 1, "splits")
    assert now.irrevocable


# --- forced_aborts ------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(4))
def test_forced_aborts_make_each_block_run_that_many_times_more(count: int) -> None:
    """Catches: a count per process, or one that commits what a lost attempt wrote."""
    ref = ame.Ref(0)
    runs = []

    @ame.atomic
    def body() -> None:
        runs.append(1)
        ref.value += 1

    with forced_aborts(count):
        for _ in range(3):
            body()
    assert ref.value == 3
    assert len(runs) == 3 * (count + 1)


def test_block_commits_after_three_lost_attempts_all_the_same() -> None:
    """Catches: an endless loop."""
    runs = []
    with forced_aborts(1_000_000):
        ame.run(runs.append, 1)
    assert len(runs) == 4


def test_forced_aborts_end_with_the_with_statement_also_after_an_exception() -> None:
    """Catches: a fault that stays on for the next test."""
    runs: list[int] = []
    with pytest.raises(BodyError), forced_aborts(2):
        raise BodyError
    ame.run(runs.append, 1)
    assert runs == [1]


def test_forced_aborts_do_not_touch_blocks_that_cannot_lose() -> None:
    """Catches: an irrevocable block that runs twice."""
    runs: list[int] = []

    @ame.atomic(irrevocable=True)
    def from_the_start() -> None:
        runs.append(1)

    @ame.atomic
    def half_way() -> None:
        ame.irrevocable()
        runs.append(2)

    with forced_aborts(3):
        from_the_start()
        half_way()
    assert runs == [1, 2]


def test_forced_aborts_count_as_injected_and_not_as_conflicts() -> None:
    """Catches: statistics that blame the program for the test."""
    before = ame.stats()
    with forced_aborts(2):
        ame.run(lambda: None)
    spent = ame.stats() - before
    assert spent.aborts_by_cause[ame.Cause.INJECTED] == 2
    assert (spent.conflicts, spent.commits) == (0, 1)


def test_forced_aborts_hold_in_all_threads() -> None:
    """Catches: a fault for the calling thread only."""
    ref = ame.Ref(0)
    runs: list[int] = []

    def body(number: int) -> None:
        def add() -> None:
            runs.append(1)
            ref.value += 1

        for _ in range(20):
            ame.run(add)

    with forced_aborts(1):
        run_n(3, body)
    assert ref.value == 60
    assert len(runs) >= 120


def test_forced_aborts_hold_for_operations_outside_of_blocks() -> None:
    """Catches: an assignment that is lost, or made twice."""
    ref, table = ame.Ref(0), ame.Dict(a=1)
    with forced_aborts(2):
        ref.value = 5
        table["b"] = 2
        table.update(c=3)
        assert ref.update(lambda value: value + 1) == 6
        assert table.pop("a") == 1
    assert (ref.value, dict(table.items()), len(table)) == (6, {"b": 2, "c": 3}, 2)


def test_forced_aborts_keep_exceptions_of_the_body() -> None:
    """Catches: an exception dropped although its attempt was not lost."""
    with forced_aborts(2), pytest.raises(BodyError):
        ame.run(raise_error)


def raise_error() -> None:
    raise BodyError


def test_forced_aborts_take_effect_for_the_running_block() -> None:
    """Catches: a switch that is looked at when a block begins."""
    runs: list[int] = []

    @ame.atomic
    def body() -> None:
        runs.append(stm.attempt())

    @ame.atomic
    def outer() -> None:
        body()
        if stm.attempt() == 0:
            scope.__enter__()

    scope = forced_aborts(1)
    try:
        outer()
    finally:
        scope.__exit__(None, None, None)
    assert runs == [0, 1]


def test_inner_forced_aborts_restore_the_outer_ones() -> None:
    """Catches: a scope that switches off what was on before it."""
    runs: list[int] = []
    with forced_aborts(1):
        with forced_aborts(2):
            pass
        ame.run(runs.append, 1)
    assert len(runs) == 2


@pytest.mark.parametrize("count", [-1, -(2**40)])
def test_negative_count_is_refused(count: int) -> None:
    """Catches: a count that is taken for four billion."""
    with pytest.raises(ValueError, match="at least 0"), forced_aborts(count):
        pass


# --- lose ---------------------------------------------------------------------------------


def test_lose_outside_of_a_block_raises() -> None:
    """Catches: a fault that meets the next block."""
    with pytest.raises(ame.NotInTransaction):
        lose()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("read_only", [False, True])
def test_lost_attempt_starts_over_and_leaves_nothing(nested: bool, read_only: bool) -> None:
    """Catches: writes of the lost attempt, or a nested block that runs again alone."""
    ref = ame.Ref(0)
    runs: list[int] = []

    @ame.atomic(read_only=read_only)
    def body() -> int:
        runs.append(stm.attempt())
        if not read_only:
            ref.value += 1
        if stm.attempt() < 2:
            ame.run(lose) if nested else lose()
        return ref.value

    assert body() == int(not read_only)
    assert ref.value == int(not read_only)
    assert runs == [0, 1, 2]


@pytest.mark.parametrize(
    "operation",
    [
        lambda ref, table: ref.value,
        lambda ref, table: setattr(ref, "value", 1),
        lambda ref, table: ref.update(lambda value: value),
        lambda ref, table: table["a"],
        lambda ref, table: table.update(a=2),
        lambda ref, table: len(table),
        lambda ref, table: list(table),
        lambda ref, table: ame.run(lambda: None),
        lambda ref, table: ame.irrevocable(),
        lambda ref, table: ame.split(),
        lambda ref, table: ame.retry(),
        lambda ref, table: ame.or_else(lambda: None),
        lambda ref, table: ame.unprotected().__enter__(),
        lambda ref, table: ame.on_commit(len, ()),
    ],
)
def test_next_operation_of_a_lost_attempt_gives_it_up(operation: Any) -> None:
    """Catches: an operation that answers in an attempt that is lost."""
    ref, table = ame.Ref(0), ame.Dict(a=1)
    went_on = []

    @ame.atomic
    def body() -> None:
        if stm.attempt() == 0:
            lose()
            operation(ref, table)
            went_on.append(1)

    body()
    assert went_on == []
    assert (ref.value, dict(table.items())) == (0, {"a": 1})


def test_exception_of_a_lost_attempt_is_not_shown() -> None:
    """Catches: an error made by an attempt that does not count."""

    @ame.atomic
    def body() -> str:
        if stm.attempt() == 0:
            lose()
            raise BodyError
        return "well"

    assert body() == "well"


@pytest.mark.parametrize("make", [ame.irrevocable, ame.split])
def test_lose_does_nothing_in_a_block_that_cannot_run_again(make: Any) -> None:
    """Catches: an irrevocable block that is lost."""
    ref = ame.Ref(0)
    runs: list[int] = []

    @ame.atomic
    def body() -> None:
        make()
        lose()
        runs.append(1)
        ref.value += 1
        lose()

    body()
    assert (runs, ref.value) == ([1], 1)


def test_lose_dooms_the_block_of_its_own_thread_only() -> None:
    """Catches: a fault that is the domain's."""
    other = threading.Event()

    @ame.atomic
    def loses() -> None:
        if stm.attempt() == 0:
            lose()
        other.set()

    @ame.atomic
    def body() -> int:
        in_thread(loses)
        return stm.attempt()

    assert body() == 0
    assert other.is_set()
