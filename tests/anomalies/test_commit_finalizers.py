"""Finalizers that a commit starts, and that run blocks: they must not touch the block around them.

A commit releases old values while the record of its block is still in use; blocks of their
finalizers use the record of the same thread.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm.testing
from hooking import BodyError, Dropped, HookError, fail

pytestmark = [
    pytest.mark.deadline(60),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

ROUNDS = 60  # commits; some of them release the values that earlier ones replaced


class Scene:
    """A ref each of whose commits drops a value, and the finalizers of these values."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.made = self.ended = 0
        self.box: ame.Ref[Any] = ame.Ref(None)
        self.other = ame.Ref(0)

    def put(self) -> None:
        self.made += 1
        self.box.value = Dropped(self._end)

    def _end(self) -> None:
        self.ended += 1
        self._act()

    def repeat(self, block: Callable[[int], object]) -> list[Any]:
        """Run `block` with 0, 1, ..., and make sure that finalizers ran meanwhile."""
        results = []
        for number in range(ROUNDS):
            results.append(block(number))
            assert not ame.in_transaction()
        assert self.ended > ROUNDS // 4
        self.settle()
        return results

    def settle(self) -> None:
        """Let the last values go now, and not in the middle of another test's block."""
        self.box.value = None
        gc.collect()
        assert self.ended == self.made


def fails() -> None:
    with pytest.raises(BodyError):
        ame.run(fail, BodyError())


def is_undone() -> None:
    @ame.atomic(max_attempts=1)
    def body() -> None:
        stm.testing.lose()

    with pytest.raises(ame.AttemptLimit):
        body()


def times_out() -> None:
    with pytest.raises(ame.TransactionTimeout):
        ame.run(lambda: ame.Ref(0).value or ame.retry(timeout=0))


def commits() -> None:
    ame.run(lambda: ame.Ref(0).value)


def is_a_with_block() -> None:
    with ame.atomic(label="finalizer"):
        ame.Ref(0).value = 1


def is_left_half_way() -> None:
    def body() -> None:
        ame.split()
        with ame.unprotected():
            commits()

    ame.run(body)


INNER = [fails, is_undone, times_out, commits, is_a_with_block, is_left_half_way]
each_inner = pytest.mark.parametrize("inner", INNER)


@each_inner
def test_hooks_of_a_committed_block_are_kept(inner: Callable[[], None]) -> None:
    """Catches: on_commit dropped, and on_abort run, by a block of a finalizer that failed."""
    scene = Scene(inner)
    log: list[tuple[str, int]] = []

    @ame.atomic
    def block(number: int) -> None:
        ame.on_commit(log.append, ("commit", number))
        ame.on_abort(log.append, ("abort", number))
        scene.put()

    scene.repeat(block)
    assert log == [("commit", number) for number in range(ROUNDS)]


@each_inner
def test_hooks_of_a_committed_with_block_are_kept(inner: Callable[[], None]) -> None:
    """Catches: the same for blocks that end in __exit__."""
    scene = Scene(inner)
    log: list[tuple[str, int]] = []

    def block(number: int) -> None:
        with ame.atomic():
            ame.on_commit(log.append, ("commit", number))
            ame.on_abort(log.append, ("abort", number))
            scene.put()

    scene.repeat(block)
    assert log == [("commit", number) for number in range(ROUNDS)]


def test_hooks_of_the_finalizers_own_blocks_run_once() -> None:
    """Catches: hooks of a finalizer's block that run with those of the commit around it too."""
    log: list[str] = []

    def inner() -> None:
        def body() -> None:
            ame.on_abort(log.append, "inner abort")
            raise HookError

        with pytest.raises(HookError):
            ame.run(body)
        ame.run(lambda: ame.on_commit(log.append, "inner commit"))

    scene = Scene(inner)

    @ame.atomic
    def block(number: int) -> None:
        ame.on_commit(log.append, "outer")
        scene.put()

    scene.repeat(block)
    assert log.count("outer") == ROUNDS
    assert log.count("inner abort") == log.count("inner commit") == scene.ended


@each_inner
def test_rest_after_a_split_is_still_the_same_block(inner: Callable[[], None]) -> None:
    """Catches: a rest that has the site, label or options of a finalizer's block."""
    scene = Scene(inner)

    @ame.atomic(label="outer")
    def block(number: int) -> tuple[Any, Any]:
        before = stm.block_info()[:2]
        scene.put()
        ame.split()
        after = stm.block_info()[:2]
        scene.other.value = number
        return before, after

    for before, after in scene.repeat(block):
        assert before == after
        assert before[0] == "outer"
    assert scene.other.value == ROUNDS - 1


@each_inner
def test_with_block_goes_on_after_a_split(inner: Callable[[], None]) -> None:
    """Catches: OpenBlockError at its end, or a block that stays open after it."""
    scene = Scene(inner)

    def block(number: int) -> None:
        with ame.atomic(label="outer"):
            scene.put()
            ame.split()
            scene.other.value = number
            assert stm.block_info()[0] == "outer"

    scene.repeat(block)
    assert scene.other.value == ROUNDS - 1


@each_inner
def test_with_block_goes_on_after_unprotected(inner: Callable[[], None]) -> None:
    """Catches: a suspended block whose record a finalizer's block has overwritten."""
    scene = Scene(inner)

    def block(number: int) -> None:
        with ame.atomic(label="outer"):
            scene.put()
            with ame.unprotected():
                assert not ame.in_transaction()
            scene.other.value = number
            assert stm.block_info()[0] == "outer"

    scene.repeat(block)
    assert scene.other.value == ROUNDS - 1


@each_inner
def test_exception_after_a_split_undoes_the_rest_only(inner: Callable[[], None]) -> None:
    """Catches: a rest that is not undone, or takes the committed part with it."""
    scene = Scene(inner)

    def block(number: int) -> None:
        with pytest.raises(BodyError), ame.atomic():
            scene.put()
            scene.other.value = number
            ame.split()
            scene.other.value = -1
            raise BodyError

    def undone(number: int) -> bool:
        block(number)
        return scene.other.value == number

    assert all(scene.repeat(undone))


def test_hooks_of_the_first_part_run_at_the_split_and_of_the_rest_at_the_end() -> None:
    """Catches: hooks of either part lost when the commit of the first starts blocks that fail."""
    scene = Scene(fails)
    log: list[Any] = []

    @ame.atomic
    def block(number: int) -> None:
        ame.on_commit(log.append, ("first", number))
        ame.on_abort(log.append, ("abort", number))
        scene.put()
        ame.split()
        assert log[-1] == ("first", number)
        ame.on_commit(log.append, ("rest", number))

    scene.repeat(block)
    assert log == [(part, number) for number in range(ROUNDS) for part in ("first", "rest")]
