"""unprotected: what runs inside of it, and how it is left."""

from __future__ import annotations

from typing import Any

import pytest

import ame
from splitting import BodyError, elsewhere, unprotected_and_back
from support import Interference, in_thread, run_script

pytestmark = pytest.mark.deadline(60)


def test_inside_of_unprotected_there_is_no_block() -> None:
    """Catches: code that still runs in the transaction it was to leave."""
    ref, seen = ame.Ref(0), []

    @ame.atomic
    def body() -> None:
        with ame.unprotected():
            seen.append(ame.in_transaction())
            with pytest.raises(ame.NotInTransaction):
                ame.current()
            ref.value = 1
            seen.append(elsewhere(ref))
            in_thread(lambda: setattr(ref, "value", 2))
            seen.append(ref.value)
        seen.append(ame.in_transaction())
        assert ref.value == 2

    body()
    assert seen == [False, (1,), 2, True]


def test_others_may_be_irrevocable_while_a_block_is_unprotected() -> None:
    """Catches: an irrevocable block that keeps the slot while it is outside."""

    @ame.atomic(irrevocable=True)
    def body() -> None:
        with ame.unprotected():
            in_thread(lambda: ame.run(ame.irrevocable))
            ame.run(ame.irrevocable)

    body()


def test_blocks_inside_of_unprotected_are_their_own() -> None:
    """Catches: blocks that join the one that was left, or whose end ends it."""
    ref, log, rest = ame.Ref(0), [], ame.Ref(0)
    disturb = Interference(lambda: ref.update(lambda value: value + 10))

    def inner(error: bool) -> None:
        ame.on_commit(log.append, "commit")
        ame.on_abort(log.append, "abort")
        seen = ref.value
        disturb()
        ref.value = seen + 1
        if error:
            raise BodyError

    @ame.atomic
    def body() -> None:
        with ame.unprotected():
            ame.run(inner, False)
            assert elsewhere(ref) == (11,)
            with pytest.raises(BodyError):
                ame.run(inner, True)
            ame.block_until(lambda: ref.value == 11, timeout=5)
        rest.value = 1
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert (ref.value, rest.value) == (11, 0)
    assert log == ["abort", "commit", "abort"]


def test_block_inside_of_unprotected_may_split_and_be_unprotected_itself() -> None:
    """Catches: one place for what was left, where two are needed."""
    refs = [ame.Ref(0) for _ in range(6)]

    def inner() -> None:
        refs[1].value = 1
        with ame.unprotected():
            refs[2].value = 1
            ame.run(unprotected_and_back)
        refs[3].value = 1
        ame.split()
        refs[4].value = 1

    @ame.atomic
    def body() -> None:
        refs[0].value = 1
        with ame.unprotected():
            ame.run(inner)
            assert elsewhere(*refs) == (1, 1, 1, 1, 1, 0)
        refs[5].value = 1

    body()
    assert elsewhere(*refs) == (1,) * 6


def test_exception_inside_of_unprotected_propagates_and_leaves_the_first_part() -> None:
    """Catches: an exception swallowed by the manager, or a first part that is undone."""
    ref, error = ame.Ref(0), BodyError("mine")

    @ame.atomic
    def body() -> None:
        ref.value = 1
        with ame.unprotected():
            raise error

    with pytest.raises(BodyError) as caught:
        body()
    assert caught.value is error
    assert ref.value == 1
    assert not ame.in_transaction()
    in_thread(lambda: ame.run(ame.irrevocable))


@pytest.mark.parametrize("fails", [False, True])
def test_block_goes_on_after_a_caught_exception_of_unprotected(fails: bool) -> None:
    """Catches: a rest that begins only when all is well."""
    ref, rest = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def body() -> None:
        ref.value = 1
        with pytest.raises(BodyError):
            with ame.unprotected():
                raise BodyError
        assert ame.in_transaction()
        rest.value = 1
        assert elsewhere(ref, rest) == (1, 0)
        if fails:
            raise BodyError

    try:
        body()
    except BodyError:
        assert fails
    assert (ref.value, rest.value) == (1, 0 if fails else 1)


def test_return_inside_of_unprotected_ends_the_block() -> None:
    """Catches: a return that leaves the thread outside, or inside, of the block."""
    ref = ame.Ref(0)

    @ame.atomic
    def body() -> int:
        ref.value = 1
        with ame.unprotected():
            return ref.value

    assert body() == 1
    assert not ame.in_transaction()


