"""Plain objects handed from thread to thread through a ref: built before, owned after."""

from __future__ import annotations

import threading

import pytest

import ame
from support import Interference, rounds, run_threads, then_set

pytestmark = pytest.mark.deadline(30)


class Plain:
    """An object that is not transactional; two fields that its owner keeps equal."""

    def __init__(self, value: int) -> None:
        self.a = value
        self.b = value
        self.items = {value: value}


def test_published_object_is_complete() -> None:
    """Catches: a commit that becomes visible before what its thread did earlier."""
    ref: ame.Ref[Plain | None] = ame.Ref(None)
    done = threading.Event()

    def publisher() -> None:
        for number in rounds(3000):
            ref.value = Plain(number)

    def reader() -> None:
        last = 0
        while not done.is_set():
            seen = ref.value
            if seen is not None:
                assert seen.a == seen.b == seen.items[seen.a] >= last
                last = seen.a

    @ame.atomic
    def read() -> Plain | None:
        return ref.value

    def block_reader() -> None:
        while not done.is_set():
            seen = read()
            if seen is not None:
                assert seen.a == seen.b == seen.items[seen.a]

    run_threads(then_set(done, publisher), reader, block_reader)


def test_object_taken_out_belongs_to_one_thread() -> None:
    """Catches: two blocks that take the same object, or one that commits with the object taken."""
    ref: ame.Ref[Plain | None] = ame.Ref(Plain(0))
    seen_count = ame.Ref(0)
    done = threading.Event()

    @ame.atomic
    def take() -> Plain | None:
        taken = ref.value
        ref.value = None
        return taken

    @ame.atomic
    def put(value: Plain) -> None:
        assert ref.value is None
        ref.value = value

    @ame.atomic
    def look() -> tuple[int, int]:
        # It writes, so it commits only if the object was in its place until then.
        seen_count.value += 1
        value = ref.value
        return (0, 0) if value is None else (value.a, value.b)

    def owner() -> int:
        taken = 0
        for _ in rounds(2000):
            value = take()
            if value is not None:
                value.a += 1
                value.b += 1
                taken += 1
                put(value)
        return taken

    def reader() -> int:
        while not done.is_set():
            a, b = look()
            assert a == b
        return 0

    taken = run_threads(then_set(done, owner), then_set(done, owner), reader)
    final = ref.value
    assert final is not None
    assert final.a == final.b == sum(taken)


def test_block_that_saw_an_object_before_it_was_taken_does_not_commit() -> None:
    """Catches: the same, without needing luck, although the same object comes back."""
    plain = Plain(0)
    ref: ame.Ref[Plain | None] = ame.Ref(plain)
    out = ame.Ref((-1, -1))

    def take_change_put() -> None:
        ref.value = None
        plain.a += 1
        plain.b += 1
        ref.value = plain

    interfere = Interference(take_change_put)

    @ame.atomic
    def look() -> None:
        value = ref.value
        assert value is not None
        a = value.a
        interfere()
        out.value = (a, value.b)

    look()
    assert out.value == (1, 1)
