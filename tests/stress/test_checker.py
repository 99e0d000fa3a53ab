"""The checker of histories: planted anomalies are found, serial histories are not blamed."""

from __future__ import annotations

import pytest

from stress.checker import Transaction, chains_are_whole, check, components
from support import seeded

START = {"x": "x0", "y": "y0"}


def transaction(name: str, reads: str, writes: str = "", **more: object) -> Transaction:
    """Make one from "x0 y1": the values name their keys."""
    return Transaction(
        name,
        {value[0]: value for value in reads.split()},
        {value[0]: value for value in writes.split()},
        **more,  # type: ignore[arg-type]
    )


def kinds(history: list[Transaction]) -> list[str]:
    return [problem.kind for problem in check(history, START)]


def test_serial_history_is_fine() -> None:
    history = [
        transaction("a", "x0 y0", "x1"),
        transaction("b", "x1 y0", "y1"),
        transaction("c", "x1 y1"),
    ]
    assert kinds(history) == []
    assert kinds(history[::-1]) == []


def test_lost_update_is_found() -> None:
    history = [transaction("a", "x0", "x1"), transaction("b", "x0", "x2")]
    assert kinds(history) == ["lost update"]


def test_write_skew_is_found() -> None:
    history = [transaction("a", "x0 y0", "x1"), transaction("b", "x0 y0", "y1")]
    (problem,) = check(history, START)
    assert problem.kind == "cycle"
    assert set(problem.names) == {"a", "b"}


def test_torn_read_is_found() -> None:
    history = [transaction("writer", "x0 y0", "x1 y1"), transaction("reader", "x1 y0")]
    assert kinds(history) == ["cycle"]


def test_torn_read_of_an_attempt_that_was_thrown_away_is_found() -> None:
    """Opacity, not only serializability."""
    history = [
        transaction("writer", "x0 y0", "x1 y1"),
        transaction("zombie", "x1 y0", "x9", committed=False),
    ]
    assert kinds(history) == ["cycle"]


def test_attempt_that_was_thrown_away_may_have_seen_any_moment() -> None:
    history = [
        transaction("writer", "x0 y0", "x1 y1"),
        transaction("lost", "x0 y0", "x9", committed=False),
    ]
    assert kinds(history) == []


def test_dirty_read_is_found() -> None:
    history = [
        transaction("undone", "x0", "x1", committed=False),
        transaction("reader", "x1"),
    ]
    assert kinds(history) == ["dirty read"]


def test_two_readers_that_disagree_on_the_order_are_found() -> None:
    history = [
        transaction("a", "x0", "x1"),
        transaction("b", "y0", "y1"),
        transaction("first", "x1 y0"),
        transaction("second", "x0 y1"),
    ]
    (problem,) = check(history, START)
    assert set(problem.names) == {"a", "b", "first", "second"}


@pytest.mark.parametrize(("began", "expected"), [(4, []), (6, ["cycle"])])
def test_value_older_than_the_begin_is_found(began: int, expected: list[str]) -> None:
    """Strict serializability: what ended before another began comes first."""
    history = [
        transaction("writer", "x0", "x1", began=1, ended=5),
        transaction("reader", "x0", began=began, ended=9),
    ]
    assert kinds(history) == expected


def test_write_without_a_read_is_refused() -> None:
    assert kinds([transaction("a", "", "x1")]) == ["unreadable history"]


def test_last_value_that_no_chain_leads_to_is_found() -> None:
    history = [transaction("a", "x0", "x1")]
    assert chains_are_whole(history, START, {"x": "x1", "y": "y0"}) == []
    assert len(chains_are_whole(history, START, {"x": "x0", "y": "y0"})) == 1


def test_components_are_those_of_reachability() -> None:
    """Against the definition: two nodes are together if each reaches the other."""
    rng = seeded()
    for _ in range(300):
        size = rng.randrange(1, 9)
        after = [
            [rng.randrange(size) for _ in range(rng.choice((0, 1, 1, 2)))] for _ in range(size)
        ]
        reach = [{node} for node in range(size)]
        for _ in range(size):
            for node in range(size):
                for then in after[node]:
                    reach[node] |= reach[then]
        expected = {
            frozenset(b for b in range(size) if b in reach[a] and a in reach[b])
            for a in range(size)
        }
        assert {frozenset(part) for part in components(after)} == expected


def test_long_chain_needs_no_recursion() -> None:
    count = 20_000
    history = [transaction("t0", "x0", "x1")]
    history += [transaction(f"t{n}", f"x{n}", f"x{n + 1}") for n in range(1, count)]
    assert kinds(history) == []


def test_random_serial_history_is_fine_and_a_swapped_read_is_not() -> None:
    rng = seeded()
    state = {key: f"{key}0" for key in "abcd"}
    initial = dict(state)
    history: list[Transaction] = []
    for number in range(1, 400):
        keys = rng.sample(sorted(state), rng.randrange(1, 4))
        one = Transaction(f"t{number}", {key: state[key] for key in keys})
        for key in keys:
            if rng.random() < 0.6:
                state[key] = one.writes[key] = f"{key}{number}"
        one.began, one.ended = 2 * number, 2 * number + 1
        history.append(one)
    rng.shuffle(history)
    assert check(history, initial) == []
    reader = Transaction("late", {"a": initial["a"]}, began=10_000, ended=10_001)
    assert [problem.kind for problem in check([*history, reader], initial)] == ["cycle"]
