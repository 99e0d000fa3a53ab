"""A tree that is rotated under its readers: inconsistent reads end in a loop without an end.

Rotations turn the edge between a node and its child round. A reader that sees one half of one goes
in circles: without consistent reads no exception and no validation at commit would ever stop it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import ame
from support import repeat_until, rounds, run_threads, seeded, then_set

pytestmark = pytest.mark.deadline(60)

KEYS = 64


class Node:
    """A key with two subtrees; only the links are transactional."""

    __slots__ = ("key", "left", "right")

    def __init__(self, key: int, left: Node | None, right: Node | None) -> None:
        self.key = key
        self.left = ame.Ref[Node | None](left)
        self.right = ame.Ref[Node | None](right)


Link = ame.Ref[Node | None]


def build(low: int, high: int) -> Node | None:
    """Return a balanced tree of the keys from `low` to `high` - 1."""
    if low == high:
        return None
    middle = (low + high) // 2
    return Node(middle, build(low, middle), build(middle + 1, high))


def find(root: Link, key: int) -> int:
    """Return how many steps lead to the key; fail when there are more than nodes."""
    link, steps = root, 0
    while (node := link.value) is not None:
        steps += 1
        assert steps <= KEYS, f"{steps} steps in a tree of {KEYS} nodes"
        if node.key == key:
            return steps
        link = node.left if key < node.key else node.right
    raise AssertionError(f"{key} is not there")


def walk(root: Link) -> list[int]:
    """Return the keys in order; fail when there are more than there can be."""
    keys: list[int] = []
    stack: list[Node] = []
    node = root.value
    while stack or node is not None:
        while node is not None:
            stack.append(node)
            assert len(stack) <= KEYS, "a path that is longer than the tree"
            node = node.left.value
        node = stack.pop()
        keys.append(node.key)
        assert len(keys) <= KEYS, "more keys than nodes"
        node = node.right.value
    return keys


def rotate_at(root: Link, key: int, to_the_right: bool) -> bool:
    """Turn round the edge from the node with this key to its child; False if there is none."""
    link, steps = root, 0
    while (node := link.value) is not None and node.key != key:
        steps += 1
        assert steps <= KEYS, "a writer goes in circles"
        link = node.left if key < node.key else node.right
    assert node is not None
    down, up = (node.left, node.right) if to_the_right else (node.right, node.left)
    child = down.value
    if child is None:
        return False
    inner = child.right if to_the_right else child.left
    down.value = inner.value
    inner.value = node
    link.value = child
    assert up is not down
    return True


rotate = ame.atomic(rotate_at)


def writer(root: Link, seed: int) -> Callable[[], None]:
    random = seeded()
    random.seed(random.random() + seed)

    def step() -> None:
        rotate(root, random.randrange(KEYS), random.random() < 0.5)

    return step


@pytest.mark.parametrize("read_only", [False, True])
def test_search_in_a_rotating_tree_ends(read_only: bool) -> None:
    """Catches: reads of two versions in one attempt, which lead in circles or past the key."""
    root: Link = ame.Ref(build(0, KEYS))
    search = ame.atomic(read_only=read_only)(find)
    done = threading.Event()

    def reader() -> None:
        for number in rounds(100_000, seconds=0.7):
            assert 1 <= search(root, number % KEYS) <= KEYS

    run_threads(
        then_set(done, reader),
        repeat_until(done, writer(root, 1)),
        repeat_until(done, writer(root, 2)),
    )
    assert ame.run(walk, root) == list(range(KEYS))


def test_walk_through_a_rotating_tree_meets_each_key_once() -> None:
    """Catches: the same for readers of the whole tree, who are overtaken many times."""
    root: Link = ame.Ref(build(0, KEYS))
    whole = ame.atomic(walk)
    done = threading.Event()

    def reader() -> None:
        for _ in rounds(10_000, seconds=0.7):
            assert whole(root) == list(range(KEYS))

    run_threads(then_set(done, reader), *[repeat_until(done, writer(root, n)) for n in range(2)])


def test_reader_that_writes_finds_its_way_too() -> None:
    """Catches: the same in attempts that have to be validated, and may be lost."""
    root: Link = ame.Ref(build(0, KEYS))
    found: ame.Dict[int, int] = ame.Dict()
    done = threading.Event()

    @ame.atomic
    def search(key: int) -> None:
        found[key] = find(root, key)

    def reader() -> None:
        for number in rounds(50_000, seconds=0.7):
            search(number % KEYS)

    run_threads(then_set(done, reader), *[repeat_until(done, writer(root, n)) for n in range(2)])
    assert all(1 <= steps <= KEYS for steps in found.values())


def test_reader_that_waits_for_a_shape_gets_it() -> None:
    """Catches: a sleeper that is not woken by changes on the path that it has walked."""
    root: Link = ame.Ref(build(0, KEYS))
    done = threading.Event()

    @ame.atomic
    def wait_for_root(key: int) -> int:
        node = root.value
        assert node is not None
        if node.key != key:
            ame.retry()
        return find(root, key)

    def lift(key: int) -> bool:
        """Rotate the key's parent once; True when it is the root."""
        node = root.value
        assert node is not None
        if node.key == key:
            return True
        parent = node
        while node.key != key:
            parent = node
            child = (node.left if key < node.key else node.right).value
            assert child is not None
            node = child
        assert rotate_at(root, parent.key, key < parent.key)
        return False

    def lifter() -> None:
        for key in range(0, KEYS, 3):
            while not ame.run(lift, key):
                pass
            ame.block_until(lambda key=key: seen.get(key))

    seen: ame.Dict[int, int] = ame.Dict()

    def watcher() -> None:
        for key in range(0, KEYS, 3):
            seen[key] = wait_for_root(key)

    run_threads(then_set(done, lifter), watcher)
    assert set(seen.values()) == {1}
    assert ame.run(walk, root) == list(range(KEYS))
