"""Finding source, proving that it is the running one, and remembering what was done."""

from __future__ import annotations

import doctest
import functools
import linecache
import os
import subprocess
import sys
import textwrap
import threading
import types
import zipfile
from pathlib import Path

import pytest

import rewriting
import stm
from ame._rewrite import (
    Refused,
    _engine,
    _registry,
    _resolve,
    doctor,
    first_call,
    first_entry,
    install,
    rewrite,
)
from ame._rewrite._codes import same_code
from rewriting import atomic

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    fake = rewriting.FakeRuntime()
    rewriting.not_by_itself(monkeypatch)
    monkeypatch.setattr(stm, "runtime", fake)
    monkeypatch.setattr(_resolve, "atomic_type", lambda: atomic)
    return fake


def asserting(x):
    with atomic():
        x += 1
        assert x == 2, f"x is {x}"
    assert [x] == [2]
    return x


@pytest.mark.skipif((3, 12) <= sys.version_info < (3, 14), reason="rewritten at its creation")
def test_a_function_whose_asserts_pytest_rewrote(runtime, monkeypatch):
    monkeypatch.setattr(atomic, "losses", 2)
    assert install(asserting)
    assert asserting(1) == 2
    assert runtime.attempts == 3
    with pytest.raises(AssertionError, match="x is 3\nassert 3 == 2"):
        asserting(2)


def test_changed_source_is_refused():
    namespace = rewriting.load("def f(x):\n    with atomic():\n        return x + 1\n")
    f = namespace["f"]
    name = f.__code__.co_filename
    lines = ["def f(x):\n", "    with atomic():\n", "        return x + 2\n"]
    linecache.cache[name] = len("".join(lines)), None, lines, name
    with pytest.raises(Refused, match="changed"):
        install(f)
    assert f(1) == 2


@pytest.mark.parametrize("constants", [("0.0", "-0.0"), ("1", "True"), ("'a'", "b'a'")])
def test_constants_that_are_equal_but_not_the_same_are_a_change(constants):
    text = "def f(x):\n    with atomic():\n        return x, {}\n"
    f = rewriting.load(text.format(constants[0].rjust(6)))["f"]
    name = f.__code__.co_filename
    lines = text.format(constants[1].rjust(6)).splitlines(keepends=True)
    linecache.cache[name] = 1, None, lines, name
    with pytest.raises(Refused, match="changed"):
        install(f)


def test_a_function_that_is_warm_is_the_same_function():
    f = rewriting.load(
        "def f(x):\n    with atomic():\n        for i in range(9): x += i\n    return x\n"
    )["f"]
    for _ in range(3000):
        f(1)
    assert install(f)
    assert f(1) == 37


def test_future_flags_are_kept():
    f = rewriting.load(
        "from __future__ import annotations\ndef f():\n    with atomic():\n"
        "        def g(x: undefined): pass\n    return g.__annotations__\n"
    )["f"]
    assert install(f)
    assert f() == {"x": "undefined"}


def test_no_source_is_refused():
    namespace = {"atomic": atomic}
    exec("def f():\n    with atomic():\n        pass\n", namespace)
    with pytest.raises(Refused, match="no source"):
        install(namespace["f"])


def test_no_blocks_is_nothing_to_do():
    f = rewriting.load("def f():\n    with open('x'):\n        pass\n")["f"]
    assert rewrite(f) is None
    assert not install(f)
    assert rewrite(lambda: 1) is None


def test_second_function_of_the_same_code_gets_the_same_new_code():
    f = rewriting.load("def f():\n    with atomic():\n        return 1\n")["f"]
    g = types.FunctionType(f.__code__, f.__globals__)
    assert install(f)
    assert install(g)
    assert f.__code__ is g.__code__
    assert not install(f)


NESTED = """
def outer():
    n = 5
    def inner(x):
        with atomic():
            x += n
        return x
    return inner
"""


def test_outer_function_makes_closures_that_are_ready(runtime):
    outer = rewriting.load(NESTED)["outer"]
    assert install(outer)
    inner = outer()
    assert not install(inner)
    assert inner(1) == 6
    assert runtime.attempts == 1


def test_inner_function_alone(runtime):
    outer = rewriting.load(NESTED)["outer"]
    inner, second = outer(), outer()
    assert install(inner)
    assert inner(1) == 6
    assert runtime.attempts == 1
    assert install(second)
    assert second.__code__ is inner.__code__
    assert second(2) == 7


