"""Limits that Docker and schedulers set by the control groups of Linux, version 1 or 2."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

#: Above "proc" and "sys".
ROOT = Path("/")
_MEMORY = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
_CPU = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
#: Rows of memory.stat with the cache of files, which the system drops if memory is needed.
_CACHE = ("active_file", "inactive_file"), ("total_active_file", "total_inactive_file")


def memory_limits() -> Iterator[tuple[int, int]]:
    """Iterate over (limit, used) in bytes of the groups of this process; cached files are free."""
    for folder, version, (limit, used) in _limits("memory", _MEMORY):
        cached = 0
        with suppress(OSError, ValueError):
            rows = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = sum(int(count) for name, count in rows if name in _CACHE[version])
        yield limit, max(0, used - cached)


def cpu_limits() -> Iterator[int]:
    """Iterate over the numbers of processors that the groups of this process may use."""
    for _, _, (quota, period) in _limits("cpu", _CPU):
        if quota > 0:
            yield math.ceil(quota / period)


def _limits(
    controller: str, versions: tuple[tuple[str, ...], ...]
) -> Iterator[tuple[Path, int, list[int]]]:
    """Iterate over (folder, index of the version, numbers in its files) of groups with a limit."""
    for folder in _folders(controller):
        for version, names in enumerate(versions):
            with suppress(OSError, ValueError):  # "max" is no number
                texts = [(folder / name).read_text() for name in names]
                yield folder, version, [int(word) for text in texts for word in text.split()]


def _folders(controller: str) -> Iterator[Path]:
    """Iterate over the folders of the groups of this process, and of those around them.

    Inside Docker the path may be that of the host: then the folder at the top is its own.
    """
    with suppress(OSError, ValueError):
        for line in (ROOT / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                top = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
                group = PurePosixPath(path)
                yield from (top / each.relative_to("/") for each in (group, *group.parents))
