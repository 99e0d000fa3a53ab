"""Asks a Python what it is, by running it: its name and place say little."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from _console import Unusable, last_line, run, say

OLDEST = (3, 11)
# What the environment and pip need, and what needs a header when Python is built.
ENVIRONMENT_MODULES = ("venv", "ensurepip", "ssl", "zlib")
BUILT_MODULES = (*ENVIRONMENT_MODULES, "ctypes")

_PROBE_SECONDS = 30.0
# Runs on any Python, however old.  `executable` is the one that environments can be made from: a
# Python inside an environment names its base, so that environments do not hang on each other.
_PROBE = r"""
import json, os, platform, sys, sysconfig
modules = {}
for name in ("venv", "ensurepip", "ssl", "zlib", "ctypes"):
    try:
        __import__(name)
        modules[name] = True
    except Exception:
        modules[name] = False
base = getattr(sys, "_base_executable", None) or sys.executable
include = sysconfig.get_path("include") or ""
print(json.dumps({
    "executable": base if os.path.exists(base) else sys.executable,
    "version": list(sys.version_info[:3]),
    "implementation": platform.python_implementation(),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "missing": sorted(name for name in modules if not modules[name]),
    "headers": os.path.exists(os.path.join(include, "Python.h")),
    "ext_suffix": sysconfig.get_config_var("EXT_SUFFIX") or ".so",
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """What a Python says of itself."""

    executable: str
    version: tuple[int, ...]
    implementation: str
    free_threaded: bool
    missing: tuple[str, ...]
    headers: bool
    ext_suffix: str

    @property
    def name(self) -> str:
        """For example ``Python 3.14.7t``; the ``t`` stands for free-threaded."""
        number = ".".join(map(str, self.version))
        return f"Python {number}{'t' if self.free_threaded else ''}"

    def lacks(self, modules: tuple[str, ...]) -> list[str]:
        """Those of the modules that it cannot import."""
        return [name for name in modules if name in self.missing]


def probe(executable: str | Path) -> Interpreter:
    """Runs a Python and returns what it says of itself.

    Raises:
        Unusable: it does not run, or is not a CPython.
    """
    finished = run([executable, "-E", "-s", "-c", _PROBE], timeout=_PROBE_SECONDS, cwd="/")
    if not finished.ok:
        raise Unusable(f"{executable} does not run: {last_line(finished.output)}")
    try:
        answer = json.loads(finished.output.strip().splitlines()[-1])
        python = Interpreter(
            executable=str(answer["executable"]),
            version=tuple(answer["version"]),
            implementation=str(answer["implementation"]),
            free_threaded=bool(answer["free_threaded"]),
            missing=tuple(answer["missing"]),
            headers=bool(answer["headers"]),
            ext_suffix=str(answer["ext_suffix"]),
        )
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise Unusable(f"{executable} does not answer like a Python") from error
    if python.implementation != "CPython":
        raise Unusable(f"{executable} is {python.implementation}; only CPython will do")
    return python


def probe_free_threaded(
    executable: str | Path, modules: tuple[str, ...] = ENVIRONMENT_MODULES
) -> Interpreter:
    """The same for a Python that has to be free-threaded and complete.

    Raises:
        Unusable: it does not run, has a GIL or lacks a module.
    """
    python = probe(executable)
    if not python.free_threaded:
        raise Unusable(f"{executable} is {python.name}, which has a GIL")
    if lacking := python.lacks(modules):
        raise Unusable(f"{executable} cannot import {', '.join(lacking)}")
    if not python.headers:
        raise Unusable(f"{executable} comes without its C headers (Python.h)")
    return python


def install_packages(packages: list[str], *, root: bool, apt_get: str | None) -> bool:
    """Installs Debian packages where that needs nobody's password; False when it did not.

    Only root installs, and only where apt is: everywhere else the caller names the packages.
    """
    if not (packages and root and apt_get):
        return False
    say(f"installing {' '.join(packages)} with apt-get")
    install = [apt_get, "install", "--yes", "--no-install-recommends"]
    options = ["-o", "DPkg::Lock::Timeout=60"]
    if run([*install, *options, *packages], timeout=300).ok:
        return True
    run([apt_get, "update"], timeout=120)
    finished = run([*install, *options, *packages], timeout=300)
    if not finished.ok:
        say(f"apt-get could not install them: {last_line(finished.output)}")
    return finished.ok
