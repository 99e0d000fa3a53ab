"""Builds a free-threaded Python from the source package of the Debian archive, once per machine.

The result lands in the cache folder by one rename, as the very last step, so it is there completely
or not at all.  Whoever builds holds a file lock: two at once cost one build, and any temporary
folder met under the lock was left by a build that was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from _console import Progress, Unusable, last_line, locked, run, say, scrub
from _interpreter import BUILT_MODULES, Interpreter, install_packages, probe_free_threaded

VERSION = "3.14.7"
SHA256 = "3b48dac8fb59f62eaa67ac83c1eb12bda1b7a08406dd286e252c11a66be27f81"
SOURCE = f"pool/main/p/python3.14/python3.14_{VERSION}.orig.tar.xz"
EXECUTABLE = "bin/python3.14t"

# Without these headers Python builds, but pip cannot fetch anything or ctypes is missing.
HEADERS = {"openssl/ssl.h": "libssl-dev", "zlib.h": "zlib1g-dev", "ffi.h": "libffi-dev"}
# Each environment brings its own pip, so the build needs none; nobody links the static library.
# No profile-guided optimisation: it takes ten times as long.  The test package stays: it holds the
# suites that the containers have to pass.
CONFIGURE = ("--disable-gil", "--with-ensurepip=no", "--without-static-libpython")
CONFIGURE_VARIABLES = ("OPT=-DNDEBUG -O3 -Wall",)

DOWNLOAD_SECONDS = 600.0
SOCKET_SECONDS = 30.0
BUILD_SECONDS = 3600.0
MAX_ARCHIVES = 4
NEEDED_BYTES = 1_500_000_000
# How many lines each step of the build prints, roughly; only the progress line hangs on it.
EXPECTED_LINES = {"configuring": 823, "compiling": 577, "installing": 5150}


def prefix_in(cache: Path) -> Path:
    """Where this version for this machine is installed; a home may be shared between machines."""
    return cache / f"python-{VERSION}t-{sys.platform}-{platform.machine()}"


def built_before(cache: Path) -> Interpreter:
    """The Python that an earlier run left in the cache.

    Raises:
        Unusable: there is none, or it does not work any more.
    """
    executable = prefix_in(cache) / EXECUTABLE
    if not executable.exists():
        raise Unusable("none was built before")
    return probe_free_threaded(executable, BUILT_MODULES)


def build(cache: Path) -> Interpreter:
    """Downloads, builds and installs Python into the cache; waits if another run is at it.

    Raises:
        Unusable: what is missing or went wrong.
    """
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise Unusable("apt-get is not there to say where the Debian archive is")
    if re.search(r"\s", str(cache)):
        raise Unusable(f"Python cannot be built below a folder with blanks in its name: {cache}")
    try:
        with locked(
            cache / "build.lock",
            meanwhile="another set-up is building Python",
            timeout=BUILD_SECONDS,
        ):
            try:
                return built_before(cache)
            except Unusable:
                pass
            _remove_leftovers(cache)
            return _build_locked(cache, apt_get)
    except (OSError, tarfile.TarError) as error:
        raise Unusable(scrub(f"{type(error).__name__}: {error}")) from error


def _remove_leftovers(cache: Path) -> None:
    """Removes what interrupted builds left behind; call it with the lock held."""
    for folder in cache.glob("tmp-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for part in cache.glob("*.part"):
        part.unlink(missing_ok=True)


def _build_locked(cache: Path, apt_get: str) -> Interpreter:
    free = shutil.disk_usage(cache).free
    if free < NEEDED_BYTES:
        raise Unusable(f"{cache} has {free >> 20} MB free; the build needs {NEEDED_BYTES >> 20} MB")
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=cache) as name:
        work = Path(name)
        _require_tools(work, apt_get)
        tarball = fetch(cache, apt_get)
        source = _unpack(tarball, work)
        staged = _compile(source, work, cache)
        probe_free_threaded(staged / EXECUTABLE, BUILT_MODULES)
        prefix = prefix_in(cache)
        if prefix.exists():  # it was found not to work
            prefix.rename(work / "broken")
        staged.rename(prefix)
    return built_before(cache)


# --- what the build needs ---------------------------------------------------------------------


def _require_tools(work: Path, apt_get: str) -> None:
    """Checks compiler, make and headers before two minutes go into a build that lacks them."""
    missing = [tool for tool in ("gcc", "make") if shutil.which(tool) is None]
    if missing:
        raise Unusable(f"{' and '.join(missing)} missing (Debian: apt-get install build-essential)")
    packages = missing_header_packages(work)
    if packages and install_packages(packages, root=os.geteuid() == 0, apt_get=apt_get):
        packages = missing_header_packages(work)
    if packages:
        raise Unusable(f"headers are missing; as root: apt-get install {' '.join(packages)}")


def missing_header_packages(work: Path) -> list[str]:
    """The Debian packages of those headers that the compiler does not find."""
    probe = work / "header.c"
    packages = []
    for header, package in HEADERS.items():
        probe.write_text(f"#include <stddef.h>\n#include <stdio.h>\n#include <{header}>\n")
        if not run(["gcc", "-fsyntax-only", probe], timeout=60).ok:
            packages.append(package)
    return packages


# --- the source -------------------------------------------------------------------------------


def archives(apt_get: str) -> list[str]:
    """The addresses of the archives that apt is set up with, Debian's main one first.

    apt lists only what it has fetched an index of.  A fresh container has none; what an update
    would fetch says the same.
    """
    listed = run([apt_get, "indextargets", "--format", "$(REPO_URI)"], timeout=30)
    found = listed.output.split() if listed.ok else []
    if not found:
        planned = run([apt_get, "update", "--print-uris"], timeout=60)
        found = re.findall(r"^'([^']+?)/dists/", planned.output, re.MULTILINE)
    usable = {uri.rstrip("/"): None for uri in found if re.match(r"(https?|file):/", uri)}
    ordered = sorted(usable, key=lambda uri: not uri.endswith("/debian"))
    return ordered[:MAX_ARCHIVES]


def fetch(cache: Path, apt_get: str) -> Path:
    """The verified source package: from the cache, else from the first archive that has it.

    Raises:
        Unusable: no archive delivers it, or what it delivers has the wrong checksum.
    """
    tarball = cache / f"Python-{VERSION}.tar.xz"
    if tarball.exists():
        if _sha256(tarball) == SHA256:
            return tarball
        tarball.unlink()
    reason = "apt knows no archive to download from"
    for archive in archives(apt_get):
        part = tarball.with_suffix(".part")
        try:
            _download(f"{archive}/{SOURCE}", part)
            checksum = _sha256(part)
            if checksum == SHA256:
                part.rename(tarball)
                return tarball
            reason = f"the source has the checksum {checksum[:16]}..., expected {SHA256[:16]}..."
        except (OSError, http.client.HTTPException) as error:
            reason = f"the download failed: {scrub(str(error))}"
        finally:
            part.unlink(missing_ok=True)
    raise Unusable(reason)


def _download(url: str, target: Path) -> None:
    """Copies what the address delivers to a file; a stall or an overlong download is an error."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    progress = Progress(f"downloading the source of Python {VERSION}")
    done = 0
    with (
        contextlib.closing(progress),
        urllib.request.urlopen(url, timeout=SOCKET_SECONDS) as answer,
        target.open("wb") as file,
    ):
        while block := answer.read(1 << 16):
            file.write(block)
            done += len(block)
            progress.update(f"{done / 1e6:.0f} MB")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished after {DOWNLOAD_SECONDS:.0f} s")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(tarball: Path, work: Path) -> Path:
    """Unpacks the source; with tar where the running Python was built without lzma."""
    target = work / "source"
    target.mkdir()
    try:
        with tarfile.open(tarball) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(target, filter="data")
            else:
                archive.extractall(target)
    except (tarfile.CompressionError, tarfile.ReadError):
        finished = run(["tar", "-xf", tarball, "-C", target], timeout=300)
        if not finished.ok:
            raise Unusable(f"cannot unpack the source: {last_line(finished.output)}") from None
    folders = [path for path in target.iterdir() if path.is_dir()]
    if len(folders) != 1:
        raise Unusable("the source package does not hold one folder")
    return folders[0]


