"""`for_each` and `map` when something fails: as the plain loop would; bad input; Ctrl-C."""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ame
from support import run_script, wait_for

pytestmark = pytest.mark.deadline(60)

WORKERS = [1, 2, 4]
CHUNKS: list[Any] = [1, 3, 100, "auto"]
LOOPS: list[Callable[..., object]] = [ame.for_each, ame.map]
LOOP_NAMES = ["for_each", "map"]


class ItemError(Exception):
    """Raised for an item; its argument is the item."""


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in left if name.startswith("ame-")]


# Exceptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_exception_is_that_of_the_plain_loop(workers: int, chunk: Any) -> None:
    """The smallest index, everything before it committed, and of the item itself nothing."""
    table: ame.Dict[int, int] = ame.Dict()

    def run(item: int) -> None:
        table[item] = 1
        if item >= 123:
            raise ItemError(item)

    with pytest.raises(ItemError) as caught:
        ame.for_each(run, range(1000), workers=workers, chunk=chunk)
    assert caught.value.args == (123,)
    assert sorted(table) == list(range(123))


@pytest.mark.parametrize("workers", WORKERS)
def test_items_after_the_failed_one_are_whole_or_absent(workers: int) -> None:
    x: ame.Dict[int, int] = ame.Dict()
    y: ame.Dict[int, int] = ame.Dict()

    def run(item: int) -> None:
        x[item] = 1
        if item == 77:
            raise ItemError(item)
        y[item] = 1

    with pytest.raises(ItemError):
        ame.for_each(run, range(10_000), workers=workers)
    assert set(range(77)) <= set(x) == set(y)
    assert 77 not in x
    assert len(x) < 10_000


def test_exception_keeps_its_traceback_and_gains_no_context() -> None:
    def inner(item: int) -> None:
        raise ItemError(item)

    for loop, workers in itertools.product(LOOPS, WORKERS):
        with pytest.raises(ItemError) as caught:
            loop(inner, [7, 8, 9], workers=workers)
        names = [frame.name for frame in traceback.extract_tb(caught.tb)]
        assert names[-1] == "inner"
        assert names[0] == "test_exception_keeps_its_traceback_and_gains_no_context"
        assert caught.value.__context__ is None


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_exceptions_that_are_no_errors_stop_the_loop_too(kind: type[BaseException]) -> None:
    def run(item: int) -> None:
        if item == 5:
            raise kind

    for workers in WORKERS:
        with pytest.raises(kind):
            ame.for_each(run, itertools.count(), workers=workers)


def test_stop_iteration_of_a_call_is_not_the_end_of_the_input() -> None:
    def run(item: int) -> None:
        if item == 5:
            raise StopIteration

    for workers in WORKERS:
        with pytest.raises(StopIteration):
            ame.for_each(run, range(10), workers=workers)


def test_exception_that_does_not_come_again_is_forgotten() -> None:
    """The failed chunk is rolled back and run item by item: only what that raises counts."""
    table: ame.Dict[int, int] = ame.Dict()
    failed = False

    def run(item: int) -> None:
        nonlocal failed
        table[item] = 1
        if item == 5 and not failed:
            failed = True
            raise ItemError(item)

    ame.for_each(run, range(20), workers=1, chunk=10)
    assert sorted(table) == list(range(20))


def test_failed_chunk_runs_the_items_before_alone_then_the_failing_one() -> None:
    calls: list[int] = []

    def run(item: int) -> None:
        calls.append(item)
        if item == 3:
            raise ItemError(item)

    with pytest.raises(ItemError):
        ame.for_each(run, range(20), workers=1, chunk=5)
    assert calls == [0, 1, 2, 3, 0, 1, 2, 3]


def test_other_workers_stop_after_an_exception() -> None:
    """The worker that runs item 1 for ever stops at its next item, since item 0 failed."""
    item_1_runs = threading.Event()
    ran: list[int] = []

    def run(item: int) -> None:
        if item == 0:
            wait_for(item_1_runs)
            raise ItemError(item)
        item_1_runs.set()
        ran.append(item)

    with pytest.raises(ItemError):
        ame.for_each(run, itertools.count(), workers=2, chunk=1)
    assert ran


# Bad input -----------------------------------------------------------------------------------


async def _coroutine(item: object) -> object:
    return item


class _AsyncOnly:
    def __aiter__(self) -> object:
        return self


