"""How many workers a loop gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from ame import _workers
from ame._workers import cgroup_limit, worker_count


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AME_WORKERS", raising=False)


def _machine(
    monkeypatch: pytest.MonkeyPatch, *, processors: int, quota: int | None, gil: bool
) -> None:
    monkeypatch.setattr(_workers, "usable_processors", lambda: processors)
    monkeypatch.setattr(_workers, "cgroup_limit", lambda: quota)
    monkeypatch.setattr(_workers, "gil_enabled", lambda: gil)


@pytest.mark.parametrize(
    ("processors", "quota", "variable", "gil", "expected"),
    [
        (8, None, None, False, 8),
        (8, 3, None, False, 3),
        (2, 3, None, False, 2),
        (8, 3, "2", False, 2),
        (8, 3, "5", False, 3),
        (8, None, " 5 ", False, 5),
        (8, None, "", False, 8),
        (8, None, None, True, 1),
        (8, None, "4", True, 4),
        (8, 3, "4", True, 3),
        (1, None, "4", True, 1),
    ],
)
def test_default_is_the_minimum_of_all_limits_and_one_with_the_gil(
    monkeypatch: pytest.MonkeyPatch,
    processors: int,
    quota: int | None,
    variable: str | None,
    gil: bool,
    expected: int,
) -> None:
    _machine(monkeypatch, processors=processors, quota=quota, gil=gil)
    if variable is not None:
        monkeypatch.setenv("AME_WORKERS", variable)
    assert worker_count() == expected


def test_what_the_caller_asks_for_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, processors=2, quota=1, gil=True)
    monkeypatch.setenv("AME_WORKERS", "1")
    assert worker_count(7) == 7


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "2;3"])
def test_bad_variable_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AME_WORKERS", text)
    with pytest.raises(ValueError, match="AME_WORKERS") as caught:
        worker_count()
    assert repr(text) in str(caught.value)
    assert "unset" in str(caught.value)


@pytest.mark.parametrize(
    ("workers", "kind"),
    [(0, ValueError), (-3, ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)],
)
def test_bad_number_of_workers_is_named_with_what_to_do(workers: object, kind: type) -> None:
    with pytest.raises(kind, match=r"ame\.map\(\): workers") as caught:
        worker_count(workers, where="ame.map")  # type: ignore[arg-type]
    assert repr(workers) in str(caught.value)
    assert "usable processor" in str(caught.value)


def test_this_machine_gives_at_least_one() -> None:
    assert worker_count() >= 1
    assert _workers.usable_processors() >= 1
    limit = cgroup_limit()
    assert limit is None or limit >= 1


def test_no_control_groups_means_no_limit(tmp_path: Path) -> None:
    assert cgroup_limit(tmp_path) is None


class FakeGroups:
    """Files that describe a process and its control groups, below a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.mount = directory / "cgroup"
        self.proc.mkdir()
        self.mount.mkdir()

    def write(self, name: str, text: str) -> None:
        path = self.mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def describe(self, groups: str, *mounts: str) -> None:
        (self.proc / "cgroup").write_text(groups)
        lines = [f"{n} 30 0:{n} {mount}\n" for n, mount in enumerate(mounts)]
        (self.proc / "mountinfo").write_text("".join(lines))

    def limit(self) -> int | None:
        return cgroup_limit(self.proc)


@pytest.fixture
def fake(tmp_path: Path) -> FakeGroups:
    return FakeGroups(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("max 100000\n", None),
        ("garbage\n", None),
        ("", None),
    ],
)
def test_version_2_quota_is_rounded_up(fake: FakeGroups, text: str, expected: int | None) -> None:
    fake.describe("0::/app\n", f"/ {fake.mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw")
    fake.write("app/cpu.max", text)
    assert fake.limit() == expected


def test_version_2_smallest_quota_of_all_groups_above_counts(fake: FakeGroups) -> None:
    fake.describe("0::/a/b/c\n", f"/ {fake.mount} rw - cgroup2 cgroup2 rw")
    fake.write("a/b/c/cpu.max", "max 100000")
    fake.write("a/b/cpu.max", "300000 100000")
    fake.write("a/cpu.max", "800000 100000")
    assert fake.limit() == 3


def test_version_1_quota_is_found_by_its_controller(fake: FakeGroups) -> None:
    fake.describe(
        "9:memory:/other\n4:cpu,cpuacct:/job\n0::/\n",
        f"/ {fake.mount}/memory rw - cgroup cgroup rw,memory",
        f"/ {fake.mount}/cpu rw - cgroup cgroup rw,cpu,cpuacct",
    )
    fake.write("cpu/job/cpu.cfs_quota_us", "250000\n")
    fake.write("cpu/job/cpu.cfs_period_us", "100000\n")
    fake.write("cpu/cpu.cfs_quota_us", "-1\n")
    fake.write("cpu/cpu.cfs_period_us", "100000\n")
    assert fake.limit() == 3


def test_group_inside_a_container_is_found_at_the_mount(fake: FakeGroups) -> None:
    fake.describe("0::/docker/abc\n", f"/docker/abc {fake.mount} rw - cgroup2 cgroup2 rw")
    fake.write("cpu.max", "400000 100000")
    assert fake.limit() == 4


def test_group_outside_of_the_mount_is_looked_for_at_the_mount(fake: FakeGroups) -> None:
    fake.describe("0::/elsewhere\n", f"/docker/abc {fake.mount} rw - cgroup2 cgroup2 rw")
    fake.write("cpu.max", "400000 100000")
    assert fake.limit() == 4


def test_broken_description_means_no_limit(fake: FakeGroups) -> None:
    fake.describe("what\n1:2\n", "half a line", "/ - cgroup2", f"/ {fake.mount} rw - cgroup2 x rw")
    assert fake.limit() is None
