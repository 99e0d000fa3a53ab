"""What the tests of split and unprotected share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import ame
from support import in_thread, wait_for


class BodyError(Exception):
    """Leaves a block."""


def unprotected_and_back() -> None:
    with ame.unprotected():
        pass


each_way = pytest.mark.parametrize(
    "part", [ame.split, unprotected_and_back], ids=["split", "unprotected"]
)


def elsewhere(*refs: ame.Ref[Any]) -> tuple[Any, ...]:
    """The values as another thread sees them now."""
    return in_thread(lambda: tuple(ref.value for ref in refs))


def with_slot_held(body: Callable[[], Any]) -> Any:
    """Run `body` while another thread holds the protected slot."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        ame.irrevocable()
        inside.set()
        wait_for(leave)

    holder = threading.Thread(target=ame.run, args=(hold,), daemon=True)
    holder.start()
    try:
        wait_for(inside)
        return body()
    finally:
        leave.set()
        holder.join(20)
