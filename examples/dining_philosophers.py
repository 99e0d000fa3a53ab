"""Dining philosophers without an order of locks: `ame.retry()` takes both forks, or none.

Five philosophers share five forks, and each needs two. With one lock per fork they starve as soon
as each holds its left one. A block that waits holds nothing: `ame.retry()` undoes it, sleeps until
one of the forks that it looked at has moved, and looks again.
"""

from __future__ import annotations

import threading

import ame

PHILOSOPHERS = 5
MEALS = 300

on_table: ame.Dict[int, bool] = ame.Dict({fork: True for fork in range(PHILOSOPHERS)})
eaten: ame.Dict[int, int] = ame.Dict({number: 0 for number in range(PHILOSOPHERS)})
eating = [False] * PHILOSOPHERS  # a plain list: whoever holds both forks has no neighbour there


@ame.atomic
def take_forks(left: int, right: int) -> None:
    if not (on_table[left] and on_table[right]):
        ame.retry()
    on_table[left] = on_table[right] = False


@ame.atomic
def put_back(number: int, left: int, right: int) -> None:
    on_table[left] = on_table[right] = True
    eaten[number] += 1


def dine(number: int, clashes: list[int]) -> None:
    left, right = number, (number + 1) % PHILOSOPHERS
    for _ in range(MEALS):
        take_forks(left, right)
        eating[number] = True
        if eating[number - 1] or eating[right]:
            clashes.append(number)
        eating[number] = False
        put_back(number, left, right)


def main() -> None:
    clashes: list[int] = []
    guests = [threading.Thread(target=dine, args=(n, clashes)) for n in range(PHILOSOPHERS)]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.join()
    print(f"meals: {sum(eaten.values())}, each had its share: {set(eaten.values()) == {MEALS}}")
    print(f"neighbours who ate at the same time: {len(clashes)}")


if __name__ == "__main__":
    main()
