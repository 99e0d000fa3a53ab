"""Stand-ins for the runtime of rewritten functions, and functions from text, for their tests.

Plain Python without the extension, so that it runs on any interpreter.
"""

from __future__ import annotations

import builtins
import itertools
import linecache
import textwrap
from types import SimpleNamespace

_numbers = itertools.count()


class atomic:
    """Like `ame.atomic()`, and loses its first `losses` attempts when it is rewritten."""

    losses = 0

    def __init__(self, label=None, **options):
        self.label = label
        self.left = type(self).losses
        self.entered = 0

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, kind, error, traceback):
        return False


class Rerun(BaseException):
    pass


class Site:
    def __init__(self, filename, line, qualname):
        self.where = filename, line, qualname


class _Attempt:
    def __init__(self, runtime, site, manager):
        self.runtime, self.site, self.manager, self.committed = runtime, site, manager, False
        self.left = manager.left

    def __enter__(self):
        self.runtime.open.append(self)
        return self.manager.__enter__()

    def __exit__(self, kind, error, traceback):
        assert self.runtime.open.pop() is self
        if self.left == 0:
            self.committed = True
            return self.manager.__exit__(kind, error, traceback)
        self.left -= 1
        if kind is None:
            raise Rerun
        return True


class OpenBlock(Exception):
    pass


class FakeRuntime(SimpleNamespace):
    """What `stm.runtime` is to rewritten code."""

    NameError = builtins.NameError
    UNBOUND = type("UNBOUND", (), {"__repr__": lambda self: "UNBOUND"})()
    Rerun = Rerun
    site = Site

    def __init__(self):
        super().__init__(open=[], pending=[], attempts=0)

    def block(self, site, manager, /, *saved):
        assert isinstance(site, Site)
        if not isinstance(manager, atomic):
            self.pending.append(manager)
            yield saved
            return
        attempt = _Attempt(self, site, manager)
        while not attempt.committed:
            self.pending.append(attempt)
            self.attempts += 1
            yield saved

    def attempt(self):
        return self.pending.pop()

    def leaving(self, site, value):
        if any(each.site is site for each in self.open):
            raise OpenBlock
        return value

    def block_in(self, site, manager, namespace, names):
        saved = {name: namespace[name] for name in names if name in namespace}
        for _ in self.block(site, manager):
            for name in names:
                namespace.pop(name, None)
            namespace.update(saved)
            yield ()


def load(source, **names):
    """Runs `source` as a module, with source, and returns its globals."""
    filename = f"<rewriting-{next(_numbers)}>"
    text = textwrap.dedent(source)
    linecache.cache[filename] = len(text), None, text.splitlines(keepends=True), filename
    namespace = {"__name__": "loaded", "atomic": atomic, **names}
    exec(compile(text, filename, "exec", dont_inherit=True), namespace)
    return namespace


def patched(resolve, package):
    """Has the rewriter take `atomic` for `ame.atomic`; returns the runtime that it will use."""
    runtime = FakeRuntime()
    resolve.atomic_type = lambda: atomic
    package.runtime = runtime
    return runtime


def not_by_itself(monkeypatch):
    """Keeps the extension from having functions rewritten that a test has just made."""
    from ame import _rewrite

    for name in ("first_call", "first_entry", "new_code"):
        monkeypatch.setattr(_rewrite, name, lambda *arguments: None)
