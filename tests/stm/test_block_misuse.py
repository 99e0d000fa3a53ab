"""Blocks that end where they did not begin: other threads, generators, unpaired exits.

A `with` with a `yield` in it is refused (see also test_with.py, tests/ame/test_rewrite_shapes.py);
most here enter their block by hand. Each program runs in a process of its own: such misuse must
raise and leave the thread usable.
"""

from __future__ import annotations

from typing import Any

import pytest

import ame
from support import in_thread, run_script

pytestmark = pytest.mark.deadline(90)

PRELUDE = """
import sys, threading
import ame

ref = ame.Ref(0)

def generator():
    block = ame.atomic()
    block.__enter__()  # by hand, so that nothing can see the yield in it
    try:
        yield
    finally:
        block.__exit__(*sys.exc_info())

def in_thread(body):
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "hangs"

def usable():
    assert not ame.in_transaction()
    before = ref.value
    with ame.atomic():
        ref.value += 1
    in_thread(lambda: ref.update(lambda value: value + 1))
    assert ref.value == before + 2
"""


def test_exit_without_an_open_block_raises() -> None:
    with pytest.raises(ame.OpenBlockError, match="must end in the thread"):
        ame.atomic().__exit__(None, None, None)


def test_leaving_a_block_in_another_thread_raises_there_and_leaves_it_open_here() -> None:
    ref = ame.Ref(0)
    block = ame.atomic()

    def leave() -> None:
        with pytest.raises(ame.OpenBlockError):
            block.__exit__(None, None, None)

    with block:
        ref.value = 1
        in_thread(leave)
        assert ame.in_transaction()
        assert in_thread(lambda: ref.value) == 0
    assert ref.value == 1


@pytest.mark.parametrize(
    "body",
    [
        "yield",
        "x = (yield 1) or 2",
        "yield from ()",
        "for _ in range(3):\n            if _ == 2:\n                yield _",
        "try:\n            pass\n        finally:\n            yield",
        "with open('/dev/null'):\n            yield",
    ],
)
def test_yield_in_a_block_that_could_not_be_rewritten_is_refused_at_its_entry(body: str) -> None:
    space: dict[str, Any] = {"ame": ame}
    before = "    with open('/dev/null'):\n        yield 0\n"
    exec(f"def generator():\n{before}    with ame.atomic():\n        {body}\n", space)
    running = space["generator"]()
    assert next(running) == 0
    with pytest.raises(ame.OpenBlockError, match=r"yield or await inside of .*<string>:4"):
        next(running)
    assert not ame.in_transaction()


@pytest.mark.parametrize("body", ["await other()", "async for _ in other(): pass"])
def test_await_in_a_block_that_could_not_be_rewritten_is_refused_at_its_entry(body: str) -> None:
    space: dict[str, Any] = {"ame": ame}
    exec(f"async def main(other):\n    with ame.atomic():\n        {body}\n", space)
    with pytest.raises(ame.OpenBlockError, match=r"yield or await inside of .*<string>:2"):
        space["main"](None).send(None)


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    yield 1\n    with ame.atomic():\n        x = 2\n    yield x\n",
        "def f():\n    with open('/dev/null'):\n        yield 1\n        with ame.atomic():\n"
        "            x = 2\n        yield x\n",
        "def f():\n    for x in 1, 2:\n        with ame.atomic():\n            pass\n"
        "        with open('/dev/null'):\n            yield x\n",
        "def f():\n    try:\n        yield 1\n    finally:\n        with ame.atomic():\n"
        "            x = 2\n    yield x\n",
    ],
)
def test_generator_without_source_may_yield_around_its_blocks(source: str) -> None:
    space: dict[str, Any] = {"ame": ame}
    exec(source, space)
    assert list(space["f"]()) == [1, 2]


def test_generator_that_is_driven_to_its_end_commits() -> None:
    run_script(
        PRELUDE
        + """
it = generator()
next(it)
ref.value = 5
assert ame.in_transaction()
assert list(it) == []
assert ref.value == 5
usable()
"""
    )


def test_generator_that_is_closed_in_its_thread_rolls_back() -> None:
    run_script(
        PRELUDE
        + """
it = generator()
next(it)
ref.value = 5
it.close()
assert ref.value == 0
usable()
"""
    )


def test_generator_that_is_closed_in_another_thread_raises_there() -> None:
    run_script(
        PRELUDE
        + """
it = generator()
next(it)
seen = []
def close():
    try:
        it.close()
    except ame.OpenBlockError as error:
        seen.append(error)
in_thread(close)
assert len(seen) == 1
assert ame.in_transaction()
ame.atomic().__exit__(None, None, None)
usable()
"""
    )


def test_block_that_a_thread_leaves_open_ends_with_the_thread() -> None:
    run_script(
        PRELUDE
        + """
kept = []
def work():
    kept.append(generator())
    next(kept[0])
    ref.value = 5
in_thread(work)
assert ref.value == 0
usable()
"""
    )


def test_generator_from_an_earlier_block_cannot_end_a_later_one() -> None:
    run_script(
        PRELUDE
        + """
kept = []
@ame.atomic
def begin():
    kept.append(generator())
    next(kept[0])
try:
    begin()
except ame.OpenBlockError:
    pass
def body():
    ref.value = 1
    try:
        kept[0].close()
    except ame.OpenBlockError:
        pass
    ref.value = 2
    raise LookupError
try:
    ame.run(body)
except LookupError:
    pass
assert ref.value == 0
usable()
"""
    )


def test_exit_of_the_outer_block_inside_a_joined_function_raises_and_breaks_nothing() -> None:
    run_script(
        PRELUDE
        + """
block = ame.atomic()
try:
    with block:
        ame.run(block.__exit__, None, None, None)
except ame.OpenBlockError:
    pass
usable()
"""
    )


def test_exit_inside_an_atomic_function_raises_and_breaks_nothing() -> None:
    run_script(
        PRELUDE
        + """
try:
    ame.run(ame.atomic().__exit__, None, None, None)
except Exception:
    pass
usable()
"""
    )


def test_collection_while_an_upgrade_is_undone_does_not_hang() -> None:
    run_script(
        PRELUDE
        + """
import gc
class Knot:
    def __init__(self):
        self.knot = self
    def __del__(self):
        with ame.atomic():
            pass
attempts = []
def body():
    attempts.append(ref.value)
    if len(attempts) == 1:
        in_thread(lambda: setattr(ref, "value", 1))
    try:
        ame.irrevocable()
    finally:
        if len(attempts) == 1:
            Knot()
            gc.collect()
ame.run(body)
assert attempts == [0, 1]
usable()
""",
        timeout=8.0,
    )
