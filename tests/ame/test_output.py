"""ame.print and CommitHandler: output of blocks, when they commit and only then."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import ame
import ame.logs
import stm
from stm.testing import forced_aborts
from support import Interference, in_thread, run_n

pytestmark = pytest.mark.deadline(60)


class BodyError(Exception):
    """Leaves a block."""


class Stream(io.StringIO):
    """A text stream that remembers each call."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.flushes = 0

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)

    def flush(self) -> None:
        self.flushes += 1


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What sys.unraisablehook is told of."""
    errors: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: errors.append(event.exc_value))
    return errors


# --- print --------------------------------------------------------------------------------


def test_print_appears_after_the_commit(stream: Stream) -> None:
    """Catches: output in the middle of a block."""

    @ame.atomic
    def body() -> None:
        ame.print("text", file=stream)
        assert stream.writes == []

    body()
    assert stream.getvalue() == "text\n"


def test_print_outside_of_a_block_is_the_built_in(stream: Stream) -> None:
    """Catches: output that waits for a commit that never comes."""
    ame.print("a", 1, sep="-", end="!", file=stream, flush=True)
    assert stream.getvalue() == "a-1!"
    assert stream.flushes == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"sep": ""}, {"sep": None, "end": None}, {"sep": "\n", "end": ""}, {"flush": True}],
)
@pytest.mark.parametrize("values", [(), ("a",), (1, None, [2, "x"]), ("",)])
def test_print_makes_the_text_that_the_built_in_makes(
    stream: Stream, values: Any, options: Any
) -> None:
    """Catches: separators, ends and empty calls that differ."""
    plain = Stream()
    print(*values, file=plain, **options)
    ame.run(ame.print, *values, file=stream, **options)
    assert stream.getvalue() == plain.getvalue()
    assert (stream.flushes > 0) == bool(options.get("flush"))


def test_print_goes_to_what_stdout_is_at_the_commit(
    monkeypatch: pytest.MonkeyPatch, stream: Stream
) -> None:
    """Catches: a stream looked up too early, as under pytest's capture."""

    @ame.atomic
    def body() -> None:
        ame.print("text")
        monkeypatch.setattr(sys, "stdout", stream)

    body()
    assert stream.getvalue() == "text\n"


def test_print_without_a_console_does_nothing(
    monkeypatch: pytest.MonkeyPatch, reported: Any
) -> None:
    """Catches: an error under pythonw, where the built-in has none."""
    monkeypatch.setattr(sys, "stdout", None)
    ame.print("text")
    ame.run(ame.print, "text", flush=True)
    assert reported == []


def test_print_writes_each_call_as_a_whole(stream: Stream) -> None:
    """Catches: pieces of lines of different threads mixed up."""
    ame.run(ame.print, *range(10), file=stream)
    assert stream.writes == ["0 1 2 3 4 5 6 7 8 9\n"]


def test_lines_of_threads_are_whole_and_in_the_order_of_their_commits(stream: Stream) -> None:
    """Catches: the same under threads."""

    def body(number: int) -> None:
        for index in range(100):
            ame.run(ame.print, number, index, file=stream)

    run_n(4, body)
    lines = [line.split() for text in stream.writes for line in text.splitlines()]
    assert len(stream.writes) == len(lines) == 400
    for number in range(4):
        mine = [int(index) for who, index in lines if int(who) == number]
        assert mine == list(range(100))


def test_print_of_a_lost_attempt_is_dropped(stream: Stream) -> None:
    """Catches: lines printed twice."""
    ref, result = ame.Ref(0), ame.Ref(-1)
    disturb = Interference(lambda: setattr(ref, "value", 5))

    @ame.atomic
    def body() -> None:
        ame.print("saw", ref.value, file=stream)
        disturb()
        result.value = ref.value

    body()
    assert stream.writes == ["saw 5\n"]


def test_print_of_an_undone_block_is_dropped(stream: Stream) -> None:
    """Catches: output of what did not happen, of an inner or the outer block."""

    def fail() -> None:
        ame.print("inner", file=stream)
        raise BodyError

    @ame.atomic
    def body(error: bool) -> None:
        ame.print("before", file=stream)
        with pytest.raises(BodyError):
            ame.run(fail)
        ame.print("after", file=stream)
        if error:
            raise BodyError

    with pytest.raises(BodyError):
        body(True)
    assert stream.writes == []
    body(False)
    assert stream.writes == ["before\n", "after\n"]


