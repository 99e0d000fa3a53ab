"""split and unprotected: a block committed in parts, with its rest in the protected slot."""

from __future__ import annotations

from typing import Any

import pytest

import ame
import stm
from splitting import BodyError, each_way, elsewhere
from stm.testing import forced_aborts, lose
from support import Interference, in_thread

pytestmark = pytest.mark.deadline(60)


# --- what is committed when --------------------------------------------------------------


@each_way
def test_others_see_the_first_part_from_the_split_on_and_the_rest_at_the_end(part: Any) -> None:
    """Catches: a split that commits nothing, or a rest that commits at once."""
    first, rest, seen = ame.Ref(0), ame.Ref(0), []

    @ame.atomic
    def body() -> str:
        first.value = 1
        seen.append(elsewhere(first, rest))
        part()
        seen.append(elsewhere(first, rest))
        rest.value = 1
        seen.append(elsewhere(first, rest))
        return "result"

    assert body() == "result"
    assert seen == [(0, 0), (1, 0), (1, 0)]
    assert (first.value, rest.value) == (1, 1)
    assert not ame.in_transaction()


@each_way
def test_exception_before_the_split_undoes_the_first_part(part: Any) -> None:
    """Catches: a split that commits although it is never reached."""
    ref = ame.Ref(0)

    @ame.atomic
    def body(error: bool) -> None:
        ref.value = 1
        if error:
            raise BodyError
        part()

    with pytest.raises(BodyError):
        body(True)
    assert ref.value == 0


@each_way
def test_exception_after_the_split_undoes_the_rest_only(part: Any) -> None:
    """Catches: a rest that is committed, or a first part that is undone."""
    first, rest = ame.Ref(0), ame.Ref(0)
    table = ame.Dict(a=1)

    @ame.atomic
    def body() -> None:
        first.value = 1
        table["b"] = 2
        part()
        rest.value = 1
        table["c"] = 3
        del table["a"]
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert (first.value, rest.value) == (1, 0)
    assert list(table.items()) == [("a", 1), ("b", 2)]


@each_way
def test_rest_reads_what_others_wrote_in_between(part: Any) -> None:
    """Catches: a rest that goes on with the snapshot of the first part."""
    ref, other = ame.Ref(0), ame.Ref(0)

    @ame.atomic
    def body() -> tuple[int, int]:
        ref.value = 1
        part()
        in_thread(lambda: (ref.update(lambda value: value + 10), setattr(other, "value", 5)))
        return ref.value, other.value

    assert body() == (11, 5)


@each_way
def test_each_of_many_parts_is_committed(part: Any) -> None:
    """Catches: state of one part that the next one meets."""
    table: ame.Dict[int, int] = ame.Dict()

    @ame.atomic
    def body() -> None:
        for number in range(50):
            table[number] = number
            assert len(table) == number + 1
            part()
            assert in_thread(lambda: len(table)) == number + 1

    body()
    assert list(table) == list(range(50))


@each_way
def test_split_of_an_empty_part_works(part: Any) -> None:
    """Catches: a commit of nothing that is taken for misuse."""

    @ame.atomic
    def body() -> bool:
        part()
        part()
        return ame.in_transaction()

    assert body() is True
    assert not ame.in_transaction()


@each_way
def test_split_in_an_irrevocable_block_goes_on_irrevocably(part: Any) -> None:
    """Catches: a slot that is not given up, so that the thread waits for itself."""
    ref = ame.Ref(0)

    @ame.atomic
    def body() -> None:
        ame.irrevocable()
        ref.value = 1
        part()
        assert stm.is_irrevocable()
        ame.irrevocable()
        ref.value += 1

    body()
    assert ref.value == 2
    in_thread(lambda: ame.run(ame.irrevocable))


@each_way
def test_split_in_a_with_block_works(part: Any) -> None:
    """Catches: a split for functions only."""
    ref = ame.Ref(0)
    with ame.atomic():
        ref.value = 1
        part()
        assert elsewhere(ref) == (1,)
        ref.value = 2
    assert ref.value == 2
    assert not ame.in_transaction()


@each_way
def test_read_only_block_is_read_only_after_the_split_too(part: Any) -> None:
    """Catches: an option of the block that its rest forgets."""
    ref = ame.Ref(0)

    @ame.atomic(read_only=True)
    def body() -> None:
        assert ref.value == 0
        part()
        ref.value = 1

    with pytest.raises(ame.ReadOnlyError):
        body()
    assert ref.value == 0


def test_commit_on_counts_for_the_rest() -> None:
    """Catches: the same for commit_on."""
    ref = ame.Ref(0)

    @ame.atomic(commit_on=BodyError)
    def body() -> None:
        ame.split()
        ref.value = 1
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert ref.value == 1


