"""What docs/semantics.md says and no other test shows: the order of events, what is not undone."""

from __future__ import annotations

import gc
import sys
import threading
import time

import pytest

import ame
import stm
from hooking import Dropped
from sleepers import Sleepers, waiter
from stm.testing import forced_aborts, lose
from support import gil_enabled, in_thread, run_script

COUNT = 0


def _events_of_a_commit() -> list[object]:
    log: list[object] = []
    ready, old = ame.Ref(0), ame.Ref[object](None)
    wait, woken = waiter(lambda: ready.value)
    sleepers = Sleepers(wait)

    def note(event: str) -> None:
        """Note the event, what is visible, and whether the sleeper goes on although this waits."""
        limit = time.monotonic() + 20
        while len(woken) < 2 and time.monotonic() < limit:
            time.sleep(0.0001)  # no lock and no thread here: a finalizer may run anywhere
        log.append((event, ready.value, len(woken)))

    @ame.atomic
    def body() -> str:
        ready.value, old.value = 1, None
        ame.on_commit(note, "hook")
        ame.on_commit(log.append, "last hook")
        log.append("body")
        return "result"

    old.value = Dropped(lambda: note("old value"))
    log.append(body())
    sleepers.join()
    gc.collect()
    return log


@pytest.mark.deadline(60)
def test_events_of_a_commit_come_in_this_order() -> None:
    """Catches: sleepers or readers that wait for hooks or finalizers; hooks that come too early.

    Old values may be released later, by another commit: some of these release it themselves.
    """
    at_once = ["body", ("old value", 1, 2), ("hook", 1, 2), "last hook", "result"]
    found = [_events_of_a_commit() for _ in range(20)]
    assert at_once in found
    for log in found:
        assert sorted(log, key=str) == sorted(at_once, key=str)
        assert [each for each in log if each != at_once[1]] == [at_once[0], *at_once[2:]]
        assert log[0] == "body"


@pytest.mark.deadline(60)
def test_cleanup_of_a_lost_attempt_finds_its_writes_undone() -> None:
    """Catches: a cleanup in the middle of the undo; one that runs after the next attempt began."""
    ref, log = ame.Ref(0), []

    @ame.atomic
    def body(text: str, *, by: int) -> None:
        log.append(f"{text} {stm.attempt()}")
        ref.value += by
        ame.on_abort(lambda: log.append(f"first {ref.value}"))
        ame.on_abort(lambda: log.append(f"second {ref.value}"))

    with forced_aborts(2):
        body("attempt", by=1)
    lost = ["second 0", "first 0"]
    assert log == ["attempt 0", *lost, "attempt 1", *lost, "attempt 2"]
    assert ref.value == 1


@ame.prepare
def _restored_or_not(plain: list[int]) -> tuple[int, ...]:
    global COUNT
    assigned = own = enclosing = of_function = 0

    def outer() -> int:
        mine = 0

        def calls() -> None:
            nonlocal mine, enclosing
            mine += 1
            enclosing += 1

        with ame.atomic():
            calls()
        return mine

    @ame.atomic
    def function() -> None:
        nonlocal of_function
        of_function += 1

    with ame.atomic():
        assigned += 1
        COUNT += 1
        plain.append(1)
    own = outer()
    function()
    return assigned, own, enclosing, of_function


@pytest.mark.deadline(60)
def test_names_of_other_functions_globals_and_plain_objects_are_not_restored() -> None:
    """Catches: a page that promises more, or less, than the next attempt finds."""
    global COUNT
    COUNT, plain = 0, []
    with forced_aborts(2):
        restored_1, restored_2, *not_restored = _restored_or_not(plain)
    assert (restored_1, restored_2) == (1, 1)
    assert [*not_restored, COUNT, len(plain)] == [3] * 4


@pytest.mark.deadline(60)
@pytest.mark.parametrize("count", [2, 10])
def test_block_that_wrote_nothing_loses_one_attempt_at_most(count: int) -> None:
    """Catches: a reader that loses to each commit it meets."""
    refs = [ame.Ref(0) for _ in range(count)]

    def step() -> None:
        for ref in refs:
            ref.value += 1

    def change() -> None:
        ame.run(step)

    @ame.atomic
    def body() -> list[int]:
        seen = []
        for ref in refs:
            seen.append(ref.value)
            in_thread(change)
        return seen

    before = ame.stats()
    in_thread(change)
    assert len(set(body())) == 1
    assert (ame.stats() - before).aborts <= 1