ALIASES = {
    "name of type": ("tx", "def f():\n with tx(): return 1\n"),
    "object": ("block", "def f():\n with block: return 1\n"),
    "partial": ("make", "def f():\n with make(): return 1\n"),
    "module": ("mod", "def f():\n with mod.tx(): return 1\n"),
    "class": ("Holder", "def f():\n with Holder.block: return 1\n"),
    "rebound": ("tx", "def f():\n t = tx\n with t(): return 1\n"),
    "enclosing": ("tx", "def f():\n b = tx()\n def g():\n  with b: return 1\n return g()\n"),
    "choice": ("tx", "def f(x=1):\n with (tx() if x else open('x')): return 1\n"),
    "walrus": ("tx", "def f(x=1):\n with (b := tx()): return 1\n"),
    "local import": ("x", "def f():\n from fake_ame import atomic as a\n with a(): return 1\n"),
    "import as": ("x", "def f():\n import fake_ame as a\n with a.tx(): return 1\n"),
    "by name": ("x", "def f(m=x):\n with m.atomic(): return 1\n"),
}


@pytest.mark.parametrize("name", ALIASES)
def test_a_block_is_recognized(name, runtime, monkeypatch):
    module = types.ModuleType("fake_ame")
    module.atomic = module.tx = atomic
    monkeypatch.setitem(sys.modules, "fake_ame", module)
    values = {
        "tx": atomic,
        "block": atomic(),
        "make": functools.partial(atomic, label="x"),
        "mod": module,
        "Holder": type("Holder", (), {"block": atomic()}),
        "x": module,
    }
    key, text = ALIASES[name]
    f = rewriting.load(text, **{key: values[key]})["f"]
    assert install(f)
    assert f() == 1
    assert runtime.attempts == 1


def test_extra_lines_find_what_does_not_look_like_a_block(runtime):
    f = rewriting.load("def f(b):\n    with b[0]:\n        return 1\n")["f"]
    original = f.__code__
    assert not install(f)
    assert install(f, frozenset([2]))
    assert f([atomic()]) == 1
    assert runtime.attempts == 1
    g = types.FunctionType(original, f.__globals__)
    assert install(g)
    assert g.__code__ is f.__code__


def test_first_entry_prepares_the_next_call(runtime):
    namespace = rewriting.load(
        """
        def f(b):
            with atomic():
                x = 1
            with b:
                x += 1
            return x
        """,
    )
    seen = namespace["seen"] = []

    class Missed(atomic):
        def __enter__(self):
            frame = sys._getframe(1)
            if frame.f_code.co_filename == namespace["f"].__code__.co_filename:
                seen.append(frame.f_lineno)
                first_entry(frame)
            return super().__enter__()

    f = namespace["f"]
    namespace["atomic"] = Missed
    other = Missed()
    assert f(other) == 2
    assert seen == [3, 5]
    assert f(other) == 2
    assert seen == [3, 5]
    assert runtime.attempts == 2


def test_first_entry_finds_a_closure_and_its_maker():
    namespace = rewriting.load(NESTED)
    inner = namespace["outer"]()

    class Missed(atomic):
        def __enter__(self):
            first_entry(sys._getframe(1))

    namespace["atomic"] = Missed
    before = inner.__code__
    inner(1)
    assert inner.__code__ is not before
    assert namespace["outer"]().__code__ is inner.__code__ or not install(namespace["outer"]())


def test_first_entry_at_module_level_is_registered_once(capsys, monkeypatch):
    monkeypatch.setenv("AME_DEBUG", "1")

    class Missed(atomic):
        def __enter__(self):
            first_entry(sys._getframe(1))

    source = """
    for i in range(2):
        with Missed():
            pass
    class A:
        with Missed():
            pass
    """
    namespace = rewriting.load("")
    name = rewriting.load(source, Missed=Missed)["A"].__module__
    assert name == "loaded"
    del namespace
    found = [each for each in doctor().blocks if each.reason in ("module level", "class body")][-2:]
    assert [(each.line, each.reason, each.entries) for each in found] == [
        (3, "module level", 1),
        (6, "class body", 1),
    ]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("ame: the block at <rewriting-")
    assert first.endswith(":3 in <module> runs irrevocably: module level")
    assert second.endswith(":6 in A runs irrevocably: class body")


