"""Closed nesting: conflicts of nested blocks, and what they cost."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import psutil
import pytest

import ame
import stm
from nesting import InnerError, each_form, fail_in, setter
from stm._core import ffi, lib
from support import Interference, run_n, seeded

pytestmark = pytest.mark.deadline(60)


# --- conflicts ---------------------------------------------------------------------------


@each_form
def test_what_an_undone_block_has_read_is_validated(form: Any) -> None:
    """Catches: reads dropped with the writes, so that a decision made on them is never checked."""
    flag, result = ame.Ref(0), ame.Ref(-1)
    disturb = Interference(setter(flag, 1))

    def inner() -> None:
        result.value = 99
        if flag.value == 0:
            raise InnerError

    @ame.atomic
    def outer() -> None:
        try:
            form(inner)()
            outcome = 1
        except InnerError:
            outcome = 0
        disturb()
        result.value = outcome

    outer()
    assert (result.value, disturb.calls) == (1, 2)


def test_key_found_absent_by_an_undone_block_is_validated() -> None:
    """Catches: the same for a key that was not there."""
    table: ame.Dict[str, int] = ame.Dict()
    result = ame.Ref("")
    disturb = Interference(lambda: table.update(k=1))

    @ame.atomic
    def outer() -> None:
        try:
            ame.run(table.__getitem__, "k")
            result.value = "there"
        except KeyError:
            disturb()
            result.value = "not there"

    outer()
    assert (result.value, disturb.calls) == ("there", 1)


def test_blind_write_that_was_undone_does_not_conflict() -> None:
    """Catches: an undone write that stays in the write set and overwrites another thread's."""
    blind, result = ame.Ref(0), ame.Ref(0)
    disturb = Interference(setter(blind, 5))

    @ame.atomic
    def outer() -> None:
        fail_in(ame.atomic, lambda: blind.update(lambda value: 1))
        disturb()
        result.value = 1

    outer()
    assert (blind.value, result.value) == (5, 1)


def test_bare_except_in_the_outer_block_cannot_keep_an_attempt_that_the_inner_lost() -> None:
    """Catches: an inner block that clears the doom of the attempt when it is undone."""
    first, second, log = ame.Ref(0), ame.Ref(0), []

    def write() -> None:
        first.value += 1
        second.value += 1

    disturb = Interference(lambda: ame.run(write))

    def inner() -> None:
        second.value += 0
        raise InnerError

    @ame.atomic
    def outer() -> None:
        log.append(first.value)
        first.value = 10
        disturb()
        try:  # noqa: SIM105
            ame.run(inner)
        except:  # noqa: E722
            pass

    outer()
    assert (log, first.value) == ([0, 1], 10)


def test_re_execution_after_an_undone_block_starts_from_nothing() -> None:
    """Catches: savepoints of a lost attempt that the next one meets."""
    ref, other, result = ame.Ref(0), ame.Ref(0), ame.Ref(-1)
    disturb = Interference(setter(ref, 5))

    def inner() -> None:
        other.value += 1
        disturb()
        raise InnerError

    @ame.atomic
    def outer() -> None:
        seen = ref.value
        for _ in range(3):
            with pytest.raises(InnerError):
                ame.run(inner)
        result.value = seen

    outer()
    assert (result.value, other.value) == (5, 0)


def test_irrevocable_inside_of_an_undone_block_stays() -> None:
    """Catches: a block that gives the slot up half-way, so that its outer part could lose."""
    ref, runs = ame.Ref(0), []

    @ame.atomic
    def outer() -> None:
        runs.append(1)
        ref.value = 1

        def inner() -> None:
            ame.irrevocable()
            ref.value = 2

        fail_in(ame.atomic, inner)
        assert ame.current().irrevocable
        with pytest.raises(ame.IrrevocableError):
            ame.retry()
        assert ref.value == 1

    outer()
    assert (ref.value, len(runs)) == (1, 1)


def test_irrevocable_with_a_stale_read_in_an_inner_block_starts_the_outer_over() -> None:
    """Catches: an upgrade that re-executes the inner block alone."""
    ref, runs, result = ame.Ref(0), [], ame.Ref(0)
    disturb = Interference(setter(ref, 1))

    @ame.atomic
    def outer() -> None:
        runs.append(ref.value)
        disturb()
        ame.run(ame.irrevocable)
        result.value = ref.value

    outer()
    assert (runs, result.value) == ([0, 1], 1)


# --- size --------------------------------------------------------------------------------


def nodes() -> int:
    """Versions that exist, buffered ones included."""
    raw = ffi.new("stm_stats *")
    lib.stm_domain_stats(lib.stmpy_get_domain(), raw)
    return int(raw.nodes)


