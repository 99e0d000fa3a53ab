"""retry: the block is undone, sleeps until something that it read changes, and runs again."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm
from sleepers import Sleepers, parked, wait_until, waiter

pytestmark = pytest.mark.deadline(60)


# --- what wakes it --------------------------------------------------------------------------------


def test_retry_wakes_when_what_it_read_changes() -> None:
    x = ame.Ref(0)
    wait, seen = waiter(lambda: x.value)
    sleepers = Sleepers(wait)
    x.value = 5
    assert sleepers.join() == [5]
    assert seen == [0, 5]


def test_retry_wakes_when_a_block_changes_what_it_read() -> None:
    x, other = ame.Ref(0), ame.Ref(0)
    wait, seen = waiter(lambda: x.value)
    sleepers = Sleepers(wait)

    @ame.atomic
    def change() -> None:
        for number in range(100):  # more writes than are looked through one by one
            other.value = number
        x.value = 7

    change()
    assert sleepers.join() == [7]
    assert seen == [0, 7]


def test_retry_sleeps_through_changes_of_what_it_did_not_read() -> None:
    """Catches: a commit that wakes everybody."""
    x, others = ame.Ref(0), [ame.Ref(0) for _ in range(100)]
    wait, seen = waiter(lambda: x.value)
    sleepers = Sleepers(wait)
    for other in others:
        other.value = 1
    x.value = 1
    sleepers.join()
    assert seen == [0, 1]


def test_retry_sleeps_through_changes_that_were_undone() -> None:
    """Catches: a wake-up by writes that never were committed."""
    x = ame.Ref(0)
    wait, seen = waiter(lambda: x.value)
    sleepers = Sleepers(wait)

    @ame.atomic
    def fail() -> None:
        x.value = 3
        raise ZeroDivisionError

    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            fail()
    x.value = 1
    sleepers.join()
    assert seen == [0, 1]


def test_retry_sleeps_through_the_value_that_is_there_already() -> None:
    """Catches: a write of the same value that counts as a change."""
    x = ame.Ref(0)
    wait, seen = waiter(lambda: x.value)
    sleepers = Sleepers(wait)
    for _ in range(20):
        x.value = 0
    x.value = 1
    sleepers.join()
    assert seen == [0, 1]


def test_retry_sleeps_again_when_the_change_is_not_the_one_it_waits_for() -> None:
    x = ame.Ref(0)
    wait, seen = waiter(lambda: x.value >= 3)
    sleepers = Sleepers(wait)
    for number in range(1, 4):
        x.value = number
        wait_until(lambda number=number: len(seen) > number)
    assert sleepers.join() == [True]
    assert seen == [False, False, False, True]


def test_retry_wakes_by_the_first_and_by_the_last_of_many_reads() -> None:
    """Catches: a read set that is waited on in part only (also one that is indexed)."""
    for count in (2, 17, 300, 2000):
        refs = [ame.Ref(0) for _ in range(count)]
        for place in (0, count // 2, count - 1):
            total = sum(ref.value for ref in refs)
            wait, seen = waiter(
                lambda refs=refs, total=total: sum(ref.value for ref in refs) > total
            )
            sleepers = Sleepers(wait)
            refs[place].value += 1
            sleepers.join()
            assert seen == [False, True]


def test_retry_waits_on_a_ref_that_it_also_wrote() -> None:
    """Catches: a wait on the block's own write, or on its writes instead of its reads."""
    x = ame.Ref(0)

    @ame.atomic
    def count() -> int:
        x.value += 1
        if x.value < 10:
            ame.retry()
        return x.value

    sleepers = Sleepers(count)
    assert x.value == 0
    x.value = 9
    assert sleepers.join() == [10]
    assert x.value == 10


def test_value_that_changes_back_while_it_sleeps_does_no_harm() -> None:
    x = ame.Ref(0)
    wait, _ = waiter(lambda: x.value == 2)
    sleepers = Sleepers(wait)
    for _ in range(100):
        x.value = 1
        x.value = 0
    wait_until(lambda: parked() > 0)
    assert sleepers.ended == 0
    x.value = 2
    assert sleepers.join() == [True]


