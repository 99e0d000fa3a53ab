"""`__del__` that runs a transaction: wherever a value happens to be released."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable

import pytest

import ame
from support import Interference, in_thread, run_n

pytestmark = [
    pytest.mark.deadline(60),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]


class Tracked:
    """A value that counts its own end in a transaction, and in a plain list to compare with."""

    def __init__(self, deleted: ame.Ref[int], plain: list[int]) -> None:
        self.deleted = deleted
        self.plain = plain
        self.cycle: object = None

    def __del__(self) -> None:
        self.deleted.update(lambda count: count + 1)
        self.plain.append(1)


class Scene:
    """A counter of ended values, and a way to make such values."""

    def __init__(self) -> None:
        self.deleted = ame.Ref(0)
        self.plain: list[int] = []

    def make(self) -> Tracked:
        return Tracked(self.deleted, self.plain)

    def settle(self, at_least: int, *, exact: bool = True) -> None:
        """Wait until old versions are released: some more commits, then a collection.

        Without `exact`, finalizers may have run in the middle of attempts that were lost: by what
        the body does, or because the free-threaded build ends an object in the thread that made
        it, at any instruction. Their transactions were part of those attempts, so don't count.
        """
        other = ame.Ref(0)
        for _ in range(1000):
            other.value += 1
            if len(self.plain) >= at_least:
                break
        gc.collect()
        assert len(self.plain) >= at_least
        if exact:
            assert self.deleted.value == len(self.plain)
        else:
            assert at_least <= self.deleted.value <= len(self.plain)


def test_value_replaced_by_a_commit_may_run_a_transaction() -> None:
    """Catches: values released while the commit lock is held (hangs), or never."""
    scene = Scene()
    ref: ame.Ref[Tracked | None] = ame.Ref(scene.make())

    @ame.atomic
    def replace() -> None:
        ref.value = scene.make()

    for _ in range(200):
        replace()
    ref.value = None
    scene.settle(100)


def test_values_replaced_in_many_threads_may_run_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches: the same where the finalizer meets commits of other threads."""
    # A finalizer in the middle of an attempt that is lost already gets the abort, which isn't an
    # Exception, and Python reports it. Nothing else may be reported.
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: reported.append(event.exc_type))
    scene = Scene()
    refs: list[ame.Ref[Tracked | None]] = [ame.Ref(None) for _ in range(4)]
    table: ame.Dict[int, Tracked] = ame.Dict()

    @ame.atomic
    def replace(number: int) -> None:
        refs[number % 4].value = scene.make()
        table[number % 3] = scene.make()

    def body(number: int) -> None:
        for index in range(200):
            replace(number + index)

    run_n(4, body)
    table.clear()
    for ref in refs:
        ref.value = None
    scene.settle(800, exact=False)
    assert [kind for kind in reported if issubclass(kind, Exception)] == []


def test_deleted_key_and_value_may_run_transactions() -> None:
    """Catches: a dict that releases an entry with its own lock held."""
    scene = Scene()
    table: ame.Dict[int, Tracked] = ame.Dict()

    def replace_or_delete(step: Callable[[], object]) -> None:
        table[1] = scene.make()
        step()

    for _ in range(100):
        replace_or_delete(lambda: table.__delitem__(1))
        replace_or_delete(lambda: table.pop(1))
        replace_or_delete(table.clear)
    assert len(table) == 0
    scene.settle(100)


def test_finalizer_may_use_the_same_dict_or_ref() -> None:
    """Catches: locks of the container that are not released before values are."""
    ref: ame.Ref[object] = ame.Ref(None)
    table: ame.Dict[str, object] = ame.Dict()
    ended: list[int] = []

    class Value:
        def __del__(self) -> None:
            table["ended"] = ref.value is None
            table.pop("nothing", None)
            ended.append(len(table))

    for _ in range(200):
        ref.value = Value()
        ref.value = None
        table["k"] = Value()
        del table["k"]
    other = ame.Ref(0)
    for _ in range(1000):
        other.value += 1
    gc.collect()
    assert len(ended) >= 200
    assert "ended" in table


def test_finalizer_of_a_rolled_back_value_runs_a_transaction() -> None:
    """Catches: values released in the middle of clearing the write set."""
    scene = Scene()
    ref: ame.Ref[object] = ame.Ref(None)

    class BodyError(Exception):
        pass

    @ame.atomic
    def fail() -> None:
        ref.value = scene.make()
        raise BodyError

    for _ in range(50):
        with pytest.raises(BodyError):
            fail()
    scene.settle(50)
    assert ref.value is None


def test_finalizer_of_a_lost_attempt_runs_a_transaction() -> None:
    """Catches: the same, where the attempt was lost and is about to be repeated."""
    scene = Scene()
    x, ref = ame.Ref(0), ame.Ref[object](None)

    def add_ten() -> None:
        x.value += 10

    interfere = Interference(lambda: ame.run(add_ten))

    @ame.atomic
    def body() -> None:
        ref.value = scene.make()
        before = x.value
        interfere()
        x.value = before + 1

    body()
    assert x.value == 11
    assert isinstance(ref.value, Tracked)
    scene.settle(1)


def test_collection_of_a_cycle_outside_any_block_runs_its_transaction() -> None:
    """Catches: a collector that can't see through refs and versions."""
    scene = Scene()
    for _ in range(10):
        value = scene.make()
        value.cycle = ame.Ref(value)  # a cycle through transactional state
        del value
    scene.settle(10)


def test_collection_of_a_cycle_during_a_block_runs_its_transaction() -> None:
    """Catches: a transaction of a finalizer that breaks the block which it interrupts."""
    scene = Scene()
    x = ame.Ref(0)

    @ame.atomic
    def body() -> None:
        x.value += 1
        value = scene.make()
        value.cycle = value
        del value
        gc.collect()
        assert ame.in_transaction()
        x.value += 1

    for _ in range(10):
        body()
    assert x.value == 20
    scene.settle(10)


def test_value_dropped_during_a_block_runs_its_transaction() -> None:
    """Catches: the same without the collector: the last reference goes away in the body."""
    scene = Scene()
    x = ame.Ref(0)

    @ame.atomic
    def body() -> None:
        x.value += 1
        scene.make()
        x.value += 1

    for _ in range(10):
        body()
    assert x.value == 20
    scene.settle(10, exact=False)


def test_value_overwritten_twice_in_one_block_runs_its_transaction() -> None:
    """Catches: a write that replaces a buffered value and releases it in the middle of the call."""
    scene = Scene()
    ref: ame.Ref[object] = ame.Ref(None)
    table: ame.Dict[str, object] = ame.Dict()

    @ame.atomic
    def body() -> None:
        for _ in range(20):
            ref.value = scene.make()
            table["k"] = scene.make()

    body()
    assert isinstance(ref.value, Tracked)
    assert isinstance(table["k"], Tracked)
    scene.settle(38, exact=False)


def test_thread_exit_may_run_a_transaction() -> None:
    """Catches: a thread's state that is gone before its last values are."""
    scene = Scene()
    local = threading.local()

    def body() -> None:
        local.value = scene.make()
        ame.run(lambda: scene.deleted.value)

    for _ in range(20):
        in_thread(body)
    scene.settle(20)


def test_end_of_a_container_may_run_transactions() -> None:
    """Catches: a dict or ref that releases what it held while half taken apart."""
    scene = Scene()
    for _ in range(20):
        table = ame.Dict({key: scene.make() for key in range(5)})
        ref = ame.Ref(scene.make())
        del table, ref
    scene.settle(60)
