"""Names that are planned but not there yet say so, and what to do until then."""

from __future__ import annotations

import pytest

import ame


@pytest.mark.parametrize("name", sorted(ame._NOT_YET))
def test_planned_name_says_what_to_do_until_then(name: str) -> None:
    with pytest.raises(AttributeError, match=f"ame.{name} is planned .* until then: ") as caught:
        getattr(ame, name)
    assert caught.value.name == name
    assert not hasattr(ame, name)


def test_unknown_name_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'retri'"):
        _ = ame.retri  # type: ignore[attr-defined]


def test_planned_names_are_not_exported() -> None:
    assert not set(ame._NOT_YET) & set(ame.__all__)
