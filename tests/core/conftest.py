"""What all tests of the core share: `import harness`, and a domain per test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # in any import mode

from harness import Domain, open_domain


@pytest.fixture
def domain() -> Iterator[Domain]:
    with open_domain() as made:
        yield made
