"""Resources of this machine: devices, memory, disk, threads, priority."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.control_groups import cpu_limits, memory_limits
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import choose_device, fault_of

#: Unix's nice value of background work.
_LOW_NICE = 10


def let_idle_threads_sleep() -> None:
    """Make OpenMP's idle threads sleep instead of spin, unless the environment states otherwise.

    Spinning threads on a busy machine made two threads 2.3 times slower. Call it before anything
    loads OpenMP, and only in a process of MedEnhance's own.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def compute() -> dict[str, Any]:
    """Return the devices that models can run on.

    "devices": CUDA devices with their memory in bytes and why they cannot be used ("fault"), MPS,
    and the CPU, which is always there. "choice": the device of "auto" with its reason; "none"
    without PyTorch.
    """
    devices: list[dict[str, Any]] = []
    reason = "PyTorch is not installed; enhancing and segmenting need it, compressing does not"
    choice = {"name": "none", "reason": reason}
    try:
        if find_spec("torch") is not None:
            torch = require("torch", purpose="Running a model")
            choice = asdict(choose_device("auto"))
    except Exception as cause:  # noqa: BLE001 - a broken driver must not hide the rest
        fault = f"PyTorch is installed, but cannot be used: {cause}"
        choice["reason"] = getattr(cause, "message", fault)
    if choice["name"] != "none":
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            name, (free, total) = f"cuda:{index}", torch.cuda.mem_get_info(index)
            row = {"name": name, "what": torch.cuda.get_device_name(index), "total": total}
            devices.append(row | {"free": free, "fault": fault_of(name)})
        if torch.backends.mps.is_available():
            devices.append({"name": "mps", "what": "Apple GPU", "total": None, "free": None})
    cpu = {"name": "cpu", "what": platform.processor() or platform.machine()}
    return {"devices": [*devices, cpu | {"total": None, "free": None}], "choice": choice}


def cpu_threads() -> int:
    """Count the threads that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(count, *cpu_limits(), count)


def memory() -> dict[str, int | None]:
    """Return memory in bytes, "total" and "free"; None before psutil is installed.

    It is that of the host, or less where a control group limits this process.
    """
    try:
        psutil = require("psutil", purpose="Measuring memory")
    except DependencyError:
        return {"total": None, "free": None}
    usage = psutil.virtual_memory()
    total, free = int(usage.total), int(usage.available)
    for limit, used in memory_limits():
        total, free = min(total, limit), min(free, max(0, limit - used))
    return {"total": total, "free": free}


def lower_priority() -> None:
    """Lower the priority of this process and of the threads that it starts.

    Unix lets no ordinary user raise a priority again. Call it only in a process of MedEnhance's
    own, before it computes.
    """
    psutil = require("psutil", purpose="Working at low priority")
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(max(process.nice(), _LOW_NICE))
