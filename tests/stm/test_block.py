"""Blocks: `atomic` in all its forms, options, joining, exceptions, `run`, `irrevocable`."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ame
import stm
from support import Interference

pytestmark = pytest.mark.deadline(30)


@ame.atomic
def documented(first: int, second: int = 2, /, *rest: int, named: int = 3) -> tuple[int, ...]:
    """Return the arguments."""
    return (first, second, *rest, named)


class Account:
    """Methods of every kind."""

    def __init__(self) -> None:
        self.balance = ame.Ref(0)

    @ame.atomic
    def add(self, amount: int) -> bool:
        self.balance.value += amount
        return ame.in_transaction()

    @staticmethod
    @ame.atomic
    def plain(value: int) -> tuple[int, bool]:
        return value, ame.in_transaction()

    @classmethod
    @ame.atomic
    def of_class(cls, value: int) -> tuple[type, int, bool]:
        return cls, value, ame.in_transaction()

    @property
    @ame.atomic
    def inside(self) -> bool:
        return ame.in_transaction()


FORMS: dict[str, Callable[[Callable[[], Any]], Callable[[], Any]]] = {
    "@atomic": ame.atomic,
    "@atomic()": ame.atomic(),
    "@atomic(label=)": ame.atomic(label="a label"),
    "atomic(fn, label=)": lambda fn: ame.atomic(fn, label="other"),  # type: ignore[call-overload]
    "run": lambda fn: lambda: ame.run(fn),
    "run_block": lambda fn: lambda: stm.run_block("label", fn),
    "irrevocable": ame.atomic(irrevocable=True),
}


def with_block(fn: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        with ame.atomic():
            return fn()

    return call


ALL_FORMS = {**FORMS, "with": with_block}
each_form = pytest.mark.parametrize("form", ALL_FORMS.values(), ids=ALL_FORMS.keys())


@each_form
def test_form_runs_inside_and_returns_the_result(form: Any) -> None:
    assert form(ame.in_transaction)() is True
    assert not ame.in_transaction()


@each_form
def test_exception_undoes_and_propagates_itself(form: Any) -> None:
    ref, table, error = ame.Ref(0), ame.Dict(a=1), LookupError("mine")

    def body() -> None:
        ref.value = 1
        table["b"] = 2
        del table["a"]
        raise error

    with pytest.raises(LookupError) as caught:
        form(body)()
    assert caught.value is error
    assert (ref.value, dict(table.items()), len(table)) == (0, {"a": 1}, 1)
    assert not ame.in_transaction()


@each_form
def test_nested_block_joins_the_outer_one(form: Any) -> None:
    ref = ame.Ref(0)

    def outer() -> None:
        form(lambda: setattr(ref, "value", 1))()
        assert ame.in_transaction()
        raise LookupError

    with pytest.raises(LookupError):
        ame.run(outer)
    assert ref.value == 0


@pytest.mark.parametrize("name", [n for n in FORMS if n != "irrevocable"])
def test_form_runs_again_after_a_conflict(name: str) -> None:
    ref, result = ame.Ref(0), ame.Ref(0)

    def write() -> None:
        ref.value = 5

    disturb = Interference(write)

    def body() -> int:
        seen = ref.value
        disturb()
        result.value = seen + 1
        return stm.attempt()

    assert FORMS[name](body)() == 1
    assert (result.value, disturb.calls) == (6, 2)


def test_arguments_of_every_kind_arrive() -> None:
    assert documented(1) == (1, 2, 3)
    assert documented(1, 5, 6, named=7) == (1, 5, 6, 7)
    assert ame.run(documented, 1, 5, 6, named=7) == (1, 5, 6, 7)


def test_decorated_function_keeps_its_metadata() -> None:
    assert documented.__name__ == documented.__qualname__ == "documented"
    assert documented.__doc__ == "Return the arguments."
    assert documented.__module__ == __name__
    assert list(inspect.signature(documented).parameters) == ["first", "second", "rest", "named"]
    assert inspect.unwrap(documented)(1) == (1, 2, 3)
    assert "documented" in repr(documented)


def test_builtin_and_partial_can_be_decorated() -> None:
    assert ame.atomic(len)("abc") == 3
    assert ame.atomic(functools.partial(documented, 1))() == (1, 2, 3)


def test_methods_of_every_kind_run_inside() -> None:
    account = Account()
    assert account.add(3) is True
    assert Account.add(account, 4) is True
    assert account.balance.value == 7
    assert account.plain(1) == Account.plain(1) == (1, True)
    assert account.of_class(2) == Account.of_class(2) == (Account, 2, True)
    assert account.inside is True
    assert account.add.__self__ is account  # type: ignore[attr-defined]


def test_atomic_above_classmethod_names_the_order() -> None:
    with pytest.raises(TypeError, match=r"put @ame\.atomic below it"):
        ame.atomic(classmethod(lambda cls: cls))  # type: ignore[call-overload]


def test_atomic_above_staticmethod_works_or_is_refused() -> None:
    try:
        wrapped = ame.atomic(staticmethod(lambda value: value))
    except TypeError:
        return
    holder: Any = type("Holder", (), {"method": wrapped})()
    assert holder.method(1) == 1


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None:
    pass


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (generator, "yield"),
        (coroutine, "await"),
        (async_generator, "await"),
        (Account, "class"),
        (3, "not callable"),
        (None, "not callable"),
    ],
)
def test_what_cannot_be_a_block_is_refused_with_the_reason(what: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        ame.atomic(what)
    with pytest.raises(TypeError, match=why):
        ame.atomic(label="x")(what)


@pytest.mark.parametrize(
    "arguments",
    [{"labell": "x"}, {"timeouts": 1}, {"label": 3}, {"label": b"x"}],
)
def test_wrong_option_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="label"):
        ame.atomic(**arguments)


def test_option_whose_truth_raises_is_refused() -> None:
    class Vague:
        def __bool__(self) -> bool:
            raise LookupError

    with pytest.raises(LookupError):
        ame.atomic(read_only=Vague())  # type: ignore[call-overload]


@pytest.mark.parametrize("arguments", [("label",), (len, len)])
def test_wrong_positional_arguments_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="by keyword"):
        ame.atomic(*arguments)


@pytest.mark.parametrize("arguments", [(), (3,), (None, 3)])
def test_run_without_a_callable_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        ame.run(*arguments)
    with pytest.raises(TypeError):
        stm.run_block(None, *arguments)


def write_ref(ref: ame.Ref[int]) -> None:
    ref.value += 1


@pytest.mark.parametrize("form", [with_block, ame.atomic(read_only=True)])
@pytest.mark.parametrize(
    "write",
    [
        lambda ref, table: write_ref(ref),
        lambda ref, table: table.update(new=1),
        lambda ref, table: table.pop("a"),
        lambda ref, table: table.clear(),
        lambda ref, table: table.setdefault("new"),
    ],
)
def test_read_only_block_refuses_writes(form: Any, write: Any) -> None:
    ref, table = ame.Ref(0), ame.Dict(a=1)

    def body() -> None:
        if form is with_block:
            with ame.atomic(read_only=True):
                write(ref, table)
        else:
            write(ref, table)

    call = body if form is with_block else form(body)
    with pytest.raises(ame.ReadOnlyError, match="read_only"):
        call()
    assert (ref.value, dict(table.items())) == (0, {"a": 1})


def test_read_only_block_goes_on_after_a_refused_write() -> None:
    ref = ame.Ref(0)
    with ame.atomic(read_only=True):
        with pytest.raises(ame.ReadOnlyError):
            ref.value = 1
        assert ref.value == 0


def test_read_only_with_block_may_become_irrevocable() -> None:
    with ame.atomic(read_only=True):
        ame.irrevocable()


def test_read_only_function_may_become_irrevocable() -> None:
    ref = ame.Ref(4)

    def body() -> int:
        ame.irrevocable()
        return ref.value

    assert ame.atomic(read_only=True)(body)() == 4


def test_irrevocable_block_does_not_lose() -> None:
    ref, times = ame.Ref(0), []

    @ame.atomic
    def body() -> None:
        ame.irrevocable()
        times.append(stm.attempt())
        ref.value += 1
        ame.irrevocable()

    body()
    assert (ref.value, times) == (1, [0])


def test_irrevocable_with_a_stale_read_starts_over_once() -> None:
    ref, log = ame.Ref(0), []

    def write() -> None:
        ref.value += 10

    disturb = Interference(write)

    @ame.atomic
    def body() -> None:
        seen = ref.value
        disturb()
        ame.irrevocable()
        log.append(seen)

    body()
    assert (log, disturb.calls) == ([10], 2)


@pytest.mark.parametrize("call", [ame.irrevocable, stm.attempt])
def test_outside_of_a_block_is_an_error(call: Callable[[], object]) -> None:
    with pytest.raises(ame.NotInTransaction, match=r"outside of an atomic block"):
        call()


def test_attempt_counts_from_zero() -> None:
    assert ame.run(stm.attempt) == 0


def test_swallowed_abort_changes_nothing() -> None:
    ref, other, mark = ame.Ref(0), ame.Ref(0), ame.Ref(0)

    def write() -> None:
        ref.value += 1
        other.value += 1

    disturb = Interference(ame.atomic(write))
    seen = []

    @ame.atomic
    def body() -> None:
        first = ref.value
        mark.value += 1
        disturb()
        try:
            second = other.value
        except BaseException:
            second = -1
        seen.append((first, second))

    body()
    assert seen[-1] == (1, 1)
    assert mark.value == 1


def test_keyboard_interrupt_in_a_doomed_attempt_is_not_lost() -> None:
    ref, other, mark = ame.Ref(0), ame.Ref(0), ame.Ref(0)

    def write() -> None:
        ref.value += 1
        other.value += 1

    disturb = Interference(ame.atomic(write))

    def body() -> None:
        ref.value  # noqa: B018
        mark.value += 1
        disturb()
        if disturb.calls == 1:
            try:
                other.value  # noqa: B018
            finally:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ame.run(body)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_decorated_function_is_pickled_by_name(protocol: int) -> None:
    module = types.ModuleType(__name__)
    module.documented = documented  # type: ignore[attr-defined]
    before = sys.modules.get(__name__)
    sys.modules[__name__] = module  # pytest need not have put this file there
    try:
        assert pickle.loads(pickle.dumps(documented, protocol)) is documented
    finally:
        if before is None:
            del sys.modules[__name__]
        else:
            sys.modules[__name__] = before
    assert copy.copy(documented) is copy.deepcopy(documented) is documented


def test_label_is_any_string_and_may_repeat() -> None:
    for label in ("", "naïve", "naïve", None):
        assert ame.atomic(label=label)(lambda: 1)() == 1
        assert stm.run_block(label, lambda: 2) == 2


def test_unencodable_label_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        ame.atomic(label="\ud800")
