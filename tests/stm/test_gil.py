"""Importing the library keeps the GIL off where it is off, and warns of nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support import ROOT, SCRIPT_TIMEOUT

SOURCE = """
import sys
import ame, stm
probe = getattr(sys, "_is_gil_enabled", lambda: True)
print(probe())
"""


def run_strictly(source: str) -> str:
    """Run a program for which every warning is an error; return what it prints."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    variables.pop("PYTHON_GIL", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        check=False,
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT,
        env=variables,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def is_free_threaded() -> bool:
    return "free-threading" in sys.version


@pytest.mark.skipif(not is_free_threaded(), reason="this build of Python always has the GIL")
def test_import_keeps_the_gil_off() -> None:
    assert run_strictly(SOURCE) == "False"


@pytest.mark.skipif(is_free_threaded(), reason="this build of Python has no GIL")
def test_import_warns_of_nothing() -> None:
    assert run_strictly(SOURCE) == "True"


def test_use_in_threads_and_exit_warn_of_nothing() -> None:
    program = (
        "import threading, ame\n"
        "table = ame.Dict(n=0)\n"
        "def work():\n"
        "    for _ in range(50):\n"
        "        with ame.atomic():\n"
        "            table['n'] += 1\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print(table['n'])\n"
    )
    assert run_strictly(program) == "200"
