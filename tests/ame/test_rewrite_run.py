"""`python -m ame run` is `python` with the blocks at module level rewritten too."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import rewriting
import stm
from ame._rewrite import _resolve, doctor, install
from rewriting import atomic

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    fake = rewriting.FakeRuntime()
    rewriting.not_by_itself(monkeypatch)
    monkeypatch.setattr(stm, "runtime", fake)
    monkeypatch.setattr(_resolve, "atomic_type", lambda: atomic)
    return fake


def _run(tmp_path, source, *arguments, name="script.py"):
    (tmp_path / name).write_text(textwrap.dedent(source))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PROGRAM = """
import sys
import ame
keep = []
class fake(ame.Ref): pass
x = 1
for i in range(3):
    with ame.atomic():
        x += 1
        new = i
        if i == 1:
            break
print(x, new, i, sys.argv[1:], __name__, sorted(n for n in globals() if n.startswith(".")))
print(__file__, sys.path[0].endswith({path!r}), sys.modules["__main__"].x)
"""


@pytest.mark.parametrize("module", [False, True])
def test_run_is_like_python(tmp_path, module):
    source = PROGRAM.format(path=tmp_path.name)
    how = ["-m", "script"] if module else ["script.py"]
    plain = _run(tmp_path, source, *how, "a", "-m", "--b")
    ours = _run(tmp_path, source, "-m", "ame", "run", *how, "a", "-m", "--b")
    assert plain.stdout, plain.stderr
    assert (ours.stdout, ours.stderr, ours.returncode) == (plain.stdout, "", 0)


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.exit(3)\n",
        "raise SystemExit('message')\n",
        "def f():\n    1 / 0\nf()\n",
        "x = (\n",
        "import nothing_of_that_name\n",
        "open('no such file')\n",
    ],
)
def test_run_ends_like_python(tmp_path, source):
    plain = _run(tmp_path, source, "script.py")
    ours = _run(tmp_path, source, "-m", "ame", "run", "script.py")
    assert (ours.stderr, ours.returncode) == (plain.stderr, plain.returncode)


def test_run_without_the_program_says_so(tmp_path):
    assert _run(tmp_path, "", "-m", "ame", "run", "nothing.py").returncode == 2
    assert "nothing" in _run(tmp_path, "", "-m", "ame", "run", "-m", "nothing").stderr


def test_module_level_block_restores_globals(runtime, monkeypatch):
    from ame._run import compile_program

    monkeypatch.setattr(atomic, "losses", 2)
    text = textwrap.dedent(
        """
        from rewriting import atomic as tx
        block = tx()
        x, keep = 1, []
        for i in range(3):
            with tx():
                keep.append("new" in globals())
                x += 1
                new = i
                if i == 1:
                    break
        def f(y):
            with block:
                y += 1
            return y
        class A:
            with tx():
                pass
        """
    )
    namespace = {"__name__": "__main__"}
    exec(compile_program(text, "program.py", namespace), namespace)
    assert (namespace["x"], namespace["i"]) == (3, 1)
    assert namespace["keep"] == [False] * 3 + [True] * 3
    assert namespace["f"](1) == 2
    assert not [name for name in namespace if name.startswith(".")]
    reasons = [each.reason for each in doctor().blocks if each.filename == "program.py"]
    assert reasons == [None, None, "class body"]
    assert not install(namespace["f"])
