"""What the set-up scripts share: messages, a progress line, child processes and a file lock.

Standard library only.  Two rules hold for all of it.  Nothing hangs: every child process and every
wait has a deadline.  Nothing is left running: a child gets a process group of its own, which is
ended at its deadline and with the script (what a child that ends by itself leaves behind is its own
affair).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

_POLL_SECONDS = 0.1
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_HOST = re.compile(r"\bhost='[^']*'")
# Set by make, by an active environment or by a launcher; each would mislead a child of ours.
_MISLEADING = (
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
)


class Unusable(Exception):
    """A way to get what is wanted does not work here; the text is the reason, in one line."""


def say(text: str) -> None:
    """Prints one line at once, so that it stands before what a child process prints next."""
    print(f"bootstrap: {text}", flush=True)


def scrub(text: str) -> str:
    """Replaces addresses, so that a message says what went wrong but not on which server."""
    return _HOST.sub("host=<host>", _URL.sub("<address>", text))


def last_line(text: str) -> str:
    """The last line that says something: usually the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return scrub(lines[-1]) if lines else "no output"


def last_lines(text: str, count: int = 25) -> str:
    """The end of a child's output, indented, for an error message."""
    return "\n".join("    " + line for line in scrub(text).splitlines()[-count:])


class Progress:
    """One line that is updated on a terminal; now and then a plain line elsewhere."""

    def __init__(
        self, what: str, stream: TextIO | None = None, plain_every_s: float = 20.0
    ) -> None:
        self._what = what
        self._stream = sys.stdout if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._every = 0.5 if self._on_terminal else plain_every_s
        self._started = time.monotonic()
        self._next = self._started + (0.0 if self._on_terminal else self._every)
        self._shown = False

    def update(self, text: str = "") -> None:
        """Shows how far it is, unless that was shown a moment ago."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        self._shown = True
        state = f"{text}, " if text else ""
        line = f"bootstrap: {self._what}: {state}{now - self._started:.0f} s"
        self._write(f"\r\x1b[K{line}" if self._on_terminal else f"{line}\n")

    def close(self) -> None:
        """Removes the line from a terminal; what comes next says how it ended."""
        if self._on_terminal and self._shown:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@dataclass(frozen=True)
class Finished:
    """How a child process ended: its exit code and everything it wrote, both streams in one."""

    code: int
    output: str

    @property
    def ok(self) -> bool:
        """True when it succeeded."""
        return self.code == 0


def child_environment() -> dict[str, str]:
    """The environment for children, without what would mislead a build or another Python."""
    return {name: value for name, value in os.environ.items() if name not in _MISLEADING}


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | str | None = None,
    log: Path | None = None,
    tick: Callable[[], None] | None = None,
) -> Finished:
    """Runs a command to its end, or for ``timeout`` seconds; its output goes to a file.

    A pipe would be held open by grandchildren that outlive the command.  ``tick`` is called ten
    times a second.  A command that cannot be started counts as one that failed.
    """
    with log.open("w+b") if log else tempfile.TemporaryFile() as out:
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Finished(127, f"cannot run {command[0]}: {error.strerror}")
        try:
            code = _wait(process, time.monotonic() + timeout, tick)
        finally:
            _end_group(process)
        output = _contents(out)
    if code is None:
        return Finished(124, f"{output}\nstopped after {timeout:.0f} s without an end")
    return Finished(code, output)


def _wait(
    process: subprocess.Popen[bytes], deadline: float, tick: Callable[[], None] | None
) -> int | None:
    """The exit code; None when the deadline passed first."""
    while time.monotonic() < deadline:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if tick:
                tick()
    return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the child and all it started, if it is still running."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _contents(out: IO[bytes]) -> str:
    out.seek(0)
    return out.read().decode(errors="replace")


@contextlib.contextmanager
def locked(path: Path, *, meanwhile: str, timeout: float) -> Iterator[None]:
    """Holds a file lock, which the system drops when its holder dies, however that happens.

    Raises:
        Unusable: another process held it for ``timeout`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    told = False
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unusable(f"{meanwhile}, for more than {timeout:.0f} s") from None
            if not told:
                say(f"{meanwhile}; waiting for it")
                told = True
            time.sleep(_POLL_SECONDS)
        yield
