"""What this machine has, asked of the operating system; None where it does not say."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Where Linux limits the memory of a container, version 2 and 1.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def devices() -> list[dict[str, Any]]:
    """CUDA devices with their memory in bytes, MPS, and the CPU, which is always there."""
    cpu = {"name": "cpu", "what": _cpu_name(), "total": None, "free": None}
    try:
        import torch
    except Exception as cause:  # noqa: BLE001 - a broken driver must not hide the rest
        return [cpu | {"what": f"{cpu['what']}; torch cannot be used: {cause}"}]
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append({"name": f"cuda:{index}", "what": name, "total": total, "free": free})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "what": "Apple GPU", "total": None, "free": None})
    return [*found, cpu]


def cpu_threads() -> int:
    """Threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> dict[str, int | None]:
    """Bytes of host memory: total and free, the container's limit taken into account."""
    readers: dict[str, Callable[[], tuple[int, int | None]]] = {
        "linux": _linux_memory,
        "darwin": _mac_memory,
        "win32": _windows_memory,
    }
    try:
        total, free = readers[sys.platform]()
    except (KeyError, OSError, ValueError, subprocess.SubprocessError):
        return {"total": None, "free": None}
    return {"total": total, "free": free}


def disk(folder: Path) -> dict[str, Any]:
    """Bytes of the disk that `folder` lies on."""
    usage = shutil.disk_usage(folder)
    return {"path": str(folder), "total": usage.total, "free": usage.free}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _linux_memory() -> tuple[int, int | None]:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if ":" in line}
    total, free = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    for limit_file, usage_file in _CGROUPS:
        try:
            limit = int(limit_file.read_text(encoding="ascii"))
            usage = int(usage_file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
        if limit < total:
            return limit, min(free, max(limit - usage, 0))
    return total, free


def _mac_memory() -> tuple[int, int | None]:
    text = subprocess.run(
        ["sysctl", "-n", "hw.memsize"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    return int(text), None


def _windows_memory() -> tuple[int, int | None]:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "c", "d", "e", "f", "g")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("GlobalMemoryStatusEx failed")
    return status.total, status.free
