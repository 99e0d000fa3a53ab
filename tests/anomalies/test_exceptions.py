"""An exception that leaves a block: all is undone, it reaches the caller, the next block works."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

import pytest

import ame
from support import in_thread

IN_THREAD = pytest.mark.deadline(30)


class BodyError(Exception):
    """Raised by the bodies."""


class State:
    """Some of each kind of state, a change to all of it, and a check that nothing changed."""

    def __init__(self) -> None:
        self.ref = ame.Ref("before")
        self.table: ame.Dict[str, int] = ame.Dict({"kept": 1, "deleted": 2})

    def change(self) -> None:
        self.ref.value = "after"
        self.table["kept"] = 10
        self.table["added"] = 3
        del self.table["deleted"]

    def check_untouched(self) -> None:
        for read in (self._read, lambda: ame.run(self._read), lambda: in_thread(self._read)):
            assert read() == ("before", {"kept": 1, "deleted": 2}, 2, ["kept", "deleted"])
        assert not ame.in_transaction()

    def check_usable(self) -> None:
        ame.run(self.change)
        assert self._read() == ("after", {"kept": 10, "added": 3}, 2, ["kept", "added"])

    def _read(self) -> tuple[str, dict[str, int], int, list[str]]:
        return self.ref.value, dict(self.table.items()), len(self.table), list(self.table)


def _recurse(depth: int = 0) -> int:
    return _recurse(depth + 1) + 1


def _no_memory() -> object:
    return bytearray(sys.maxsize - 64)


def _raise_body_error() -> None:
    raise BodyError("reason", 42)


FAILURES: list[tuple[type[BaseException], Callable[[], object]]] = [
    (BodyError, _raise_body_error),
    (ZeroDivisionError, lambda: 1 // 0),
    (RecursionError, _recurse),
    (MemoryError, _no_memory),
    (SystemExit, lambda: sys.exit(3)),
    (GeneratorExit, lambda: (_ for _ in ()).throw(GeneratorExit)),
    (KeyboardInterrupt, lambda: (_ for _ in ()).throw(KeyboardInterrupt)),
]
NAMES = [kind.__name__ for kind, _ in FAILURES]


@IN_THREAD
@pytest.mark.parametrize(("kind", "fail"), FAILURES, ids=NAMES)
def test_exception_in_a_function_rolls_back(
    kind: type[BaseException], fail: Callable[[], object]
) -> None:
    """Catches: writes that are committed although the body raised, for each kind of exception."""
    state = State()

    @ame.atomic
    def body() -> None:
        state.change()
        fail()

    with pytest.raises(kind):
        body()
    state.check_untouched()
    state.check_usable()


@IN_THREAD
@pytest.mark.parametrize(("kind", "fail"), FAILURES, ids=NAMES)
def test_exception_in_a_with_block_rolls_back(
    kind: type[BaseException], fail: Callable[[], object]
) -> None:
    """Catches: an irrevocable block that commits, or keeps its place for ever, when it raises."""
    state = State()
    with pytest.raises(kind):
        with ame.atomic():
            state.change()
            fail()
    state.check_untouched()
    in_thread(state.check_usable)


@IN_THREAD
def test_exception_keeps_its_arguments_and_its_traceback() -> None:
    """Catches: an exception that is rebuilt, wrapped or shown without the user's frames."""

    @ame.atomic
    def body() -> None:
        _raise_body_error()

    with pytest.raises(BodyError) as caught:
        body()
    assert caught.value.args == ("reason", 42)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-2:] == ["body", "_raise_body_error"]
    assert frames[0] == "test_exception_keeps_its_arguments_and_its_traceback"


@IN_THREAD
def test_body_runs_once_when_it_raises() -> None:
    """Catches: an exception taken for a conflict."""
    runs = 0

    @ame.atomic
    def body() -> None:
        nonlocal runs
        runs += 1
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert runs == 1


