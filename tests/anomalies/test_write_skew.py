"""Write skew: two blocks read what the other writes, and both commit.

Snapshot isolation allows it; a serial order doesn't.
"""

from __future__ import annotations

import pytest

import ame
from support import Interference, rounds, run_threads

pytestmark = pytest.mark.deadline(30)


def test_one_of_two_doctors_stays_on_call() -> None:
    """Catches: a commit that validates only what it wrote, by two refs."""
    ann, bob = ame.Ref(True), ame.Ref(True)

    @ame.atomic
    def leave(me: ame.Ref[bool], other: ame.Ref[bool]) -> None:
        if other.value:
            me.value = False

    for _ in rounds(300):
        ann.value = bob.value = True
        run_threads(lambda: leave(ann, bob), lambda: leave(bob, ann))
        assert ann.value or bob.value


def test_sum_of_two_accounts_stays_positive() -> None:
    """Catches: the same by two keys of one dict, many times per thread."""
    accounts: ame.Dict[str, int] = ame.Dict({"ann": 0, "bob": 0})

    @ame.atomic
    def withdraw(name: str) -> None:
        if accounts["ann"] + accounts["bob"] >= 1:
            accounts[name] -= 1

    @ame.atomic
    def deposit(name: str) -> None:
        assert accounts["ann"] + accounts["bob"] in (0, 1)
        if accounts["ann"] + accounts["bob"] == 0:
            accounts[name] += 1

    def body(name: str) -> None:
        for _ in rounds(1000):
            deposit(name)
            withdraw(name)

    run_threads(lambda: body("ann"), lambda: body("bob"), lambda: body("ann"))
    assert accounts["ann"] + accounts["bob"] in (0, 1)


def test_ref_that_was_read_and_not_written_is_validated() -> None:
    """Catches: write skew on two refs, without needing luck."""
    ann, bob = ame.Ref(True), ame.Ref(True)

    @ame.atomic
    def bob_leaves() -> None:
        if ann.value:
            bob.value = False

    interfere = Interference(bob_leaves)

    @ame.atomic
    def ann_leaves() -> None:
        if bob.value:
            interfere()
            ann.value = False

    ann_leaves()
    assert (ann.value, bob.value) == (True, False)


def test_key_that_was_read_and_not_written_is_validated() -> None:
    """Catches: write skew on two dict keys, without needing luck."""
    on_call: ame.Dict[str, bool] = ame.Dict({"ann": True, "bob": True})

    @ame.atomic
    def leave(me: str, other: str) -> None:
        if on_call[other]:
            interfere()
            on_call[me] = False

    interfere = Interference(lambda: leave("bob", "ann"))
    leave("ann", "bob")
    assert sorted(on_call.values()) == [False, True]


def test_chain_of_three_refs_has_a_serial_order() -> None:
    """Catches: cycles of three blocks, each of which conflicts with one other only."""
    refs = [ame.Ref(0), ame.Ref(0), ame.Ref(0)]

    @ame.atomic
    def copy(number: int) -> None:
        refs[number].value = refs[(number + 1) % 3].value + 1

    for _ in rounds(200):
        for ref in refs:
            ref.value = 0
        run_threads(lambda: copy(0), lambda: copy(1), lambda: copy(2))
        # The first of them in the serial order writes 1; the last one reads what another wrote.
        values = sorted(ref.value for ref in refs)
        assert values in ([1, 1, 2], [1, 2, 3]), values


def test_cycle_of_three_blocks_is_broken() -> None:
    """Catches: the same, without needing luck: each block begins inside the one before."""
    refs = [ame.Ref(0), ame.Ref(0), ame.Ref(0)]

    @ame.atomic
    def copy(number: int) -> None:
        seen = refs[(number + 1) % 3].value
        if number < 2:
            interfere[number]()
        refs[number].value = seen + 1

    interfere = [Interference(lambda: copy(1)), Interference(lambda: copy(2))]
    copy(0)
    assert [ref.value for ref in refs] == [3, 2, 1]
    assert [each.calls for each in interfere] == [2, 2]
