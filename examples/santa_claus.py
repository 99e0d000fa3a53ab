"""Santa Claus (Trono 1994): wait for one group or another, `ame.or_else`, the first one preferred.

Santa sleeps until nine reindeer are back, or three of ten elves want help; the reindeer go first.
"""

from __future__ import annotations

import threading

import ame


class Group:
    """Those who come to Santa, `size` at a time, `visits` times altogether."""

    def __init__(self, size: int, visits: int) -> None:
        self.size = size
        self.left = ame.Ref(visits * size)
        self.waiting, self.called, self.inside = ame.Ref(0), ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def join(self) -> int | None:
        if self.left.value == 0:
            return None
        if self.waiting.value == self.size:
            ame.retry()  # this group is complete: wait for the next one
        self.left.value -= 1
        self.waiting.value += 1
        return self.called.value

    def call_in(self) -> Group:
        if self.waiting.value < self.size:
            ame.retry()
        self.waiting.value, self.inside.value = 0, self.size
        self.called.value += 1
        return self

    def member(self) -> None:
        while (before := self.join()) is not None:
            ame.block_until(lambda before=before: self.called.value > before)
            self.inside.update(lambda number: number - 1)


def main() -> None:
    reindeer, elves = Group(size=9, visits=10), Group(size=3, visits=40)
    for group in [reindeer] * 9 + [elves] * 10:
        threading.Thread(target=group.member, daemon=True).start()
    ame.block_until(lambda: reindeer.waiting.value == 9 and elves.waiting.value == 3)
    visits = []
    for _ in range(50):
        group = ame.or_else(reindeer.call_in, elves.call_in)
        visits.append("toys" if group is reindeer else "advice")
        ame.block_until(lambda group=group: group.inside.value == 0)
    print(f"toys delivered: {visits.count('toys')}, elves advised: {visits.count('advice')}")
    print(f"both were ready, and first came: {visits[0]}")


if __name__ == "__main__":
    main()
