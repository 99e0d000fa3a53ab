"""Tools that look at code see a rewritten function as its author wrote it."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import ame
from stm import testing
from support import run_script


def add_up(ref: Any, numbers: list[int]) -> int:
    total = 0
    for number in numbers:
        with ame.atomic():
            if number < 0:
                continue
            ref.value += number
            total = ref.value
        if total > 100:
            break
    return total


def add_up_plainly(ref: Any, numbers: list[int]) -> int:
    total = 0
    for number in numbers:
        with PLAIN:
            if number < 0:
                continue
            ref.value += number
            total = ref.value
        if total > 100:
            break
    return total


class _Plain:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


PLAIN = _Plain()
NUMBERS = [1, -1, 50, 60, 7]


def lines_run(function: Callable[..., Any], *arguments: Any) -> list[int]:
    """Return the lines that ran, counted from the first line of the function."""
    first = function.__code__.co_firstlineno
    seen: list[int] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is not function.__code__:
            return None
        if event == "line":
            seen.append(frame.f_lineno - first)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return seen


def test_tracing_sees_the_lines_that_a_plain_with_would_run() -> None:
    """Catches: lines of the rewriter that debuggers stop at and coverage counts."""
    ame.prepare(add_up)
    seen = lines_run(add_up, ame.Ref(0), NUMBERS)
    plain = lines_run(add_up_plainly, ame.Ref(0), NUMBERS)
    assert set(seen) == set(plain)
    body = [line for line in seen if line != 3]  # a `with` may be visited once more or less
    assert body == [line for line in plain if line != 3]


def test_source_is_that_of_the_file() -> None:
    before = inspect.getsource(add_up)
    ame.prepare(add_up)
    assert inspect.getsource(add_up) == before
    assert before.startswith("def add_up(") and before.endswith("return total\n")


def test_signature_name_and_defaults_stay() -> None:
    def function(a: int, /, b: str = "x", *more: int, key: float = 1.5, **named: str) -> None:
        """Doc."""
        with ame.atomic():
            pass

    function(1)
    signature = "(a: 'int', /, b: 'str' = 'x', *more: 'int', key: 'float' = 1.5, **named: 'str')"
    assert str(inspect.signature(function)) == f"{signature} -> 'None'"
    assert (function.__name__, function.__doc__) == ("function", "Doc.")


@pytest.mark.parametrize("losses", [0, 2])
def test_traceback_shows_the_line_of_the_body_and_nothing_of_the_rewriter(losses: int) -> None:
    def fail(ref: Any) -> None:
        with ame.atomic():
            ref.value += 1
            raise LookupError("here")

    with testing.forced_aborts(losses):
        try:
            fail(ame.Ref(0))
        except LookupError as error:
            frames = traceback.extract_tb(error.__traceback__)
            text = "".join(traceback.format_exception(error))
    assert [frame.name for frame in frames] == [
        "test_traceback_shows_the_line_of_the_body_and_nothing_of_the_rewriter",
        "fail",
    ]
    assert frames[-1].line == 'raise LookupError("here")'
    assert "Rerun" not in text and "During handling" not in text


DEBUGGED = """
import ame
ref = ame.Ref(5)

def function(x):
    y = x + 1
    with ame.atomic():
        y += ref.value
        breakpoint()
        ref.value = y
    return y

print("result", function(1))
"""


def test_breakpoint_in_a_block_stops_there(tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(DEBUGGED)
    run = f"""
import io, runpy, sys
sys.stdin = io.StringIO("p ('y is', y)\\nnext\\nwhere\\np sorted(locals())\\ncontinue\\n")
sys.argv = [{str(program)!r}]
runpy.run_path({str(program)!r}, run_name="__main__")
"""
    out = run_script(run, stacks=False).stdout
    assert "('y is', 7)" in out
    assert "ref.value = y" in out
    assert "['x', 'y']" in out
    assert "result 7" in out


def test_profilers_see_one_call() -> None:
    calls: list[str] = []

    def function() -> None:
        with ame.atomic():
            pass

    function()
    code = function.__code__
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: calls.append(event) if frame.f_code is code else None)
    try:
        function()
    finally:
        sys.setprofile(before)
    assert [event for event in calls if not event.startswith("c_")] == ["call", "return"]