BAD: list[tuple[str, type[Exception], list[Any], dict[str, Any], str]] = [
    ("workers=0", ValueError, [abs, [1]], {"workers": 0}, "workers must be at least 1"),
    ("workers<0", ValueError, [abs, [1]], {"workers": -2}, "not -2"),
    ("workers float", TypeError, [abs, [1]], {"workers": 2.0}, "workers must be an integer"),
    ("workers str", TypeError, [abs, [1]], {"workers": "2"}, "workers must be an integer"),
    ("chunk=0", ValueError, [abs, [1]], {"chunk": 0}, "chunk must be at least 1"),
    ("chunk<0", ValueError, [abs, [1]], {"chunk": -1}, "not -1"),
    ("chunk word", ValueError, [abs, [1]], {"chunk": "big"}, "\"auto\".*'big'"),
    ("chunk None", TypeError, [abs, [1]], {"chunk": None}, '"auto"'),
    ("chunk float", TypeError, [abs, [1]], {"chunk": 1.5}, '"auto"'),
    ("label", TypeError, [abs, [1]], {"label": 3}, "label must be a str"),
    ("no function", TypeError, [None, [1]], {}, "must be a function of one item, not None"),
    ("swapped", TypeError, [[1], abs], {}, r"\(function, iterable\)"),
    ("coroutine function", TypeError, [_coroutine, [1]], {}, "plain function"),
    ("no iterable", TypeError, [abs, 5], {}, "must be an iterable, not 5"),
    ("async iterable", TypeError, [abs, _AsyncOnly()], {}, "async for"),
]


@pytest.mark.parametrize("loop", LOOPS, ids=LOOP_NAMES)
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside a block"])
@pytest.mark.parametrize(
    ("kind", "arguments", "options", "message"),
    [case[1:] for case in BAD],
    ids=[case[0] for case in BAD],
)
def test_bad_input_is_explained_before_anything_runs(
    loop: Callable[..., object],
    inside: bool,
    kind: type[Exception],
    arguments: list[Any],
    options: dict[str, Any],
    message: str,
) -> None:
    def call() -> object:
        return loop(*arguments, **options)

    name = "for_each" if loop is ame.for_each else "map"
    with pytest.raises(kind, match=message) as caught:
        ame.run(call) if inside else call()
    assert f"ame.{name}()" in str(caught.value)
    assert not ame.in_transaction()


@pytest.mark.parametrize("loop", LOOPS, ids=LOOP_NAMES)
def test_bad_variable_is_explained_before_anything_runs(
    loop: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AME_WORKERS", "many")
    ran: list[int] = []
    with pytest.raises(ValueError, match="AME_WORKERS"):
        loop(ran.append, [1])
    assert ran == []


# Ctrl-C --------------------------------------------------------------------------------------

CTRL_C = """
import os, signal, sys, threading, time, ame

workers = int(sys.argv[1])
committed = ame.Ref(0)
sent = [0.0]

def run(item):
    committed.value += 1
    if item == 200 and not sent[0]:
        sent[0] = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

def items():
    item = 0
    while True:
        yield item
        item += 1

try:
    ame.for_each(run, items(), workers=workers)
except KeyboardInterrupt:
    seconds = time.monotonic() - sent[0]
else:
    raise AssertionError("not interrupted")
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert not ame.in_transaction()
before = committed.value
committed.value += 1
assert committed.value == before + 1
print(seconds)
"""


@pytest.mark.parametrize("workers", WORKERS)
def test_ctrl_c_stops_the_loop_soon(workers: int) -> None:
    seconds = min(float(run_script(CTRL_C, str(workers)).stdout) for _ in range(3))
    assert seconds < 0.3


TWICE = """
import os, signal, threading, ame

running, forever = threading.Event(), threading.Event()

def run(item):
    running.set()
    forever.wait()

def interrupt():
    running.wait()
    os.kill(os.getpid(), signal.SIGINT)
    # The loop waits for the calls that run. A second interrupt doesn't.
    while not stopped():
        pass
    os.kill(os.getpid(), signal.SIGINT)

def stopped():
    import gc
    from ame import _loops
    return any(loop._stopping for loop in gc.get_objects() if type(loop) is _loops._Loop)

threading.Thread(target=interrupt, daemon=True).start()
try:
    ame.for_each(run, range(10), workers=2, chunk=1)
except KeyboardInterrupt:
    print("left")
"""


def test_second_ctrl_c_leaves_without_waiting() -> None:
    assert run_script(TWICE, timeout=30).stdout.strip() == "left"
