"""on_abort of attempts that end while their block holds, or waits for, the protected slot."""

from __future__ import annotations

import pytest

import ame
import stm
from stm.testing import forced_aborts
from support import Interference, in_thread

pytestmark = pytest.mark.deadline(30)


class Scene:
    """A block whose cleanup writes what its attempts read, and that another thread disturbs."""

    def __init__(self, times: int) -> None:
        self.read, self.out = ame.Ref(0), ame.Ref(-1)
        self.inside: list[bool] = []
        self.errors: list[BaseException] = []
        self.disturb = Interference(self._change, times=times)

    def _change(self) -> None:
        self.read.update(lambda value: value + 100)

    def clean(self) -> None:
        self.inside.append(ame.in_transaction())
        try:
            ame.run(self._count)
        except BaseException as error:
            self.errors.append(error)

    def _count(self) -> None:
        self.read.value += 1

    def attempt(self) -> int:
        seen = self.read.value
        ame.on_abort(self.clean)
        self.disturb()
        return seen


def test_cleanup_of_an_attempt_that_lost_in_its_upgrade_may_write_what_it_had_read() -> None:
    """Catches: a cleanup that waits for the slot which its own lost attempt still marks."""
    scene = Scene(1)

    @ame.atomic
    def body() -> int:
        seen = scene.attempt()
        ame.irrevocable()
        scene.out.value = seen
        return seen

    assert body() == 101
    assert (scene.inside, scene.errors) == ([False], [])
    assert (scene.read.value, scene.out.value) == (101, 101)


@pytest.mark.parametrize("losses", [3, 4])
def test_cleanups_before_the_protected_attempt_may_write_what_was_read(losses: int) -> None:
    """Catches: a block that gets the slot before the cleanups of its lost attempts have run."""
    scene = Scene(0)

    @ame.atomic
    def body() -> int:
        scene.out.value = scene.attempt()
        return stm.attempt()

    with forced_aborts(losses):
        assert body() == 3
    # A cleanup loses its attempts, too, and gets the slot for its own last one.
    assert (scene.inside, scene.errors) == ([False] * 3, [])
    assert (scene.read.value, scene.out.value) == (3, 3)


def test_cleanup_of_an_irrevocable_block_that_fails_may_write_what_it_had_read() -> None:
    """Catches: a slot that is given up after the cleanups."""
    scene = Scene(0)

    @ame.atomic
    def body() -> None:
        ame.irrevocable()
        scene.attempt()
        raise LookupError

    with pytest.raises(LookupError):
        body()
    assert (scene.inside, scene.errors) == ([False], [])
    assert scene.read.value == 1


def test_other_thread_may_write_what_the_lost_attempt_had_read_while_the_cleanup_runs() -> None:
    """Catches: marks of a lost attempt that only its own thread may pass."""
    scene = Scene(1)

    @ame.atomic
    def body() -> int:
        seen = scene.attempt()
        ame.on_abort(lambda: in_thread(lambda: ame.run(scene._count)))
        ame.irrevocable()
        return seen

    assert body() == 102
    assert scene.errors == []
