"""From locks to blocks, one function at a time: `ame.Lock` works on both sides.

`old_transfer` was written with a lock and stays as it is. `transfer` is new: inside of a block the
same lock takes nothing, so such blocks run in parallel; a block only makes sure that no thread
outside holds the lock. Old and new code exclude each other, so neither sees the other half-done.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import ame

lock = ame.Lock()  # was: threading.Lock()
stock: ame.Dict[str, int] = ame.Dict({name: 100 for name in "abcdefgh"})  # was: a dict


def old_transfer(source: str, target: str) -> None:
    with lock:  # several steps, each visible to others: the lock protects them
        stock[source] -= 1
        stock[target] += 1


@ame.atomic
def transfer(source: str, target: str) -> None:
    with lock:
        stock[source] -= 1
        stock[target] += 1


@ame.atomic
def total() -> int:
    with lock:
        return sum(stock.values())


def main() -> None:
    totals: set[int] = set()

    def work(move: Callable[[str, str], None]) -> None:
        for number in range(1000):
            move(*random.sample("abcdefgh", 2))
            if number % 10 == 0:
                totals.add(total())

    kinds = [old_transfer, transfer, old_transfer, transfer]
    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"totals that were seen: {sorted(totals)}, transfers: {1000 * len(threads)}")


if __name__ == "__main__":
    main()
