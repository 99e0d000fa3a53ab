"""Count words in parallel, the obvious way: correct, but the iterations conflict. And see it.

Each iteration updates the shared counts from its first word to its last. All documents use the same
words, so whenever one iteration commits, all others have read counts that are now out of date, and
start over. The result is right all the same; the statistics show what it cost. The remedy is in
`word_count.py`.
"""

from __future__ import annotations

import random

import ame

VOCABULARY = [f"word{n}" for n in range(500)]


def make_documents(number: int, length: int) -> list[list[str]]:
    """Return made-up documents: lists of words, frequent ones first in the vocabulary."""
    rng = random.Random(7)
    weights = [1 / (rank + 1) for rank in range(len(VOCABULARY))]
    return [rng.choices(VOCABULARY, weights, k=length) for _ in range(number)]


def main() -> None:
    documents = make_documents(number=40, length=20_000)
    counts: ame.Dict[str, int] = ame.Dict()

    def count(words: list[str]) -> None:
        for word in words:  # shared state from beginning to end: everyone is in everyone's way
            counts[word] = counts.get(word, 0) + 1

    before = ame.stats()
    ame.for_each(count, documents, workers=2, chunk=1)
    used = ame.stats() - before

    print(f"words counted: {sum(counts.values())}")
    print(f"transactions: {used.commits}, attempts: {used.attempts}")
    print(f"conflicts: {used.conflicts}, which cost {used.seconds_lost:.2f} s")


if __name__ == "__main__":
    main()
