"""Functions whose results must not change however often their blocks lose.

Also a program, for interpreters without the extension and pytest: `python rewrite_shapes.py`.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

# Each is a module with a function `f` that is called without arguments. `keep` is a list that
# survives attempts; a shape may look at it only to do something else in a later attempt.
SHAPES = {
    "augmented": """
        def f():
            x = 1
            with atomic():
                x += 1
            return x, sorted(locals())
    """,
    "parameter": """
        def f(x=3, *a, k=1, **kw):
            with atomic() as t:
                x *= 2
                k += 1
                a += (1,)
                kw = {**kw, "a": 1}
            return x, k, a, kw, t.label
    """,
    "unbound": """
        def f():
            with atomic():
                bound = "z" in locals()
                z = 1
            return bound, z
    """,
    "maybe in loop": """
        def f():
            seen = []
            for i in range(3):
                with atomic():
                    before = sorted(set(locals()) - {"seen"})
                    z = i
                seen.append((before, z))
            return seen
    """,
    "maybe by branch": """
        def f():
            result = []
            def g(flag):
                if flag:
                    z = 10
                with atomic("x"):
                    try:
                        z += 1
                    except NameError:
                        z = 0
                return z
            return g(True), g(False)
    """,
    "complex manager": """
        def f():
            def g(flag):
                if flag:
                    z = 10
                with atomic(label=(y := str(flag))):
                    had = "z" in locals()
                    z = y
                return had, z
            return g(True), g(False)
    """,
    "manager raises": """
        def bad(**kw):
            raise ValueError
        def f():
            def g(flag, atomic):
                if flag:
                    z = 10
                try:
                    with atomic(label="x"):
                        z = 2
                except ValueError:
                    return "z" in locals()
            return g(True, bad), g(False, bad), g(False, atomic)
    """,
    "walrus reads true state": """
        def f():
            for i in range(2):
                with atomic(label=(z := i)):
                    z += 1
            return z
    """,
    "break and continue": """
        def f():
            out = []
            for i in range(10):
                with atomic():
                    n = i
                    if i % 2:
                        continue
                    if i == 6:
                        break
                out.append((n, sorted(locals())))
            else:
                out.append("else")
            return out
    """,
    "break in inner loop": """
        def f():
            out = []
            for i in range(3):
                with atomic():
                    total = 0
                    for j in range(10):
                        if j == i:
                            break
                        if j == 1:
                            continue
                        total += j
                    else:
                        continue
                    while True:
                        break
                    else:
                        break
                out.append(total)
            return out
    """,
    "break from else": """
        def f():
            for i in range(5):
                with atomic():
                    for j in range(2):
                        pass
                    else:
                        if i == 3:
                            break
            return i
    """,
    "break through two": """
        def f():
            for i in range(9):
                with atomic():
                    n = i
                    with atomic():
                        n += 1
                        if i == 2:
                            continue
                        if i > 4:
                            break
                    n += 10
            return n, i
    """,
    "return": """
        def f():
            for i in range(3):
                with atomic():
                    x = i
                    if i == 1:
                        return x, i
    """,
    "lost return, then none": """
        def f():
            keep = []
            def g():
                with atomic() as t:
                    keep.append(1)
                    if len(keep) > t.left:
                        pass
                    else:
                        return "early"
                return "late"
            return g()
    """,
    "lost break, then none": """
        def f():
            keep = []
            out = []
            for i in range(2):
                with atomic() as t:
                    keep.append(1)
                    if len(keep) <= t.left:
                        break
                out.append(i)
            return out
    """,
    "lost continue, then break": """
        def f():
            keep = []
            out = []
            for i in range(3):
                with atomic() as t:
                    keep.append(1)
                    if len(keep) <= t.left:
                        continue
                    break
                out.append(i)
            return i, out
    """,
    "exception": """
        def f():
            x = 0
            try:
                with atomic():
                    x += 1
                    raise KeyError(x)
            except KeyError as error:
                return x, error.args, error.__context__
    """,
    "lost exception": """
        def f():
            keep = []
            with atomic() as t:
                keep.append(1)
                if len(keep) <= t.left:
                    raise KeyError
            return "fine"
    """,
    "finally": """
        def f():
            out = []
            x = 0
            try:
                with atomic():
                    try:
                        x += 1
                        return x
                    finally:
                        x += 10
            finally:
                out.append(x)
    """,
    "deletes": """
        def f(a=1):
            b = 2
            with atomic():
                del a
                del b
            return sorted(locals())
    """,
    "except as": """
        def f():
            e = 5
            with atomic():
                old = e
                try:
                    1 / 0
                except ZeroDivisionError as e:
                    pass
            return old, sorted(locals())
    """,
    "imports and definitions": """
        def f():
            os = g = C = 1
            with atomic():
                seen = os, g, C
                import os.path
                from sys import path as p
                def g(): return 2
                class C: x = 1
            return seen, os.__name__, g(), C.x, type(p)
    """,
    "match": """
        def f():
            a = rest = k = 0
            with atomic():
                seen = a, rest, k
                match [1, 2, 3]:
                    case [a, *rest]:
                        pass
                match {"a": 1, "b": 2}:
                    case {"a": one, **k}:
                        pass
                match 5:
                    case int() as n:
                        pass
            return seen, a, rest, k, one, n
    """,
    "walrus in comprehension": """
        def f():
            last = 7
            with atomic():
                seen = last
                every = [last := i for i in range(3)]
            return seen, last, every, sorted(locals())
    """,
    "targets": """
        def f():
            i = a = b = 0
            class Box: pass
            box = Box()
            with atomic() as box.t:
                seen = i, a, b
                for i, (a, *b) in [(1, (2, 3))]:
                    pass
                n: int = 4
                q: int
            return seen, i, a, b, n, sorted(locals())
    """,
    "nonlocal of a nested function": """
        def f():
            count = 0
            def add():
                nonlocal count
                count += 1
            with atomic():
                add()
                add()
            return count
    """,
    "nonlocal deep": """
        def f():
            count = 0
            class Adder:
                def add(self):
                    def deep():
                        nonlocal count
                        count += 1
                    deep()
            with atomic():
                Adder().add()
            return count
    """,
    "own nonlocal": """
        def f():
            count = 0
            def g():
                nonlocal count
                with atomic():
                    count += 1
            g()
            g()
            return count
    """,
    "mangled": """
        class A:
            def g(self, __p=1):
                if self:
                    __q = 1
                with atomic(label=str(1)):
                    __p += 1
                    __q += 1
                return __p, __q, sorted(locals())
        def f():
            return A().g()[:2], A().g()[2][0]
    """,
    "super": """
        class A:
            def g(self): return 1
        class B(A):
            def g(self):
                with atomic():
                    x = super().g() + 1
                return x, __class__.__name__
        def f():
            return B().g()
    """,
}

SHAPES_312 = {
    "generic": """
        class A[T]:
            def g[U](self, x: T, y: U):
                with atomic():
                    x += 1
                    type z = U
                return x, z.__name__, __class__.__name__, T.__name__
        def f():
            return A().g(1, 2)
    """,
    "generic function": """
        def g[T](x: T = 1):
            with atomic():
                x += 1
            return x, T.__name__
        def f():
            return g()
    """,
}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rewriting_shapes import MORE  # noqa: E402

SHAPES |= MORE
if sys.version_info >= (3, 12):
    SHAPES |= SHAPES_312


def functions_of(namespace):
    """Returns the functions of a shape, in its classes too."""
    found = []
    for value in namespace.values():
        inside = vars(value).values() if isinstance(value, type) else [value]
        found += [each for each in inside if isinstance(each, types.FunctionType)]
    return [each for each in found if each.__globals__ is namespace]


def check(name, runtime, install):
    """Checks one shape: plain, and rewritten with 0, 1 and 3 lost attempts per block."""
    from rewriting import atomic, load

    source = SHAPES[name]
    atomic.losses = 0
    expected = load(source)["f"]()
    for losses in (0, 1, 3):
        namespace = load(source)
        changed = [install(each) for each in functions_of(namespace)]
        assert any(changed), f"{name}: nothing was rewritten"
        before, atomic.losses = runtime.attempts, losses
        try:
            found = namespace["f"]()
        finally:
            atomic.losses = 0
        assert found == expected, f"{name}, {losses} lost: {found!r}, not {expected!r}"
        if name != "foreign":
            assert runtime.attempts - before > losses, f"{name}: not re-executed"
        assert not runtime.open, name


def main():
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root / "tests")]
    for package in ("ame", "stm"):  # without what their __init__ imports
        module = types.ModuleType(package)
        module.__path__ = [str(root / package)]
        sys.modules[package] = module
    import rewriting
    from ame._rewrite import _resolve, install

    runtime = rewriting.patched(_resolve, sys.modules["stm"])
    for name in SHAPES:
        try:
            check(name, runtime, install)
        except Exception as error:
            import traceback

            traceback.print_exc(limit=-3)
            print("FAILED", name, repr(error)[:300])
    print(sys.version.split()[0], len(SHAPES), "shapes")


if __name__ == "__main__":
    main()
