"""The command line: `python -m ame <command>`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ame import _demo, _run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name (default: the process's) and return its exit status.

    A wrong command line exits with status 2 and says what is wrong, as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ame", description="Atomic blocks for Python threads: commands."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo.add_parser(commands)
    _run.add_parser(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
