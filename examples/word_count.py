"""Count words in parallel without conflicts: two remedies for `word_count_naive.py`.

1. *Collect locally, merge last.* The iteration counts into a dict of its own and adds that to the
   shared counts at its end. It can lose only to one that commits during its short merge.
2. *A key of one's own.* Each iteration writes keys that no other touches; they are folded when
   everything is there. Nothing can conflict, however many workers there are.
"""

from __future__ import annotations

import random
from collections import Counter

import ame

VOCABULARY = [f"word{n}" for n in range(500)]


def make_documents(number: int, length: int) -> list[list[str]]:
    """Return made-up documents: lists of words, frequent ones first in the vocabulary."""
    rng = random.Random(7)
    weights = [1 / (rank + 1) for rank in range(len(VOCABULARY))]
    return [rng.choices(VOCABULARY, weights, k=length) for _ in range(number)]


def main() -> None:
    documents = make_documents(number=40, length=20_000)

    merged: ame.Dict[str, int] = ame.Dict()

    def count_and_merge(words: list[str]) -> None:
        for word, count in Counter(words).items():
            merged[word] = merged.get(word, 0) + count

    before = ame.stats()
    ame.for_each(count_and_merge, documents, workers=2, chunk=1)
    print(f"merged last: {(ame.stats() - before).conflicts} conflicts")

    own: ame.Dict[tuple[str, int], int] = ame.Dict()

    def count_for_itself(number: int) -> None:
        for word, count in Counter(documents[number]).items():
            own[word, number] = count

    before = ame.stats()
    ame.for_each(count_for_itself, range(len(documents)), workers=2, chunk=1)
    print(f"own keys: {(ame.stats() - before).conflicts} conflicts")

    folded: Counter[str] = Counter()
    for (word, _), count in own.items():
        folded[word] += count
    print(f"words counted: {sum(merged.values())}, both equal: {dict(merged.items()) == folded}")


if __name__ == "__main__":
    main()
