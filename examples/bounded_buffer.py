"""A bounded buffer: `ame.retry()` says "not yet" where locks need two condition variables.

Nothing has to be notified, and nothing can be forgotten: whoever waits has read what it waits for,
and is woken by the block that changes it. And waiting composes: `move` takes and puts in one step.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

import ame

T = TypeVar("T")


class Buffer(Generic[T]):
    def __init__(self, size: int) -> None:
        self.size = size
        self.items: ame.Ref[tuple[T, ...]] = ame.Ref(())

    @ame.atomic
    def put(self, item: T) -> None:
        if len(self.items.value) == self.size:
            ame.retry()  # full: wait until somebody takes something
        self.items.value += (item,)

    @ame.atomic
    def take(self) -> T:
        if not self.items.value:
            ame.retry()  # empty: wait until somebody puts something
        item, self.items.value = self.items.value[0], self.items.value[1:]
        return item


@ame.atomic
def move(source: Buffer[T], target: Buffer[T]) -> None:
    target.put(source.take())


def main(count: int = 3000) -> None:
    inbox, outbox = Buffer[int](10), Buffer[int](2)

    def produce() -> None:
        for item in range(count):
            inbox.put(item)

    def pass_on() -> None:
        for _ in range(count):
            move(inbox, outbox)

    threading.Thread(target=produce).start()
    threading.Thread(target=pass_on).start()
    items = [outbox.take() for _ in range(count)]
    print(f"items: {len(items)}, in order: {items == list(range(count))}")


if __name__ == "__main__":
    main()
