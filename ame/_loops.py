"""Parallel loops over atomic iterations: `for_each` and `map`.

Workers claim consecutive items ("a chunk") from the iterable under a lock, and run each chunk as
one transaction. Chunks commit in any order. What the workers share is in `_Loop`:

* INV-1: items are claimed in input order, so whenever item i has been claimed, so have 0..i-1.
* INV-2: a claimed item is run and committed, or given back, or at or after the *limit*. The limit
  is infinite until something fails, and then the smallest index that failed. So when a loop fails,
  every item before the one that failed has been committed: what the plain loop would have done.
* INV-3: `_busy` counts the workers that hold items. A worker leaves only when nothing is left to
  claim and nobody can give anything back, so no worker idles while another has a long chunk.

Lock order: `_Loop._changed` is held while the iterable produces items (so generators need no lock
of their own), never while `fn` or a transaction runs.
"""

from __future__ import annotations

import contextvars
import heapq
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Generic, Literal, TypeAlias, TypeVar, final

import stm
from ame._inputs import check_function, checked_chunk, open_items, peek
from ame._workers import worker_count

T = TypeVar("T")
R = TypeVar("R")
_Chunk: TypeAlias = tuple[int, list[T]]  # index of the first item, items that follow each other

_TRANSACTION_SHORT = 0.002  # seconds; a clean chunk that took less is doubled
_TRANSACTION_LONG = 0.010  # seconds; a chunk that takes more is cut there
_CLAIM_LONG = 0.001  # seconds; a slow iterable is asked for no more items after this
_CHUNK_MOST = 1 << 16  # items; what a worker holds in memory at most
_POLL = 0.1  # seconds between two looks of the caller at its workers and at Ctrl-C
_INTERRUPTED = -1  # an index before every item: stop at once


def for_each(
    fn: Callable[[T], object],
    iterable: Iterable[T],
    *,
    workers: int | None = None,
    chunk: int | Literal["auto"] = "auto",
    label: str | None = None,
) -> None:
    """Call `fn(item)` for every item, in parallel, each call atomic.

    Each call is all or nothing and sees no half-done other call; calls commit in any order. Several
    calls in a row may share one transaction (a chunk), which saves time and is not visible
    otherwise. A call that lost a conflict is executed again.

    The first exception stops the loop. It is the one of the smallest index: all items before it
    have been committed by then, and of its own call nothing. Items after it may have been committed
    too. An exception of the iterable counts as one at its place in the input.

    Ctrl-C stops the loop as soon as the calls that run, and the iterable, return; what was
    committed stays. A second Ctrl-C leaves without waiting for them.

    A call that becomes irrevocable (`ame.irrevocable()`) is the last of its transaction, and is not
    run again, whatever happens after it.

    Args:
        fn: Called with one item; what it returns is dropped.
        iterable: Any iterable. It is read as the loop goes, by one worker at a time, outside any
            transaction; a generator of any length takes little memory. Of a mapping, a set or a
            view of them, the keys (or elements) that are there at the start are taken.
        workers: Number of threads. By default one per usable processor, `AME_WORKERS` at most, and
            one on a build with the GIL. With one worker or one item the calling thread does it
            (with `chunk=1`: one item of an iterable that has a length).
        chunk: Items per transaction, at most. "auto" aims at 1 to 10 milliseconds.
        label: Name of the loop's transactions in reports; by default the name of `fn`.

    Raises:
        TypeError: `fn` is not callable or is a coroutine function, `iterable` can't be iterated
            over, or an option has the wrong type. Nothing has been run.
        ValueError: `workers` or `chunk` is below 1, `chunk` is a str other than "auto", or
            `AME_WORKERS` is not a number above 0. Nothing has been run.
        BaseException: What `fn` or the iterable raised, with its own traceback.

    *In a transaction:* allowed; runs as the plain loop, as part of the block, in the same thread.
    """
    _run("ame.for_each", fn, iterable, workers, chunk, label, keep=False)


