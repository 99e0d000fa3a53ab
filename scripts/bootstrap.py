"""Makes the environment that ``make demo``, ``make test`` and the others run in.

    python3 scripts/bootstrap.py          .venv: a free-threaded Python where one can be had
    python3 scripts/bootstrap.py --gil    .venv-gil: the running Python, with its GIL

Standard library only; the running Python needs to be 3.11 or newer.  The interpreter of ``.venv``
is the first of: ``AME_PYTHON``; ``python3.14t`` on the PATH; one built before by this script; one
that uv installs; one built from Debian's source package; the running Python.  A second run does
nothing but check, and builds the C extension again when a file it is made from has changed; that
needs no network.
"""

# ruff: noqa: UP036
from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit(
        f"bootstrap: error: this is Python {sys.version.split()[0]}, and 3.11 or newer is needed; "
        "run it with one, for example: make PYTHON=python3.13 test"
    )

import argparse
import hashlib
import json
import os
import shutil
import signal
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import _build_python
from _console import Finished, Progress, Unusable, last_line, last_lines, locked, run, say
from _interpreter import (
    ENVIRONMENT_MODULES,
    OLDEST,
    Interpreter,
    install_packages,
    probe,
    probe_free_threaded,
)

ROOT = Path(__file__).resolve().parent.parent
UV_SECONDS = 300.0
VENV_SECONDS = 300.0
INSTALL_SECONDS = 900.0
COMPILE_SECONDS = 900.0
GIL_NAMES = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
FALLBACK = "the running Python"
FROM_VARIABLE = "AME_PYTHON names it"


class SetupError(Exception):
    """The set-up cannot go on; the text says what happened and what to do."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Choice:
    """An interpreter and why it is the one."""

    python: Interpreter
    why: str


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from; it is written after each step that is done.

    ``requirements`` and ``sources`` are digests, empty until that step has succeeded.
    """

    executable: str
    version: str
    why: str
    requirements: str = ""
    sources: str = ""


# --- which Python -----------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where a Python that was built is kept, for all checkouts of the user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ame"


def from_variable(value: str) -> Choice:
    """The Python that ``AME_PYTHON`` names; a wrong name is an error, never passed over.

    Raises:
        SetupError: it is missing, too old or incomplete.
    """
    remedy = "Set AME_PYTHON to a CPython 3.11 or newer, or unset it to have one chosen."
    found = shutil.which(os.path.expanduser(value))
    if found is None:
        raise SetupError(f"AME_PYTHON={value}: no such program. {remedy}", 2)
    try:
        python = probe(found)
    except Unusable as error:
        raise SetupError(f"AME_PYTHON={value}: {error}. {remedy}", 2) from error
    if python.version < OLDEST:
        raise SetupError(f"AME_PYTHON={value} is {python.name}. {remedy}", 2)
    if lacking := python.lacks(ENVIRONMENT_MODULES):
        raise SetupError(
            f"AME_PYTHON={value} ({python.name}) cannot import {', '.join(lacking)}. "
            f"Install what is missing (Debian: apt-get install python3-venv). {remedy}",
            2,
        )
    return Choice(python, FROM_VARIABLE)


def from_path() -> Choice:
    """``python3.14t`` on the PATH."""
    found = shutil.which("python3.14t")
    if found is None:
        raise Unusable("no python3.14t on the PATH")
    return Choice(probe_free_threaded(found), "python3.14t on the PATH")


def from_cache() -> Choice:
    """The Python that an earlier run built."""
    return Choice(_build_python.built_before(cache_folder()), "built before by this script")


def from_uv() -> Choice:
    """A Python that uv has or downloads."""
    uv = shutil.which("uv")
    if uv is None:
        raise Unusable("uv is not there")
    say("asking uv for a free-threaded Python")
    installed = run([uv, "python", "install", "3.14t"], timeout=UV_SECONDS, cwd="/")
    if not installed.ok:
        raise Unusable(f"uv could not install one: {last_line(installed.output)}")
    found = run([uv, "python", "find", "3.14t"], timeout=60, cwd="/")
    if not found.ok:
        raise Unusable(f"uv does not find what it installed: {last_line(found.output)}")
    return Choice(probe_free_threaded(found.output.strip().splitlines()[-1]), "installed by uv")


def from_source() -> Choice:
    """A Python built from Debian's source package."""
    return Choice(_build_python.build(cache_folder()), "built from Debian's source package")


def running_python() -> Choice:
    """The Python that runs this script, completed by Debian packages where root may do that.

    Raises:
        Unusable: an environment with a compiled extension cannot be made from it.
    """
    python = probe(sys.executable)
    if packages := _missing_packages(python):
        names = " ".join(packages)
        apt_get = shutil.which("apt-get")
        if install_packages(packages, root=os.geteuid() == 0, apt_get=apt_get):
            python = probe(sys.executable)
        if _missing_packages(python):
            raise Unusable(f"{python.executable} is incomplete; as root: apt-get install {names}")
    return Choice(python, FALLBACK)


