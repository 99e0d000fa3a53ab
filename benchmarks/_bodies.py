"""The operations that `costs.py` measures, plain and with `ame`.

Several threads run them, so all of them are at module level and get what they need as arguments:
variables of enclosing functions would be objects that the threads share, and counting references
to those would be what is measured.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from _measure import calibration

import ame

PAIRS = 4096  # transfers prepared in advance; then the same again


class Slot:
    """A plain object with one attribute: the peer of a Ref."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


class Property:
    """A read through a property."""

    __slots__ = ("_value",)

    def __init__(self, value: int) -> None:
        self._value = value

    @property
    def value(self) -> int:
        return self._value


def empty_loop(count: int) -> None:
    for _ in range(count):
        pass


def read_loop(holder: Any, count: int) -> None:
    for _ in range(count):
        holder.value  # noqa: B018


def write_loop(holder: Any, count: int) -> None:
    """Write two values in turn: writing the one already there would be no write."""
    value = 1
    for _ in range(count):
        value = 3 - value
        holder.value = value


read_loop_in_block = ame.atomic(read_loop)
write_loop_in_block = ame.atomic(write_loop)


def plain_nothing() -> None:
    pass


@ame.atomic
def nothing() -> None:
    pass


def call_loop(fn: Callable[[], object], count: int) -> None:
    for _ in range(count):
        fn()


def with_atomic_loop(count: int) -> None:
    atomic = ame.atomic
    for _ in range(count):
        with atomic():
            pass


def with_lock_loop(lock: threading.Lock, count: int) -> None:
    for _ in range(count):
        with lock:
            pass


def read_all(holders: list[Any]) -> None:
    for holder in holders:
        holder.value  # noqa: B018


read_all_in_block = ame.atomic(read_all)
read_all_declared = ame.atomic(read_only=True)(read_all)


def plain_transfer(source: Any, target: Any, amount: int) -> None:
    source.value -= amount
    target.value += amount


transfer = ame.atomic(plain_transfer)


def transfer_loop(fn: Callable[..., object], pairs: list[tuple[Any, Any]], count: int) -> None:
    while count > 0:
        for source, target in pairs if count >= len(pairs) else pairs[:count]:
            fn(source, target, 1)
        count -= len(pairs)


def locked_transfer_loop(lock: threading.Lock, pairs: list[tuple[Any, Any]], count: int) -> None:
    while count > 0:
        for source, target in pairs if count >= len(pairs) else pairs[:count]:
            with lock:
                plain_transfer(source, target, 1)
        count -= len(pairs)


@ame.atomic
def transfer_with_work(source: Any, target: Any, amount: int, steps: int) -> None:
    source.value -= amount
    calibration(steps)
    target.value += amount


def work_loop(pairs: list[tuple[Any, Any]], steps: int, count: int) -> None:
    while count > 0:
        for source, target in pairs if count >= len(pairs) else pairs[:count]:
            transfer_with_work(source, target, 1, steps)
        count -= len(pairs)


def with_work_loop(pairs: list[tuple[Any, Any]], steps: int, count: int) -> None:
    """Do the same as `work_loop` in a `with` block, which is executed again when it loses."""
    while count > 0:
        for source, target in pairs if count >= len(pairs) else pairs[:count]:
            with ame.atomic():
                source.value -= 1
                calibration(steps)
                target.value += 1
        count -= len(pairs)


@ame.atomic
def increment(counts: ame.Dict[int, int], key: int) -> None:
    counts[key] += 1


def increment_loop(counts: ame.Dict[int, int], keys: list[int], count: int) -> None:
    while count > 0:
        for key in keys if count >= len(keys) else keys[:count]:
            increment(counts, key)
        count -= len(keys)


def collatz(limit: int) -> int:
    """Return the greatest number of steps from a number below the limit to 1."""
    most = 0
    for start in range(1, limit):
        number, steps = start, 0
        while number != 1:
            number = number // 2 if number % 2 == 0 else 3 * number + 1
            steps += 1
        most = max(most, steps)
    return most


def read_items(mapping: Any, keys: list[int], value: int) -> None:
    for key in keys:
        mapping[key]


def write_items(mapping: Any, keys: list[int], value: int) -> None:
    for key in keys:
        mapping[key] = value


def iterate_items(mapping: Any, keys: list[int], value: int) -> None:
    for _ in mapping:
        pass


def pass_loop(fn: Callable[..., object], mapping: Any, keys: list[int], count: int) -> None:
    """Do that many passes, each with another value: an equal one would be no write."""
    for number in range(count):
        fn(mapping, keys, number & 1)


def make_pairs(kind: Callable[[int], Any], accounts: int, seed: int = 1) -> list[tuple[Any, Any]]:
    """Return pairs of different accounts out of that many new ones."""
    holders = [kind(10_000 + n) for n in range(accounts)]
    rng = random.Random(seed)
    return [tuple(rng.sample(holders, 2)) for _ in range(PAIRS)]  # type: ignore[misc]
