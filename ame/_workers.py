"""How many workers a loop gets when the caller doesn't say.

The number is the minimum of what the process may use: the processors it is bound to, the quota of
its control group (a container with `--cpus=2` on a machine of 64 sees 64 processors and gets the
time of two), and the environment variable `AME_WORKERS`. On a build with the GIL threads take
turns, so more than one only costs: there it is one unless `AME_WORKERS` says otherwise.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

WORKERS_VARIABLE = "AME_WORKERS"


def worker_count(requested: int | None = None, *, where: str = "ame") -> int:
    """Return how many workers a loop is to use.

    Args:
        requested: What the caller asked for; taken as it is when it is an integer above 0. None
            asks for the default: the minimum of processor affinity, control group quota and
            `AME_WORKERS`; 1 on a build with the GIL when `AME_WORKERS` is not set.
        where: Name of the public function, for the messages.

    Returns:
        A number of at least 1.

    Raises:
        TypeError: `requested` is not an integer.
        ValueError: `requested` is below 1, or `AME_WORKERS` is not an integer above 0.

    *In a transaction:* allowed; reads no transactional state, never blocks.
    """
    if requested is not None:
        return _checked(requested, where)
    told = workers_from_environment()
    if told is None and gil_enabled():
        return 1
    limits = [usable_processors(), cgroup_limit(), told]
    return max(1, min(limit for limit in limits if limit is not None))


def _checked(requested: object, where: str) -> int:
    if isinstance(requested, bool) or not hasattr(type(requested), "__index__"):
        raise TypeError(
            f"{where}(): workers must be an integer above 0 or None, not {requested!r} "
            f"({type(requested).__name__}); leave it out for one worker per usable processor"
        )
    count = int(requested.__index__())  # type: ignore[attr-defined]
    if count < 1:
        raise ValueError(
            f"{where}(): workers must be at least 1, not {count}; workers=1 runs the loop in the "
            "calling thread, and without workers= there is one per usable processor"
        )
    return count


def workers_from_environment() -> int | None:
    """Return the limit that `AME_WORKERS` sets, None when it is unset or empty.

    Raises:
        ValueError: The variable is not an integer above 0.

    *In a transaction:* allowed.
    """
    text = os.environ.get(WORKERS_VARIABLE, "").strip()
    if not text:
        return None
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(
            f"environment variable {WORKERS_VARIABLE} must be an integer above 0, not {text!r}; "
            f"set it to the largest number of workers that loops may use, for example "
            f"{WORKERS_VARIABLE}=4, or unset it"
        ) from None
    return count


def gil_enabled() -> bool:
    """Return whether only one thread at a time runs Python code in this process.

    *In a transaction:* allowed.
    """
    probe = getattr(sys, "_is_gil_enabled", None)
    return True if probe is None else bool(probe())


def usable_processors() -> int:
    """Return the number of processors that this process may run on (affinity), at least 1.

    *In a transaction:* allowed.
    """
    try:
        import psutil

        process = psutil.Process()
        if hasattr(process, "cpu_affinity"):
            return max(1, len(process.cpu_affinity() or ()))
    except (ImportError, OSError, RuntimeError):
        pass  # psutil is missing or may not look: ask the operating system directly
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def cgroup_limit(proc: Path = Path("/proc/self")) -> int | None:
    """Return the number of processors that the control group's quota pays for.

    Reads control groups of version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`), of the
    process's own group and of every group above it; the smallest counts, rounded up.

    Args:
        proc: The directory that describes the process; tests put another one here.

    Returns:
        A number of at least 1, or None when there is no quota or no control group.

    *In a transaction:* allowed; reads files.
    """
    try:
        groups = (proc / "cgroup").read_text(encoding="utf-8", errors="replace")
        mounts = (proc / "mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    quotas = [
        quota
        for directory, version in _group_directories(groups, mounts)
        if (quota := _quota(directory, version)) is not None
    ]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _group_directories(groups: str, mounts: str) -> Iterator[tuple[Path, int]]:
    """Yield each directory that may hold a quota for the process, with its cgroup version."""
    paths: dict[int, PurePosixPath] = {}
    for line in groups.splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        if fields[0] == "0" and not fields[1]:
            paths[2] = PurePosixPath(fields[2])
        elif "cpu" in fields[1].split(","):
            paths[1] = PurePosixPath(fields[2])
    for line in mounts.splitlines():
        mount, separator, kind = line.partition(" - ")
        before, after = mount.split(), kind.split()
        if not separator or len(before) < 5 or len(after) < 3:
            continue
        if after[0] == "cgroup2":
            version = 2
        elif after[0] == "cgroup" and "cpu" in after[2].split(","):
            version = 1
        else:
            continue
        if version in paths:
            yield from _upwards(Path(before[4]), _below(paths[version], before[3]), version)


def _below(group: PurePosixPath, root: str) -> PurePosixPath:
    """Return where `group` lies below a mount that shows the groups from `root` on."""
    try:
        return group.relative_to(root)
    except ValueError:
        return PurePosixPath()  # seen from inside a container: its own group is the mount


def _upwards(mount: Path, group: PurePosixPath, version: int) -> Iterator[tuple[Path, int]]:
    yield mount / group, version
    for parent in group.parents:
        yield mount / parent, version


def _quota(directory: Path, version: int) -> float | None:
    """Return the processors' worth of time that one group may use, None for no limit."""
    try:
        if version == 2:
            limit, period = (directory / "cpu.max").read_text(encoding="ascii").split()
        else:
            limit = (directory / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (directory / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        if limit in ("max", "-1") or int(limit) <= 0 or int(period) <= 0:
            return None
        return int(limit) / int(period)
    except (OSError, ValueError):
        return None
