"""Code that runs in the middle of a block without being part of it: finalizers, signal handlers.

In a block that cannot lose (irrevocable, or protected after lost attempts) the finalizers that a
garbage collection finds join the block. They must not decide about it: give its attempt up, commit
half of it, or leave a block open in it. Elsewhere such code has blocks of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ame
import stm
from hooking import BodyError, Knot
from sleepers import parked, wait_until
from stm.testing import forced_aborts
from support import run_script

no_signals = pytest.mark.skipif(sys.platform == "win32", reason="no signals between threads there")
deadline = pytest.mark.deadline(30)

LOSSES = 3  # after so many lost attempts a block is protected


@pytest.fixture(autouse=True)
def _collect_on_request_only() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def irrevocable(body: Callable[[], Any]) -> Any:
    def whole() -> Any:
        ame.irrevocable()
        return body()

    return ame.run(whole)


def declared(body: Callable[[], Any]) -> Any:
    return ame.atomic(irrevocable=True)(body)()


def after_losses(body: Callable[[], Any]) -> Any:
    def whole() -> Any:
        return body() if stm.attempt() == LOSSES else None

    with forced_aborts(LOSSES):
        return ame.run(whole)


def after_a_split(body: Callable[[], Any]) -> Any:
    def whole() -> Any:
        ame.split()
        return body()

    return ame.run(whole)


def in_a_with(body: Callable[[], Any]) -> Any:
    with ame.atomic():
        ame.irrevocable()
        result = body()
    return result


def nested(body: Callable[[], Any]) -> Any:
    return irrevocable(lambda: ame.run(body))


KINDS = [irrevocable, declared, after_losses, after_a_split, in_a_with, nested]
each_kind = pytest.mark.parametrize("run", KINDS)


class Joiner:
    """Does something in a finalizer which a collection in the middle of a block calls."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.inside: list[bool] = []
        self.errors: list[BaseException] = []

    def _end(self) -> None:
        self.inside.append(ame.in_transaction())
        try:
            self._act()
        except BaseException as error:
            self.errors.append(error)

    def __call__(self) -> None:
        Knot(self._end)
        gc.collect()
        assert self.inside == [True]


@deadline
@each_kind
@pytest.mark.parametrize("where", ["in a block of its own", "alone"])
def test_finalizer_that_joins_cannot_retry(run: Any, where: str) -> None:
    """Catches: the block around it given up, or ended with a timeout that is not its own."""
    ref, queue = ame.Ref(0), ame.Ref(0)

    def wait() -> None:
        if queue.value == 0:
            ame.retry(timeout=0.05)

    joiner = Joiner(wait if where == "alone" else lambda: ame.run(wait))

    def body() -> str:
        ref.value += 1
        joiner()
        ref.value += 1
        return "done"

    assert run(body) == "done"
    assert [type(error) for error in joiner.errors] == [ame.IrrevocableError]
    assert ref.value == 2


def leave_unprotected() -> None:
    with ame.unprotected():
        pass


@deadline
@each_kind
@pytest.mark.parametrize("part", [ame.split, leave_unprotected])
def test_finalizer_that_joins_cannot_commit_half_of_the_block(run: Any, part: Any) -> None:
    """Catches: a first part that is committed although the block fails."""
    ref = ame.Ref(0)
    joiner = Joiner(part)

    def body() -> None:
        ref.value = 1000
        joiner()
        raise BodyError

    with pytest.raises(BodyError):
        run(body)
    assert [type(error) for error in joiner.errors] == [ame.OpenBlockError]
    assert (ref.value, ame.in_transaction()) == (0, False)


@deadline
@each_kind
def test_block_may_split_after_a_finalizer_has_joined(run: Any) -> None:
    """Catches: a mark of the finalizer that stays with the block."""
    if run is nested:
        pytest.skip("no nested block may")
    ref = ame.Ref(0)
    joiner = Joiner(lambda: ref.update(lambda value: value + 1))

    def body() -> None:
        joiner()
        ame.split()
        ref.value += 10

    run(body)
    assert (ref.value, joiner.errors) == (11, [])


@deadline
@each_kind
@pytest.mark.parametrize("count", [1, 3])
def test_block_that_a_finalizer_leaves_open_ends_with_the_collection(run: Any, count: int) -> None:
    """Catches: the end of the finalizer's block taken for that of the block around it."""
    ref = ame.Ref(0)
    managers = []

    def leave_open() -> None:
        for _ in range(count):
            managers.append(ame.atomic())
            managers[-1].__enter__()

    joiner = Joiner(leave_open)

    def body() -> str:
        ref.value += 1
        joiner()
        ref.value += 1
        return "done"

    assert run(body) == "done"
    assert (ref.value, joiner.errors, ame.in_transaction()) == (2, [], False)