def test_print_shows_values_as_they_were_when_it_was_called(stream: Stream) -> None:
    """Catches: text made at the commit, of values that have changed."""
    plain, ref = [1], ame.Ref(1)

    @ame.atomic
    def body() -> None:
        ame.print(plain, ref, file=stream)
        plain.append(2)
        ref.value = 2

    body()
    assert stream.getvalue() == "[1] Ref(1)\n"


def test_error_of_str_is_raised_in_the_block(stream: Stream) -> None:
    """Catches: an error that is found at the commit only, or half a line."""

    class Bad:
        def __str__(self) -> str:
            raise BodyError

    @ame.atomic
    def body() -> None:
        with pytest.raises(BodyError):
            ame.print("half", Bad(), file=stream)
        ame.print("whole", file=stream)

    body()
    assert stream.writes == ["whole\n"]


@pytest.mark.parametrize("options", [{"sep": 1}, {"end": 1}])
@pytest.mark.parametrize("runner", [lambda fn, *a, **k: fn(*a, **k), ame.run])
def test_wrong_option_is_refused_inside_and_outside(
    stream: Stream, runner: Any, options: Any
) -> None:
    """Catches: an error that reaches nobody."""
    with pytest.raises(TypeError):
        runner(ame.print, "a", "b", file=stream, **options)
    assert stream.writes == []


def test_error_of_the_stream_undoes_nothing_and_is_reported(reported: Any) -> None:
    """Catches: a committed block that looks failed."""
    ref = ame.Ref(0)
    closed = io.StringIO()
    closed.close()

    @ame.atomic
    def body() -> str:
        ref.value = 1
        ame.print("text", file=closed)
        return "result"

    assert body() == "result"
    assert ref.value == 1
    assert [type(error) for error in reported] == [ValueError]


def test_print_in_str_of_a_value_comes_first(stream: Stream) -> None:
    """Catches: a print that is not reentrant."""

    class Chatty:
        def __str__(self) -> str:
            ame.print("inner", file=stream)
            return "outer"

    ame.run(lambda: ame.print(Chatty(), file=stream))
    assert stream.writes == ["inner\n", "outer\n"]


# --- CommitHandler ------------------------------------------------------------------------


class Target(logging.Handler):
    """Keeps what it gets."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []
        self.flushes = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def flush(self) -> None:
        self.flushes += 1

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def logger(target: Target) -> Iterator[logging.Logger]:
    made = logging.Logger("a logger of its own", logging.DEBUG)
    made.addHandler(ame.logs.CommitHandler(target))
    yield made


def test_record_is_passed_on_after_the_commit(logger: logging.Logger, target: Target) -> None:
    """Catches: a log of what may still be undone."""

    @ame.atomic
    def body() -> None:
        logger.info("text")
        assert target.records == []

    body()
    assert target.messages == ["text"]


def test_record_outside_of_a_block_is_passed_on_at_once(
    logger: logging.Logger, target: Target
) -> None:
    """Catches: a log that waits for a commit that never comes."""
    logger.info("value %d", 3)
    assert target.messages == ["value 3"]


def test_record_of_a_lost_or_undone_attempt_is_dropped(
    logger: logging.Logger, target: Target
) -> None:
    """Catches: records twice, or of what did not happen."""

    @ame.atomic
    def body(error: bool) -> None:
        logger.info("attempt %d", stm.attempt())
        if error:
            raise BodyError

    with forced_aborts(2):
        body(False)
    with pytest.raises(BodyError):
        body(True)
    assert target.messages == ["attempt 2"]


def test_records_keep_their_order_among_other_hooks(logger: logging.Logger, target: Target) -> None:
    """Catches: a queue beside that of the hooks."""

    @ame.atomic
    def body() -> None:
        logger.info("first")
        ame.on_commit(logger.info, "second")
        logger.info("third")

    body()
    assert target.messages == ["first", "second", "third"]


def test_message_is_made_of_the_arguments_as_they_were(
    logger: logging.Logger, target: Target
) -> None:
    """Catches: a message made at the commit, of values that have changed."""
    plain, ref = [1], ame.Ref(1)

    @ame.atomic
    def body() -> None:
        logger.info("%s %r 100%%", plain, ref)
        logger.info("%d%%", 5)
        logger.info("100%")
        logger.info("%(a)s", {"a": plain})
        plain.append(2)
        ref.value = 2

    body()
    assert target.messages == ["[1] Ref(1) 100%", "5%", "100%", "[1]"]


def test_record_keeps_time_place_and_extra_fields(logger: logging.Logger, target: Target) -> None:
    """Catches: a record made anew at the commit, by the handler's own code."""

    @ame.atomic
    def body() -> None:
        logger.warning("text", extra={"mine": 5})

    in_thread(body)
    (record,) = target.records
    assert record.funcName == "body"
    assert record.filename == "test_output.py"
    assert record.levelno == logging.WARNING
    assert record.mine == 5  # type: ignore[attr-defined]
    assert record.threadName != "MainThread"


