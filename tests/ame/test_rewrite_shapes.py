"""Results of rewritten functions don't depend on how often their blocks lose."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

import pytest

import rewriting
import stm
from ame._rewrite import _resolve, install

_spec = importlib.util.spec_from_file_location(
    "rewrite_shapes", Path(__file__).with_name("rewrite_shapes.py")
)
assert _spec is not None and _spec.loader is not None
shapes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shapes)


@pytest.fixture
def runtime(monkeypatch):
    fake = rewriting.FakeRuntime()
    rewriting.not_by_itself(monkeypatch)
    monkeypatch.setattr(stm, "runtime", fake)
    monkeypatch.setattr(_resolve, "atomic_type", lambda: rewriting.atomic)
    return fake


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_shape_gives_the_same_result_however_often_it_loses(name, runtime):
    shapes.check(name, runtime, install)


LEAVES = {
    "yield": "def f():\n with atomic():\n  x = yield 1\n",
    "bare yield": "def f():\n with atomic():\n  x = [(yield)]\n",
    "yield from": "def f():\n with atomic():\n  yield from [1]\n",
    "default": "def f():\n with atomic():\n  def g(a=(yield)): pass\n",
    "nested blocks": "def f():\n with atomic():\n  with open(__file__):\n   yield 1\n",
    "inner foreign": "def f():\n with atomic():\n  with foreign.atomic():\n   yield 1\n",
    "await": "async def f():\n with atomic():\n  await x()\n",
    "async for": "async def f():\n with atomic():\n  async for i in x(): pass\n",
    "async with": "async def f():\n with atomic():\n  async with x(): pass\n",
    "comprehension": "async def f():\n with atomic():\n  [i async for i in x()]\n",
    "await inside": "async def f():\n with atomic():\n  [await i for i in [x()]]\n",
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaving_an_open_block_is_an_error(name, runtime, recwarn):
    class Foreign:
        def atomic(self):
            return contextlib.nullcontext()

    async def x():
        raise AssertionError("reached")

    namespace = rewriting.load(LEAVES[name], x=x, __file__=__file__, foreign=Foreign())
    assert install(namespace["f"])
    with pytest.raises(rewriting.OpenBlock):
        namespace["f"]().send(None)
    if name == "await":
        assert [str(each.message) for each in recwarn] == []


def test_yield_after_the_block_is_none(runtime):
    f = rewriting.load("def f():\n with atomic():\n  x = 1\n yield x\n")["f"]
    assert install(f)
    assert list(f()) == [1]


def test_locals_look_as_written(runtime, monkeypatch):
    monkeypatch.setattr(rewriting.atomic, "losses", 2)
    f = rewriting.load(
        """
        def f(keep):
            for i in range(2):
                with atomic() as t:
                    keep.append(sorted(locals()))
                    z = 1
                    if i == 1:
                        break
        """
    )["f"]
    assert install(f)
    f(keep := [])
    later = ["i", "keep", "t", "z"]
    first = ["i", "keep", "t"]
    assert keep[:4] == [first] * 3 + [later]
    assert [each for each in keep[4] if not each.startswith(".")] == later


def test_a_free_variable_of_the_class_cell_is_kept(runtime):
    namespace = rewriting.load(
        """
        class A:
            def g(self):
                def inner():
                    with atomic():
                        x = __class__
                    return x
                return inner
        """
    )
    inner = namespace["A"]().g()
    assert install(inner)
    assert inner() is namespace["A"]


def _lines(f):
    """The lines that run in `f`, each once."""
    lines = []

    def trace(frame, event, argument):
        if frame.f_code.co_name == "f":
            if event == "line" and frame.f_lineno not in lines:
                lines.append(frame.f_lineno)
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        f()
    finally:
        sys.settrace(before)
    return lines


TRACED = """
def f():
    out = []
    for i in range(3):
        with atomic(
            label="x",
        ) as t, atomic():
            z = i
            if z == 1:
                continue
        out.append(z)
    with open(path) as g, atomic():
        return 1
"""


def test_lines_that_run_are_those_of_the_source(runtime):
    expected = _lines(rewriting.load(TRACED, path=__file__)["f"])
    f = rewriting.load(TRACED, path=__file__)["f"]
    assert install(f)
    assert set(_lines(f)) == set(expected)


def test_tracebacks_are_those_of_the_source(runtime):
    text = "def f(x):\n    with atomic():\n        y = 1\n        y / x\n"

    def entries(f):
        with pytest.raises(ZeroDivisionError) as info:
            f(0)
        result, tb = [], info.value.__traceback__
        while tb is not None:
            positions = list(tb.tb_frame.f_code.co_positions())[tb.tb_lasti // 2]
            result.append((tb.tb_frame.f_code.co_qualname, tb.tb_lineno, positions))
            tb = tb.tb_next
        return result[1:]

    expected = entries(rewriting.load(text)["f"])
    f = rewriting.load(text)["f"]
    assert install(f)
    assert entries(f) == expected
    assert expected[0][1] == 4


def test_an_error_of_the_manager_is_on_its_line(runtime):
    text = "def f():\n    with (\n        atomic(\n            nothing)\n    ):\n        y = 1\n"
    f = rewriting.load(text)["f"]
    assert install(f)
    with pytest.raises(NameError, match="nothing") as info:
        f()
    assert info.traceback[-1].lineno + 1 == 4
