"""Only what ``pyproject.toml`` cannot say: the extension comes from cffi, compiled in parallel."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext


class ParallelBuildExt(build_ext):
    """Compiles the C files of the one extension side by side; setuptools takes one at a time."""

    def build_extensions(self) -> None:
        """Replaces the compiler's ``compile`` by one that hands out single files to threads."""
        compile_files = self.compiler.compile

        def compile_in_parallel(sources: list[str], **options: Any) -> list[str]:
            def compile_one(source: str) -> list[str]:
                return compile_files([source], **options)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [name for names in pool.map(compile_one, sources) for name in names]

        self.compiler.compile = compile_in_parallel
        super().build_extensions()


setup(cffi_modules=["build_ext.py:ffibuilder"], cmdclass={"build_ext": ParallelBuildExt})