def test_one_unprotected_object_cannot_be_entered_twice_at_once() -> None:
    """Catches: what was left that is overwritten by a second entry."""
    ref = ame.Ref(0)

    @ame.atomic
    def body() -> None:
        ref.value = 1
        manager = ame.unprotected()
        with manager:
            with pytest.raises(ame.OpenBlockError, match=r"anew"):
                manager.__enter__()

            def inner() -> None:
                with pytest.raises(ame.OpenBlockError, match=r"anew"):
                    manager.__enter__()
                assert ame.in_transaction()

            ame.run(inner)
        ref.value += 1

    body()
    assert ref.value == 2


def test_leaving_what_was_not_entered_raises() -> None:
    """Catches: a block that begins with the end of a `with`."""

    def leave() -> None:
        ame.unprotected().__exit__(None, None, None)

    with pytest.raises(ame.OpenBlockError):
        leave()
    assert not ame.in_transaction()
    with pytest.raises(ame.OpenBlockError):
        ame.run(leave)
    assert not ame.in_transaction()


def test_leaving_in_another_thread_raises_there_and_changes_nothing_here() -> None:
    """Catches: the rest of a block begun in the wrong thread."""
    ref = ame.Ref(0)

    def leave(manager: Any) -> bool:
        with pytest.raises(ame.OpenBlockError):
            manager.__exit__(None, None, None)
        return ame.in_transaction()

    @ame.atomic
    def body() -> None:
        manager = ame.unprotected()
        with manager:
            assert in_thread(lambda: leave(manager)) is False
            assert in_thread(lambda: ame.run(leave, manager)) is True
            ref.value = 1
        ref.value += 1

    body()
    assert ref.value == 2


def test_leaving_inside_of_another_block_raises_there() -> None:
    """Catches: a rest that begins on top of an open block."""
    ref = ame.Ref(0)

    @ame.atomic
    def body() -> None:
        manager = ame.unprotected()
        with manager:

            def inner() -> None:
                ref.value = 1
                with pytest.raises(ame.OpenBlockError):
                    manager.__exit__(None, None, None)
                assert ame.in_transaction()
                assert elsewhere(ref) == (0,)

            ame.run(inner)
        ref.value += 1

    body()
    assert ref.value == 2


def test_function_that_ends_inside_of_unprotected_raises_and_the_thread_is_usable() -> None:
    """Catches: a block without an end, or an end without a block."""
    ref = ame.Ref(0)

    @ame.atomic
    def body() -> None:
        ref.value = 1
        ame.unprotected().__enter__()
        ref.value = 2

    with pytest.raises(ame.OpenBlockError):
        body()
    assert ref.value == 2
    assert not ame.in_transaction()
    ame.run(setattr, ref, "value", 3)
    assert elsewhere(ref) == (3,)


STALE = """
import ame, stm, threading

ref, kept = ame.Ref(0), []

def begin():
    kept.append(ame.unprotected())
    kept[-1].__enter__()

def leave():
    try:
        kept[-1].__exit__(None, None, None)
    except ame.OpenBlockError:
        return
    raise SystemExit("no OpenBlockError")

def usable():
    assert not ame.in_transaction(), "still in a block"
    ref.value = 7
    thread = threading.Thread(target=lambda: ame.run(ref.update, lambda value: value + 1))
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "hangs"
    assert ref.value == 8

try:
    stm.run_block("label", begin)
except ame.OpenBlockError:
    pass
"""


def test_leaving_unprotected_after_its_block_has_ended_raises() -> None:
    """Catches: the rest of a block that has ended, begun with no one to end it."""
    run_script(STALE + "leave()\nusable()\n")


def test_leaving_unprotected_of_an_ended_block_in_a_later_one_raises() -> None:
    """Catches: the same inside of the next block's unprotected part."""
    run_script(
        STALE
        + """
@ame.atomic
def later():
    ref.value = 1
    with ame.unprotected():
        leave()
        assert not ame.in_transaction()
    ref.value = 2

later()
usable()
"""
    )


def test_generator_that_ends_in_unprotected_after_its_block_begins_no_block() -> None:
    """Catches: a generator whose end, maybe by a collection, opens a block that nobody ends."""
    run_script(
        STALE
        + """
def generator():
    with ame.unprotected():
        yield

@ame.atomic
def body():
    kept.append(generator())
    next(kept[-1])

try:
    body()
except ame.OpenBlockError:
    pass
try:
    kept[-1].close()
except ame.OpenBlockError:
    pass
usable()
"""
    )


def test_block_left_open_in_unprotected_is_named() -> None:
    """Catches: an error without the place."""

    @ame.atomic
    def left_open() -> None:
        ame.unprotected().__enter__()

    with pytest.raises(ame.OpenBlockError, match=r"test_unprotected\.py:\d+ in .*left_open"):
        left_open()
