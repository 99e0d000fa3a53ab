"""Builds the extension module ``stm._core``: the C core, the CPython types and the cffi bindings.

cffi's out-of-line API mode compiles the bindings it generates together with every C file of
``csrc``, so that one shared object holds all of it and one copy of the core serves both the types
and the tests that drive the core directly.  ``setup.py`` names `ffibuilder` to setuptools; this
file run as a script builds in place, which is what a developer wants after editing C.

``AME_CFLAGS`` is appended to the flags of the compiler and of the linker, for example
``AME_CFLAGS="-fsanitize=address,undefined"``.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
INCLUDE_DIRS = ("csrc/core", "csrc/py")
API_HEADERS = ("csrc/core/stm_api.h", "csrc/py/stmpy_api.h")

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
# An opening preprocessor conditional, and the one that hides C++ from a C compiler.
_OPENS = re.compile(r"\s*#\s*if")
_CLOSES = re.compile(r"\s*#\s*endif")
_CPLUSPLUS = re.compile(r"\s*#\s*if.*\b__cplusplus\b")


def declarations(header: str) -> str:
    """Returns a C header without its preprocessor lines, as ``FFI.cdef`` wants it.

    What stands inside ``#ifdef __cplusplus`` goes as well (``extern "C"`` is not C), and so do the
    continuation lines of a macro and comments, where a line may begin with ``#`` too.  Blank lines
    take their place, so that the line numbers in cffi's complaints are those of the header.
    """
    header = _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n") or " ", header)
    kept: list[str] = []
    depth = 0  # of conditionals inside a C++ one, itself included
    continued = False
    for line in header.splitlines():
        directive = continued or line.lstrip().startswith("#")
        if _OPENS.match(line) and (depth or _CPLUSPLUS.match(line)):
            depth += 1
        kept.append("" if directive or depth else line)
        if _CLOSES.match(line) and depth:
            depth -= 1
        continued = directive and line.rstrip().endswith("\\")
    return "\n".join(kept) + "\n"


def _files(pattern: str) -> list[str]:
    """The matching files of both C folders, relative to the project and in a fixed order."""
    found = (path for folder in INCLUDE_DIRS for path in (ROOT / folder).glob(pattern))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def _compile_flags(extra: list[str]) -> list[str]:
    flags = ["-std=c11", "-O3", "-g", "-fvisibility=hidden"]
    flags += ["-Wall", "-Wextra", "-Wno-unused-parameter"]
    # cffi defines this on the command line and, for some builds, in the file it generates; defined
    # as empty the two agree, else each build would begin with a warning.
    flags += ["-U_CFFI_NO_LIMITED_API", "-D_CFFI_NO_LIMITED_API="]
    if sys.platform.startswith("linux"):
        # The pointer to the thread's state is read by every operation: without this each read
        # would call the dynamic linker.
        flags.append("-ftls-model=initial-exec")
    return flags + extra


def make_ffibuilder() -> FFI:
    """Describes the extension to cffi.

    Raises:
        SystemExit: a header of the interface is missing.
    """
    builder = FFI()
    for name in API_HEADERS:
        path = ROOT / name
        if not path.is_file():
            raise SystemExit(f"build_ext.py: {name} is missing; run it from a complete checkout")
        builder.cdef(declarations(path.read_text(encoding="utf-8")))
    extra = shlex.split(os.environ.get("AME_CFLAGS", ""))
    builder.set_source(
        "stm._core",
        "".join(f'#include "{Path(name).name}"\n' for name in API_HEADERS),
        sources=_files("*.c"),
        depends=_files("*.h"),
        include_dirs=list(INCLUDE_DIRS),
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=_compile_flags(extra),
        extra_link_args=extra,
        libraries=["pthread"],
        # The heap types use the full C API.  Unless told so, cffi builds for the limited one on a
        # GIL build; with it, cffi's setuptools hook defines _CFFI_NO_LIMITED_API for every file.
        py_limited_api=False,
    )
    return builder


ffibuilder = make_ffibuilder()


def main() -> int:
    """Builds in place with the running Python, whether or not anything looks changed."""
    command = [sys.executable, "setup.py", "build_ext", "--inplace", "--force"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
