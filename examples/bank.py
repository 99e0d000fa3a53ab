"""Transfers between accounts, many at a time: an atomic function.

Each transfer reads and writes two accounts as one step. Whoever adds up the accounts, whenever,
finds that no money has been lost or made: there is no lock to forget, and no order of locks to get
wrong.
"""

from __future__ import annotations

import random

import ame

accounts: ame.Dict[str, int] = ame.Dict({"ann": 500, "bob": 500, "eve": 500, "joe": 500})


@ame.atomic
def transfer(source: str, target: str, amount: int) -> None:
    if accounts[source] >= amount:
        accounts[source] -= amount
        accounts[target] += amount


def main() -> None:
    rng = random.Random(1)
    orders = []
    for _ in range(10_000):
        source, target = rng.sample(sorted(accounts), 2)
        orders.append((source, target, rng.randint(1, 200)))

    ame.for_each(lambda order: transfer(*order), orders)

    with ame.atomic():  # a block: all four accounts at the same moment
        total = sum(accounts.values())
    print(f"transfers: {len(orders)}")
    print(f"total: {total}")


if __name__ == "__main__":
    main()
