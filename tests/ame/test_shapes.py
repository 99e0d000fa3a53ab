"""Function shapes: blocks in ordinary functions do what the same functions do serially.

Each shape of `shapes/` runs with attempts that are forced to lose, and is compared with the same
source run as ordinary Python on a serial stand-in for `ame`: result, exceptions with their lines,
recorded locals, hooks, and what is in Refs and Dicts at the end.  How often the bodies ran is
checked as well, so that a silent fallback to irrevocable blocks is noticed.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # in any import mode

from shapes import harness, planted, serial
from shapes.harness import MODES, MODULES, Mode, Outcome, load_serial, path_of, run_shape
from shapes.table import CREATED, Shape

import ame
import stm

pytestmark = pytest.mark.deadline(60)

REWRITTEN_AT_CREATION = sys.version_info >= (3, 12)
SERIAL = {name: load_serial(name, serial.Engine()) for name in MODULES}
SHAPES = [(name, shape) for name, table in SERIAL.items() for shape in table.values()]
each_shape = pytest.mark.parametrize(
    ("name", "shape"), SHAPES, ids=[f"{name}-{shape.name}" for name, shape in SHAPES]
)
each_mode = pytest.mark.parametrize("mode", MODES, ids=str)
LOSING = [mode for mode in MODES if mode.count]
PLAIN = Mode("commit", 0)


class RealEngine:
    """The runtime, as the harness asks for it."""

    ame = ame
    in_transaction = staticmethod(ame.in_transaction)
    is_irrevocable = staticmethod(stm.is_irrevocable)
    attempt = staticmethod(stm.attempt)

    def lose(self) -> None:
        from stm import testing

        testing.lose()

    def forced_aborts(self, count: int) -> Any:
        from stm import testing

        return testing.forced_aborts(count)


@functools.cache
def real_module(name: str, prepared: bool) -> types.ModuleType:
    module = harness.load_real(name)
    if prepared:
        for each in harness.preparable(module):
            with contextlib.suppress(ame.TransactionError):  # it isn't rewritable
                ame.prepare(each)
    return module


@functools.cache
def predicted(name: str, shape: str) -> tuple[Outcome, list[serial.Block]]:
    return harness.reference(name, shape)


def differences(shape: Shape, name: str, mode: Mode, seen: Outcome) -> list[str]:
    """Return the parts of the outcome that are not those of the serial run."""
    wanted = predicted(name, shape.name)[0]
    return [
        f"{part}:\n  serial: {getattr(wanted, part)}\n  {mode}: {getattr(seen, part)}"
        for part in Outcome.__dataclass_fields__
        if getattr(wanted, part) != getattr(seen, part)
    ]


@each_shape
def test_serial_run_keeps_the_rules(name: str, shape: Shape) -> None:
    """Catches: a shape from which nothing would be learned."""
    outcome, blocks = predicted(name, shape.name)
    assert not outcome.trouble
    assert (outcome, blocks) == harness.reference(name, shape.name), "not deterministic"
    assert all(block.enters == 1 for block in blocks), "one c.enter() in each outermost block"
    broken = shape.name == "error_in_an_expression_before_the_block"
    assert broken or any(block.points for block in blocks), "c.point() is never reached"


def test_table_is_as_large_as_asked() -> None:
    assert len(SHAPES) >= 80


@each_mode
@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "unprepared"])
@each_shape
def test_shape(name: str, shape: Shape, prepared: bool, mode: Mode) -> None:
    """Catches: anything in which a re-executed block differs from one that ran once."""
    if mode.count and not shape.aborts:
        pytest.skip("documented as not restored")
    if "retry" in shape.needs and not prepared and not REWRITTEN_AT_CREATION:
        pytest.skip("the first entry is irrevocable on 3.11, so it cannot wait")
    blocks = predicted(name, shape.name)[1]
    fresh = real_module(name, prepared).TABLE.shapes[shape.name]
    seen, runs = run_shape(fresh, RealEngine(), mode, path_of(name))
    assert not differences(shape, name, mode, seen)
    wanted = harness.expected_runs(shape, blocks, mode, REWRITTEN_AT_CREATION)
    if not prepared and not REWRITTEN_AT_CREATION:  # the first entry may be irrevocable
        wanted = range(sum(block.enters for block in blocks), wanted.stop)
    assert runs in wanted


def test_rewriting_warns_of_nothing() -> None:
    """Catches: the rewriter's own `continue` in `finally`, of which 3.14 warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = harness.load_real("large")
        for each in harness.preparable(module):
            ame.prepare(each)


