"""ABA: a value changes and changes back between two reads; what depends on it does not."""

from __future__ import annotations

import threading

import pytest

import ame
from support import Interference, repeat_until, rounds, run_threads, then_set

pytestmark = pytest.mark.deadline(30)


def test_reader_stays_consistent_when_a_value_comes_back() -> None:
    """Catches: validation by value where `x` is back to what was read and `y` is not."""
    x, y, out = ame.Ref("a"), ame.Ref(0), ame.Ref(("", -1))

    def toggle() -> None:
        x.value = "b" if x.value == "a" else "a"
        y.value += 1

    def there_and_back() -> None:
        for _ in range(200):  # often enough for memory of old versions to be used again
            ame.run(toggle)

    interfere = Interference(there_and_back)

    @ame.atomic
    def read() -> None:
        seen = y.value
        first = x.value
        interfere()
        assert x.value == first
        assert first == "ab"[seen % 2]
        assert y.value == seen
        out.value = (first, seen)

    read()
    assert out.value == ("a", 200)
    assert interfere.calls == 2


def test_key_that_was_deleted_and_inserted_again_is_noticed() -> None:
    """Catches: an entry validated by its address or its presence only."""
    table: ame.Dict[str, int] = ame.Dict({"k": 1, "version": 0})
    out = ame.Ref(-1)

    def there_and_back() -> None:
        for _ in range(50):
            ame.run(lambda: table.pop("k"))
            ame.run(lambda: table.update({"k": 1, "version": table["version"] + 1}))

    interfere = Interference(there_and_back)

    @ame.atomic
    def read() -> None:
        version = table["version"]
        assert "k" in table
        interfere()
        assert table["k"] == 1
        out.value = version

    read()
    assert out.value == 50


def test_ref_that_took_the_place_of_another_is_not_confused_with_it() -> None:
    """Catches: a cell whose memory is used for a new ref while a block has read the old one."""
    holder = ame.Ref(ame.Ref(0))
    out = ame.Ref(-1)

    def replace() -> None:
        for number in range(1, 201):
            holder.value = ame.Ref(number)

    interfere = Interference(replace)

    @ame.atomic
    def read() -> None:
        seen = holder.value.value
        interfere()
        assert holder.value.value == seen
        out.value = seen

    read()
    assert out.value == 200


def test_readers_of_a_toggling_value_see_states_that_existed() -> None:
    """Catches: the same under real concurrency, for readers that write and readers that don't."""
    x, y, out = ame.Ref("a"), ame.Ref(0), ame.Ref(0)
    done = threading.Event()

    @ame.atomic
    def toggle() -> None:
        x.value = "b" if x.value == "a" else "a"
        y.value += 1

    @ame.atomic
    def read(write: bool) -> None:
        first, seen, second = x.value, y.value, x.value
        assert first == second == "ab"[seen % 2]
        if write:
            out.value = seen

    def reader() -> None:
        for number in rounds(3000):
            read(number % 2 == 0)

    run_threads(then_set(done, reader), repeat_until(done, toggle), repeat_until(done, toggle))
    assert x.value == "ab"[y.value % 2]