@each_way
def test_nested_blocks_of_the_rest_are_undone_by_themselves(part: Any) -> None:
    """Catches: savepoints of the first part that the rest goes back to."""
    ref = ame.Ref(0)

    def fail() -> None:
        ref.value += 10
        raise BodyError

    @ame.atomic
    def body() -> None:
        for _ in range(3):
            ref.value += 1
            with pytest.raises(BodyError):
                ame.run(fail)
            part()

    body()
    assert ref.value == 3


# --- conflicts ---------------------------------------------------------------------------


@each_way
def test_conflict_at_the_split_executes_the_first_part_again(part: Any) -> None:
    """Catches: a first part that is committed on stale reads, or twice."""
    ref, first, runs = ame.Ref(0), ame.Ref(0), []
    disturb = Interference(lambda: setattr(ref, "value", 5))

    @ame.atomic
    def body() -> None:
        runs.append("first")
        seen = ref.value
        disturb()
        first.value += seen + 1
        part()
        runs.append("rest")

    body()
    assert runs == ["first", "first", "rest"]
    assert first.value == 6


@each_way
def test_bare_except_around_the_split_cannot_keep_a_lost_first_part(part: Any) -> None:
    """Catches: an abort raised by the split that user code swallows."""
    ref, first = ame.Ref(0), ame.Ref(-1)
    disturb = Interference(lambda: setattr(ref, "value", 5))

    @ame.atomic
    def body() -> None:
        seen = ref.value
        disturb()
        first.value = seen
        try:  # noqa: SIM105
            part()
        except:  # noqa: E722
            pass

    body()
    assert (first.value, disturb.calls) == (5, 2)


@each_way
def test_rest_is_not_executed_again(part: Any) -> None:
    """Catches: a rest that loses, when its first part is there already."""
    first, runs = ame.Ref(0), []

    @ame.atomic
    def body() -> None:
        first.value += 1
        part()
        lose()
        runs.append(1)
        first.value += 1

    with forced_aborts(2):
        body()
    assert (first.value, runs) == (2, [1])


@each_way
def test_lost_attempts_before_the_split_count_for_max_attempts(part: Any) -> None:
    """Catches: a limit that the split swallows."""
    first = ame.Ref(0)

    @ame.atomic(max_attempts=1)
    def body() -> None:
        first.value = 1
        part()

    with forced_aborts(1), pytest.raises(ame.AttemptLimit):
        body()
    assert first.value == 0
    body()
    assert first.value == 1


# --- hooks -------------------------------------------------------------------------------


@each_way
def test_hooks_of_the_first_part_run_at_the_split_and_outside_of_the_block(part: Any) -> None:
    """Catches: hooks put off to the end, run twice, or run inside of the rest."""
    log: list[Any] = []

    @ame.atomic
    def body() -> None:
        ame.on_commit(lambda: log.append(("first", ame.in_transaction())))
        ame.on_abort(log.append, "never")
        part()
        log.append("rest")
        ame.on_commit(log.append, "end")

    body()
    assert log == [("first", False), "rest", "end"]


@each_way
def test_cleanups_of_the_rest_run_when_the_rest_is_undone(part: Any) -> None:
    """Catches: cleanups of the committed part run with those of the rest."""
    log: list[str] = []

    @ame.atomic
    def body() -> None:
        ame.on_abort(log.append, "first")
        part()
        ame.on_abort(log.append, "rest")
        ame.on_commit(log.append, "commit of the rest")
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert log == ["rest"]


@each_way
def test_block_in_a_hook_at_the_split_is_one_of_its_own(part: Any) -> None:
    """Catches: a hook whose block joins the rest, or waits for it."""
    ref, seen = ame.Ref(0), []

    def hook() -> None:
        ame.run(ame.irrevocable)
        ref.value += 10
        seen.append(elsewhere(ref))

    @ame.atomic
    def body() -> None:
        ref.value = 1
        ame.on_commit(hook)
        part()
        assert ref.value == 11
        raise BodyError

    with pytest.raises(BodyError):
        body()
    assert (ref.value, seen) == (11, [(11,)])


@each_way
def test_interrupt_in_a_hook_at_the_split_ends_the_block_without_the_rest(part: Any) -> None:
    """Catches: a thread that is left inside of a block, or outside while the body goes on."""
    ref, log = ame.Ref(0), []

    def interrupt() -> None:
        raise KeyboardInterrupt

    @ame.atomic
    def body() -> None:
        ref.value = 1
        ame.on_commit(interrupt)
        try:
            part()
        finally:
            log.append(ame.in_transaction())
            ref.value = 2

    with pytest.raises(KeyboardInterrupt):
        body()
    assert (ref.value, log) == (1, [True])
    assert not ame.in_transaction()
    in_thread(lambda: ame.run(ame.irrevocable))