@deadline
@each_kind
def test_finalizer_cannot_leave_the_block_it_joins(run: Any) -> None:
    """Catches: a commit or an end of the block in the middle of its body."""
    ref = ame.Ref(0)
    joiner = Joiner(lambda: ame.atomic().__exit__(None, None, None))

    def body() -> str:
        ref.value = 1
        joiner()
        assert ame.in_transaction()
        ref.value = 2
        return "done"

    assert run(body) == "done"
    assert [type(error) for error in joiner.errors] == [ame.OpenBlockError]
    assert ref.value == 2


@deadline
@pytest.mark.parametrize("act", [ame.split, ame.retry, leave_unprotected])
def test_finalizer_in_a_block_that_may_lose_is_outside_of_it(act: Any) -> None:
    """Catches: the same damage done to a block that the finalizer has not joined."""
    ref = ame.Ref(0)
    errors: list[BaseException] = []

    def end() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    @ame.atomic
    def body() -> str:
        ref.value += 1
        Knot(end)
        gc.collect()
        return "done"

    assert body() == "done"
    assert [type(error) for error in errors] == [ame.NotInTransaction]
    assert ref.value == 1


# --- signal handlers ---------------------------------------------------------------------


class Handler:
    """Calls `act` in a signal handler of the main thread, while that sleeps in `retry`."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.errors: list[BaseException] = []
        self.calls = 0

    def _handle(self, number: int, frame: object) -> None:
        try:
            self._act()
        except BaseException as error:
            self.errors.append(error)
        self.calls += 1

    def during(self, block: Callable[[], Any], wake: Callable[[], object]) -> Any:
        """Run the block, which sleeps; call the handler then, and `wake` after it."""

        def other() -> None:
            wait_until(lambda: parked() == 1)
            os.kill(os.getpid(), signal.SIGUSR1)
            try:
                wait_until(lambda: self.calls == 1)
            finally:
                wake()

        before = signal.signal(signal.SIGUSR1, self._handle)
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        try:
            return block()
        finally:
            thread.join(30)
            signal.signal(signal.SIGUSR1, before)


def leave_block_open() -> None:
    ame.atomic(label="left open").__enter__()


@no_signals
@pytest.mark.parametrize(
    ("act", "error"),
    [
        (ame.split, ame.NotInTransaction),
        (leave_unprotected, ame.NotInTransaction),
        (ame.retry, ame.NotInTransaction),
        (lambda: ame.atomic().__exit__(None, None, None), ame.OpenBlockError),
        (leave_block_open, None),
    ],
    ids=["split", "unprotected", "retry", "exit", "leave a block open"],
)
def test_signal_handler_cannot_touch_the_block_that_sleeps(
    act: Callable[[], object], error: type[Exception] | None
) -> None:
    """Catches: a handler that finds the record of the sleeping block, or leaves one behind."""
    ref = ame.Ref(0)
    handler = Handler(act)

    def body() -> int:
        if not ref.value:
            ame.retry(timeout=20)
        return stm.block_info()[5]

    assert handler.during(lambda: ame.run(body), lambda: setattr(ref, "value", 1)) == 1
    assert [type(each) for each in handler.errors] == ([error] if error else [])
    assert not ame.in_transaction()


@no_signals
def test_signal_handler_that_waits_itself_gives_up_and_the_block_sleeps_on() -> None:
    """Catches: a handler that waits for ever, or whose timeout ends the block around it."""
    ref, never = ame.Ref(0), ame.Ref(0)

    def wait() -> None:
        if not never.value:
            ame.retry(timeout=0.05)

    handler = Handler(lambda: ame.run(wait))

    def body() -> int:
        if not ref.value:
            ame.retry(timeout=20)
        return ref.value

    assert handler.during(lambda: ame.run(body), lambda: setattr(ref, "value", 1)) == 1
    assert [type(error) for error in handler.errors] == [ame.TransactionTimeout]


@no_signals
@pytest.mark.parametrize("run", [kind for kind in KINDS if kind is not after_losses])
def test_signal_handler_in_a_block_that_cannot_lose_cannot_retry(run: Any) -> None:
    """Catches: an irrevocable block that a handler makes start over."""
    ref, queue = ame.Ref(0), ame.Ref(0)
    errors: list[BaseException] = []

    def handle(number: int, frame: object) -> None:
        try:
            ame.run(lambda: queue.value or ame.retry(timeout=0.05))
        except BaseException as error:
            errors.append(error)

    def body() -> str:
        ref.value += 1
        signal.raise_signal(signal.SIGUSR1)
        return "done"

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        assert run(body) == "done"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [type(error) for error in errors] == [ame.IrrevocableError]
    assert ref.value == 1


def test_finalizer_of_a_first_collection_cannot_leave_its_block_open() -> None:
    """Catches: the first collection in a thread that has not used transactions yet."""
    run_script(
        """
import gc, threading, ame
class Knot:
    def __init__(self):
        self.knot = self
    def __del__(self):
        ame.atomic().__enter__()
def body():
    Knot()
    gc.collect()
    assert not ame.in_transaction()
body()
thread = threading.Thread(target=body)
thread.start()
thread.join()
ame.run(lambda: None)
"""
    )