@pytest.mark.parametrize("fails", [False, True])
def test_many_inner_blocks_that_write_one_key_need_the_memory_of_one(fails: bool) -> None:
    """Catches: an undo log that grows with the number of inner blocks."""
    table, ref = ame.Dict(k=-1), ame.Ref(-1)
    process = psutil.Process()
    count = 100_000

    @ame.atomic
    def inner(number: int) -> None:
        table["k"] = number
        ref.value = number
        if fails:
            raise InnerError

    @ame.atomic
    def outer() -> tuple[int, int]:
        ref.value = 0
        before = (0, 0)
        for number in range(count):
            with contextlib.suppress(InnerError):
                inner(number)
            if number == 1000:
                before = nodes(), process.memory_info().rss
        return nodes() - before[0], process.memory_info().rss - before[1]

    more_nodes, more_bytes = outer()
    assert more_nodes < 1000
    assert more_bytes < 30_000_000
    assert (table["k"], ref.value) == ((-1, 0) if fails else (count - 1, count - 1))


@pytest.mark.parametrize("fails", [False, True])
def test_nodes_of_a_large_nested_block_are_given_back(fails: bool) -> None:
    """Catches: buffered versions of undone or merged blocks that are leaked."""
    refs = [ame.Ref(0) for _ in range(2000)]

    def write(value: int) -> None:
        for ref in refs:
            ref.value = value
        if fails and value % 2:
            raise InnerError

    @ame.atomic
    def outer() -> None:
        for value in range(10):
            with contextlib.suppress(InnerError):
                ame.run(write, value)

    outer()
    stm.collect()
    before = nodes()
    for _ in range(5):
        outer()
    stm.collect()
    assert nodes() - before < 1000
    assert {ref.value for ref in refs} == {8 if fails else 9}


def test_large_outer_write_set_survives_failing_inner_ones_that_overwrite_it() -> None:
    """Catches: a hashed write set that is wrong after a cut, or an undo that costs all of it."""
    refs = [ame.Ref(-1) for _ in range(10_000)]
    more = [ame.Ref(-1) for _ in range(10_000)]

    def overwrite() -> None:
        for ref in refs + more:
            ref.value = 7

    def touch(number: int) -> None:
        refs[number].value = 8
        more[number].value = 8

    @ame.atomic
    def outer() -> None:
        for number, ref in enumerate(refs):
            ref.value = number
        fail_in(ame.atomic, overwrite)
        for number in range(2000):
            fail_in(ame.atomic, lambda number=number: touch(number))
        assert [ref.value for ref in refs] == list(range(10_000))
        assert {ref.value for ref in more} == {-1}
        more[5].value = 5

    outer()
    assert [ref.value for ref in refs] == list(range(10_000))
    assert [ref.value for ref in more if ref.value != -1] == [5]


def test_threads_with_failing_nested_blocks_keep_sums_and_lengths() -> None:
    """Catches: an undo that races with other commits: a lost addition, a value from both."""
    accounts = ame.Dict[int, int](dict.fromkeys(range(8), 100))
    entries = ame.Dict[tuple[int, int], int]()
    seeds = seeded()
    numbers = [random.Random(seeds.random()) for _ in range(4)]

    def move(rng: random.Random, amount: int) -> None:
        giver, taker = rng.sample(range(8), 2)
        accounts[giver] -= amount
        if accounts[giver] < 0:
            raise InnerError
        accounts[taker] += amount

    def body(number: int) -> int:
        rng, kept = numbers[number], 0

        @ame.atomic
        def step(index: int) -> int:
            state, made = rng.getstate(), 0
            try:
                for part in range(4):
                    try:
                        entries[number, index * 4 + part] = part
                        ame.run(move, rng, rng.randrange(200))
                        made += 1
                    except InnerError:
                        del entries[number, index * 4 + part]
                assert sum(accounts.values()) == 800
                return made
            except BaseException:
                rng.setstate(state)  # the attempt is repeated
                raise

        for index in range(60):
            kept += step(index)
        return kept

    kept = run_n(4, body)
    assert sum(accounts.values()) == 800
    assert min(accounts.values()) >= 0
    assert len(entries) == len(list(entries)) == sum(kept)


def test_nested_blocks_are_no_commits_of_their_own() -> None:
    """Catches: statistics that count savepoints."""
    before = ame.stats()

    @ame.atomic
    def outer() -> None:
        for _ in range(5):
            ame.run(lambda: None)
            fail_in(ame.atomic, lambda: None)

    outer()
    spent = ame.stats() - before
    assert (spent.commits, spent.attempts, spent.aborts) == (1, 1, 0)
