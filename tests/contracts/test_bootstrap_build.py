"""Building Python from source: verified, cached, one at a time, and safe against interruption.

The source package is a small stand-in whose ``configure`` and ``make`` take no time; apt-get is a
shell script that names a folder as the archive.  Each test has a cache folder of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import _build_python
from _console import Unusable
from _interpreter import Interpreter

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("make")), reason="needs gcc and make"
)

ANSWER = {
    "executable": "built",
    "version": [3, 14, 7],
    "implementation": "CPython",
    "free_threaded": True,
    "missing": [],
    "headers": True,
    "ext_suffix": ".so",
}
PYTHON = f"#!/bin/sh\ncat <<'END'\n{json.dumps(ANSWER)}\nEND\n"
# Like the real one: told the final place, it installs below DESTDIR.
CONFIGURE = r"""#!/bin/sh
for word; do case $word in --prefix=*) prefix=${word#--prefix=};; esac; done
printf 'all:\n\ttrue\naltinstall:\n' > Makefile
printf '\tmkdir -p $(DESTDIR)%s/bin\n\tcp python $(DESTDIR)%s/bin/python3.14t\n' \
    "$prefix" "$prefix" >> Makefile
"""
# What a second set-up would be: another process that builds into the same cache.
DRIVER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import _build_python
_build_python.SHA256 = sys.argv[3]
_build_python.missing_header_packages = lambda work: []
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(143))
_build_python.build(Path(sys.argv[2]))
"""


class Archive:
    """A Debian archive in a folder, an apt-get that names it, and a cache to build into."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.cache = root / "cache" / "ame"
        self.source = root / "archive" / _build_python.SOURCE
        self.apt_get = root / "bin" / "apt-get"
        self.tarball = self.cache / f"Python-{_build_python.VERSION}.tar.xz"
        self._patch = patch
        for folder in (self.cache, self.source.parent, self.apt_get.parent):
            folder.mkdir(parents=True)
        self.lists(f"echo file://{root}/archive")
        patch.setenv("PATH", f"{self.apt_get.parent}{os.pathsep}{os.environ['PATH']}")
        patch.setattr(_build_python, "missing_header_packages", lambda work: [])
        self.offers()

    def lists(self, body: str) -> None:
        """Sets what apt-get does."""
        self.apt_get.write_text(f"#!/bin/sh\n{body}\n")
        self.apt_get.chmod(0o755)

    def offers(self, configure: str = CONFIGURE, python: str = PYTHON) -> None:
        """Puts a source package there, and makes its checksum the expected one."""
        with tarfile.open(self.source, "w:gz") as archive:
            for name, text in (("configure", configure), ("python", python)):
                member = tarfile.TarInfo(f"Python-{_build_python.VERSION}/{name}")
                member.mode, member.size = 0o755, len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        self.sha256 = hashlib.sha256(self.source.read_bytes()).hexdigest()
        self._patch.setattr(_build_python, "SHA256", self.sha256)

    def build(self) -> Interpreter:
        return _build_python.build(self.cache)

    def process(self) -> subprocess.Popen[bytes]:
        """Another process that builds into the same cache."""
        scripts = str(ROOT / "scripts")
        command = [sys.executable, "-c", DRIVER, scripts, str(self.cache), self.sha256]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def contents(self) -> set[str]:
        """What is in the cache, but for the lock."""
        return {path.name for path in self.cache.iterdir()} - {"build.lock"}

    @property
    def prefix(self) -> Path:
        return _build_python.prefix_in(self.cache)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    return Archive(tmp_path, monkeypatch)


def test_a_build_leaves_the_python_and_the_source_and_is_not_repeated(archive: Archive) -> None:
    assert archive.build().name == "Python 3.14.7t"
    assert archive.contents() == {archive.prefix.name, archive.tarball.name}
    archive.source.unlink()
    archive.tarball.unlink()
    assert archive.build().name == "Python 3.14.7t"


def test_a_source_with_the_wrong_checksum_is_not_used_nor_kept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_build_python, "SHA256", "0" * 64)
    with pytest.raises(Unusable, match=r"checksum .* expected 0000000000000000"):
        archive.build()
    assert archive.contents() == set()


def test_a_cached_source_that_was_damaged_is_downloaded_again(archive: Archive) -> None:
    archive.tarball.write_bytes(b"half of it")
    archive.build()
    assert hashlib.sha256(archive.tarball.read_bytes()).hexdigest() == archive.sha256


def test_an_installed_python_that_does_not_run_any_more_is_replaced(archive: Archive) -> None:
    archive.build()
    executable = archive.prefix / _build_python.EXECUTABLE
    executable.write_text("#!/bin/sh\necho a library is missing; exit 127\n")
    archive.build()
    assert executable.read_text() == PYTHON
    assert archive.contents() == {archive.prefix.name, archive.tarball.name}


def test_what_interrupted_builds_left_is_removed(archive: Archive) -> None:
    (archive.cache / "tmp-old" / "source").mkdir(parents=True)
    (archive.cache / "Python-3.14.7.tar.part").write_bytes(b"half of it")
    archive.build()
    assert archive.contents() == {archive.prefix.name, archive.tarball.name}


def test_a_build_that_fails_keeps_its_log_and_says_the_error(archive: Archive) -> None:
    archive.offers(configure="#!/bin/sh\necho configure: error: no C compiler\nexit 77\n")
    with pytest.raises(Unusable, match="failed while configuring: configure: error: no C compiler"):
        archive.build()
    assert archive.contents() == {"build-failed.log", archive.tarball.name}


@pytest.mark.parametrize("changes", [{"missing": ["ssl"]}, {"free_threaded": False}])
def test_a_python_that_came_out_incomplete_is_not_installed(
    archive: Archive, changes: dict[str, object]
) -> None:
    archive.offers(python=PYTHON.replace(json.dumps(ANSWER), json.dumps(ANSWER | changes)))
    with pytest.raises(Unusable, match=r"cannot import ssl|has a GIL"):
        archive.build()
    assert archive.contents() == {archive.tarball.name}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing_that_the_next_one_minds(
    archive: Archive, tmp_path: Path, number: int
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    archive.offers(configure=f"#!/bin/sh\n(echo begun; exec sleep 5) > {pipe}\n")
    process = archive.process()
    with pipe.open("rb") as file:
        assert file.readline() == b"begun\n"
        process.send_signal(number)
        process.wait()
        assert not archive.prefix.exists()
        if number != signal.SIGKILL:  # against which only the next build can do something
            assert file.read() == b""  # configure, the only writer, was ended
            assert archive.contents() == {archive.tarball.name}
    archive.offers()
    archive.build()
    assert archive.contents() == {archive.prefix.name, archive.tarball.name}


def test_a_second_build_waits_and_takes_what_the_first_one_built(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr("_console.say", said.put)
    results: queue.Queue[Interpreter] = queue.Queue()
    with (archive.cache / "build.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: results.put(archive.build()))
        thread.start()
        assert "another set-up is building Python" in said.get(timeout=30)
        executable = archive.prefix / _build_python.EXECUTABLE
        executable.parent.mkdir(parents=True)
        executable.write_text(PYTHON)
        executable.chmod(0o755)
    assert results.get(timeout=30).name == "Python 3.14.7t"
    thread.join()
    assert not archive.tarball.exists()  # it did not even download


def test_two_builds_at_once_build_once(archive: Archive, tmp_path: Path) -> None:
    counted = CONFIGURE + f"echo built >> {tmp_path}/count\n"
    archive.offers(configure=counted)
    processes = [archive.process() for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "built\n"


def test_a_lock_that_is_never_given_back_ends_the_wait(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_build_python, "BUILD_SECONDS", 0.2)
    with (archive.cache / "build.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unusable, match="another set-up is building Python, for more than"):
            archive.build()


def test_what_stands_in_the_way_of_a_build_is_said(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unusable, match="blanks in its name"):
        _build_python.build(archive.cache / "my cache")
    with monkeypatch.context() as patch:
        patch.setattr(_build_python, "NEEDED_BYTES", 1 << 62)
        with pytest.raises(Unusable, match="MB free"):
            archive.build()
    with monkeypatch.context() as patch:
        patch.setattr(_build_python, "missing_header_packages", lambda work: ["libssl-dev"])
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(Unusable, match="apt-get install libssl-dev"):
            archive.build()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(Unusable, match="apt-get is not there"):
            archive.build()


def test_an_archive_that_does_not_answer_is_not_named(archive: Archive) -> None:
    archive.lists("echo http://127.0.0.1:9/debian")
    with pytest.raises(Unusable, match="the download failed") as caught:
        archive.build()
    assert "127.0.0.1" not in str(caught.value)
    archive.lists("exit 1")
    with pytest.raises(Unusable, match="apt knows no archive"):
        archive.build()


def test_the_archive_is_found_though_apt_has_fetched_no_index_yet(archive: Archive) -> None:
    archive.lists(
        """[ "$1" = update ] && cat <<'END'
'http://one.example/extra/dists/stable/InRelease' one 0
'http://two.example/debian/dists/stable/InRelease' two 0
'http://two.example/debian/dists/stable/main/Packages.xz' two 0
'cdrom://disc/dists/stable/InRelease' disc 0
END"""
    )
    found = _build_python.archives(str(archive.apt_get))
    assert found == ["http://two.example/debian", "http://one.example/extra"]
