"""What a loop is given: checking the arguments, opening the iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MappingView, Set, Sized
from itertools import chain, islice
from typing import TypeVar

import stm

T = TypeVar("T")

_TAKEN_AT_ONCE = (Mapping, MappingView, Set, stm.DictKeys, stm.DictItems, stm.DictValues)


def peek(iterator: Iterator[T], most: int) -> tuple[int, Iterator[T]]:
    """Return how many of the next `most` items exist, and an iterator over all of them."""
    head: list[T] = []
    try:
        head.extend(islice(iterator, most))
    except KeyboardInterrupt:
        raise  # nothing has been run, and nothing is to be
    except BaseException as error:
        return max(1, len(head)), _failing(head, error)
    if len(head) < most:
        return len(head), iter(head)  # it has ended: don't ask it again
    return len(head), chain(head, iterator)


def _failing(head: list[T], error: BaseException) -> Iterator[T]:
    yield from head
    try:
        raise error
    finally:
        del error  # its traceback refers to this frame


def checked_chunk(chunk: object, where: str) -> int | None:
    """Return the number of items per transaction, None for "auto"."""
    message = f'{where}(): chunk must be "auto" or an integer above 0 (items), not {chunk!r}'
    if chunk == "auto":
        return None
    if isinstance(chunk, str):
        raise ValueError(message)
    if isinstance(chunk, bool) or not hasattr(type(chunk), "__index__"):
        raise TypeError(f"{message} ({type(chunk).__name__})")
    size = int(chunk.__index__())  # type: ignore[attr-defined]
    if size < 1:
        raise ValueError(
            f"{where}(): chunk must be at least 1 (items per transaction), not {size}; chunk=1 "
            'gives each item a transaction of its own, chunk="auto" measures'
        )
    return size


def check_seconds(value: object, name: str) -> None:
    """Raise TypeError or ValueError unless `value` is None or a number of seconds >= 0."""
    if value is None:
        return
    if isinstance(value, bool) or not hasattr(type(value), "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, got {type(value).__name__}")
    if not float(value) >= 0:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a number of seconds >= 0 or None, got {value!r}")


def check_function(fn: object, where: str) -> None:
    import inspect  # large, and not needed by programs without loops

    if not callable(fn):
        raise TypeError(
            f"{where}(): the first argument must be a function of one item, not {fn!r} "
            f"({type(fn).__name__}); the order is {where}(function, iterable)"
        )
    if inspect.isgeneratorfunction(fn):
        raise TypeError(
            f"{where}(): {getattr(fn, '__qualname__', fn)!r} is a generator function, and calling "
            "it would only make a generator that nobody runs; pass a plain function"
        )
    if inspect.iscoroutinefunction(fn):
        raise TypeError(
            f"{where}(): {getattr(fn, '__qualname__', fn)!r} is a coroutine function, and calling "
            "it would only make a coroutine that nobody awaits; pass a plain function"
        )


def open_items(iterable: Iterable[T], where: str, label: str) -> tuple[Iterator[T], int | None]:
    """Return an iterator over the items, and their number where it is known."""
    kind = type(iterable)
    if not hasattr(kind, "__iter__") and not hasattr(kind, "__getitem__"):
        hint = "read it with `async for` first" if hasattr(kind, "__aiter__") else "pass a list"
        raise TypeError(
            f"{where}(): the second argument must be an iterable, not {iterable!r:.200} "
            f"({kind.__name__}); {hint}, or any other iterable of items"
        )
    is_mapping = hasattr(kind, "keys") and hasattr(kind, "__getitem__")
    if is_mapping or isinstance(iterable, _TAKEN_AT_ONCE):
        # One transaction, so that it is what was there at one moment; later changes don't matter.
        iterable = stm.run_block(label, list, iterable)
    try:
        length = len(iterable) if isinstance(iterable, Sized) else None
    except Exception:  # a wrapper of a generator: it has `__len__` but no length
        length = None
    return iter(iterable), length
