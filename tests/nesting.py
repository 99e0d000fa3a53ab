"""What the tests of nested blocks share: every way to nest, and blocks that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ame
import stm


class InnerError(Exception):
    """Leaves an inner block."""


class OuterError(Exception):
    """Leaves an outer block."""


def with_block(fn: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        with ame.atomic():
            return fn()

    return call


FORMS: dict[str, Callable[[Callable[[], Any]], Callable[[], Any]]] = {
    "@atomic": ame.atomic,
    "run": lambda fn: lambda: ame.run(fn),
    "run_block": lambda fn: lambda: stm.run_block("inner", fn),
    "or_else": lambda fn: lambda: ame.or_else(fn),
    "with": with_block,
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def fail_in(form: Any, body: Callable[[], object], error: type[BaseException] = InnerError) -> None:
    """Run `body` in a nested block that an exception then leaves, and catch the exception."""

    def failing() -> None:
        body()
        raise error

    with pytest.raises(error):
        form(failing)()


def setter(ref: ame.Ref[Any], value: object) -> Callable[[], None]:
    return lambda: setattr(ref, "value", value)
