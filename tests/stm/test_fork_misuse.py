"""fork inside of a block is refused, with the place; outside of blocks nothing has changed.

The programs run in processes of their own, with a time limit for them and their children.
"""

from __future__ import annotations

import inspect
import os

import pytest

from support import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")

COMMON = """
import multiprocessing, os, subprocess, sys
import ame

ref = ame.Ref(0)
log = []
context = multiprocessing.get_context("fork")

def child_of(fork):
    # Forks; the child ends at once, the parent gets its exit code.
    pid = fork()
    if isinstance(pid, tuple):
        pid = pid[0]  # the terminal stays open: closing it would end the child
    if pid == 0:
        code = 7
        try:
            ame.run(ref.update, lambda value: value + 1)
            code = 0 if not ame.in_transaction() else 8
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def refused(act):
    try:
        act()
    except ame.OpenBlockError as error:
        return str(error)
    raise SystemExit("not refused")

def target(value):
    sys.exit(value)
"""

PROGRAMS = {
    "os.fork in a function": """
@ame.atomic
def body():
    ref.value += 1
    message = refused(os.fork)
    assert "os.fork()" in message, message
    assert "<string>:" in message and "in body" in message, message
    assert ame.in_transaction()
    ref.value += 1

body()
assert ref.value == 2
""",
    "the exception undoes the block when nobody catches it": """
@ame.atomic
def body():
    ref.value += 1
    os.fork()

refused(body)
assert ref.value == 0
assert not ame.in_transaction()
body = ame.atomic(lambda: ref.update(lambda value: value + 1))
assert body() == 1
""",
    "os.forkpty": """
message = refused(lambda: ame.run(os.forkpty))
assert "os.forkpty()" in message, message
""",
    "pty.fork": """
import pty
refused(lambda: ame.run(pty.fork))
""",
    "a nested block names the outermost": """
def inner():
    return refused(os.fork)

@ame.atomic
def outermost():
    return ame.run(inner)

message = outermost()
assert "in outermost" in message, message
""",
    "a with block": """
def function():
    with ame.atomic():
        message = refused(os.fork)
        ref.value = 1
    return message

message = function()
assert "<string>:" in message and "function" in message, message
assert ref.value == 1
""",
    "an irrevocable block": """
@ame.atomic(irrevocable=True)
def body():
    refused(os.fork)
    ref.value = 1
body()
assert ref.value == 1
""",
    "multiprocessing": """
@ame.atomic
def body():
    ref.value = 1
    process = context.Process(target=target, args=(0,))
    refused(process.start)
    assert not multiprocessing.active_children()
    ref.value = 2
body()
assert ref.value == 2
process = context.Process(target=target, args=(5,))
process.start()
process.join(20)
assert process.exitcode == 5
""",
    "concurrent.futures": """
import concurrent.futures
with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
    refused(lambda: ame.run(lambda: pool.submit(abs, -1)))
""",
    "subprocess, which ends in another program, works": """
@ame.atomic
def body():
    return subprocess.run([sys.executable, "-c", "print(3)"], capture_output=True).stdout
assert body().strip() == b"3"
""",
    "os.fork outside": """
for _ in range(3):
    assert child_of(os.fork) == 0
    ref.value += 1
assert ref.value == 3
""",
    "os.forkpty outside": """
assert child_of(os.forkpty) == 0
""",
    "on_commit": """
@ame.atomic
def body():
    ref.value = 1
    ame.on_commit(lambda: log.append(child_of(os.fork)))
body()
assert log == [0]
assert ref.value == 1
""",
    "unprotected": """
@ame.atomic
def body():
    ref.value = 1
    with ame.unprotected():
        assert child_of(os.fork) == 0
    refused(os.fork)
    ref.value += 1
body()
assert ref.value == 2
""",
    "another thread is in a block": """
import threading
inside, leave = threading.Event(), threading.Event()

@ame.atomic
def wait():
    ref.value = 1
    inside.set()
    leave.wait(20)

thread = threading.Thread(target=wait)
thread.start()
inside.wait(20)
assert child_of(os.fork) == 0
leave.set()
thread.join(20)
assert ref.value == 1
""",
    "fork in a lost attempt is refused, and the block runs again": """
from stm.testing import lose
import stm

@ame.atomic
def body():
    ref.value += 1
    if stm.attempt() == 0:
        lose()
        refused(os.fork)
body()
assert ref.value == 1
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_fork_is_refused_inside_of_blocks_only(program: str) -> None:
    """Catches: a child with half of a transaction; a refusal where nothing is wrong."""
    done = run_script(COMMON + program + "\nprint('done')\n", timeout=30, stacks=False)
    assert done.stdout.strip().splitlines()[-1:] == ["done"], done.stderr


def test_functions_that_fork_keep_their_name_and_doc() -> None:
    """Catches: a wrapper that help() and tools trip over."""
    import ame  # noqa: F401

    assert (os.fork.__name__, os.forkpty.__name__) == ("fork", "forkpty")
    assert os.fork.__doc__
    assert list(inspect.signature(os.fork).parameters) == []
    with pytest.raises(TypeError):
        os.fork(1)  # type: ignore[call-arg]


def test_import_twice_wraps_once() -> None:
    """Catches: a wrapper around the wrapper after a reload."""
    done = run_script(
        """
import importlib, os, sys, stm
first = os.fork
importlib.reload(sys.modules["stm._install"]).install()
print(os.fork is first)
"""
    )
    assert done.stdout.strip() == "True"