@IN_THREAD
def test_exception_handled_inside_the_block_rolls_nothing_back() -> None:
    """Catches: an exception that dooms the attempt although the body handled it."""
    ref = ame.Ref(0)
    table: ame.Dict[str, int] = ame.Dict()

    @ame.atomic
    def body() -> None:
        ref.value = 1
        with pytest.raises(KeyError):
            table["absent"]
        with pytest.raises(KeyError):
            del table["absent"]
        with pytest.raises(KeyError):
            table.pop("absent")
        ref.value += 1

    body()
    assert ref.value == 2


@IN_THREAD
def test_failed_operation_outside_a_block_changes_nothing() -> None:
    """Catches: a one-operation transaction that stays open after an error."""
    table: ame.Dict[object, int] = ame.Dict({"a": 1})
    for fail in (
        lambda: table["absent"],
        lambda: table.pop("absent"),
        lambda: table.__delitem__("absent"),
    ):
        with pytest.raises(KeyError):
            fail()
    for fail in (lambda: table[[]], lambda: table.__setitem__([], 1), lambda: [] in table):
        with pytest.raises(TypeError):
            fail()
    assert not ame.in_transaction()
    assert dict(table.items()) == {"a": 1}


@IN_THREAD
def test_key_that_raises_in_eq_or_hash_leaves_the_dict_whole() -> None:
    """Catches: a look-up that keeps a lock or half an entry when user code raises."""

    class Bad:
        def __hash__(self) -> int:
            return hash("a")

        def __eq__(self, other: object) -> bool:
            raise BodyError

    table: ame.Dict[object, int] = ame.Dict({"a": 1})
    for fail in (
        lambda: table[Bad()],
        lambda: table.__setitem__(Bad(), 1),
        lambda: ame.run(lambda: table.__setitem__(Bad(), 1)),
        lambda: table.get(Bad()),
    ):
        with pytest.raises(BodyError):
            fail()
    in_thread(lambda: table.__setitem__("b", 2))
    assert dict(table.items()) == {"a": 1, "b": 2}


@IN_THREAD
def test_rolled_back_values_are_released() -> None:
    """Catches: a write set that keeps what it held."""
    import gc
    import weakref

    class Value:
        pass

    ref: ame.Ref[Value | None] = ame.Ref(None)
    table: ame.Dict[str, Value] = ame.Dict()
    alive: list[weakref.ref[Value]] = []

    @ame.atomic
    def body() -> None:
        ref.value = value = Value()
        table["k"] = other = Value()
        alive.extend([weakref.ref(value), weakref.ref(other)])
        raise BodyError

    with pytest.raises(BodyError):
        body()
    gc.collect()
    assert [value() for value in alive] == [None, None]


def test_ctrl_c_in_a_block_rolls_back() -> None:
    """Catches: a real interrupt, at any instruction of the body, that leaves half of the writes.

    Runs in the main thread: only there Python raises KeyboardInterrupt.
    """
    x, y = ame.Ref(0), ame.Ref(0)
    interrupted = 0

    @ame.atomic
    def body(kill_at: int) -> None:
        for step in range(10):
            x.value += 1
            if step == kill_at:
                signal.raise_signal(signal.SIGINT)
            y.value += 1

    for kill_at in range(10):
        try:
            body(kill_at)
        except KeyboardInterrupt:
            interrupted += 1
        assert not ame.in_transaction()
        assert (x.value, y.value) == (0, 0)
    assert interrupted == 10


def test_ctrl_c_at_a_random_moment_leaves_all_or_nothing() -> None:
    """Catches: an interrupt between body and commit, or inside the commit, that tears it apart."""
    x, y = ame.Ref(0), ame.Ref(0)
    stop = threading.Event()
    allowed = threading.Semaphore(0)

    @ame.atomic
    def step() -> None:
        x.value += 1
        y.value += 1

    def interrupter() -> None:
        while True:
            allowed.acquire()
            if stop.is_set():
                return
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupter, daemon=True)
    thread.start()
    interrupted = 0
    try:
        while interrupted < 100:
            try:
                allowed.release()
                while True:
                    step()
            except KeyboardInterrupt:
                interrupted += 1
            assert not ame.in_transaction()
            assert x.value == y.value
    finally:
        stop.set()
        allowed.release()
        thread.join(10)
    assert x.value == y.value
