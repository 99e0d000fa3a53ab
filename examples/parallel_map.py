"""Results from all processors, in the order of the input: `ame.map`.

Where iterations only compute and share nothing, this is all there is to it. Should one of them
begin to use shared state, that is safe as well: each call is atomic. On free-threaded Python with
two processors this takes half the time of the plain loop; with the GIL it takes as long.
"""

from __future__ import annotations

import time

import ame


def collatz_steps(start: int) -> int:
    """Return how often 3n+1 or n/2 is applied until `start` has become 1."""
    steps, number = 0, start
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps


def main() -> None:
    numbers = range(1, 100_000)

    began = time.perf_counter()
    plain = [collatz_steps(number) for number in numbers]
    plain_seconds = time.perf_counter() - began

    began = time.perf_counter()
    parallel = ame.map(collatz_steps, numbers)
    parallel_seconds = time.perf_counter() - began

    print(f"same results in the same order: {parallel == plain}")
    print(f"longest: {max(parallel)} steps from {numbers[parallel.index(max(parallel))]}")
    print(f"plain {plain_seconds:.2f} s, parallel {parallel_seconds:.2f} s")


if __name__ == "__main__":
    main()