LOOKS: list[tuple[str, Callable[[ame.Dict[str, int]], object], Callable[[Any], object]]] = [
    ("value", lambda d: d["a"] != 1, lambda d: d.update(a=2)),
    ("insert", lambda d: "new" in d, lambda d: d.update(new=1)),
    ("get insert", lambda d: d.get("new"), lambda d: d.setdefault("new", 1)),
    ("delete", lambda d: "a" not in d, lambda d: d.pop("a")),
    ("length", lambda d: len(d) == 3, lambda d: d.update(new=1)),
    ("length less", lambda d: len(d) == 1, lambda d: d.popitem()),
    ("truth", lambda d: not d, lambda d: d.clear()),
    ("iteration", lambda d: list(d) == ["a", "b", "new"], lambda d: d.update(new=1)),
    ("iteration less", lambda d: list(d) == ["b"], lambda d: d.pop("a")),
    ("values", lambda d: sum(d.values()) > 3, lambda d: d.update(b=5)),
    ("items", lambda d: ("b", 5) in list(d.items()), lambda d: d.update(b=5)),
    ("equality", lambda d: d == {"a": 1}, lambda d: d.pop("b")),
    ("growth", lambda d: "k999" in d, lambda d: d.update({f"k{n}": n for n in range(1000)})),
]


@pytest.mark.parametrize(("look", "change"), [x[1:] for x in LOOKS], ids=[x[0] for x in LOOKS])
def test_retry_wakes_by_a_change_of_a_dict(
    look: Callable[[Any], object], change: Callable[[Any], object]
) -> None:
    """Catches: a way to look at a dict that is not part of what is waited on."""
    table: ame.Dict[str, int] = ame.Dict({"a": 1, "b": 2})
    wait, _ = waiter(lambda: look(table))
    sleepers = Sleepers(wait)
    change(table)
    assert sleepers.join() == [look(table)]


def test_retry_on_a_key_sleeps_through_changes_of_other_keys() -> None:
    """Catches: a dict that is waited on as a whole."""
    table: ame.Dict[str, int] = ame.Dict({"a": 1, "b": 2})
    wait, seen = waiter(lambda: "new" in table)
    sleepers = Sleepers(wait)
    table["a"] = 5
    table["other"] = 1
    del table["b"]
    table["new"] = 1
    sleepers.join()
    assert seen == [False, True]


def test_retry_on_the_length_sleeps_through_changes_of_values() -> None:
    table: ame.Dict[str, int] = ame.Dict({"a": 1})
    wait, seen = waiter(lambda: len(table) == 2)
    sleepers = Sleepers(wait)
    for number in range(20):
        table["a"] = number
    table["b"] = 1
    sleepers.join()
    assert seen == [False, True]


def test_retry_on_the_keys_sleeps_through_changes_of_values() -> None:
    table: ame.Dict[str, int] = ame.Dict({"a": 1})
    wait, seen = waiter(lambda: "b" in list(table))
    sleepers = Sleepers(wait)
    for number in range(20):
        table["a"] = number
    table["b"] = 1
    sleepers.join()
    assert seen == [False, True]


def test_key_whose_entry_is_swept_while_it_is_waited_on_still_wakes() -> None:
    """Catches: an absent key whose entry is thrown away by growth and collections meanwhile."""
    table: ame.Dict[Any, int] = ame.Dict()
    wait, _ = waiter(lambda: "wanted" in table)
    sleepers = Sleepers(wait)
    for number in range(3000):
        table[number] = number
    for number in range(3000):
        del table[number]
    stm.collect()
    gc.collect()
    table["wanted"] = 1
    assert sleepers.join() == [True]


# --- several sleepers -----------------------------------------------------------------------------


def test_two_readers_are_woken_by_one_commit() -> None:
    x = ame.Ref(0)
    wait, _ = waiter(lambda: x.value)
    sleepers = Sleepers(wait, wait)
    x.value = 4
    assert sleepers.join() == [4, 4]


def test_only_the_reader_of_what_changed_is_woken() -> None:
    refs = [ame.Ref(0) for _ in range(10)]
    waits = [waiter(lambda ref=ref: ref.value) for ref in refs]
    sleepers = Sleepers(*[wait for wait, _ in waits])
    for number in (7, 2, 9, 0, 1, 3, 8, 4, 6, 5):
        assert waits[number][1] == [0]
        before = sleepers.ended
        refs[number].value = 1
        wait_until(lambda before=before: sleepers.ended == before + 1)
    sleepers.join()
    assert [seen for _, seen in waits] == [[0, 1]] * 10


