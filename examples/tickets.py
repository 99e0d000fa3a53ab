"""Input and output in a block: `ame.irrevocable()` makes the rest of it run exactly once.

A block that loses a conflict is run again from its start, and what it printed or sent can't be
taken back. After `ame.irrevocable()` it can't lose any more, so this is the place for output. At
most one block at a time is in that state: make it irrevocable late, and leave it soon.
"""

from __future__ import annotations

import io
from typing import TextIO

import ame

CUSTOMERS = 200

last_number: ame.Ref[int] = ame.Ref(0)


@ame.atomic(label="sell a ticket")
def sell(customer: int, printer: TextIO) -> None:
    number = last_number.value + 1
    last_number.value = number
    ame.irrevocable()
    printer.write(f"ticket {number} for customer {customer}\n")


def main() -> None:
    printer = io.StringIO()

    ame.for_each(lambda customer: sell(customer, printer), range(CUSTOMERS), workers=4, chunk=1)

    tickets = printer.getvalue().splitlines()
    numbers = [int(ticket.split()[1]) for ticket in tickets]
    print(f"tickets printed: {len(tickets)}")
    print(f"each number once and in order: {numbers == list(range(1, CUSTOMERS + 1))}")


if __name__ == "__main__":
    main()