def test_exception_of_a_record_is_formatted_after_the_commit() -> None:
    """Catches: exc_info that is lost on the way."""
    text = io.StringIO()
    logger = logging.Logger("a logger of its own")
    logger.addHandler(ame.logs.CommitHandler(logging.StreamHandler(text)))

    @ame.atomic
    def body() -> None:
        try:
            raise BodyError("mine")
        except BodyError:
            logger.exception("failed %d", 3)

    body()
    assert "failed 3" in text.getvalue()
    assert "BodyError: mine" in text.getvalue()


@pytest.mark.parametrize("runner", [lambda fn, *args: fn(*args), ame.run], ids=["outside", "block"])
def test_levels_and_filters_of_both_handlers_count(runner: Any) -> None:
    """Catches: a target that gets what it would not get by itself."""
    target = Target(logging.WARNING)
    target.addFilter(lambda record: "drop" not in record.getMessage())
    handler = ame.logs.CommitHandler(target, logging.ERROR)
    handler.addFilter(lambda record: "refuse" not in record.getMessage())
    logger = logging.Logger("a logger of its own", logging.DEBUG)
    logger.addHandler(handler)

    def log() -> None:
        logger.warning("below the handler's level")
        logger.error("shown")
        logger.error("drop %s", "this")
        logger.error("refuse this")
        handler.setLevel(logging.DEBUG)
        logger.info("below the target's level")
        logger.warning("shown too")

    runner(log)
    assert target.messages == ["shown", "shown too"]


def test_several_handlers_of_one_logger_get_the_same_record() -> None:
    """Catches: a handler that changes the record for those after it."""
    first, second, plain = Target(), Target(), Target()
    logger = logging.Logger("a logger of its own")
    for handler in (ame.logs.CommitHandler(first), ame.logs.CommitHandler(second), plain):
        logger.addHandler(handler)
    ame.run(lambda: logger.info("%s", "value"))
    assert first.messages == second.messages == plain.messages == ["value"]
    assert (plain.records[0].msg, plain.records[0].args) == ("%s", ("value",))


@pytest.mark.parametrize("runner", [lambda fn, *args: fn(*args), ame.run], ids=["outside", "block"])
def test_message_that_cannot_be_made_is_no_error_of_the_program(
    monkeypatch: pytest.MonkeyPatch, runner: Any
) -> None:
    """Catches: a wrong log call that undoes the block: logging reports it and goes on."""
    handled: list[str] = []
    text = io.StringIO()
    target = logging.StreamHandler(text)
    handler = ame.logs.CommitHandler(target)
    for each in (target, handler):
        monkeypatch.setattr(each, "handleError", lambda record: handled.append(record.msg))
    logger = logging.Logger("a logger of its own")
    logger.addHandler(handler)
    ref = ame.Ref(0)

    def log() -> None:
        ref.value = 1
        logger.info("%d", "not a number")

    runner(log)
    assert (ref.value, handled) == (1, ["%d"])


def test_flush_reaches_the_target(logger: logging.Logger, target: Target) -> None:
    """Catches: logging.shutdown() that flushes the outer handler only."""
    logger.handlers[0].flush()
    assert target.flushes == 1
