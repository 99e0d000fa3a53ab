"""Waiting composes: withdraw here, or else there, or else wait for money, but not for ever.

`withdraw` knows how to wait; nobody has to change it to build `pay`, which tries two accounts and
waits for either. What the first attempt did before it had to wait is undone. A wait that takes too
long ends with an error that tells what it was waiting for.
"""

from __future__ import annotations

import threading

import ame

accounts: ame.Dict[str, int] = ame.Dict({"giro": 100, "savings": 500})


@ame.atomic
def withdraw(account: str, amount: int) -> str:
    accounts[account] -= amount
    if accounts[account] < 0:  # then it is undone: nobody ever sees a negative balance
        ame.retry()
    return account


@ame.atomic
def pay(amount: int) -> str:
    return ame.or_else(lambda: withdraw("giro", amount), lambda: withdraw("savings", amount))


@ame.atomic(timeout=0.1)
def pay_soon(amount: int) -> str:
    return pay(amount)


def main() -> None:
    print(f"80 from {pay(80)}")
    print(f"200 from {pay(200)}")

    try:
        pay_soon(900)
    except ame.TransactionTimeout as error:
        names = [key for _, key in error.waited_on]
        print(f"900 not paid after {error.seconds:.1f} s, although it watched {names}")

    salary = threading.Timer(0.1, lambda: accounts.update(giro=accounts["giro"] + 1000))
    salary.start()
    print(f"900 from {pay(900)}, when there was money")
    print(f"left: {dict(accounts.items())}")


if __name__ == "__main__":
    main()