def test_first_call_never_raises(monkeypatch):
    namespace = {"atomic": atomic}
    exec("def f():\n    with atomic():\n        pass\n", namespace)
    first_call(namespace["f"])
    assert [each.reason for each in doctor().blocks if each.filename == "<string>"] == ["no source"]

    def broken(*a):
        raise RuntimeError("broken")

    g = rewriting.load("def g():\n    with atomic():\n        pass\n")["g"]
    monkeypatch.setattr(_engine, "find", broken)
    first_call(g)
    (found,) = [each for each in doctor().blocks if each.filename == g.__code__.co_filename]
    assert found.line == 2
    assert found.reason is not None and "RuntimeError: broken" in found.reason


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_first_call_lets_out_what_must_not_be_held_back(error, monkeypatch):
    def broken(*a):
        raise error

    g = rewriting.load("def g():\n    with atomic():\n        pass\n")["g"]
    monkeypatch.setattr(_engine, "find", broken)
    with pytest.raises(error):
        first_call(g)


def test_doctor_lists_what_was_rewritten():
    f = rewriting.load("class A:\n  def f():\n    with atomic():\n        pass\n")["A"].f
    install(f)
    (found,) = [each for each in doctor().blocks if each.filename == f.__code__.co_filename]
    assert (found.line, found.function, found.reason, found.entries) == (3, "A.f", None, 0)
    assert f"{found.filename}:3 in A.f: re-executable" in str(doctor())


def test_doctest_source():
    def example():
        """
        >>> from rewriting import atomic
        >>> from ame._rewrite import install
        >>> def f(x):
        ...     with atomic():
        ...         x += 1
        ...     return x
        >>> install(f)
        True
        >>> f(1)
        2
        """

    test = doctest.DocTestFinder().find(example, "example", globs={})[0]
    assert doctest.DocTestRunner().run(test).failed == 0


def test_source_in_a_zip(tmp_path, monkeypatch, runtime):
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as file:
        file.writestr(
            "zipped_blocks.py",
            "from rewriting import atomic\ndef f():\n    with atomic():\n        return 1\n",
        )
    monkeypatch.syspath_prepend(str(tmp_path / "lib.zip"))
    import zipped_blocks

    assert install(zipped_blocks.f)
    assert zipped_blocks.f() == 1
    assert runtime.attempts == 1


def test_many_threads_install_once():
    f = rewriting.load("def f():\n    with atomic():\n        return 1\n")["f"]
    functions = [types.FunctionType(f.__code__, f.__globals__) for _ in range(20)]
    start = threading.Barrier(4)
    results = []

    def work(part):
        start.wait()
        results.extend(install(each) for each in part)

    threads = [threading.Thread(target=work, args=(functions,)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(results) == 20
    assert len({id(each.__code__) for each in functions}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_another_thread_holds_the_lock():
    f = rewriting.load("def f():\n    with atomic():\n        return 1\n")["f"]
    held, done = threading.Event(), threading.Event()

    def hold():
        with _registry.registry.lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if _registry.registry.lock.acquire(timeout=5) and install(f) else 1)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_import_ame_does_not_import_the_rewriter():
    code = "import sys, ame; print('ame._rewrite' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"


def test_module_whose_imports_the_function_uses(tmp_path, monkeypatch, runtime):
    (tmp_path / "importing_blocks.py").write_text(
        textwrap.dedent(
            """
            from __future__ import annotations
            import rewriting, collections
            try:
                import json as j
            except ImportError:
                j = None
            if True:
                from os import path
            class A:
                import random
                def f(self, x):
                    with rewriting.atomic():
                        x += len(collections.OrderedDict(a=1)) + j.loads("1")
                        path.join("a", "b")
                    return x
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import importing_blocks

    assert install(importing_blocks.A.f)
    assert importing_blocks.A().f(1) == 3
    assert runtime.attempts == 1


@pytest.mark.parametrize(
    "constants", [(0.0, -0.0), (1, True), ((1,), (1.0,)), ((0j,), (-0j,)), ("a", b"a")]
)
def test_codes_with_equal_constants_of_other_kinds_differ(constants):
    code = compile("x = 'here'", "<x>", "exec")
    first, second = (code.replace(co_consts=(each,)) for each in constants)
    assert same_code(first, first.replace(co_filename="elsewhere"))
    assert not same_code(first, second)
