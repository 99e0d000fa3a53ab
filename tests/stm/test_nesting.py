"""Closed nesting: an exception that leaves a nested block undoes what that block wrote, no more."""

from __future__ import annotations

from typing import Any

import pytest

import ame
from nesting import InnerError, OuterError, each_form, fail_in, setter

pytestmark = pytest.mark.deadline(60)


# --- Ref ---------------------------------------------------------------------------------


@each_form
def test_exception_undoes_what_the_inner_block_wrote_and_nothing_else(form: Any) -> None:
    """Catches: a failing inner block that undoes the outer one's writes, or keeps its own."""
    mine, both, inner_only = ame.Ref(0), ame.Ref(0), ame.Ref(0)

    def inner() -> None:
        both.value = 2
        inner_only.value = 2
        assert (mine.value, both.value, inner_only.value) == (1, 2, 2)

    @ame.atomic
    def outer() -> tuple[int, int, int]:
        mine.value = both.value = 1
        fail_in(form, inner)
        return mine.value, both.value, inner_only.value

    assert outer() == (1, 1, 0)
    assert (mine.value, both.value, inner_only.value) == (1, 1, 0)


@each_form
def test_exception_of_the_inner_block_is_itself_with_its_traceback(form: Any) -> None:
    """Catches: an exception that is made anew, or lost, by the undo."""
    ref, error = ame.Ref(0), InnerError("mine")

    def inner() -> None:
        ref.value = 1
        raise error

    @ame.atomic
    def outer() -> None:
        with pytest.raises(InnerError) as caught:
            form(inner)()
        assert caught.value is error
        assert caught.traceback[-1].name == "inner"

    outer()
    assert ref.value == 0


@each_form
def test_writes_of_a_successful_inner_block_are_the_outer_ones(form: Any) -> None:
    """Catches: inner writes that are lost at the end of the inner block, or that stay for ever."""
    ref = ame.Ref(0)

    @ame.atomic
    def outer(error: bool) -> None:
        form(setter(ref, 1))()
        assert ref.value == 1
        ref.value += 1
        if error:
            raise OuterError

    with pytest.raises(OuterError):
        outer(True)
    assert ref.value == 0
    outer(False)
    assert ref.value == 2


@each_form
def test_exception_caught_inside_of_the_inner_block_undoes_nothing(form: Any) -> None:
    """Catches: an undo triggered by an exception that does not leave the block."""
    ref = ame.Ref(0)

    def inner() -> None:
        try:
            ref.value = 1
            raise InnerError
        except InnerError:
            pass

    @ame.atomic
    def outer() -> None:
        form(inner)()

    outer()
    assert ref.value == 1


@each_form
def test_inner_block_after_an_undone_one_starts_from_the_outer_values(form: Any) -> None:
    """Catches: leftovers of an undone block in the write set that a later block finds."""
    ref, other = ame.Ref(0), ame.Ref(0)
    seen = []

    def again() -> None:
        seen.append((ref.value, other.value))
        ref.value += 10
        other.value += 10

    @ame.atomic
    def outer() -> None:
        ref.value = 1
        for _ in range(3):
            fail_in(form, again)
        form(again)()
        fail_in(form, again)

    outer()
    assert seen == [(1, 0), (1, 0), (1, 0), (1, 0), (11, 10)]
    assert (ref.value, other.value) == (11, 10)


@pytest.mark.parametrize("failing", range(8))
def test_three_levels_keep_exactly_what_no_failing_level_encloses(failing: int) -> None:
    """Catches: an undo that goes back too far, or not far enough, after a merge below it."""
    refs = [ame.Ref(0) for _ in range(4)]
    shared = ame.Ref(-1)

    def run_level(level: int) -> None:
        def body() -> None:
            refs[level].value = 1
            shared.value = level
            if level < 3:
                before = shared.value
                try:
                    run_level(level + 1)
                except InnerError:
                    assert shared.value == before
                    assert [ref.value for ref in refs[level + 1 :]] == [0] * (3 - level)
            if level and failing >> (level - 1) & 1:
                raise InnerError

        ame.run(body)

    run_level(0)
    alive = 0
    while alive < 3 and not failing >> alive & 1:
        alive += 1
    assert [ref.value for ref in refs] == [1] * (alive + 1) + [0] * (3 - alive)
    assert shared.value == alive


def test_each_of_hundred_levels_can_fail() -> None:
    """Catches: a list of savepoints that is moved when it grows."""
    refs = [ame.Ref(0) for _ in range(100)]

    def level(number: int) -> None:
        refs[number].value = 1
        if number + 1 < len(refs):
            with pytest.raises(InnerError):
                ame.run(level, number + 1)
            assert not any(ref.value for ref in refs[number + 1 :])
        if number:
            raise InnerError

    ame.run(level, 0)
    assert [ref.value for ref in refs] == [1] + [0] * 99


def test_update_whose_function_fails_in_a_block_undoes_what_the_function_wrote() -> None:
    """Catches: Ref.update that is not a nested block."""
    ref, other = ame.Ref(0), ame.Ref(0)

    def fn(value: int) -> int:
        other.value = 7
        raise InnerError

    @ame.atomic
    def outer() -> None:
        with pytest.raises(InnerError):
            ref.update(fn)

    outer()
    assert (ref.value, other.value) == (0, 0)


def test_write_back_of_the_same_value_in_an_undone_block_leaves_the_outer_write() -> None:
    """Catches: `same value` writes, which are reads, that confuse the undo."""
    ref = ame.Ref(0)

    def inner() -> None:
        ref.value = 1
        ref.value = 0
        ref.value = 1

    @ame.atomic
    def outer() -> None:
        ref.value = 1
        fail_in(ame.atomic, inner)
        assert ref.value == 1

    outer()
    assert ref.value == 1


# --- commit_on ---------------------------------------------------------------------------


@pytest.mark.parametrize("inner_commits", [False, True])
@pytest.mark.parametrize("outer_commits", [False, True])
def test_commit_on_decides_for_its_own_block_only(inner_commits: bool, outer_commits: bool) -> None:
    """Catches: the option of one block used for another."""
    outside, inside = ame.Ref(0), ame.Ref(0)

    @ame.atomic(commit_on=InnerError if inner_commits else None)
    def inner() -> None:
        inside.value = 1
        raise InnerError

    @ame.atomic(commit_on=InnerError if outer_commits else None)
    def outer() -> None:
        outside.value = 1
        inner()

    with pytest.raises(InnerError):
        outer()
    assert outside.value == int(outer_commits)
    assert inside.value == int(outer_commits and inner_commits)


def test_commit_on_of_an_inner_block_keeps_its_writes_when_the_outer_catches() -> None:
    """Catches: an inner commit_on without effect."""
    ref = ame.Ref(0)

    @ame.atomic(commit_on=(KeyError, InnerError))
    def inner() -> None:
        ref.value = 1
        raise InnerError

    @ame.atomic
    def outer() -> None:
        with pytest.raises(InnerError):
            inner()
        assert ref.value == 1
        with pytest.raises(InnerError):
            with ame.atomic(commit_on=InnerError):
                ref.value = 2
                raise InnerError
        with pytest.raises(OuterError):
            with ame.atomic(commit_on=InnerError):
                ref.value = 3
                raise OuterError

    outer()
    assert ref.value == 2
