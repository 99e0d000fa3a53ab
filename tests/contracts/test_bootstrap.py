"""The set-up script: which Python it picks, what it says, and when it does nothing.

Nothing is downloaded or compiled here: Pythons, uv and apt-get are shell scripts in a folder that
is the PATH, and the steps that fill an environment are replaced by ones that only note the call.
How the build behaves is in test_bootstrap_build.py.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import _build_python
import _console
import _interpreter
import bootstrap

ROOT = Path(__file__).resolve().parents[2]

COMPLETE = {
    "version": [3, 14, 7],
    "implementation": "CPython",
    "free_threaded": True,
    "missing": [],
    "headers": True,
    "ext_suffix": ".fake.so",
}


def script(path: Path, body: str) -> Path:
    """Writes an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def fake_python(path: Path, **changes: object) -> Path:
    """Writes a program that answers as a Python with these properties would."""
    answer = {"executable": str(path), **COMPLETE, **changes}
    return script(path, f"cat <<'END'\n{json.dumps(answer)}\nEND")


class Machine:
    """A PATH and a cache folder with nothing in them but the usual tools."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = root / "bin"
        self.project = root / "project"
        self.cache = root / "cache" / "ame"
        self.path.mkdir()
        (self.project / "stm").mkdir(parents=True)
        for tool in ("sh", "cat", "sleep", "touch"):
            (self.path / tool).symlink_to(shutil.which(tool) or tool)
        patch.setenv("PATH", str(self.path))
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.delenv("AME_PYTHON", raising=False)
        patch.delenv("AME_CFLAGS", raising=False)
        patch.setattr(bootstrap, "ROOT", self.project)
        patch.setattr(bootstrap.os, "geteuid", lambda: 1000)  # nothing may be installed

    def built(self, **changes: object) -> Path:
        """Puts a Python where the build leaves it."""
        return fake_python(_build_python.prefix_in(self.cache) / "bin/python3.14t", **changes)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield Machine(tmp_path, monkeypatch)
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Calls(list[str]):
    """The steps of the set-up that were taken, instead of taking them."""


@pytest.fixture
def calls(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Calls:
    taken = Calls()

    def make(self: bootstrap.Environment, choice: bootstrap.Choice) -> bootstrap.Stamp:
        taken.append("make")
        properties = {**COMPLETE, **vars(choice.python)}
        fake_python(self.python, **properties)
        python = choice.python
        return self.write(bootstrap.Stamp(python.executable, python.name, choice.why))

    def compile_extension(self: bootstrap.Environment) -> None:
        taken.append("compile")
        (self.root / "stm/_core.fake.so").touch()

    def install(self: bootstrap.Environment) -> None:
        taken.append("install")
        (self.root / "stm/_core.fake.so").touch()

    monkeypatch.setattr(bootstrap.Environment, "make", make)
    monkeypatch.setattr(bootstrap.Environment, "install", install)
    monkeypatch.setattr(bootstrap.Environment, "compile", compile_extension)
    return taken


# --- AME_PYTHON -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": [3, 10, 2], "free_threaded": False}, "is Python 3.10.2"),
        ({"missing": ["ensurepip", "venv"]}, "cannot import venv, ensurepip"),
        ({"implementation": "PyPy"}, "only CPython"),
    ],
)
def test_an_ame_python_that_will_not_do_is_an_error_that_says_what_to_do(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    complaint: str,
) -> None:
    fake_python(machine.path / "mine", **changes)
    machine.built()  # would do, but what the user asked for is never passed over
    monkeypatch.setenv("AME_PYTHON", "mine")
    assert bootstrap.main([]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "Set AME_PYTHON to a CPython 3.11 or newer" in error


def test_an_ame_python_that_does_not_exist_or_run_is_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AME_PYTHON", "/nowhere/python")
    assert bootstrap.main([]) == 2
    assert "AME_PYTHON=/nowhere/python: no such program" in capsys.readouterr().err
    broken = script(machine.path / "broken", "echo it is broken; exit 3")
    monkeypatch.setenv("AME_PYTHON", str(broken))
    assert bootstrap.main([]) == 2
    assert "does not run: it is broken" in capsys.readouterr().err
    script(broken, "echo Hello")
    assert bootstrap.main([]) == 2
    assert "does not answer like a Python" in capsys.readouterr().err


def test_ame_python_goes_before_all_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_python(machine.path / "python3.14t")
    mine = fake_python(machine.path / "mine", version=[3, 12, 1], free_threaded=False)
    monkeypatch.setenv("AME_PYTHON", "mine")
    assert bootstrap.choose(None).python.executable == str(mine)


# --- the other ways, in their order -----------------------------------------------------------


def test_one_on_the_path_goes_before_one_built_before(machine: Machine) -> None:
    built = machine.built()
    on_path = fake_python(machine.path / "python3.14t")
    assert bootstrap.choose(None).python.executable == str(on_path)
    on_path.unlink()
    choice = bootstrap.choose(None)
    assert choice.python.executable == str(built)
    assert choice.why == "built before by this script"


def test_one_on_the_path_that_will_not_do_is_passed_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = machine.built()
    for changes in ({"free_threaded": False}, {"missing": ["ssl"]}, {"headers": False}):
        fake_python(machine.path / "python3.14t", **changes)
        assert bootstrap.choose(None).python.executable == str(built)


def test_uv_is_asked_when_there_is_none_yet(machine: Machine) -> None:
    python = fake_python(machine.cache / "uv/python3.14t")
    script(machine.path / "uv", f'if [ "$2" = find ]; then echo {python}; fi')
    choice = bootstrap.choose(None)
    assert (choice.python.executable, choice.why) == (str(python), "installed by uv")


def test_a_uv_without_network_costs_one_line_and_the_next_way_is_tried(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(machine.path / "uv", "echo error sending request for https://host.example/a; exit 2")
    monkeypatch.setattr(sys, "executable", str(fake_python(machine.path / "running")))
    choice = bootstrap.choose(None)
    assert choice.why == bootstrap.FALLBACK
    said = capsys.readouterr().out
    assert "no python3.14t on the PATH; trying the next way" in said
    assert "none was built before; trying the next way" in said
    assert "uv could not install one: error sending request for <address>" in said
    assert "apt-get is not there" in said
    assert "host.example" not in said


def test_a_uv_that_hangs_is_ended_with_all_it_started(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    script(machine.path / "uv", f"(echo on; exec sleep 600) > {pipe} & sleep 600")
    monkeypatch.setattr(bootstrap, "UV_SECONDS", 1.0)
    with pytest.raises(_console.Unusable, match="stopped after"):
        bootstrap.from_uv()
    os.set_blocking(reader, True)
    with open(reader, "rb") as file:
        assert file.read() == b"on\n"  # returns when the grandchild, the only writer, is gone


def test_the_running_python_is_the_last_resort_and_that_is_said_each_time(
    machine: Machine,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = fake_python(machine.path / "running", version=[3, 12, 1], free_threaded=False)
    monkeypatch.setattr(sys, "executable", str(running))
    write_project(machine.project)
    bootstrap.set_up(machine.project, gil=False)
    assert "uv is not there; trying the next way" in capsys.readouterr().out
    bootstrap.set_up(machine.project, gil=False)
    said = capsys.readouterr().out
    assert "Python 3.12.1 has a GIL" in said
    assert "trying" not in said  # the costly ways are not tried again while this one works
    assert calls == ["make", "install"]


def test_a_running_python_without_venv_names_the_package(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = fake_python(machine.path / "running", missing=["ensurepip"], headers=False)
    monkeypatch.setattr(sys, "executable", str(running))
    assert bootstrap.main([]) == 1
    assert "apt-get install python3-venv python3-dev" in capsys.readouterr().err


def test_packages_are_installed_by_root_alone_and_after_an_update_if_need_be(
    machine: Machine, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    apt_get = str(
        script(
            machine.path / "apt-get",
            f'echo "$1" >> {log}\n[ "$1" = update ] && touch {log}.new\n[ -e {log}.new ]',
        )
    )
    assert not _interpreter.install_packages(["python3-venv"], root=False, apt_get=apt_get)
    assert not _interpreter.install_packages(["python3-venv"], root=True, apt_get=None)
    assert not log.exists()
    assert _interpreter.install_packages(["python3-venv"], root=True, apt_get=apt_get)
    assert log.read_text().split() == ["install", "update", "install"]


def test_gil_takes_the_running_python_or_one_on_the_path_that_has_a_gil(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = fake_python(machine.path / "running", version=[3, 13, 0], free_threaded=False)
    monkeypatch.setattr(sys, "executable", str(running))
    assert bootstrap.choose_gil().python.executable == str(running)
    fake_python(running)
    with pytest.raises(bootstrap.SetupError, match="make PYTHON="):
        bootstrap.choose_gil()
    fake_python(machine.path / "python3", version=[3, 9, 1], free_threaded=False)
    other = fake_python(machine.path / "python3.12", version=[3, 12, 1], free_threaded=False)
    assert bootstrap.choose_gil().python.executable == str(other)


# --- doing nothing, and no more than needed ---------------------------------------------------


def write_project(root: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "build_ext.py", "csrc/core/a.c", "csrc/py/b.h"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_a_second_run_does_nothing_and_a_change_costs_what_it_needs(
    machine: Machine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps() -> list[str]:
        calls.clear()
        bootstrap.set_up(machine.project, gil=False)
        return list(calls)

    machine.built()
    write_project(machine.project)
    project = machine.project
    assert steps() == ["make", "install"]
    assert steps() == []
    (project / "csrc/core/a.c").write_text("changed")
    assert steps() == ["compile"]
    (project / "csrc/core/a.c").rename(project / "csrc/core/c.c")
    assert steps() == ["compile"]
    (project / "csrc/py/b.h").unlink()
    assert steps() == ["compile"]
    monkeypatch.setenv("AME_CFLAGS", "-O0")
    assert steps() == ["compile"]
    (project / "stm/_core.fake.so").unlink()
    assert steps() == ["compile"]
    (project / "pyproject.toml").write_text("changed")
    assert steps() == ["install"]
    assert steps() == []
    fake_python(machine.path / "python3.14t", version=[3, 14, 8])
    assert steps() == ["make", "install"]
    (project / ".venv/bin/python").unlink()
    assert steps() == ["make", "install"]
    assert steps() == []


def test_a_step_that_failed_is_taken_again(
    machine: Machine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.built()
    write_project(machine.project)

    def fail(self: bootstrap.Environment) -> None:
        raise bootstrap.SetupError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap.Environment, "install", fail)
        assert bootstrap.main([]) == 1
    assert bootstrap.main([]) == 0
    assert calls == ["make", "install"]


def test_the_project_names_all_that_an_environment_needs() -> None:
    names = {name.partition(">")[0] for name in bootstrap.requirements(ROOT)}
    assert {"setuptools", "wheel", "cffi", "psutil", "pytest", "hypothesis"} <= names
    assert {"ruff", "mypy", "pyperf"} <= names


# --- what is printed, and make ----------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_seldom_a_line_elsewhere() -> None:
    terminal = Terminal()
    shown = _console.Progress("building", terminal)
    shown.update("1 %")
    shown.update("2 %")  # too soon after the first
    shown.close()
    assert "1 %" in terminal.getvalue()
    assert "2 %" not in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
    for every, lines in ((1e6, ""), (0.0, "bootstrap: building: 1 %, 0 s\n")):
        file = io.StringIO()
        plain = _console.Progress("building", file, plain_every_s=every)
        plain.update("1 %")
        plain.close()
        assert file.getvalue() == lines


def test_messages_name_no_server() -> None:
    text = "GET https://user@host.example:80/simple/a failed: Pool(host='host.example', port=80)"
    assert "host.example" not in _console.scrub(text)


def test_make_without_a_target_lists_the_targets() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not there")
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    for command in ([make], [make, "help"]):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        listed = {line.split()[1] for line in done.stdout.splitlines()}
        wanted = {"demo", "test", "test-gil", "lint", "typecheck", "bench", "clean", "help"}
        assert wanted <= listed
