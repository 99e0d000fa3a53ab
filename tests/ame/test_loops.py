"""`for_each` and `map`: every item once and atomic; input, threads, chunks."""

from __future__ import annotations

import contextvars
import functools
import itertools
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ame
import stm
from support import in_thread, seeded

pytestmark = pytest.mark.deadline(60)

WORKERS = [1, 2, 4]
CHUNKS: list[Any] = [1, 3, 100, "auto"]


class ItemError(Exception):
    """Raised for an item; its argument is the item."""


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in left if name.startswith("ame-")]


class Blocks:
    """Counts the transactions that loops run, and notes their labels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.labels: list[str | None] = []
        real = stm.run_block

        def counting(label: str | None, fn: Callable[..., Any], *args: Any) -> Any:
            self.labels.append(label)
            return real(label, fn, *args)

        monkeypatch.setattr(stm, "run_block", counting)


# What comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_every_item_is_run_once(workers: int, chunk: Any) -> None:
    seen: ame.Dict[int, int] = ame.Dict()

    def note(item: int) -> None:
        seen[item] = seen.get(item, 0) + 1

    ame.for_each(note, range(1000), workers=workers, chunk=chunk)
    assert dict(seen.items()) == dict.fromkeys(range(1000), 1)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_map_returns_results_in_input_order(workers: int, chunk: Any) -> None:
    items = [seeded().random() for _ in range(1000)]
    assert ame.map(str, items, workers=workers, chunk=chunk) == [str(item) for item in items]
    assert ame.map(str, iter(items), workers=workers, chunk=chunk) == [str(item) for item in items]


@pytest.mark.parametrize("workers", WORKERS)
def test_no_items_is_no_call(workers: int) -> None:
    def never(item: object) -> None:
        raise AssertionError(item)

    for empty in ([], {}, iter([]), range(0), "", ame.Dict()):
        ame.for_each(never, empty, workers=workers)
        assert ame.map(never, empty, workers=workers) == []


def test_conflicting_items_all_count() -> None:
    total = ame.Ref(0)

    def add(item: int) -> int:
        total.value += item
        return item

    assert ame.map(add, range(2000), workers=4) == list(range(2000))
    assert total.value == sum(range(2000))


def test_item_is_atomic_and_isolated() -> None:
    x, y = ame.Ref(0), ame.Ref(0)

    def step(_: int) -> None:
        assert ame.in_transaction()
        assert x.value == y.value
        x.value += 1
        y.value += 1

    ame.for_each(step, range(1000), workers=4)
    assert x.value == y.value == 1000


def test_for_each_returns_none_and_keeps_no_results() -> None:
    assert ame.for_each(str, range(10), workers=2) is None  # type: ignore[func-returns-value]


# Input ---------------------------------------------------------------------------------------


def test_generator_is_read_lazily() -> None:
    """A generator that is read ahead without limit would never end here."""

    def stop_at_1000(item: int) -> None:
        if item == 1000:
            raise ItemError(item)

    with pytest.raises(ItemError) as caught:
        ame.for_each(stop_at_1000, itertools.count(), workers=2)
    assert caught.value.args == (1000,)


def test_generator_runs_at_most_a_chunk_per_worker_ahead() -> None:
    committed = ame.Ref(0)
    farthest = 0

    def items() -> Iterator[int]:
        nonlocal farthest
        for item in range(300):
            farthest = max(farthest, item - committed.value)
            yield item

    def run(_: int) -> None:
        committed.value += 1

    ame.for_each(run, items(), workers=2, chunk=5)
    assert committed.value == 300
    # A chunk of five per worker, and two items to see whether threads are worth starting.
    assert farthest <= 12


def test_generator_runs_outside_of_transactions_and_never_twice_at_once() -> None:
    inside = 0

    def items() -> Iterator[int]:
        nonlocal inside
        for item in range(300):
            inside += 1
            assert inside == 1
            assert not ame.in_transaction()
            inside -= 1
            yield item

    assert ame.map(abs, items(), workers=4, chunk=2) == list(range(300))


def test_iterable_may_depend_on_results_with_chunks_of_one() -> None:
    """Item n + 1 exists only when item n has been committed: like a work list that feeds itself."""
    done = [threading.Event() for _ in range(50)]
    committed = ame.Ref(-1)

    def items() -> Iterator[int]:
        for item in range(50):
            yield item
            while committed.value < item:
                pass

    def run(item: int) -> None:
        committed.value = item
        done[item].set()

    ame.for_each(run, items(), workers=2, chunk=1)
    assert all(event.is_set() for event in done)


@pytest.mark.parametrize("make", [dict, ame.Dict], ids=["dict", "ame.Dict"])
@pytest.mark.parametrize("workers", WORKERS)
def test_dict_means_the_keys_at_the_start(make: Callable[..., Any], workers: int) -> None:
    table = make({key: 0 for key in range(100)})

    def grow(key: int) -> None:
        table[key + 1000] = table.pop(key)

    ame.for_each(grow, table, workers=workers)
    assert sorted(table) == list(range(1000, 1100))


def test_views_of_an_ame_dict_are_taken_at_one_version() -> None:
    table = ame.Dict({key: key for key in range(100)})

    def halve(pair: tuple[int, int]) -> int:
        key, value = pair
        table[key] = value // 2
        table[-key - 1] = 0
        return key

    assert sorted(ame.map(halve, table.items(), workers=2)) == list(range(100))
    assert len(table) == 200


def test_any_kind_of_iterable_will_do() -> None:
    class Indexed:
        def __getitem__(self, index: int) -> int:
            if index < 5:
                return index
            raise IndexError

    for iterable in ("abc", b"abc", (1, 2), {1}, zip("ab", "cd", strict=True), Indexed(), range(3)):
        expected = list("abc") if iterable == "abc" else None
        result = ame.map(lambda item: item, iterable, workers=2)  # type: ignore[var-annotated]
        assert len(result) in (1, 2, 3, 5)
        assert expected is None or result == expected


def test_iterator_that_raises_stops_the_loop_after_what_came_before() -> None:
    ran: ame.Dict[int, bool] = ame.Dict()

    def items() -> Iterator[int]:
        yield from range(137)
        raise ItemError("source")

    for workers, chunk in itertools.product(WORKERS, CHUNKS):
        ran.clear()
        with pytest.raises(ItemError, match="source") as caught:
            ame.for_each(lambda item: ran.setdefault(item, True), items(), workers=workers,
                         chunk=chunk)  # fmt: skip
        assert sorted(ran) == list(range(137))
        assert "items" in [frame.name for frame in traceback.extract_tb(caught.tb)]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_iterator_that_raises_at_once_is_shown(at: int) -> None:
    def items() -> Iterator[int]:
        yield from range(at)
        raise ItemError("source")

    for workers in WORKERS:
        with pytest.raises(ItemError, match="source"):
            ame.map(abs, items(), workers=workers)


# Chunks --------------------------------------------------------------------------------------


def test_auto_puts_short_items_together(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = Blocks(monkeypatch)
    ame.for_each(abs, range(20_000), workers=1)
    assert len(blocks.labels) < 1000


def test_auto_gives_long_items_a_transaction_each(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = Blocks(monkeypatch)

    def long(_: int) -> None:
        until = time.perf_counter() + 0.012
        while time.perf_counter() < until:
            pass

    ame.for_each(long, range(10), workers=1)
    assert len(blocks.labels) == 10


def test_auto_cuts_a_chunk_whose_items_have_become_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 2,000 short items the chunk is large; the long ones don't share one transaction."""
    together: Counter[object] = Counter()

    def run(item: int) -> None:
        if item >= 2000:
            together[transaction] += 1
            until = time.perf_counter() + 0.011
            while time.perf_counter() < until:
                pass

    transaction = 0
    real = stm.run_block

    def numbered(label: str | None, fn: Callable[..., Any], *args: Any) -> Any:
        nonlocal transaction
        transaction += 1
        return real(label, fn, *args)

    monkeypatch.setattr(stm, "run_block", numbered)
    ame.for_each(run, itertools.chain(range(2000), range(2000, 2030)), workers=1)
    assert sum(together.values()) == 30
    assert max(together.values()) <= 1


