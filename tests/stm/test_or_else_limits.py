"""or_else at its edges: outside of blocks, errors, hooks, lost attempts, irrevocable blocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ame
from sleepers import Sleepers, never, when
from stm.testing import lose
from support import Interference, in_thread, repeat_until, run_threads, then_set

pytestmark = pytest.mark.deadline(60)


# --- outside of a block, errors -------------------------------------------------------------------


def test_or_else_outside_of_a_block_is_a_block() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    def second() -> bool:
        y.value = 1
        assert in_thread(lambda: y.value) == 0
        return ame.in_transaction()

    assert ame.or_else(when(x), second) is True
    assert not ame.in_transaction()
    assert y.value == 1


def test_or_else_outside_of_a_block_waits() -> None:
    x, y = ame.Ref(0), ame.Ref(0)
    sleepers = Sleepers(lambda: ame.or_else(when(x), when(y)))
    y.value = 3
    assert sleepers.join() == [3]


def test_exception_of_an_alternative_propagates_and_undoes_it_alone() -> None:
    x, y = ame.Ref(0), ame.Ref(0)
    calls: list[int] = []

    def first() -> None:
        x.value += 10
        raise LookupError("first")

    @ame.atomic
    def block() -> str:
        x.value += 1
        try:
            ame.or_else(first, lambda: calls.append(1))
        except LookupError as error:
            y.value = x.value
            return str(error)
        return "no error"

    assert block() == "first"
    assert (x.value, y.value) == (1, 1)
    assert calls == []


def test_exception_that_nobody_catches_undoes_the_block() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    def second() -> None:
        y.value = 1
        raise LookupError

    @ame.atomic
    def block() -> None:
        y.value = 5
        ame.or_else(when(x), second)

    for call in (block, lambda: ame.or_else(when(x), second)):
        with pytest.raises(LookupError):
            call()
        assert y.value == 0
        assert not ame.in_transaction()


def test_exception_that_replaces_a_retry_does_not_end_the_choice() -> None:
    """Catches: `finally: raise` or a bare `except:` that turns waiting into failing."""

    def replaces() -> None:
        try:
            ame.retry()
        finally:
            raise ValueError

    def swallows() -> str:
        with contextlib.suppress(BaseException):
            ame.retry()
        return "swallowed"

    assert ame.run(lambda: ame.or_else(replaces, swallows, lambda: "third")) == "third"


def test_or_else_without_alternatives_is_a_type_error() -> None:
    for call in (ame.or_else, lambda: ame.run(ame.or_else)):
        with pytest.raises(TypeError, match="at least one"):
            call()


@pytest.mark.parametrize("bad", [None, 1, "text", [never]])
def test_alternative_that_is_no_function_is_a_type_error(bad: Any) -> None:
    """Catches: alternatives of which the first runs before the others are looked at."""
    calls: list[int] = []
    with pytest.raises(TypeError, match="argument 2"):
        ame.or_else(lambda: calls.append(1), bad)
    with pytest.raises(TypeError):
        ame.or_else(never, timeout=1)  # type: ignore[call-arg]
    assert calls == []


def test_alternative_that_is_no_plain_function_is_a_type_error() -> None:
    """Catches: a coroutine or generator as the result, of which nothing has run."""

    async def coroutine() -> int:
        return 1

    def generator() -> Any:
        yield 1

    for bad in (coroutine, generator):
        with pytest.raises(TypeError):
            ame.or_else(bad)


def test_alternative_that_needs_arguments_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        ame.or_else(lambda needed: needed)  # type: ignore[arg-type, misc]
    assert not ame.in_transaction()


# --- hooks, lost attempts, irrevocable ------------------------------------------------------------


def test_commit_hooks_of_an_alternative_that_waited_are_dropped() -> None:
    calls: list[str] = []

    def first() -> None:
        ame.on_commit(calls.append, "first commit")
        ame.on_abort(calls.append, "first abort")
        ame.retry()

    def second() -> None:
        ame.on_commit(calls.append, "second commit")
        ame.on_abort(calls.append, "second abort")

    @ame.atomic
    def block() -> None:
        ame.on_commit(calls.append, "block commit")
        ame.on_abort(calls.append, "block abort")
        ame.or_else(first, second)
        assert calls == []

    block()
    assert sorted(calls) == ["block commit", "first abort", "second commit"]
    assert calls.index("block commit") < calls.index("second commit")


def test_abort_hooks_of_all_alternatives_run_once_before_the_sleep() -> None:
    x = ame.Ref(0)
    calls: list[str] = []

    def alternative(name: str) -> Callable[[], int]:
        def body() -> int:
            ame.on_abort(calls.append, name)
            return when(x)()

        return body

    sleepers = Sleepers(ame.atomic(lambda: ame.or_else(alternative("a"), alternative("b"))))
    assert sorted(calls) == ["a", "b"]
    x.value = 1
    sleepers.join()
    assert sorted(calls) == ["a", "b"]


def test_lost_attempt_starts_over_instead_of_trying_the_next() -> None:
    """Catches: the abort of a conflict that is taken for a retry."""
    x = ame.Ref(1)
    runs: list[str] = []

    def first() -> int:
        runs.append("first")
        if len(runs) == 2:
            lose()
        return x.value

    def second() -> int:
        runs.append("second")
        return -1

    @ame.atomic
    def block() -> int:
        runs.append("block")
        return ame.or_else(first, second)

    assert block() == 1
    assert runs == ["block", "first", "block", "first"]


def test_lost_attempt_that_calls_retry_starts_over_at_once() -> None:
    """Catches: an attempt with stale reads that waits for a change which has come already."""
    x, y = ame.Ref(0), ame.Ref(0)

    def step() -> None:
        x.value += 1
        y.value += 1

    interfere = Interference(lambda: ame.run(step))

    def first() -> int:
        before = x.value
        interfere()
        try:
            y.value += 0
            y.value = before + 100
        finally:
            if not before:
                ame.retry()
        return before

    @ame.atomic
    def block() -> int:
        return ame.or_else(first, when(ame.Ref(0)))

    assert block() == 1
    assert y.value == 101


def test_real_conflict_in_an_alternative_starts_over() -> None:
    x, y, done = ame.Ref(0), ame.Ref(0), threading.Event()

    def first() -> int:
        before = x.value
        y.value = before
        assert x.value == before
        return before

    def body() -> None:
        for _ in range(1000):
            assert ame.or_else(first, lambda: -1) >= 0

    run_threads(then_set(done, body), repeat_until(done, lambda: x.update(lambda n: n + 1)))


def test_irrevocable_alternative_runs_after_one_that_waited() -> None:
    x, y = ame.Ref(0), ame.Ref(0)
    effects: list[int] = []

    def second() -> str:
        y.value = 1
        ame.irrevocable()
        effects.append(1)
        return "done"

    @ame.atomic
    def block() -> str:
        result = ame.or_else(when(x), second)
        y.value += 1
        return result

    assert block() == "done"
    assert (y.value, effects) == (2, [1])
    in_thread(lambda: ame.run(ame.irrevocable))


def test_alternative_that_became_irrevocable_cannot_wait() -> None:
    y = ame.Ref(0)
    calls: list[int] = []

    def first() -> None:
        y.value = 1
        ame.irrevocable()
        ame.retry()

    with pytest.raises(ame.IrrevocableError):
        ame.run(lambda: ame.or_else(first, lambda: calls.append(1)))
    assert (y.value, calls) == (0, [])
    in_thread(lambda: ame.run(ame.irrevocable))


def test_irrevocable_block_may_choose_what_does_not_wait() -> None:
    y = ame.Ref(0)

    @ame.atomic(irrevocable=True)
    def block() -> int:
        y.value = 1
        return ame.or_else(lambda: y.value, never)

    assert block() == 1


def test_split_in_an_alternative_is_refused() -> None:
    """Catches: half of a block that is committed and then undone."""
    y = ame.Ref(0)

    def first() -> None:
        y.value = 1
        ame.split()

    with pytest.raises(ame.OpenBlockError):
        ame.run(lambda: ame.or_else(first, never))
    assert y.value == 0


def test_or_else_in_a_loop_item_chooses_per_item() -> None:
    stock: ame.Dict[str, int] = ame.Dict({"good": 10, "poor": 30})

    def take(kind: str) -> Callable[[], str]:
        def body() -> str:
            if not stock[kind]:
                ame.retry()
            stock[kind] -= 1
            return kind

        return body

    taken = ame.map(lambda _: ame.or_else(take("good"), take("poor")), range(40), workers=2)
    assert (taken.count("good"), taken.count("poor")) == (10, 30)
    assert dict(stock.items()) == {"good": 0, "poor": 0}
