"""What this machine has, asked of the operating system; None where it does not say."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
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


#: Asks in a process of its own: torch takes a second and much memory to import, a broken driver can
#: take the whole process down, and a package that is in use cannot be replaced on Windows.
_ASK = (
    "import json, sys; sys.path.insert(0, sys.argv[1]);"
    "from MedEnhanceLib.runtime.machine import torch_facts; print(json.dumps(torch_facts()))"
)
_ASK_SECONDS = 120.0
_LIBRARY = Path(__file__).resolve().parents[2]


def be_a_good_neighbour() -> None:
    """Let threads that wait sleep, in a process of our own; a setting of the user's stays.

    By default they spin: on a machine that is busy with something else two threads then took 2.3
    times as long as they need. To be called before anything loads OpenMP.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def compute(check: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """What models can run on.

    devices: CUDA devices with their memory in bytes, MPS, and the CPU, which is always there.
    choice: what is taken where the user chooses nothing, with the reason in plain words; "none"
    without PyTorch. cuda: the version PyTorch was built for, whether it can be used, and whether
    NVIDIA's driver is here. check: called meanwhile; may raise.
    """
    cpu = {"name": "cpu", "what": _cpu_name(), "total": None, "free": None}
    facts = _asked_torch(check)
    if "problem" in facts:
        cuda = {"built": None, "available": False, "driver": has_nvidia_driver()}
        what = f"{cpu['what']}; {facts['problem']}"
        return {"devices": [cpu | {"what": what}], "choice": _without(facts), "cuda": cuda}
    cuda = {
        "built": facts["built"],
        "available": any(row["name"].startswith("cuda") for row in facts["devices"]),
        "driver": has_nvidia_driver(),
    }
    choice = _choice(facts["devices"], cuda)
    return {"devices": [*facts["devices"], cpu], "choice": choice, "cuda": cuda}


def torch_facts() -> dict[str, Any]:
    """What torch says of this machine's devices; `problem` where it cannot be used."""
    try:
        import torch
    except Exception as cause:  # noqa: BLE001 - a broken driver must not hide the rest
        return {"problem": f"torch cannot be used: {cause}"}
    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        devices.append({"name": f"cuda:{index}", "what": name, "total": total, "free": free})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "what": "Apple GPU", "total": None, "free": None})
    return {"devices": devices, "built": torch.version.cuda}


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver is installed, with or without a PyTorch that can use it."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def _asked_torch(check: Callable[[], None]) -> dict[str, Any]:
    if "torch" in sys.modules:
        return torch_facts()
    if find_spec("torch") is None:
        return {"problem": "torch cannot be used: it is not installed", "absent": True}
    command = [sys.executable, "-P", "-c", _ASK, str(_LIBRARY)]
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        creationflags=hidden,
    )
    with process:
        try:
            return _answer(process, check)
        finally:
            process.kill()


def _answer(process: subprocess.Popen[bytes], check: Callable[[], None]) -> dict[str, Any]:
    end = time.monotonic() + _ASK_SECONDS
    while time.monotonic() < end:
        check()
        try:
            text, _ = process.communicate(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        try:
            facts: dict[str, Any] = json.loads(text)
        except ValueError:
            return {"problem": f"torch cannot be used: it ended with status {process.returncode}"}
        return facts
    return {"problem": f"torch cannot be used: no answer in {_ASK_SECONDS:.0f} s"}


def _without(facts: dict[str, Any]) -> dict[str, str]:
    if facts.get("absent"):
        reason = "PyTorch is not installed; enhancing and segmenting need it, compression does not"
    else:
        reason = f"PyTorch is installed, but {facts['problem']}"
    return {"name": "none", "reason": reason}


def _choice(devices: list[dict[str, Any]], cuda: dict[str, Any]) -> dict[str, str]:
    """As device.choose_device decides, with the reason for people."""
    if cuda["available"]:
        first = devices[0]
        room = f" with {first['total'] / 1e9:.0f} GB" if first["total"] else ""
        return {"name": "cuda", "reason": f"the NVIDIA GPU {first['what']}{room} is fastest"}
    if devices:
        return {"name": "mps", "reason": "the Apple GPU is faster than the CPU"}
    # How many threads they take is PyTorch's choice, which the log of each run tells.
    slow = "models run on the CPU, which takes several times longer"
    if not cuda["driver"]:
        return {"name": "cpu", "reason": f"no graphics card that PyTorch can use; {slow}"}
    why = (
        "PyTorch cannot use the NVIDIA GPU here (driver too old, or in use)"
        if cuda["built"]
        else "an NVIDIA GPU is here, but this PyTorch is the build for the CPU alone"
    )
    return {"name": "cpu", "reason": f"{why}; {slow}"}


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