def test_fixed_chunk_is_the_number_of_items_per_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = Blocks(monkeypatch)
    ame.for_each(abs, range(100), workers=2, chunk=10)
    assert len(blocks.labels) == 10
    blocks.labels.clear()
    ame.for_each(abs, iter(range(95)), workers=1, chunk=10)
    assert len(blocks.labels) == 10


def test_lost_chunk_is_split_and_not_repeated() -> None:
    x = ame.Ref(0)
    calls: list[int] = []

    def bump() -> None:
        x.value += 1000

    def run(item: int) -> None:
        calls.append(item)
        x.value += 1
        if calls == list(range(8)):
            in_thread(bump)

    ame.for_each(run, range(16), workers=1, chunk=8)
    assert x.value == 1016
    assert calls == [*range(8), *range(4), *range(4, 8), *range(8, 16)]


# Threads -------------------------------------------------------------------------------------


def test_workers_are_named_threads_that_end() -> None:
    all_here = threading.Barrier(3)

    def name(_: int) -> str:
        all_here.wait(30)
        return threading.current_thread().name

    names = ame.map(name, range(3), workers=3, chunk=1)
    assert sorted(names) == ["ame-worker-0", "ame-worker-1", "ame-worker-2"]


@pytest.mark.parametrize(
    ("items", "workers"),
    [(range(50), 1), ([1], 4), (iter([1]), 4), ({"key": 1}, 4)],
    ids=["one worker", "one item", "iterator of one item", "one key"],
)
def test_one_worker_or_one_item_runs_in_the_calling_thread(items: Any, workers: int) -> None:
    me = threading.get_ident()
    assert set(ame.map(lambda _: threading.get_ident(), items, workers=workers)) == {me}