@functools.cache
def translated(source: str, path: Path, bug: str | None) -> types.CodeType:
    return planted.translate(source, path, bug)


def run_planted(name: str, shape: Shape, mode: Mode, bug: str | None) -> list[str]:
    """Run a shape as a planted rewriter makes it; return what is wrong."""
    engine = serial.Engine()
    translate = functools.partial(translated, bug=bug)
    fresh = load_serial(name, engine, translate)[shape.name]
    seen, runs = run_shape(fresh, engine, mode, path_of(name))
    wrong = differences(shape, name, mode, seen)
    blocks = predicted(name, shape.name)[1]
    if runs not in harness.expected_runs(shape, blocks, mode, False):
        wrong.append(f"{runs} runs")
    return wrong


@each_mode
@each_shape
def test_self_check_shape_can_be_satisfied(name: str, shape: Shape, mode: Mode) -> None:
    """Catches: a shape that asks for the impossible, and a wrong prediction of its runs."""
    if mode.count and not shape.aborts:
        pytest.skip("documented as not restored")
    assert not run_planted(name, shape, mode, None)


PLANTED = [
    (planted.LOCALS, "scope", "augments_a_local"),
    (planted.LOCALS, "scope", "deletes_a_local"),
    (planted.LOCALS, "closures", "nonlocal_in_the_block"),
    (planted.LOCALS, "classes", "private_names"),
    (planted.CARRY, "scope", "first_attempt_would_see_its_own_binding"),
    (planted.CARRY, "closures", "closure_over_a_name_unbound_before"),
    (planted.FLAGS, "flow", "breaks_an_outer_for"),
    (planted.FLAGS, "flow", "continues_an_outer_for"),
    (planted.STATEMENT, "managers", "before_and_after_in_one_statement"),
    (planted.LINES, "errors", "leaves_the_function"),
    (planted.FINALLY, "errors", "caught_around_the_block"),
    (planted.SUPPRESS, "flow", "falls_through"),
]


@pytest.mark.parametrize(
    ("bug", "name", "shape"), PLANTED, ids=[f"{bug[:20]}-{shape}" for bug, _, shape in PLANTED]
)
def test_self_check_planted_bug_is_noticed(bug: str, name: str, shape: str) -> None:
    """Catches: a harness that would pass a wrong rewriter."""
    assert any(run_planted(name, SERIAL[name][shape], mode, bug) for mode in LOSING)


def test_self_check_missing_rewriter_is_noticed() -> None:
    """Catches: a harness that takes blocks which never lose for re-executed ones."""
    engine = serial.Engine()
    shape = load_serial("flow", engine)["falls_through"]
    mode = Mode("commit", 1)
    seen, runs = run_shape(shape, engine, mode, path_of("flow"))
    assert not differences(shape, "flow", mode, seen)
    blocks = predicted("flow", "falls_through")[1]
    assert runs not in harness.expected_runs(shape, blocks, mode, True)


def test_self_check_effect_of_a_lost_attempt_is_noticed() -> None:
    """Catches: hooks or state of lost attempts that nobody compares."""
    wanted = predicted("managers", "hooks_in_order")[0]
    assert [each for each in wanted.records if each[1] == "3"]
    assert "undone" not in str(wanted.records)
    assert wanted.state["ref"] == "Ref(1)"
    changed = Outcome(**{**vars(wanted), "records": [*wanted.records, ("note", "1")]})
    shape = SERIAL["managers"]["hooks_in_order"]
    assert shape.runs != CREATED
    assert differences(shape, "managers", PLAIN, changed)