def map(
    fn: Callable[[T], R],
    iterable: Iterable[T],
    *,
    workers: int | None = None,
    chunk: int | Literal["auto"] = "auto",
    label: str | None = None,
) -> list[R]:
    """Call `fn(item)` for every item, in parallel, each call atomic; return the list of results.

    The same as `for_each`, except that the results are kept, in the order of the input.

    Args:
        fn: Called with one item.
        iterable: Any iterable, as for `for_each`.
        workers: Number of threads, as for `for_each`.
        chunk: Items per transaction, at most, or "auto", as for `for_each`.
        label: Name of the loop's transactions in reports; by default the name of `fn`.

    Returns:
        A list with one result per item, complete; it is all in memory.

    Raises:
        TypeError: Bad argument, as for `for_each`. Nothing has been run.
        ValueError: Bad argument, as for `for_each`. Nothing has been run.
        BaseException: What `fn` or the iterable raised, with its own traceback.

    *In a transaction:* allowed; runs as the plain loop, as part of the block, in the same thread.
    """
    return _run("ame.map", fn, iterable, workers, chunk, label, keep=True)


def _run(
    where: str,
    fn: Callable[[T], R],
    iterable: Iterable[T],
    workers: int | None,
    chunk: int | Literal["auto"],
    label: str | None,
    *,
    keep: bool,
) -> list[R]:
    """Check the arguments, then run the loop where it belongs."""
    size = checked_chunk(chunk, where)
    check_function(fn, where)
    if label is not None and not isinstance(label, str):
        raise TypeError(f"{where}(): label must be a str or None, not {label!r}")
    nested = stm.in_transaction()
    count = 1 if nested and workers is None else worker_count(workers, where=where)
    name = label if label is not None else str(getattr(fn, "__qualname__", type(fn).__qualname__))
    iterator, length = open_items(iterable, where, name)
    if nested:
        return _plain_loop(fn, iterator, keep=keep)
    if length is not None:
        count = min(count, length)
    elif count > 1:
        # Take two items to find out whether threads are worth starting; one only with chunk=1, so
        # that an iterable which waits for the result of its last item works with that.
        head, iterator = peek(iterator, 1 if size == 1 else 2)
        count = count if head and size == 1 else min(count, head)
    loop = _Loop(fn, iterator, name, keep=keep, size=size, length=length, workers=count)
    return loop.run()


def _plain_loop(fn: Callable[[T], R], iterator: Iterator[T], *, keep: bool) -> list[R]:
    if keep:
        return [fn(item) for item in iterator]
    for item in iterator:
        fn(item)
    return []


@final
class _Signal(stm.Ref[bool]):
    """Wakes items that sleep; nothing that a program waits on."""

    _internal = True


@final
class _Progress:
    """What one worker knows of its chunk: also what survives an attempt that is thrown away."""

    __slots__ = ("attempt", "at", "began", "fit", "irrevocable", "results")

    def __init__(self) -> None:
        self.attempt = 0  # number of the attempt that ran last
        self.at = 0  # index of the item that was started last
        self.fit = sys.maxsize  # items before one that waits: they are committed first
        self.began = 0.0  # when the attempt that ran last began, in seconds
        self.irrevocable = False  # whether that attempt may have done what can't be undone
        self.results: list[Any] = []  # results of the attempt that ran last