# --- the build --------------------------------------------------------------------------------


def _compile(source: Path, work: Path, cache: Path) -> Path:
    """Configures for the final place, installs into a staging folder, returns the staged prefix."""
    prefix = prefix_in(cache)
    stage = work / "stage"
    jobs = f"-j{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 2}"
    steps: list[tuple[str, list[str]]] = [
        ("configuring", ["./configure", f"--prefix={prefix}", *CONFIGURE, *CONFIGURE_VARIABLES]),
        ("compiling", ["make", jobs]),
        ("installing", ["make", "altinstall", f"DESTDIR={stage}"]),
    ]
    say(f"building Python {VERSION}t from source; once, and it takes a few minutes")
    started = time.monotonic()
    progress = Progress(f"building Python {VERSION}t")
    with contextlib.closing(progress):
        for step, command in steps:
            log = work / f"{step}.log"
            finished = run(
                command,
                cwd=source,
                timeout=BUILD_SECONDS,
                log=log,
                tick=_ticker(progress, step, log),
            )
            if not finished.ok:
                kept = cache / "build-failed.log"
                shutil.copyfile(log, kept)
                reason = last_line(finished.output)
                raise Unusable(f"{command[0]} failed while {step}: {reason} (log: {kept})")
    say(f"built Python {VERSION}t in {time.monotonic() - started:.0f} s")
    return stage / prefix.relative_to("/")


def _ticker(progress: Progress, step: str, log: Path) -> Callable[[], None]:
    """A function that shows how far a step is, by the lines that it has printed so far."""
    expected = EXPECTED_LINES[step]

    def tick() -> None:
        lines = log.read_bytes().count(b"\n")
        progress.update(f"{step}, {min(99, 100 * lines // expected)} %")

    return tick
