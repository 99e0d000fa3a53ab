"""Irrevocable blocks: exactly once, one at a time, and still atomic."""

from __future__ import annotations

import threading

import pytest

import ame
from support import Interference, in_thread, repeat_until, rounds, run_n, run_threads, then_set

pytestmark = pytest.mark.deadline(30)


def test_rest_of_the_block_runs_exactly_once_under_conflicts() -> None:
    """Catches: an irrevocable block that validates, and so can lose, at its commit."""
    x, y = ame.Ref(0), ame.Ref(0)
    effects: list[int] = []
    done = threading.Event()

    @ame.atomic
    def pay(number: int) -> None:
        before = x.value
        ame.irrevocable()
        effects.append(number)
        assert x.value == y.value == before
        x.value += 1
        y.value += 1
        assert x.value == y.value == before + 1

    @ame.atomic
    def disturb() -> None:
        x.value += 1
        y.value += 1

    def payer() -> int:
        for number in range(200):
            pay(number)
        return 200

    steps = run_threads(
        then_set(done, payer), repeat_until(done, disturb), repeat_until(done, disturb)
    )
    assert effects == list(range(200))
    assert x.value == y.value == sum(steps)


def test_stale_block_is_repeated_before_it_becomes_irrevocable() -> None:
    """Catches: a switch that keeps stale reads; no luck needed."""
    x, y = ame.Ref(0), ame.Ref(0)

    def add_ten() -> None:
        x.value += 10

    interfere = Interference(lambda: ame.run(add_ten))
    effects: list[int] = []

    @ame.atomic
    def body() -> None:
        seen = x.value
        interfere()
        ame.irrevocable()
        effects.append(seen)
        y.value = seen
        x.value = seen + 1

    body()
    assert effects == [10]
    assert (x.value, y.value) == (11, 10)


def test_bare_except_around_the_switch_cannot_keep_a_stale_attempt() -> None:
    """Catches: an abort raised by `irrevocable()` itself that user code swallows."""
    x = ame.Ref(0)

    def add_ten() -> None:
        x.value += 10

    interfere = Interference(lambda: ame.run(add_ten))

    @ame.atomic
    def body() -> int:
        seen = x.value
        interfere()
        try:  # noqa: SIM105
            ame.irrevocable()
        except:  # noqa: E722
            pass
        x.value = seen + 1
        return seen

    assert body() == 10
    assert x.value == 11


def test_two_irrevocable_blocks_exclude_each_other() -> None:
    """Catches: two holders of the one place for irrevocable blocks, of either kind."""
    inside = 0
    entered = 0

    def critical() -> None:
        nonlocal inside, entered
        inside += 1
        entered += 1
        assert inside == 1
        for _ in range(50):
            assert inside == 1
        inside -= 1

    @ame.atomic
    def by_call() -> None:
        ame.irrevocable()
        critical()

    def body(number: int) -> None:
        for _ in range(50):
            if number % 2:
                by_call()
            else:
                with ame.atomic():
                    ame.irrevocable()
                    critical()

    run_n(4, body)
    assert entered == 200


def test_second_call_in_a_block_changes_nothing() -> None:
    """Catches: a block that waits for itself, or gives its place up too early."""
    x = ame.Ref(0)
    runs = 0

    @ame.atomic
    def inner() -> None:
        ame.irrevocable()
        x.value += 1

    @ame.atomic
    def outer() -> None:
        nonlocal runs
        ame.irrevocable()
        runs += 1
        inner()
        ame.irrevocable()
        inner()

    outer()
    assert (runs, x.value) == (1, 2)


def test_exception_rolls_back_and_lets_the_next_one_in() -> None:
    """Catches: a place for irrevocable blocks that stays taken after an exception."""
    x = ame.Ref(0)

    class BodyError(Exception):
        pass

    @ame.atomic
    def fail() -> None:
        ame.irrevocable()
        x.value = 1
        raise BodyError

    def succeed() -> None:
        ame.irrevocable()
        x.value += 5

    for _ in range(3):
        with pytest.raises(BodyError):
            fail()
        assert x.value == 0
    in_thread(lambda: ame.run(succeed))
    assert x.value == 5


def test_readers_go_on_beside_an_irrevocable_block() -> None:
    """Catches: an irrevocable block that stops those who only read."""
    x, y = ame.Ref(1), ame.Ref(1)
    table: ame.Dict[str, int] = ame.Dict({"k": 1})
    seen: list[tuple[int, ...]] = []

    def read() -> tuple[int, ...]:
        return x.value, y.value, table["k"], len(table)

    @ame.atomic
    def body() -> None:
        ame.irrevocable()
        assert read() == (1, 1, 1, 1)
        x.value = 2
        table["new"] = 2
        seen.append(in_thread(read))
        seen.append(in_thread(lambda: ame.run(read)))

    body()
    assert seen == [(1, 1, 1, 1), (1, 1, 1, 1)]
    assert read() == (2, 1, 1, 2)


def test_outside_any_block_it_raises() -> None:
    """Catches: a place for irrevocable blocks that is taken and never given up."""
    with pytest.raises(Exception, match=r"(?i)block|transaction"):
        ame.irrevocable()
    with ame.atomic():
        pass


def test_reads_of_an_irrevocable_block_stay_as_they_are() -> None:
    """Catches: commits over what an irrevocable block has read."""
    x, y = ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    @ame.atomic
    def disturb() -> None:
        x.value += 1
        y.value += 1

    def holder() -> None:
        for _ in rounds(300):
            with ame.atomic():
                ame.irrevocable()
                first = x.value
                for _ in range(20):
                    assert x.value == first
                assert y.value == first

    run_threads(then_set(done, holder), repeat_until(done, disturb), repeat_until(done, disturb))