def test_at_most_as_many_threads_as_items() -> None:
    names = ame.map(lambda _: threading.current_thread().name, range(3), workers=50, chunk=1)
    assert set(names) <= {"ame-worker-0", "ame-worker-1", "ame-worker-2"}


def test_variable_sets_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AME_WORKERS", "1")
    me = threading.get_ident()
    assert set(ame.map(lambda _: threading.get_ident(), range(20))) == {me}


def test_context_variables_reach_the_workers_and_stay_there() -> None:
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("caller")

    def run(item: int) -> str:
        seen = variable.get()
        variable.set(f"worker {item}")
        return seen

    seen = ame.map(run, range(2), workers=2, chunk=1)
    assert seen[0] == "caller"
    assert variable.get() == "caller"


def test_thread_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    started = 0
    real = threading.Thread.start

    for limit in (0, 1):
        started = 0

        def start(thread: threading.Thread) -> None:
            nonlocal started
            if started == limit:  # noqa: B023
                raise RuntimeError("can't start new thread")
            started += 1
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)
        assert ame.map(abs, range(100), workers=4) == list(range(100))
        monkeypatch.undo()


# Inside a block, labels ----------------------------------------------------------------------


def test_inside_a_block_the_loop_is_part_of_it() -> None:
    total = ame.Ref(0)
    me = threading.get_ident()
    seen: list[int] = []

    def add(item: int) -> int:
        assert threading.get_ident() == me
        total.value += item
        return total.value

    @ame.atomic
    def block(fail: bool) -> list[int]:
        ame.for_each(add, range(5), workers=4)
        results = ame.map(add, range(5), workers=4)
        seen.append(in_thread(lambda: total.value))
        if fail:
            raise ItemError
        return results

    with pytest.raises(ItemError):
        block(True)
    assert total.value == 0
    assert block(False) == [10, 11, 13, 16, 20]
    assert total.value == 20
    assert seen == [0, 0]


def test_loop_in_a_loop_is_part_of_the_iteration() -> None:
    def row(number: int) -> list[int]:
        return ame.map(lambda column: number * column, range(4), workers=4)

    assert ame.map(row, range(3), workers=2) == [[r * c for c in range(4)] for r in range(3)]


def test_label_is_the_given_one_or_the_name_of_the_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = Blocks(monkeypatch)

    def work(_: object) -> None:
        pass

    ame.for_each(work, [1], label="given")
    ame.for_each(work, [1])
    ame.for_each(functools.partial(work), [1])
    assert blocks.labels[0] == "given"
    assert str(blocks.labels[1]).endswith("work")
    assert blocks.labels[2] == "partial"
