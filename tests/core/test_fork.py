"""Fork: the child has a domain that works, whatever other threads were doing at that moment.

Each test is a program of its own, because the test runner must not be forked.
"""

from __future__ import annotations

from support import run_script

PRELUDE = """
import os, sys, threading, traceback
sys.path.insert(0, "tests/core")
from harness import NOW, Domain, State, Status, versions
from stm._core import ffi, lib


def fork(domain, own, in_child):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            lib.stm_domain_fork_child(domain.raw, ffi.new("stm_txn *[]", [own.raw]), 1)
            in_child()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_child_commits_while_the_parent_had_open_blocks() -> None:
    run_script(
        PRELUDE
        + """
domain = Domain()
own, other, holder = domain.record(), domain.record(), domain.record()
cells = [domain.cell(n) for n in range(12)]
assert other.begin() is Status.OK
other.read(cells[0])
assert other.write(cells[1], 99) is Status.OK
assert holder.begin(lib.STM_BEGIN_PROTECTED) is Status.OK
holder.read(cells[2])

def in_child():
    assert [t.state for t in (own, other, holder)] == [State.IDLE] * 3
    own.set(cells[2], 50)                                   # no mark is left
    assert own.begin(lib.STM_BEGIN_PROTECTED, timeout=NOW) is Status.OK  # the slot is free
    assert own.read(cells[1]) == 1                          # what was buffered is gone
    assert own.commit() is Status.OK
    for n in range(100):
        own.set(cells[3], n)
    domain.collect()                                        # nobody keeps old versions
    assert versions(cells[3]) == 1
    new = [domain.record() for _ in range(3)]               # two of them reused
    assert domain.stats.transactions == 4
    for txn in new:
        txn.set(cells[4], 7)

fork(domain, own, in_child)
assert other.state is State.ACTIVE and holder.state is State.PROTECTED
assert holder.commit() is Status.OK
assert other.commit() is Status.OK
assert own.pinned_read(cells[1]) == 99
domain.close()
"""
    )


def test_child_reuses_a_record_with_a_large_write_set() -> None:
    """Regression: the index of the write set that the other thread had was kept."""
    run_script(
        PRELUDE
        + """
domain = Domain()
own, other = domain.record(), domain.record()
cells = [domain.cell(n) for n in range(100)]
assert other.begin() is Status.OK
for cell in cells:
    assert other.read(cell) >= 0
    assert other.write(cell, 50) is Status.OK

def in_child():
    reused = domain.record()
    assert reused.raw == other.raw
    assert reused.begin() is Status.OK
    for n, cell in reversed(list(enumerate(cells))):
        assert reused.write(cell, 1000 + n) is Status.OK
    expected = [1000 + n for n in range(100)]
    assert [reused.read(cell) for cell in cells] == expected
    assert reused.commit() is Status.OK
    assert [own.pinned_read(cell) for cell in cells] == expected

fork(domain, own, in_child)
"""
    )


def test_child_forks_inside_its_own_block() -> None:
    run_script(
        PRELUDE
        + """
domain = Domain()
own, cell = domain.record(), domain.cell(1)
assert own.begin(lib.STM_BEGIN_PROTECTED) is Status.OK
assert own.read(cell) == 1
assert own.write(cell, 2) is Status.OK

def in_child():
    assert own.state is State.PROTECTED
    other = domain.record()
    assert other.begin(lib.STM_BEGIN_PROTECTED, timeout=NOW) is Status.TIMEOUT
    assert own.commit() is Status.OK
    assert other.pinned_read(cell) == 2
    assert other.begin(lib.STM_BEGIN_PROTECTED, timeout=NOW) is Status.OK

fork(domain, own, in_child)
assert own.commit() is Status.OK
domain.close()
"""
    )


def test_slot_is_free_in_the_child_when_it_had_just_been_granted_to_another_thread() -> None:
    """The thread that waited has the slot, but has not come back from its wait."""
    run_script(
        PRELUDE
        + """
woken, go_on = threading.Event(), threading.Event()

def attach(token):
    woken.set()
    assert go_on.wait(30)
    return 0

domain = Domain(attach=attach)
own, waiter = domain.record(), domain.record()
assert own.begin(lib.STM_BEGIN_PROTECTED) is Status.OK
thread = threading.Thread(
    target=lambda: waiter.begin(lib.STM_BEGIN_PROTECTED), daemon=True
)
thread.start()
while domain.stats.waits == 0:
    pass
assert own.commit() is Status.OK     # grants the slot to the waiter
assert woken.wait(30)

def in_child():  # go_on is not touched: the waiter may have held its lock
    assert own.begin(lib.STM_BEGIN_PROTECTED, timeout=NOW) is Status.OK
    assert own.commit() is Status.OK

fork(domain, own, in_child)
go_on.set()
thread.join()
assert waiter.state is State.PROTECTED
assert waiter.commit() is Status.OK
"""
    )
