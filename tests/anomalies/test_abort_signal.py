"""The abort of an attempt passes through user code: it can be neither swallowed nor replaced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

import ame
from support import Interference, in_thread

pytestmark = pytest.mark.deadline(30)


class ShouldNotShowError(Exception):
    """Raised by an attempt that was already lost."""


class Scene:
    """Two refs that are equal when committed, and a block that is made to lose its first attempt.

    The block writes, reads `x`, another thread changes both refs, and the block reads `y`: no
    snapshot holds both reads, and having written it can't be a reader of an old one. So the read of
    `y` is where the attempt ends.
    """

    def __init__(self) -> None:
        self.x, self.y, self.out = ame.Ref(0), ame.Ref(0), ame.Ref(0)
        self.interfere = Interference(self._change)

    def _change(self) -> None:
        def both() -> None:
            self.x.value += 1
            self.y.value += 1

        ame.run(both)

    def lose(self) -> int:
        """Come to the place where the first attempt is lost; return the sum in the others."""
        self.out.value = -1
        first = self.x.value
        self.interfere()
        second = self.y.value
        assert first == second
        return first + second

    @property
    def attempts(self) -> int:
        return self.interfere.calls


def test_bare_except_cannot_swallow_an_abort() -> None:
    """Catches: a swallowed abort after which the attempt commits what it has."""
    scene = Scene()

    @ame.atomic
    def body() -> int:
        total = -100
        try:  # noqa: SIM105
            total = scene.lose()
        except:  # noqa: E722
            pass
        scene.out.value = total
        return total

    assert body() == 2
    assert scene.out.value == 2
    assert scene.attempts == 2


def test_abort_is_no_exception() -> None:
    """Catches: an abort that `except Exception` takes for an error of the program."""
    scene = Scene()
    caught: list[Exception] = []

    @ame.atomic
    def body() -> int:
        try:
            return scene.lose()
        except Exception as error:
            caught.append(error)
            raise

    assert body() == 2
    assert caught == []


def test_swallowed_abort_is_raised_again_by_whatever_comes_next() -> None:
    """Catches: reads or writes that go on working in an attempt that is lost."""
    scene = Scene()
    table: ame.Dict[str, int] = ame.Dict({"k": 1})
    went_on: list[str] = []
    steps: list[tuple[str, Callable[[], object]]] = [
        ("read", lambda: scene.x.value),
        ("write", lambda: setattr(scene.x, "value", 5)),
        ("dict read", lambda: table["k"]),
        ("dict write", lambda: table.__setitem__("k", 2)),
        ("len", lambda: len(table)),
        ("nested", lambda: ame.run(lambda: scene.y.value)),
    ]

    @ame.atomic
    def body() -> None:
        try:
            scene.lose()
        except BaseException:
            for name, step in steps:
                with contextlib.suppress(BaseException):
                    step()
                    went_on.append(name)

    body()
    assert went_on == []
    assert scene.attempts == 2
    assert (scene.x.value, scene.y.value, table["k"]) == (1, 1, 1)


def test_return_in_finally_cannot_swallow_an_abort() -> None:
    """Catches: a result of a lost attempt that reaches the caller."""
    scene = Scene()

    @ame.atomic
    def body() -> int:
        total = -100
        with contextlib.suppress(BaseException):
            total = scene.lose()
        return total

    @ame.atomic
    def outer() -> int:
        try:
            return body()
        except BaseException:
            return -200

    assert outer() == 2
    assert scene.attempts == 2


@pytest.mark.parametrize("error", [ShouldNotShowError, KeyError, SystemExit])
def test_exception_that_replaces_an_abort_is_not_shown(error: type[BaseException]) -> None:
    """Catches: an exception shown to the caller although its attempt was lost."""
    scene = Scene()

    @ame.atomic
    def body() -> int:
        try:
            return scene.lose()
        except BaseException:
            raise error from None

    assert body() == 2
    assert scene.attempts == 2


def test_exception_raised_after_a_swallowed_abort_is_not_shown() -> None:
    """Catches: the same for an exception that has nothing to do with the abort."""
    scene = Scene()

    @ame.atomic
    def body() -> int:
        total = 0
        with contextlib.suppress(BaseException):
            total = scene.lose()
        if total != 2:
            raise ShouldNotShowError(total)
        return total

    assert body() == 2


def test_exception_from_a_context_manager_during_an_abort_is_not_shown() -> None:
    """Catches: clean-up code of a lost attempt whose error reaches the caller."""
    scene = Scene()

    @contextlib.contextmanager
    def fails_at_exit() -> object:  # type: ignore[misc]
        try:
            yield
        finally:
            if scene.attempts == 1:
                raise ShouldNotShowError

    @ame.atomic
    def body() -> int:
        with fails_at_exit():  # type: ignore[attr-defined]
            return scene.lose()

    assert body() == 2


def test_commit_that_fails_re_executes_although_the_body_returned() -> None:
    """Catches: a conflict found only at commit that is reported as success."""
    x, y = ame.Ref(0), ame.Ref(-1)  # writing -1 over -1 would not be a write

    def change() -> None:
        x.value = 7

    interfere = Interference(lambda: ame.run(change))

    @ame.atomic
    def body() -> int:
        seen = x.value
        interfere()
        y.value = seen
        return seen

    assert body() == 7
    assert y.value == 7


def test_inner_block_cannot_swallow_the_abort_of_the_outer() -> None:
    """Catches: an inner block that retries on its own what only the outermost can retry."""
    scene = Scene()
    inner_runs = outer_runs = 0

    @ame.atomic
    def inner() -> int:
        nonlocal inner_runs
        inner_runs += 1
        return scene.lose()

    @ame.atomic
    def outer() -> int:
        nonlocal outer_runs
        outer_runs += 1
        return inner()

    assert outer() == 2
    assert (inner_runs, outer_runs) == (2, 2)


def test_thread_is_usable_after_an_abort() -> None:
    """Catches: state of a lost attempt that stays behind in the thread."""
    scene = Scene()
    ame.run(scene.lose)
    assert not ame.in_transaction()
    scene.x.value = 10
    assert scene.x.value == 10
    assert in_thread(lambda: scene.x.value) == 10
