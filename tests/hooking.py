"""What the tests of hooks share: exceptions, finalizers, blocks that fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ame


class BodyError(Exception):
    """Leaves a block."""


class HookError(Exception):
    """Leaves a hook."""


def fail(error: BaseException) -> None:
    raise error


class Knot:
    """Garbage that only a collection finds; calls `act` when it ends."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.knot = self

    def __del__(self) -> None:
        self.act()


class Dropped:
    """Calls `act` when it ends."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


def run_and_catch(body: Callable[[], object]) -> None:
    """Run `body` as a nested block that an exception then leaves."""

    def failing() -> None:
        body()
        raise BodyError

    with pytest.raises(BodyError):
        ame.run(failing)
