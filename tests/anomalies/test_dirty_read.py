"""Dirty read: a value is visible that was never committed."""

from __future__ import annotations

import threading

import pytest

import ame
from support import in_thread, repeat_until, rounds, run_threads, then_set

pytestmark = pytest.mark.deadline(30)


class RollBackError(Exception):
    """Raised by a body to have its writes thrown away."""


def test_value_of_failed_attempts_is_never_seen() -> None:
    """Catches: writes in place that are undone later, seen inside and outside of blocks."""
    ref = ame.Ref("clean")
    table: ame.Dict[str, str] = ame.Dict({"key": "clean"})
    done = threading.Event()

    @ame.atomic
    def fail() -> None:
        ref.value = "dirty"
        table["key"] = "dirty"
        table["other"] = "dirty"
        raise RollBackError

    def writer() -> None:
        with pytest.raises(RollBackError):
            fail()

    @ame.atomic
    def look() -> None:
        assert ref.value == table["key"] == "clean"
        assert "other" not in table

    def reader() -> None:
        for _ in rounds(3000):
            look()
            assert ref.value == "clean"
            assert table["key"] == "clean"
            assert len(table) == 1
            assert list(table) == ["key"]

    run_threads(then_set(done, reader), repeat_until(done, writer), repeat_until(done, writer))


def _look_from_outside(ref: ame.Ref[int], table: ame.Dict[str, int]) -> list[object]:
    def look() -> list[object]:
        return [
            ref.value,
            table["present"],
            table.get("new"),
            "new" in table,
            "gone" in table,
            len(table),
            sorted(table),
            sorted(table.items()),
        ]

    return [look(), ame.run(look)]


def test_open_block_shows_nothing_of_its_writes() -> None:
    """Catches: any write that reaches another thread before the commit, without needing luck."""
    ref = ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict({"present": 0, "gone": 0})
    before = _look_from_outside(ref, table)
    during: list[object] = []

    @ame.atomic
    def body() -> None:
        ref.value = 1
        table["present"] = 1
        table["new"] = 1
        del table["gone"]
        during[:] = in_thread(lambda: _look_from_outside(ref, table))
        assert ref.value == table["present"] == table["new"] == 1

    body()
    assert during == before
    assert _look_from_outside(ref, table)[0] == [
        1, 1, 1, True, False, 2, ["new", "present"], [("new", 1), ("present", 1)],
    ]  # fmt: skip


def test_open_irrevocable_block_shows_nothing_of_its_writes() -> None:
    """Catches: an irrevocable block that writes in place because it can't be rolled back."""
    ref = ame.Ref(0)
    other = ame.Ref(0)
    seen: list[int] = []
    with ame.atomic():
        ref.value = 1
        other.value = 1
        seen.append(in_thread(lambda: ref.value))
        seen.append(in_thread(lambda: ame.run(lambda: ref.value + other.value)))
    assert seen == [0, 0]
    assert ref.value == other.value == 1


def test_attempt_that_lost_leaves_nothing() -> None:
    """Catches: writes of a lost attempt that survive into the next one or into the commit."""
    x, trace = ame.Ref(0), ame.Ref(())
    table: ame.Dict[int, str] = ame.Dict()
    attempts = 0

    def bump() -> None:
        x.value += 1

    @ame.atomic
    def body() -> None:
        nonlocal attempts
        attempts += 1
        assert trace.value == ()
        assert len(table) == 0
        trace.value = (attempts,)
        table[attempts] = "mine"
        before = x.value
        if attempts == 1:
            in_thread(lambda: ame.run(bump))
        x.value = before + 10

    body()
    assert attempts == 2
    assert trace.value == (2,)
    assert dict(table.items()) == {2: "mine"}
    assert x.value == 11
