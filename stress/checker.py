"""Black-box check of histories: is what the transactions read and wrote serializable?

Every transaction writes values that no other writes, and reads a key before it writes it.  Then
the history says everything: who wrote what somebody read (*wr*), which version of a key follows
which (*ww*: the one whose writer read the other), and who read a version that somebody replaced
(*rw*: the reader comes first).  The history is serializable if and only if this graph has no cycle.
Begin and end times add the real-time order (strict serializability), through one node per moment
instead of an edge per pair, so that everything takes linear time (but for sorting the moments).

Attempts that were thrown away take part as transactions that only read: with opacity, they too
fit into the order.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

Key = Hashable
Value = Hashable


@final
@dataclass(slots=True)
class Transaction:
    """One attempt: the first value read per key, the last value written per key."""

    name: str
    reads: dict[Key, Value] = field(default_factory=dict)
    writes: dict[Key, Value] = field(default_factory=dict)
    committed: bool = True
    began: int | None = None  # before it began; any clock that all share
    ended: int | None = None  # after it had committed


@final
@dataclass(frozen=True, slots=True)
class Problem:
    """Why a history is not serializable: what it is called, and the transactions in it."""

    kind: str  # "lost update", "dirty read", "cycle", "unreadable history"
    text: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


_Version = tuple[Key, Value]


class _Graph:
    """Who must come before whom; nodes are numbers, first the transactions, then moments."""

    def __init__(self, count: int) -> None:
        self.after: list[list[int]] = [[] for _ in range(count)]

    def node(self) -> int:
        self.after.append([])
        return len(self.after) - 1

    def edge(self, first: int, then: int) -> None:
        if first != then:
            self.after[first].append(then)


def check(history: Sequence[Transaction], initial: Mapping[Key, Value]) -> list[Problem]:
    """Return why the history is not serializable in an order that respects real time, or nothing.

    Args:
        history: All attempts, in any order.
        initial: The value of every key before the first transaction.
    """
    writer, replaced, problems = _versions(history, initial)
    if problems:
        return problems
    graph = _Graph(len(history))
    for number, transaction in enumerate(history):
        for key, value in transaction.reads.items():
            by = writer.get((key, value))
            if by is None:
                problems.append(_dirty(transaction, key, value))
                continue
            if by >= 0:
                graph.edge(by, number)  # wr; and ww, where it writes the key too
            then = replaced.get((key, value))
            if then is not None:
                graph.edge(number, then)  # rw
    if problems:
        return problems
    _add_real_time(graph, history)
    for cycle in _cycles(graph.after):
        inside = [number for number in cycle if number < len(history)]
        names = tuple(history[number].name for number in inside)
        problems.append(Problem("cycle", _describe(history, inside), names))
    return problems


def _versions(
    history: Sequence[Transaction], initial: Mapping[Key, Value]
) -> tuple[dict[_Version, int], dict[_Version, int], list[Problem]]:
    """Return who wrote each version (-1: nobody, it was there), and who replaced it."""
    writer: dict[_Version, int] = {version: -1 for version in initial.items()}
    replaced: dict[_Version, int] = {}
    problems: list[Problem] = []
    for number, transaction in enumerate(history):
        if not transaction.committed:
            continue
        for key, value in transaction.writes.items():
            name = transaction.name
            if key not in transaction.reads:
                text = f"{name} writes {key!r} without having read it"
                problems.append(Problem("unreadable history", text, (name,)))
                continue
            if (key, value) in writer:
                text = f"{name} writes {value!r} to {key!r}, which was written before"
                problems.append(Problem("unreadable history", text, (name,)))
                continue
            writer[key, value] = number
            version = key, transaction.reads[key]
            other = replaced.setdefault(version, number)
            if other != number:
                names = (history[other].name, name)
                text = f"{names[0]} and {names[1]} both replaced {version[1]!r} of {key!r}"
                problems.append(Problem("lost update", text, names))
    return writer, replaced, problems


def _dirty(transaction: Transaction, key: Key, value: Value) -> Problem:
    text = f"{transaction.name} read {value!r} of {key!r}, which nobody committed"
    return Problem("dirty read", text, (transaction.name,))


def _add_real_time(graph: _Graph, history: Sequence[Transaction]) -> None:
    """Who ended before another began comes first: through a chain of the moments of ending."""
    moments: list[tuple[int, int, int]] = []  # when, 0 begin or 1 end (ties: no order), who
    for number, transaction in enumerate(history):
        if transaction.began is not None:
            moments.append((transaction.began, 0, number))
        if transaction.ended is not None and transaction.committed:
            moments.append((transaction.ended, 1, number))
    moments.sort()
    last: int | None = None
    for _, is_end, number in moments:
        if is_end:
            moment = graph.node()
            if last is not None:
                graph.edge(last, moment)
            graph.edge(number, moment)
            last = moment
        elif last is not None:
            graph.edge(last, number)


def _describe(history: Sequence[Transaction], cycle: Sequence[int]) -> str:
    lines = [f"{len(cycle)} transactions in a circle"]
    for number in cycle[:8]:
        one = history[number]
        word = "" if one.committed else " (thrown away)"
        lines.append(f"    {one.name}{word}: read {_some(one.reads)}, wrote {_some(one.writes)}")
    return "\n".join(lines)


def _some(values: Mapping[Key, Value]) -> str:
    text = ", ".join(f"{key!r}={value!r}" for key, value in list(values.items())[:8])
    return f"{{{text}{', ...' if len(values) > 8 else ''}}}"


def _cycles(after: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return one cycle of each strongly connected component that has one."""
    return [_shortest_cycle(after, part) for part in components(after) if len(part) > 1]