def _missing_packages(python: Interpreter) -> list[str]:
    packages = ["python3-venv"] if python.lacks(ENVIRONMENT_MODULES) else []
    return packages if python.headers else [*packages, "python3-dev"]


def cheap_choice() -> tuple[Choice | None, list[str]]:
    """A free-threaded Python that is there already; else None and the reasons."""
    reasons: list[str] = []
    for step in (from_path, from_cache):
        try:
            return step(), reasons
        except (Unusable, RuntimeError) as error:
            reasons.append(str(error))
    return None, reasons


def costly_choice(reasons: list[str]) -> Choice:
    """Gets a free-threaded Python by download or build; falls back on the running one.

    Raises:
        SetupError: not even the running Python will do.
    """
    for reason in reasons:
        say(f"{reason}; trying the next way")
    steps: tuple[Callable[[], Choice], ...] = (from_uv, from_source)
    for step in steps:
        try:
            return step()
        except (Unusable, RuntimeError) as error:
            say(f"{error}; trying the next way")
    try:
        return running_python()
    except Unusable as error:
        raise SetupError(f"no Python to use: {error}") from error


def choose(stamp: Stamp | None) -> Choice:
    """Picks the interpreter of ``.venv``.

    A way that downloads or builds is not tried again while the environment from the last time
    works, or each ``make test`` of a machine without network would wait for it.
    """
    if value := os.environ.get("AME_PYTHON"):
        return from_variable(value)
    choice, reasons = cheap_choice()
    if choice is not None:
        return choice
    if stamp is not None and stamp.why != FROM_VARIABLE:
        try:
            return Choice(probe(stamp.executable), stamp.why)
        except Unusable as error:
            reasons.append(str(error))
    return costly_choice(reasons)


def choose_gil() -> Choice:
    """Picks the interpreter of ``.venv-gil``: the running one, else one on the PATH with a GIL.

    Raises:
        SetupError: none has a GIL, or the one that has is incomplete.
    """
    try:
        choice = running_python()
    except Unusable as error:
        raise SetupError(str(error)) from error
    if not choice.python.free_threaded:
        return choice
    for name in GIL_NAMES:
        try:
            python = probe(shutil.which(name) or name)
        except Unusable:
            continue
        if not python.free_threaded and python.version >= OLDEST and not _missing_packages(python):
            return Choice(python, f"{name} on the PATH; the running Python has no GIL")
    raise SetupError(
        "the running Python has no GIL and none on the PATH has one; "
        "name one, for example: make PYTHON=/usr/bin/python3 test-gil"
    )


# --- the environment --------------------------------------------------------------------------


