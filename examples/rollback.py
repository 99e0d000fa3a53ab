"""All or nothing: an exception that leaves a block undoes everything that the block did.

An order takes several things from the stock. When one of them turns out to be missing, the things
taken before are back on the shelf, without a line of code to put them there, and no other thread
has ever seen them gone.
"""

from __future__ import annotations

import ame


class OutOfStock(Exception):
    """There are fewer of a thing than were ordered."""


stock: ame.Dict[str, int] = ame.Dict({"table": 2, "chair": 6, "lamp": 1})
sold: ame.Ref[int] = ame.Ref(0)


@ame.atomic
def order(**things: int) -> None:
    for name, number in things.items():
        stock[name] -= number
        sold.value += number
        if stock[name] < 0:
            raise OutOfStock(name)


def main() -> None:
    order(table=1, chair=4)
    print(f"sold {sold.value}, left: {dict(stock.items())}")

    try:
        order(table=1, chair=1, lamp=2)  # fails at the last of the three
    except OutOfStock as error:
        print(f"not enough: {error}")
    print(f"sold {sold.value}, left: {dict(stock.items())}")


if __name__ == "__main__":
    main()
