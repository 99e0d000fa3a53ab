"""A cache that loads each value once, while everyone else goes on: `ame.unprotected()`.

What takes long does not belong into a block. `with ame.unprotected():` commits what the block has
done so far (here: "I load this"), runs outside of any transaction, and goes on in a new one. Who
wants the same value waits for it by `ame.retry()`; who wants another one isn't held up.
"""

from __future__ import annotations

import threading

import ame

LOADING = object()

cache: ame.Dict[str, object] = ame.Dict()
loads: list[str] = []
others_are_served = threading.Event()


def load(key: str) -> str:
    """Pretend to ask a server; "slow" takes until everyone else has been served."""
    loads.append(key)
    if key == "slow":
        others_are_served.wait(30)
    return key.upper()


@ame.atomic
def get(key: str) -> object:
    if key not in cache:
        cache[key] = LOADING
        with ame.unprotected():
            try:
                value = load(key)
            except BaseException:
                del cache[key]  # a block of its own: the next one may try
                raise
        cache[key] = value
    elif cache[key] is LOADING:
        ame.retry()
    return cache[key]


def main() -> None:
    keys = ["slow", "a", "b", "slow", "a", "slow", "c"]
    answers: ame.Dict[int, object] = ame.Dict()
    for place, key in enumerate(keys):
        threading.Thread(target=lambda p=place, k=key: answers.update({p: get(k)})).start()
    ame.block_until(lambda: len(answers) == 4, timeout=30)
    print(f"served while 'slow' was being loaded: {len(answers)}")
    others_are_served.set()
    ame.block_until(lambda: len(answers) == len(keys), timeout=30)
    right = all(answers[place] == key.upper() for place, key in enumerate(keys))
    print(f"answers: {len(answers)}, right: {right}, loads: {sorted(loads)}")


if __name__ == "__main__":
    main()