class Environment:
    """A virtual environment in the project's folder and the stamp of what it was made from."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.folder = root / name
        self.python = self.folder / "bin" / "python"
        self._stamp_file = self.folder / ".ame-stamp.json"

    def stamp(self) -> Stamp | None:
        """What it was made from; None when there is none, or none that works."""
        try:
            stamp = Stamp(**json.loads(self._stamp_file.read_text()))
            return stamp if probe(self.python).name == stamp.version else None
        except (OSError, ValueError, TypeError, Unusable):
            return None

    def write(self, stamp: Stamp) -> Stamp:
        """Replaces the stamp in one step: an interrupted write leaves the one before."""
        new = self._stamp_file.with_suffix(".new")
        new.write_text(json.dumps(asdict(stamp), indent=1))
        new.replace(self._stamp_file)
        return stamp

    def make(self, choice: Choice) -> Stamp:
        """Makes it anew, empty but for pip.

        Raises:
            SetupError: Python could not make it.
        """
        name = self.folder.name
        say(f"{'replacing' if self.folder.exists() else 'making'} {name}")
        python = choice.python.executable
        command = [python, "-m", "venv", "--clear", str(self.folder)]
        _require(run(command, timeout=VENV_SECONDS), f"{python} could not make {name}")
        return self.write(Stamp(python, choice.python.name, choice.why))

    def install(self) -> None:
        """Installs what the project needs, then the project itself in editable mode.

        The build takes its tools from the environment too, so that it is the same as the later
        ones, for which there may be no network.

        Raises:
            SetupError: a package could not be installed or the extension not be compiled.
        """
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--no-input"]
        pip.append("--disable-pip-version-check")
        name = self.folder.name
        finished = self._run([*pip, *requirements(self.root)], f"installing packages into {name}")
        _require(
            finished, "pip could not install what the project needs; is a package index reachable?"
        )
        options = ["--no-build-isolation", "--no-deps", "--editable", "."]
        finished = self._run([*pip, *options], "compiling the extension")
        _require(finished, f"the project could not be installed into {name}")

    def compile(self) -> None:
        """Compiles the extension in place.

        Raises:
            SetupError: the compiler or linker found an error.
        """
        command = [str(self.python), "setup.py", "build_ext", "--inplace", "--force"]
        finished = self._run(command, "compiling the extension", COMPILE_SECONDS)
        _require(finished, "the extension stm._core could not be compiled")

    def _run(self, command: list[str], what: str, timeout: float = INSTALL_SECONDS) -> Finished:
        progress = Progress(what)
        try:
            return run(command, cwd=self.root, timeout=timeout, tick=progress.update)
        finally:
            progress.close()


def _require(finished: Finished, otherwise: str) -> None:
    if not finished.ok:
        raise SetupError(f"{otherwise}\n{last_lines(finished.output)}")


def requirements(root: Path) -> list[str]:
    """What has to be in the environment: to build, to run and to develop the project."""
    with (root / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)
    project = settings["project"]
    return [
        *settings["build-system"]["requires"],
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
    ]


def digest(root: Path, names: list[str], *more: str) -> str:
    """A digest of files and strings; it changes when a file comes, goes, moves or changes."""
    state = hashlib.sha256("\0".join(more).encode())
    for name in names:
        path = root / name
        content = path.read_bytes() if path.is_file() else b""
        state.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


def digest_of_requirements(root: Path) -> str:
    """What decides which packages are installed and how the project is known to Python."""
    return digest(root, ["pyproject.toml", "setup.py"])


def digest_of_sources(root: Path) -> str:
    """What decides how the compiled extension comes out."""
    sources = (path for path in (root / "csrc").rglob("*") if path.suffix in {".c", ".h"})
    names = sorted(path.relative_to(root).as_posix() for path in sources)
    return digest(root, ["setup.py", "build_ext.py", *names], os.environ.get("AME_CFLAGS", ""))


def prepare(environment: Environment, choice: Choice, stamp: Stamp | None) -> bool:
    """Brings an environment up to date; False when there was nothing to do.

    Raises:
        SetupError: a step failed.  The steps before it stay done.
    """
    root = environment.root
    fresh = stamp
    if stamp is None or (stamp.executable, stamp.version) != (
        choice.python.executable,
        choice.python.name,
    ):
        fresh = environment.make(choice)
    assert fresh is not None
    required, sources = digest_of_requirements(root), digest_of_sources(root)
    if fresh.requirements != required:
        say(f"installing the project and its tools into {environment.folder.name}")
        environment.install()
        environment.write(replace(fresh, requirements=required, sources=sources))
        return True
    extension = root / "stm" / f"_core{choice.python.ext_suffix}"
    if fresh.sources != sources or not extension.exists():
        say("compiling the extension")
        environment.compile()
        environment.write(replace(fresh, sources=sources))
        return True
    return False


# --- the command ------------------------------------------------------------------------------


def notice(choice: Choice) -> None:
    """Tells the user, each time, when loops cannot use the cores."""
    if choice.python.free_threaded:
        return
    say(f"NOTE: {choice.python.name} has a GIL. Everything works, but loops will not run faster")
    say("NOTE: than plain ones. For speed, put python3.14t on the PATH or name it in AME_PYTHON")
    if choice.why == FALLBACK:
        say("NOTE: (or remove .venv to try the other ways again).")


def set_up(root: Path, *, gil: bool) -> None:
    """Chooses the interpreter, says which and why, and brings its environment up to date.

    Raises:
        SetupError: it could not be done; the text says what to do.
    """
    environment = Environment(root, ".venv-gil" if gil else ".venv")
    stamp = environment.stamp()
    choice = choose_gil() if gil else choose(stamp)
    say(f"{environment.folder.name}: {choice.python.name} ({choice.why})")
    prepare(environment, choice, stamp)
    if not gil:
        notice(choice)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code: 2 for a wrong AME_PYTHON, 1 for what else fails."""
    parser = argparse.ArgumentParser(
        prog="bootstrap.py", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--gil", action="store_true", help="make .venv-gil from the running Python")
    options = parser.parse_args(arguments)
    # As an exception, so that children are ended and temporary folders removed on the way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    lock = ROOT / "build" / "bootstrap.lock"
    try:
        with locked(lock, meanwhile="another set-up of this checkout is running", timeout=3600):
            set_up(ROOT, gil=options.gil)
    except (SetupError, Unusable, OSError) as error:
        print(f"bootstrap: error: {error}", file=sys.stderr)
        return error.code if isinstance(error, SetupError) else 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