def test_each_of_many_waiters_gets_one_of_as_many_tokens() -> None:
    """Catches: a waiter that is passed over for ever, or a token that wakes nobody.

    Who runs first after a wake-up is up to the scheduler; in which order a commit says so to the
    sleepers is tested in tests/core/test_park.py.
    """
    tokens = ame.Ref(0)

    @ame.atomic
    def take() -> int:
        if not tokens.value:
            ame.retry()
        tokens.value -= 1
        return 1

    @ame.atomic
    def give() -> None:
        tokens.value += 1

    sleepers = Sleepers(*[take] * 20)
    for given in range(1, 21):
        give()
        wait_until(lambda given=given: sleepers.ended >= given)
    assert sum(sleepers.join()) == 20
    assert tokens.value == 0


def test_sleeper_that_goes_on_can_wake_the_next() -> None:
    """Catches: a commit of a block that has slept itself, and so wakes nobody."""
    count = 30
    links = [ame.Ref(False) for _ in range(count + 1)]

    def link(number: int) -> Callable[[], None]:
        @ame.atomic
        def pass_on() -> None:
            if not links[number].value:
                ame.retry()
            links[number + 1].value = True

        return pass_on

    sleepers = Sleepers(*[link(number) for number in range(count)])
    links[0].value = True
    sleepers.join()
    assert links[count].value is True


# --- what it undoes -------------------------------------------------------------------------------


def test_retry_undoes_writes() -> None:
    x, y = ame.Ref(0), ame.Ref("before")
    table: ame.Dict[str, int] = ame.Dict({"kept": 1, "gone": 2})

    @ame.atomic
    def block() -> str:
        was = y.value
        y.value = "after"
        table["kept"] = 10
        table["new"] = 3
        table.pop("gone", None)
        if not x.value:
            ame.retry()
        return was

    sleepers = Sleepers(block)
    assert (y.value, dict(table.items()), len(table)) == ("before", {"kept": 1, "gone": 2}, 2)
    x.value = 1
    assert sleepers.join() == ["before"]
    assert (y.value, dict(table.items()), len(table)) == ("after", {"kept": 10, "new": 3}, 2)


def test_values_of_an_attempt_that_waits_are_released() -> None:
    """Catches: a sleeper that keeps alive what its attempt had written."""
    x, y = ame.Ref(0), ame.Ref[object](None)
    released = threading.Event()

    class Value:
        def __del__(self) -> None:
            released.set()

    @ame.atomic
    def block() -> None:
        if not x.value:
            y.value = Value()
            ame.retry()

    sleepers = Sleepers(block)
    gc.collect()
    wait_until(released.is_set, timeout=5)
    x.value = 1
    sleepers.join()


def test_sleeper_keeps_no_old_versions_alive() -> None:
    """Catches: a sleeper that holds the horizon back: memory would grow with every commit."""
    x, y = ame.Ref(0), ame.Ref[object](None)
    alive = 0

    class Value:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    wait, _ = waiter(lambda: x.value)
    sleepers = Sleepers(wait)
    for _ in range(2000):
        y.value = Value()
    stm.collect()
    gc.collect()
    assert alive < 200
    x.value = 1
    sleepers.join()


def test_abort_hooks_have_run_before_it_sleeps() -> None:
    x = ame.Ref(0)
    calls: list[str] = []

    @ame.atomic
    def block() -> None:
        ame.on_abort(calls.append, f"abort {x.value} inside {ame.in_transaction()}")
        ame.on_commit(calls.append, f"commit {x.value}")
        if not x.value:
            ame.retry()

    sleepers = Sleepers(block)
    assert calls == ["abort 0 inside True"]
    x.value = 1
    sleepers.join()
    assert calls == ["abort 0 inside True", "commit 1"]


def test_abort_hook_that_changes_what_was_read_wakes_its_own_block() -> None:
    """Catches: a change after the attempt and before the sleep that is not looked for."""
    x = ame.Ref(0)

    @ame.atomic
    def block() -> int:
        ame.on_abort(setattr, x, "value", 1)
        if not x.value:
            ame.retry()
        return x.value

    assert block() == 1


def test_abort_hook_may_wait_itself() -> None:
    """Catches: a block that is set aside while its hook sleeps, and mixed up with it."""
    x, y = ame.Ref(0), ame.Ref(0)
    wait, _ = waiter(lambda: y.value)

    @ame.atomic
    def block() -> int:
        if not x.value:
            ame.on_abort(wait)
            ame.retry()
        return x.value

    sleepers = Sleepers(block)
    x.value = 3  # the hook sleeps: this is not what it waits for
    assert sleepers.ended == 0
    y.value = 1
    assert sleepers.join() == [3]