@final
class _Loop(Generic[T, R]):
    """One run of a loop: the items left, how far it may go, what came out."""

    __slots__ = (
        "_busy", "_changed", "_entered", "_error", "_exhausted", "_failing", "_fn", "_given_back",
        "_halted", "_inside", "_iterator", "_keep", "_label", "_length", "_limit", "_next",
        "_results", "_size", "_stopping", "_workers",
    )  # fmt: skip

    def __init__(
        self,
        fn: Callable[[T], R],
        iterator: Iterator[T],
        label: str,
        *,
        keep: bool,
        size: int | None,
        length: int | None,
        workers: int,
    ) -> None:
        self._fn, self._label = fn, label
        self._keep = keep  # whether results are kept
        self._size = size  # items per chunk, None for "auto"
        self._length = length  # number of items where known
        self._workers = workers
        self._entered: list[threading.Thread] = []  # threads that run, or ran
        self._changed = threading.Condition()  # guards everything below
        self._failing = threading.Lock()  # guards writes of error, limit and stopping
        self._iterator = iterator
        self._next = 0  # index of the item that the iterator produces next
        self._exhausted = False
        self._given_back: list[_Chunk[T]] = []  # a heap: the smallest index first
        self._busy = 0  # workers that hold items
        self._error: BaseException | None = None
        self._limit = sys.maxsize  # items from this index on are not run; read without the lock
        # False until the limit is set. Read without the lock before each item instead of the limit,
        # since it never needs reference counting and the limit does.
        self._stopping = False
        self._halted = _Signal(False)  # the same for items that sleep: it wakes them
        self._inside = stm.in_transaction()  # then the loop is a part of that block
        self._results: list[tuple[int, list[R]]] = []  # (first index, results) of each commit

    def run(self) -> list[R]:
        """Run the loop to its end; return the results, or raise what stopped it."""
        if self._workers > 1:
            self._run_threads()
        else:
            self._work()
        error, self._error = self._error, None
        if error is not None:
            context = error.__context__
            try:
                raise error  # in an `except` of the caller this replaces the context
            finally:
                if context is not None:
                    error.__context__ = context
                del error, context  # the traceback refers to this frame
        self._results.sort(key=itemgetter(0))
        return [result for _, results in self._results for result in results]

    def _run_threads(self) -> None:
        threads: list[threading.Thread] = []
        try:
            for number in range(self._workers):
                thread = threading.Thread(
                    target=contextvars.copy_context().run,
                    args=(self._work_in_thread,),
                    name=f"ame-worker-{number}",
                    daemon=True,
                )
                threads.append(thread)
                try:
                    thread.start()
                except RuntimeError:  # no more threads to be had
                    threads.pop()
                    if not threads:
                        self._work()
                    break
            _wait(threads)
        except BaseException:
            self._limit = _INTERRUPTED  # not under the lock: the iterable may hold it for long
            self._stopping = True
            self._halted.value = True
            deadline = time.monotonic() + _POLL
            while len(self._entered) < len(threads) and time.monotonic() < deadline:
                time.sleep(0.001)  # start() itself was interrupted: its thread may come yet
            _wait(self._entered)
            raise

    def _work_in_thread(self) -> None:
        self._entered.append(threading.current_thread())
        try:
            self._work()
        except BaseException as error:
            self._fail(_INTERRUPTED, error)  # of the loop itself: never lose it

    def _work(self) -> None:
        """Claim and run items until there are none: what each worker does."""
        progress = _Progress()
        size = self._size or 1
        while (chunk := self._claim(size)) is not None:
            try:
                size = self._run_chunk(progress, chunk, size)
            finally:
                self._release()

    def _run_chunk(self, progress: _Progress, chunk: _Chunk[T], size: int) -> int:
        """Run claimed items, give back what didn't fit; return how many to claim next."""
        todo = [chunk]  # the next one last; more than one only after an exception
        while todo:
            first, items = todo.pop()
            done = self._attempt(progress, first, items, todo)
            if self._size is None:
                size = _next_size(size, len(items), done, progress)
            if 0 <= done < len(items):
                rest = (first + done, items[done:])
                if todo:
                    todo.append(rest)
                else:
                    self._give_back(rest)
        return size

    def _attempt(
        self, progress: _Progress, first: int, items: list[T], todo: list[_Chunk[T]]
    ) -> int:
        """Run one chunk; return how many of its items were committed, -1 after an exception."""
        if self._stopping and first >= self._limit:
            return -1
        progress.at = first
        progress.fit = sys.maxsize
        progress.irrevocable = False
        try:
            done: int = stm.run_block(self._label, self._body, progress, first, items)
        except KeyboardInterrupt as error:
            self._fail(_INTERRUPTED, error)
        except BaseException as error:
            at = progress.at - first
            if len(items) == 1 or progress.irrevocable:  # what ran exactly once is not run again
                self._fail(first + at, error)
                if at:
                    todo.append((first, items[:at]))
            else:
                # As the plain loop would: what is before, then that item alone: does it raise?
                if items[at + 1 :]:
                    todo.append((first + at + 1, items[at + 1 :]))
                todo.append((first + at, [items[at]]))
                if at:
                    todo.append((first, items[:at]))
        else:
            if self._keep and done:
                self._results.append((first, progress.results))
            return done
        finally:
            progress.results = []
        return -1

    def _body(self, progress: _Progress, first: int, items: list[T]) -> int:
        """Run the items of a chunk inside a transaction; return how many were run.

        An attempt that follows a lost one runs half as many: the rest gets another transaction. So
        does an item that calls `retry`: what it waits for may be what the items before it did.
        """
        progress.attempt = attempt = stm.attempt()
        progress.began = began = time.perf_counter()
        progress.results = results = []
        fn, keep = self._fn, self._keep
        until = began + _TRANSACTION_LONG if self._size is None else float("inf")
        index = first
        if attempt:
            items = items[: min(progress.fit, max(1, len(items) >> attempt))]
        _ = self._halted.value  # read, so that it wakes an item that sleeps
        try:
            for item in items:
                if self._stopping and index >= self._limit:
                    break
                progress.at = index
                if keep:
                    results.append(fn(item))
                else:
                    fn(item)
                index += 1
                if stm.is_irrevocable() or time.perf_counter() >= until:
                    break  # irrevocable: commit now, as no later item may undo this one
        except BaseException:
            progress.irrevocable = stm.is_irrevocable()
            if index > first and not self._inside and stm.cancel_wait():
                progress.fit = index - first
            raise
        return index - first

    def _claim(self, size: int) -> _Chunk[T] | None:
        """Take the next items, `size` at most; None when the loop is over."""
        with self._changed:
            while True:
                if self._given_back:
                    first, items = heapq.heappop(self._given_back)
                    if len(items) > size:
                        heapq.heappush(self._given_back, (first + size, items[size:]))
                        self._changed.notify()
                        items = items[:size]
                else:
                    first = self._next
                    items = [] if self._stopping or self._exhausted else self._produce(size)
                if items:
                    self._busy += 1
                    return first, items
                if not self._busy:
                    self._changed.notify_all()
                    return None
                self._changed.wait()

    def _produce(self, size: int) -> list[T]:
        """Ask the iterable for the next items; stop early where it is slow. The lock is held."""
        size = self._fair_share(size)
        deadline = time.perf_counter() + _CLAIM_LONG
        items: list[T] = []
        step = 2
        try:
            while len(items) < size and not self._stopping:
                before = len(items)
                began = time.perf_counter()
                step = min(step, size - before)
                items.extend(islice(self._iterator, step))  # keeps what came before an exception
                if len(items) - before < step:
                    self._exhausted = True
                    break
                now = time.perf_counter()
                if self._size is None and now > deadline:
                    break
                step = 2 * step if now - began < _CLAIM_LONG else max(1, step // 2)
        except KeyboardInterrupt as error:
            self._fail(_INTERRUPTED, error)
        except BaseException as error:
            self._fail(self._next + len(items), error)
        self._next += len(items)
        return items

    def _fair_share(self, size: int) -> int:
        """Return a number of items that leaves the other workers something to do at the end."""
        if self._size is None and self._workers > 1 and self._length is not None:
            share = (self._length - self._next) // (2 * self._workers)
            size = min(size, max(1, share))
        return size

    def _give_back(self, chunk: _Chunk[T]) -> None:
        """Let any worker run these claimed items."""
        with self._changed:
            heapq.heappush(self._given_back, chunk)
            self._changed.notify()

    def _release(self) -> None:
        """Say that this worker holds no items any more."""
        with self._changed:
            self._busy -= 1
            if not self._busy:
                self._changed.notify_all()

    def _fail(self, index: int, error: BaseException) -> None:
        """Stop the loop at `index` because of `error`; the smallest index counts."""
        with self._failing:  # at once: the iterable may hold the other lock for long
            if index < self._limit:
                self._limit = index
                self._error = error
            self._stopping = True
        if not stm.in_transaction():
            self._halted.value = True
        with self._changed:
            self._exhausted = True
            self._changed.notify_all()


def _wait(threads: list[threading.Thread]) -> None:
    """Wait until the threads have ended; Ctrl-C gets through at any time."""
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL)


def _next_size(size: int, held: int, done: int, progress: _Progress) -> int:
    """Return how many items the worker's next chunk gets, by what happened to the last one."""
    if progress.attempt:
        return max(1, size // 2)
    seconds = time.perf_counter() - progress.began
    if seconds > _TRANSACTION_LONG:
        return max(1, min(size, held) // 2)
    if seconds < _TRANSACTION_SHORT and done == held == size:
        return min(2 * size, _CHUNK_MOST)
    return size
