"""Missed wake-up: the change comes between the last look and the sleep, and nobody is woken.

Each hand-over below is one chance for it: the one thread checks and goes to sleep while the other
commits what it waits for. One lost wake-up and the test never ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import ame
from support import gil_enabled, rounds, run_n, run_threads, seeded, wait_for

pytestmark = pytest.mark.deadline(60)

TIMES = 20_000
SECONDS = 4.0  # after which a test is content with fewer rounds


def _set(ref: ame.Ref[int], value: int) -> None:
    ref.value = value


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_turn_goes_round_among_threads_that_sleep(threads: int) -> None:
    """Catches: a commit between validation and sleep that the committer sees nobody for."""
    turn = ame.Ref(0)

    @ame.atomic
    def pass_on(number: int, target: int) -> None:
        if turn.value not in {number, -1}:
            ame.retry()
        if turn.value != -1:
            turn.value = target

    def player(number: int) -> int:
        played = 0
        for _ in rounds(TIMES, seconds=SECONDS):
            pass_on(number, (number + 1) % threads)
            if turn.value == -1:
                break
            played += 1
        turn.value = -1  # the game is over for all
        return played

    played = run_n(threads, player)
    assert max(played) - min(played) <= 2
    assert min(played) > 10


def test_turn_that_is_the_last_of_many_writes_goes_round() -> None:
    """Catches: one who goes to sleep while a commit has looked for sleepers and not yet written."""
    fillers = [ame.Ref(0) for _ in range(400)]
    turn = ame.Ref(0)
    random = seeded()
    delays = [random.randrange(3000) for _ in range(1000)]

    @ame.atomic
    def wait_for_turn(number: int) -> bool:
        if turn.value not in {number, -1}:
            ame.retry()
        return turn.value != -1

    @ame.atomic
    def pass_on(number: int, played: int) -> None:
        for filler in fillers:
            filler.value = played
        if turn.value != -1:
            turn.value = 1 - number

    def player(number: int) -> int:
        played = 0
        for _ in rounds(TIMES, seconds=SECONDS / 2):
            for _ in range(delays[(played + 311 * number) % len(delays)]):
                pass  # so that it goes to sleep at any moment of the other's commit
            if not wait_for_turn(number):
                break
            played += 1
            pass_on(number, played)
        turn.value = -1
        return played

    assert min(run_n(2, player, timeout=20)) > 10


@pytest.mark.parametrize("threads", [2, 4])
def test_turn_goes_round_among_threads_that_wait_on_a_key_each(threads: int) -> None:
    """Catches: the same for keys that come and go, whose entries are made and swept meanwhile."""
    table: ame.Dict[object, int] = ame.Dict({0: 0})
    over = ame.Ref(False)

    @ame.atomic
    def pass_on(number: int) -> bool:
        if over.value:
            return False
        if number not in table:
            ame.retry()
        count = table.pop(number)
        table[(number + 1) % threads] = count + 1
        return True

    def player(number: int) -> int:
        played = 0
        for _ in rounds(TIMES // 2, seconds=SECONDS):
            if not pass_on(number):
                break
            played += 1
        over.value = True
        return played

    played = run_n(threads, player)
    assert sum(played) == sum(table.values())
    assert min(played) > 10


@pytest.mark.parametrize("capacity", [1, 4])
def test_twenty_thousand_items_are_handed_over(capacity: int) -> None:
    """Catches: the same with two reasons to sleep, full and empty, that both sides change."""
    count = 20_000
    first: ame.Ref[int] = ame.Ref(0)  # items taken so far
    last: ame.Ref[int] = ame.Ref(0)  # items put so far
    slots = [ame.Ref[int | None](None) for _ in range(capacity)]

    @ame.atomic
    def put(item: int) -> None:
        place = slots[last.value % capacity]
        if place.value is not None:
            ame.retry()
        place.value = item
        last.value += 1

    @ame.atomic
    def take() -> int:
        place = slots[first.value % capacity]
        item = place.value
        if item is None:
            ame.retry()
        place.value = None
        first.value += 1
        return item

    def produce() -> list[int]:
        for item in range(count):
            put(item)
        return []

    def consume() -> list[int]:
        return [take() for _ in range(count)]

    _, taken = run_threads(produce, consume, timeout=55)
    assert taken == list(range(count))


def test_items_of_two_producers_reach_two_consumers() -> None:
    """Catches: a wake-up that is given to one of several sleepers who need one each."""
    count = 3_000
    box: ame.Ref[int | None] = ame.Ref(None)

    @ame.atomic
    def put(item: int) -> None:
        if box.value is not None:
            ame.retry()
        box.value = item

    @ame.atomic
    def take() -> int:
        item = box.value
        if item is None:
            ame.retry()
        box.value = None
        return item

    def produce(number: int) -> Callable[[], list[int]]:
        return lambda: [put(item) for item in range(number, 2 * count, 2)] and []

    def consume() -> list[int]:
        return [take() for _ in range(count)]

    taken = run_threads(produce(0), produce(1), consume, consume)
    assert sorted(item for items in taken for item in items) == list(range(2 * count))


def test_either_of_two_signals_is_noticed() -> None:
    """Catches: the same for the alternatives of or_else, of which the last one sleeps."""
    signals = [ame.Ref(0), ame.Ref(0)]
    seen = ame.Ref(0)
    random = seeded()
    choices = [random.randrange(2) for _ in range(TIMES // 2)]

    def taker(number: int) -> Callable[[], int]:
        def alternative() -> int:
            if not signals[number].value:
                ame.retry()
            signals[number].value = 0
            seen.value += 1
            return number

        return alternative

    def send() -> list[int]:
        for sent, number in enumerate(choices):
            signals[number].value = 1
            ame.block_until(lambda sent=sent: seen.value > sent)
        return choices

    def receive() -> list[int]:
        return [ame.or_else(taker(0), taker(1)) for _ in choices]

    sent, received = run_threads(send, receive)
    assert sent == received


def test_change_on_the_way_to_sleep_is_noticed() -> None:
    """Catches: a change after the block's last read and before it sleeps; no luck needed."""
    x = ame.Ref(0)
    calls = 0

    def change() -> None:
        ame.run(lambda: _set(x, 1))

    @ame.atomic
    def from_another_thread() -> int:
        nonlocal calls
        calls += 1
        before = x.value
        if not before:
            helper = threading.Thread(target=change)
            helper.start()
            helper.join()
            ame.retry()
        return before

    assert from_another_thread() == 1
    assert calls == 2


