"""A crawler that knows when it is done: the work list is empty, *and* nobody works any more.

Each page may lead to more pages, so an idle worker must not leave while another one is busy. With
a queue that takes counters, sentinels and care. Here it is one question, asked in one block: is
there work? If not, may there be some later (wait for it), or not (go home)?
"""

from __future__ import annotations

import threading

import ame

PAGES = 2000
WEB = {n: [(n * 7 + 1) % PAGES, (n * 13 + 5) % PAGES, (n + 1) % PAGES] for n in range(PAGES)}

to_do: ame.Dict[int, None] = ame.Dict({0: None})
known: ame.Dict[int, None] = ame.Dict({0: None})
busy: ame.Ref[int] = ame.Ref(0)


@ame.atomic
def next_page() -> int | None:
    if to_do:
        page, _ = to_do.popitem()
        busy.value += 1
        return page
    if busy.value:
        ame.retry()  # who is busy may find more
    return None


@ame.atomic
def done_with(links: list[int]) -> None:
    for link in links:
        if link not in known:
            known[link] = to_do[link] = None
    busy.value -= 1


def crawl(fetched: list[int]) -> None:
    while (page := next_page()) is not None:
        fetched.append(page)
        done_with(WEB[page])  # outside of any block: here it would ask the network


def main() -> None:
    fetched: list[int] = []
    workers = [threading.Thread(target=crawl, args=(fetched,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"pages: {len(fetched)}, each once: {sorted(fetched) == sorted(WEB)}")
    print(f"left to do: {len(to_do)}, busy: {busy.value}")


if __name__ == "__main__":
    main()
