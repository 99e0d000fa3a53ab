"""`prepare` reaches every function of what it is given, or says why not."""

from __future__ import annotations

import types

import pytest

import ame
import rewriting
import stm
from ame._rewrite import _resolve, prepare
from rewriting import atomic


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    fake = rewriting.FakeRuntime()
    rewriting.not_by_itself(monkeypatch)
    monkeypatch.setattr(stm, "runtime", fake)
    monkeypatch.setattr(_resolve, "atomic_type", lambda: atomic)
    return fake


PREPARED = """
import functools, contextlib
def deco(fn):
    @functools.wraps(fn)
    def wrapper(*a): return fn(*a)
    return wrapper
class A:
    def m(self):
        with atomic(): return 1
    @classmethod
    def c(cls):
        with atomic(): return 2
    @staticmethod
    def s():
        with atomic(): return 3
    @property
    def p(self):
        with atomic(): return 4
    @deco
    def d(self):
        with atomic(): return 5
    @functools.cached_property
    def k(self):
        with atomic(): return 6
    class B:
        def m(self):
            with atomic(): return 7
def f():
    with atomic(): return 8
@deco
def g():
    with atomic(): return 9
"""


def _all(namespace):
    a = namespace["A"]()
    calls = [a.m(), a.c(), a.s(), a.p, a.d(), a.k, a.B().m(), namespace["f"](), namespace["g"]()]
    return sum(calls)


def test_prepare_a_module(runtime):
    namespace = rewriting.load(PREPARED)
    module = types.ModuleType("loaded")
    vars(module).update(namespace)
    assert prepare(module) is module
    assert _all(namespace) == 45
    assert runtime.attempts == 9


def test_prepare_a_class_and_functions(runtime):
    namespace = rewriting.load(PREPARED)
    a = namespace["A"]
    assert prepare(a) is a
    for name in "fg":
        assert prepare(namespace[name]) is namespace[name]
    assert _all(namespace) == 45
    assert runtime.attempts == 9


def test_prepare_descriptors_and_methods(runtime):
    namespace = rewriting.load(PREPARED)
    a = namespace["A"]
    prepare(a().m)
    for name in "cspdk":
        assert prepare(vars(a)[name]) is vars(a)[name]
    prepare(a.B.m)
    assert sum([a().m(), a.c(), a.s(), a().p, a().d(), a().k, a.B().m()]) == 28
    assert runtime.attempts == 7


def test_prepare_an_atomic_function(runtime):
    f = rewriting.load(PREPARED)["f"]
    wrapped = ame.atomic(f)
    assert prepare(wrapped) is wrapped
    assert f() == 8
    assert runtime.attempts == 1


def test_prepare_says_why_not():
    namespace = {"atomic": atomic, "__name__": "loaded"}
    exec("def f():\n    with atomic():\n        pass\ndef g(): pass\n", namespace)
    with pytest.raises(ame.TransactionError, match=r"f \(<string>:1\).*no source"):
        prepare(namespace["f"])
    assert prepare(namespace["g"]) is namespace["g"]
    holder = type("Holder", (), {"f": namespace["f"], "__module__": "loaded"})
    assert prepare(holder) is holder
    with pytest.raises(TypeError, match="'int'"):
        prepare(3)
