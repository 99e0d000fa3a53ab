"""Functions are rewritten without being asked: at their creation, first call or first entry."""

from __future__ import annotations

import itertools
import linecache
import sys
import textwrap
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import ame
from stm import testing
from support import run_script, run_threads, wait_for

pytestmark = pytest.mark.deadline(60)
at_creation = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="3.11 has no function watchers: at the first entry only"
)
numbers = itertools.count()


def load(source: str, **names: Any) -> SimpleNamespace:
    filename = f"<install-{next(numbers)}>"
    text = textwrap.dedent(source)
    linecache.cache[filename] = len(text), None, text.splitlines(keepends=True), filename
    namespace = {"__name__": "loaded", "ame": ame, **names}
    exec(compile(text, filename, "exec", dont_inherit=True), namespace)
    return SimpleNamespace(**namespace)


def runs_of(function: Any) -> int:
    """Return how often a block runs that loses its first two attempts; it counts itself."""
    count: list[int] = []
    with testing.forced_aborts(2):
        function(count)
    return len(count)


BODY = """
def function(count):
    with ame.atomic():
        count.append(1)
"""


@at_creation
def test_first_call_is_optimistic() -> None:
    assert runs_of(load(BODY).function) == 3


@at_creation
def test_every_function_of_one_call_site_is_optimistic_from_its_first_call() -> None:
    """Catches: specialised calls of 3.12 and 3.13, which pass the entry point by."""
    for number in range(10):
        count: list[int] = []
        with testing.forced_aborts(1):
            load(BODY).function(count)
        assert len(count) == 2, number


def test_call_after_the_first_is_optimistic() -> None:
    function = load(BODY).function
    function([])
    assert runs_of(function) == 3


@at_creation
@pytest.mark.parametrize(
    "source",
    [
        "from ame import atomic as tx\ndef function(count):\n    with tx():\n"
        "        count.append(1)\n",
        "block = ame.atomic(label='x')\ndef function(count):\n    with block:\n"
        "        count.append(1)\n",
        "def function(count):\n    import ame as engine\n    with engine.atomic():\n"
        "        count.append(1)\n",
        "def outer(count):\n    def inner():\n        with ame.atomic():\n"
        "            count.append(1)\n    inner()\nfunction = outer\n",
        "class A:\n    def method(self, count):\n        super().__init__()\n"
        "        with ame.atomic():\n            count.append(1)\nfunction = A().method\n",
        "import functools\n@functools.lru_cache\ndef cached():\n    return 1\n"
        "@functools.wraps(cached)\ndef function(count, *, n=1, **kw):\n    with ame.atomic():\n"
        "        count.append(n)\n",
    ],
    ids=["alias", "object", "local import", "nested", "super", "defaults"],
)
def test_kind_of_function_is_seen(source: str) -> None:
    assert runs_of(load(source).function) == 3


@at_creation
def test_loop_for_ever_is_optimistic_from_its_first_iteration() -> None:
    started, stop = threading.Event(), threading.Event()
    seen: list[bool] = []
    loop = load(
        """
        def loop(seen, started, stop):
            while not stop.is_set():
                with ame.atomic():
                    seen.append(current().irrevocable)
                started.set()
        """,
        current=ame.current,
    ).loop

    def watch() -> None:
        wait_for(started)
        stop.set()

    run_threads(lambda: loop(seen, started, stop), watch)
    assert not any(seen)


def test_two_threads_that_call_it_first_both_commit() -> None:
    for _ in range(20):
        ref = ame.Ref(0)
        module = load(
            """
            def function():
                with ame.atomic():
                    ref.value += 1
            """,
            ref=ref,
        )
        run_threads(*[module.function] * 4)
        assert ref.value == 4


def test_missed_block_is_irrevocable_and_optimistic_in_the_next_call() -> None:
    """A manager that comes in as an argument cannot be seen in the source."""
    module = load("def function(count, block):\n    with block:\n        count.append(1)\n")
    assert runs_of(lambda count: module.function(count, ame.atomic())) == 1
    assert runs_of(lambda count: module.function(count, ame.atomic())) == 3


def test_module_level_is_irrevocable_and_doctor_says_why() -> None:
    module = load("seen = []\nwith ame.atomic():\n    seen.append(ame.current().irrevocable)\n")
    assert module.seen == [True]
    text = str(ame.doctor())
    assert "module level" in text


def test_running_frame_goes_on_irrevocably() -> None:
    module = load(
        """
        def function(seen, block):
            for _ in range(3):
                with block:
                    seen.append(ame.current().irrevocable)
        """
    )
    seen: list[bool] = []
    module.function(seen, ame.atomic())
    assert seen == [True] * 3


def test_function_without_blocks_keeps_its_code() -> None:
    module = load("def function(atomic):\n    return atomic\n")
    code = module.function.__code__
    assert module.function(1) == 1
    assert module.function.__code__ is code


def test_debug_variable_names_the_block_and_the_reason() -> None:
    done = run_script("import ame\nwith ame.atomic():\n    pass\n", environment={"AME_DEBUG": "1"})
    assert "runs irrevocably: module level" in done.stderr


def test_import_of_ame_does_not_import_the_rewriter() -> None:
    run_script("import ame, sys\nassert 'ame._rewrite' not in sys.modules\n")