@pytest.mark.deadline(60)
@pytest.mark.parametrize("waits", [True, False])
def test_timeout_of_a_block_counts_from_its_begin_and_ends_waits_only(waits: bool) -> None:
    """Catches: a timeout that counts from the first wait, or that undoes work which is done."""
    ref, ready, log = ame.Ref(0), ame.Ref(0), []

    @ame.atomic(timeout=0.2)
    def body() -> None:
        log.append(ready.value)
        ref.value += 1
        threading.Event().wait(0.21)
        if waits:
            ame.retry()

    if waits:
        with pytest.raises(ame.TransactionTimeout) as caught:
            body()
        assert caught.value.seconds < 0.2
    else:
        body()
    assert (log, ref.value) == ([0], 0 if waits else 1)


@pytest.mark.deadline(60)
def test_option_read_only_of_a_nested_block_has_no_effect() -> None:
    """Catches: a page that promises what nested blocks do not keep."""
    ref = ame.Ref(0)

    @ame.atomic(read_only=True)
    def inner() -> None:
        ref.value = 1

    ame.run(inner)
    assert ref.value == 1


@pytest.mark.deadline(60)
def test_lock_of_threading_that_a_lost_attempt_took_stays_taken() -> None:
    """Catches: a page that promises an undo for plain locks."""
    lock, taken = threading.Lock(), []

    @ame.atomic
    def body() -> None:
        taken.append(lock.acquire(blocking=False))
        if stm.attempt() == 0:
            lose()

    body()
    assert taken == [True, False]


@pytest.mark.deadline(60)
def test_block_that_only_reads_may_see_into_an_object_that_was_taken_out() -> None:
    """Catches: a page that promises more: its moment is before the object was taken out."""
    plain = [0, 0]
    ref = ame.Ref[list[int] | None](plain)

    def take_and_change() -> None:
        ref.value = None
        plain[:] = [1, 1]

    @ame.atomic
    def look() -> tuple[int, int]:
        seen = ref.value
        assert seen is not None
        first = seen[0]
        in_thread(take_and_change)
        return first, seen[1]

    assert look() == (0, 1)


@pytest.mark.deadline(60)
def test_two_reads_outside_of_a_block_may_be_of_two_moments() -> None:
    """Catches: a page that promises more for code outside of blocks."""
    first, second = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def step() -> None:
        first.value += 1
        second.value += 1

    seen = first.value
    in_thread(step)
    assert (seen, second.value) == (0, 1)


@pytest.mark.deadline(60)
def test_finalizer_in_a_lost_attempt_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a page that promises finalizers more than a lost attempt can give them."""
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: reported.append(event.exc_type))
    ref, log = ame.Ref(0), []

    def act() -> None:
        log.append("begins")
        ref.value += 1
        log.append("ends")

    @ame.atomic
    def body() -> None:
        value = Dropped(act)
        if stm.attempt() == 0:
            lose()
        del value

    body()
    assert log == ["begins", "begins", "ends"]
    assert ref.value == 1
    assert [issubclass(kind, Exception) for kind in reported] == [False]


@pytest.mark.deadline(60)
def test_finalizer_of_an_object_that_another_thread_drops_may_join_the_block_of_its_maker() -> None:
    """Catches: a page that promises that unrelated finalizers stay out of a block.

    The free-threaded build ends an object in the thread that made it, at any instruction.
    """
    inside: list[bool] = []

    @ame.atomic
    def body() -> None:
        held = [Dropped(lambda: inside.append(ame.in_transaction()))]
        in_thread(held.clear)

    body()
    gc.collect()
    assert inside in ([True], [False])
    assert gil_enabled() or inside == [True]


INTERRUPT = """
import os, signal, sys, threading, time
import ame
from stm._core import ffi, lib

def waits():
    raw = ffi.new("stm_stats *")
    lib.stm_domain_stats(lib.stmpy_get_domain(), raw)
    return raw.waits

ref, inside, leave, sent = ame.Ref(0), threading.Event(), threading.Event(), []

@ame.atomic(irrevocable=True)
def hold():
    ref.value
    inside.set()
    leave.wait(30)

def write():
    ref.value = 1

def interrupt(before):
    while waits() == before:
        time.sleep(0.001)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=hold, daemon=True).start()
inside.wait(30)
wait = {"commit": write, "irrevocable": ame.irrevocable}[sys.argv[1]]
threading.Thread(target=interrupt, args=(waits(),), daemon=True).start()
try:
    ame.run(wait)
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
assert not ame.in_transaction()
leave.set()
assert ref.value == 0
"""


@pytest.mark.parametrize("kind", ["commit", "irrevocable"])
def test_ctrl_c_ends_a_wait_for_another_block_within_0_3_seconds(kind: str) -> None:
    """Catches: a wait for an irrevocable block that no signal gets through."""
    assert min(float(run_script(INTERRUPT, kind, timeout=30).stdout) for _ in range(3)) < 0.3
