"""The devices of this machine, and the choice of the one that a network runs on."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.dependencies import imported, is_intel_mac, require
from MedEnhanceLib.runtime.text import reason_of

#: Words of a plain RuntimeError of libraries that ran out of memory, in lower case. cuDNN finds
#: no engine if its workspace does not fit.
_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "unable to find an engine",
    # Python, where the system has no memory for a thread, or allows no more of them.
    "can't start new thread",
    # oneDNN, of a convolution on the CPU.
    "could not create a primitive",
)
#: Words of errors of CUDA and its libraries, in lower case, when the card or its driver is gone, or
#: a kernel has failed: after that, every call of this process fails.
_LOST_WORDS = (
    "cuda error",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "device-side assert",
    "unspecified launch failure",
    "no cuda gpus are available",
)
#: Names of devices, for help texts.
DEVICES = "auto, cpu, cuda, cuda:N or mps"


@dataclass(frozen=True)
class DeviceChoice:
    """A torch device, and the reason for it.

    Attributes:
        name: "cuda", "cuda:1", "mps" or "cpu".
        reason: for the user.
    """

    name: str
    reason: str


def choose_device(requested: str = "auto") -> DeviceChoice:
    """Choose the device to use, with the reason for users.

    requested: "cpu", "cuda", "cuda:N", "mps", or "auto" for CUDA, then MPS, then the CPU.
    PyTorch is asked, except for the CPU, and where it could find no card.
    Raises ConfigError where it is unknown or not available; there is no fallback.
    """
    refuse_unknown(requested)
    if requested == "auto":
        return _automatic()
    if requested != "cpu" and (fault := fault_of(requested)):
        raise ConfigError(
            f"the device {requested!r} cannot be used: {fault}",
            "Use auto, which takes the best one there is (see medenhance doctor), or install a "
            "PyTorch that was built for the card (pytorch.org).",
        )
    return DeviceChoice(requested, "chosen by the user")


def refuse_unknown(requested: str) -> None:
    """Raise ConfigError for what names no device; asks neither PyTorch nor a card."""
    kind, _, number = requested.partition(":")
    is_numbered = kind == "cuda" and number.isdigit()
    if kind not in ("auto", "cpu", "cuda", "mps") or (":" in requested and not is_numbered):
        raise ConfigError(f"unknown device {requested!r}", f"Use {DEVICES}.")


def _automatic() -> DeviceChoice:
    torch: Any = imported("torch")
    if torch is None and needs_torch("auto"):
        torch = require("torch", purpose="Running a model")
    if torch and torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        fault = fault_of("cuda")
        if not fault:
            return DeviceChoice("cuda", f"CUDA device {name}")
        reason = f"{name} cannot be used: {fault}"
    elif not torch or not has_nvidia_driver():
        reason = "no graphics card that PyTorch can use"
    elif torch.version.cuda:
        reason = "PyTorch cannot use the NVIDIA GPU here (driver too old, or in use)"
    else:
        reason = "an NVIDIA GPU is present, but this PyTorch is built for the CPU only"
    if torch and torch.backends.mps.is_available():
        return DeviceChoice("mps", "Apple GPU (MPS)")
    from MedEnhanceLib.runtime.machine import cpu_threads  # help texts need it as little as ctypes

    count = cpu_threads()
    return DeviceChoice("cpu", f"{reason}; {count} thread{'s' * (count > 1)} of the CPU")


def needs_torch(requested: str) -> bool:
    """Return whether PyTorch is asked for a device: not for the CPU, nor if it could find no card.

    It could with a driver of NVIDIA or AMD, or a GPU of Apple. NVIDIA's library, which it needs, is
    there in containers, in WSL and on Windows too.
    """
    if requested != "auto":
        return requested != "cpu"
    if sys.platform == "darwin":
        return not is_intel_mac()
    import ctypes

    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return has_nvidia_driver() or Path("/dev/kfd").exists()
    return True


def has_nvidia_driver() -> bool:
    """Return whether NVIDIA's driver is installed, with or without a PyTorch that can use it."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of the host or of a device."""
    torch = imported("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    if isinstance(error, kinds):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_WORDS)


def is_device_lost(error: BaseException) -> bool:
    """Return whether an error says that this process cannot use a CUDA device any more."""
    text = str(error).lower()
    is_lost = isinstance(error, RuntimeError) and any(words in text for words in _LOST_WORDS)
    return is_lost and not is_out_of_memory(error)


def fault_of(name: str) -> str:
    """Try a small operation on a device; returns why it fails, "" if it succeeds.

    PyTorch also lists cards that it has no kernels for, or that another program uses exclusively.
    """
    torch = require("torch", purpose="Running a model")
    try:
        torch.ones(2, device=name).add_(1).sum().item()
    except (RuntimeError, AssertionError) as cause:  # the latter where CUDA is not built in
        # A full card can compute: work that runs out of memory is tried again in smaller parts.
        return "" if is_out_of_memory(cause) else reason_of(cause)
    return ""


def release_memory(device: str) -> None:
    """Free the memory that torch caches on a GPU, for other processes."""
    torch: Any = imported("torch")
    if torch is None:
        return
    if device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif device.startswith("mps") and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def compute() -> dict[str, Any]:
    """Return the devices that models can run on.

    "devices": CUDA devices with their memory in bytes and why they cannot be used ("fault"), MPS,
    and the CPU, which is always there. "choice": the device of "auto" with its reason; "none"
    without PyTorch.
    """
    devices, torch = list[dict[str, Any]](), None
    reason = "PyTorch is not installed; segmenting, thin slices and training need it"
    choice = {"name": "none", "reason": reason}
    try:
        if find_spec("torch") is not None:
            choice = asdict(choose_device("auto"))
            torch = imported("torch")  # unless it could find no card
    except Exception as cause:  # noqa: BLE001 - a broken driver must not hide the rest
        fault = f"PyTorch is installed, but cannot be used: {cause}"
        choice["reason"] = getattr(cause, "message", fault)
    if torch and choice["name"] != "none":
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            name, (free, total) = f"cuda:{index}", torch.cuda.mem_get_info(index)
            row = {"name": name, "what": torch.cuda.get_device_name(index), "total": total}
            devices.append(row | {"free": free, "fault": fault_of(name)})
        if torch.backends.mps.is_available():
            devices.append({"name": "mps", "what": "Apple GPU", "total": None, "free": None})
    cpu = {"name": "cpu", "what": platform.processor() or platform.machine()}
    return {"devices": [*devices, cpu | {"total": None, "free": None}], "choice": choice}