def components(after: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the strongly connected components (Tarjan's algorithm, without recursion)."""
    unseen = -1
    index = [unseen] * len(after)
    low = [0] * len(after)
    waiting: list[int] = []
    on_stack = bytearray(len(after))
    found: list[list[int]] = []
    count = 0
    for root in range(len(after)):
        if index[root] != unseen:
            continue
        work: list[tuple[int, int]] = [(root, 0)]
        while work:
            node, at = work.pop()
            if at == 0:
                index[node] = low[node] = count
                count += 1
                waiting.append(node)
                on_stack[node] = 1
            children = after[node]
            if at > 0:
                low[node] = min(low[node], low[children[at - 1]])
            while at < len(children) and index[children[at]] != unseen:
                if on_stack[children[at]]:
                    low[node] = min(low[node], index[children[at]])
                at += 1
            if at < len(children):
                work.append((node, at + 1))
                work.append((children[at], 0))
            elif low[node] == index[node]:
                part: list[int] = []
                while not part or part[-1] != node:
                    part.append(waiting.pop())
                    on_stack[part[-1]] = 0
                found.append(part)
    return found


def _shortest_cycle(after: Sequence[Sequence[int]], part: Sequence[int]) -> list[int]:
    """Return a shortest cycle through some node of the component (breadth first)."""
    inside = set(part)
    start = part[0]
    came: dict[int, int] = {}
    queue = [start]
    for node in queue:
        for then in after[node]:
            if then == start:
                path = [node]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return path[::-1]
            if then in inside and then not in came:
                came[then] = node
                queue.append(then)
    return list(part)


def chains_are_whole(
    history: Sequence[Transaction], initial: Mapping[Key, Value], final_values: Mapping[Key, Value]
) -> list[Problem]:
    """Return the keys whose last value in the history is not the value that is there."""
    replaced: dict[_Version, Value] = {}
    for one in history:
        if one.committed:
            for key, value in one.writes.items():
                replaced[key, one.reads[key]] = value
    problems = []
    for key, value in initial.items():
        chain = [value]
        while (key, chain[-1]) in replaced:
            chain.append(replaced[key, chain[-1]])
        if chain[-1] != final_values[key]:
            tail = " -> ".join(repr(a) for a, _ in pairwise([*chain[-4:], None]))
            text = f"{key!r} is {final_values[key]!r}, but its versions are ... {tail}"
            problems.append(Problem("lost update", text, ()))
    return problems
