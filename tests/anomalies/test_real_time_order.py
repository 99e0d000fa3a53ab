"""Real-time order: what was committed before a block began is seen by it."""

from __future__ import annotations

import threading

import pytest

import ame
from support import Interference, in_thread, rounds, run_threads, wait_for

pytestmark = pytest.mark.deadline(30)

ROUNDS = 300


def test_block_sees_what_was_committed_before_an_event_was_set() -> None:
    """Catches: a snapshot older than the beginning of the block; reads of one ref, and of a key."""
    ref = ame.Ref(0)
    table: ame.Dict[int, int] = ame.Dict({-1: 0})
    ready = [threading.Event() for _ in range(ROUNDS)]
    seen = [threading.Event() for _ in range(ROUNDS)]

    def writer() -> None:
        for number in range(ROUNDS):
            ref.value = number + 1
            table[number] = number
            table[-1] = number
            ready[number].set()
            wait_for(seen[number])

    @ame.atomic
    def read(number: int) -> tuple[int, bool, int]:
        return ref.value, number in table, table[-1]

    def reader() -> None:
        for number in range(ROUNDS):
            wait_for(ready[number])
            assert read(number) == (number + 1, True, number)
            assert (ref.value, table[number], table[-1]) == (number + 1, number, number)
            seen[number].set()

    run_threads(writer, reader)


def test_block_sees_what_was_committed_before_a_plain_variable_was_set() -> None:
    """Catches: the same, where no lock of the handshake helps: the threads watch plain lists."""
    ref, other = ame.Ref(0), ame.Ref(0)
    ready, seen = [0], [0]
    stop = threading.Event()

    def writer() -> None:
        try:
            for number in range(1, ROUNDS):
                ref.value = number
                ready[0] = number
                while seen[0] != number and not stop.is_set():
                    pass
        finally:
            stop.set()

    @ame.atomic
    def read() -> int:
        assert other.value == 0
        return ref.value

    def reader() -> None:
        try:
            for number in range(1, ROUNDS):
                while ready[0] != number and not stop.is_set():
                    pass
                if ready[0] == number:
                    assert read() == number
                    assert ref.value == number
                    seen[0] = number
        finally:
            stop.set()

    run_threads(writer, reader)


@pytest.mark.parametrize("writes", [1, 2, 5])
def test_block_does_not_fall_back_on_a_snapshot_older_than_itself(writes: int) -> None:
    """Catches: a thread that begins with its last known version, fails to extend, and stays there.

    The thread's last transaction was before `x` was written. Its block reads `u` (unchanged, so the
    old version will do), then `u` changes, then it reads `x`, which was written before it began.
    """
    for _ in rounds(100):  # often enough to begin with the known version some of the time
        x, u = ame.Ref(0), ame.Ref(0)
        assert _overtaken_reader(x, u, writes) in ((0, writes), (1, writes))


def _overtaken_reader(x: ame.Ref[int], u: ame.Ref[int], writes: int) -> tuple[int, int]:
    knows_old_version, x_is_written = threading.Event(), threading.Event()

    def change_u() -> None:
        u.value = 1

    interfere = Interference(lambda: ame.run(change_u))

    @ame.atomic
    def block() -> tuple[int, int]:
        first = u.value
        interfere()
        return first, x.value

    def reader() -> tuple[int, int]:
        ame.run(lambda: x.value)
        knows_old_version.set()
        wait_for(x_is_written)
        return block()

    def writer() -> tuple[int, int]:
        wait_for(knows_old_version)
        for number in range(1, writes + 1):
            x.value = number
        x_is_written.set()
        return 0, 0

    return run_threads(reader, writer)[0]


def test_block_that_reads_nothing_new_still_sees_absent_keys_that_came() -> None:
    """Catches: a look-up of an absent key that is not checked against later inserts."""
    table: ame.Dict[str, int] = ame.Dict()

    @ame.atomic
    def look() -> tuple[bool, int]:
        return "k" in table, len(table)

    assert look() == (False, 0)
    in_thread(lambda: table.__setitem__("k", 1))
    assert look() == (True, 1)
    in_thread(lambda: table.__delitem__("k"))
    assert look() == (False, 0)


def test_own_commits_are_seen_by_the_next_block() -> None:
    """Catches: a thread whose known version is behind its own last commit."""
    ref, table = ame.Ref(0), ame.Dict[int, int]()

    @ame.atomic
    def step(number: int) -> None:
        assert ref.value == number
        assert len(table) == number
        ref.value = number + 1
        table[number] = number

    for number in range(500):
        step(number)
        assert ref.value == number + 1


def test_chain_of_threads_sees_the_effects_of_all_before() -> None:
    """Catches: an order that holds between two threads but not along a chain of them."""
    count = 20
    refs = [ame.Ref(0) for _ in range(count)]
    turn = [threading.Event() for _ in range(count + 1)]

    def link(number: int) -> None:
        wait_for(turn[number])
        for round_number in range(1, 4):
            assert [ref.value for ref in refs[:number]] == [3] * number
            ame.run(lambda: setattr(refs[number], "value", round_number))  # noqa: B023
        turn[number + 1].set()

    turn[0].set()
    run_threads(*[lambda number=number: link(number) for number in range(count)])
    assert [ref.value for ref in refs] == [3] * count


def test_values_never_go_back() -> None:
    """Catches: a reader that sees an older version after a newer one, in blocks and outside."""
    ref = ame.Ref(0)
    done = threading.Event()

    def writer() -> None:
        try:
            for number in range(3000):
                ref.value = number
        finally:
            done.set()

    def reader() -> None:
        last = 0
        while not done.is_set():
            for seen in (ref.value, ame.run(lambda: ref.value), ref.value):
                assert seen >= last
                last = seen

    run_threads(writer, reader, reader)