def test_signal_that_is_set_and_taken_back_leaves_the_sleeper_whole() -> None:
    """Catches: a sleeper that is woken, finds nothing and is not listed again."""
    x, over = ame.Ref(0), ame.Ref(False)
    ready = threading.Event()

    @ame.atomic
    def wait() -> bool:
        ready.set()
        if not x.value and not over.value:
            ame.retry()
        return over.value

    def sleeper() -> int:
        count = 1
        while not wait():
            count += 1
        return count

    def blink() -> int:
        wait_for(ready)
        for number in rounds(TIMES, seconds=2):
            x.value = number % 2
        x.value = 0
        over.value = True
        return 0

    results = run_threads(sleeper, sleeper, blink)
    assert min(results[:2]) >= 1


@pytest.mark.parametrize("options", [{}, {"read_only": True}], ids=["plain", "read_only"])
def test_gate_that_opens_once_is_noticed_by_late_comers(options: dict[str, Any]) -> None:
    """Catches: the first sleeper of all, for whom committers don't look yet."""
    times = 300 if gil_enabled() else 1000
    gates = [ame.Ref(False) for _ in range(times)]

    @ame.atomic(**options)
    def enter(number: int) -> None:
        if not gates[number].value:
            ame.retry()

    barrier = threading.Barrier(2)

    def visitor() -> int:
        for number in range(times):
            barrier.wait(30)
            enter(number)
        return times

    def guard() -> int:
        for number in range(times):
            barrier.wait(30)
            gates[number].value = True
        return times

    assert run_threads(visitor, guard) == [times, times]
