"""What holds for all tests: threads switch often, and nothing hangs.

A test (or a module, by `pytestmark`) with the mark `deadline(seconds)` runs in a thread of its own
and fails with the stack of every thread when it takes longer. Tests without it must run in the main
thread (signals, fork). After `LAST_RESORT` seconds in one test the whole run is killed.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `import support`, in any import mode

from support import gil_enabled, in_thread

LAST_RESORT = 600.0  # seconds
SWITCH_INTERVAL = 1e-5  # seconds between two switches of threads, on a build with the GIL


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "deadline(seconds): run the test in a thread, and fail when it takes longer"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    mark = pyfuncitem.get_closest_marker("deadline")
    if mark is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    in_thread(lambda: pyfuncitem.obj(**arguments), timeout=float(mark.args[0]))
    return True


@pytest.fixture(autouse=True)
def _never_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(LAST_RESORT, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    if not gil_enabled():
        yield
        return
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    yield
    sys.setswitchinterval(before)
