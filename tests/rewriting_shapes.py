"""More of the functions of tests/ame/rewrite_shapes.py."""

MORE = {
    "several items": """
        import contextlib
        def f():
            out = []
            @contextlib.contextmanager
            def cm(name):
                yield name
            with cm("a") as a, atomic() as t, cm("b") as b, atomic() as u, cm(a + b) as c:
                x = a, b, c
            with (atomic() as t, cm("z") as z):
                x += (z,)
            return x, sorted(locals())
    """,
    "nested blocks": """
        def f():
            x = 0
            with atomic():
                x += 1
                with atomic():
                    x += 10
                    y = x
                x += 100
                with atomic():
                    y += 1000
            return x, y
    """,
    "foreign": """
        class Foreign:
            def __init__(self): self.log = []
            def __enter__(self): self.log.append("in"); return self
            def __exit__(self, *e): self.log.append(e[0]); return True
            def atomic(self): return self
        def f():
            db = Foreign()
            out = []
            for i in range(3):
                with db.atomic() as t:
                    x = i
                    if i == 1:
                        raise KeyError
                    if i == 2:
                        break
                out.append(x)
            return out, db.log, t is db
    """,
    "stored manager": """
        def f():
            block = atomic(label="b")
            x = 0
            with block:
                x += 1
            with block:
                x += 1
            return x
    """,
    "generator": """
        def g(n):
            total = 0
            while total < n:
                with atomic():
                    total += 1
                got = yield total
        def f():
            return list(g(3))
    """,
    "async": """
        async def g(n):
            total = 0
            with atomic():
                total += n
            return total
        def f():
            try:
                g(3).send(None)
            except StopIteration as stop:
                return stop.value
    """,
    "no block in a nested scope": """
        def f():
            x = 1
            with atomic():
                def g():
                    x = 5
                    y = yield x
                h = lambda: (yield 3)
                inside = list(h()), list(g())
                c = [x for x in range(3)]
                x += 1
            return x, list(g()), list(h()), c, inside
    """,
    "try star": """
        def f():
            x = 0
            try:
                with atomic():
                    x += 1
                    raise ExceptionGroup("g", [KeyError(1), ValueError(2)])
            except* KeyError as group:
                x += 10
            except* ValueError as group:
                x += 100
            return x
    """,
    "docstring and defaults": """
        def f():
            def g(a, b=[1], *, c={}):
                "doc"
                with atomic():
                    a += 1
                return a, b, c
            return g(1), g.__doc__, g.__defaults__, g.__kwdefaults__
    """,
    "shadowed builtins": """
        def f():
            NameError = locals = globals = getattr = None
            for i in range(2):
                with atomic(label=str(i)):
                    z = i
                with atomic():
                    y = i
            return z, y
    """,
    "comprehension variable of a global's name": """
        i = "global"
        def f():
            with atomic():
                c = [i for i in range(3)] + [k for i in range(2) for k in range(i)]
            return i, c
    """,
    "deleted before by chance": """
        def f():
            def g(flag, p=1):
                q = 2
                if flag:
                    del p, q
                with atomic():
                    p = q = 3
                return p, q
            return g(0), g(1)
    """,
    "manager looks at locals": """
        def f():
            with open(__import__("os").devnull):
                if 0:
                    z = 1
                with atomic(label="z" in locals()) as t:
                    z = 2
                return t.label, z
    """,
    "closure made in block": """
        def f():
            fs = []
            for i in range(3):
                with atomic():
                    n = i * 2
                    g = lambda: n
                fs = [*fs, g]
            return [g() for g in fs]
    """,
}
