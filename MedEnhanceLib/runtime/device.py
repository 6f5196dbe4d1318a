"""Chooses the device that a network runs on, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.locks import holder


@dataclass(frozen=True)
class DeviceChoice:
    """name: a torch device, "cuda", "cuda:1", "mps" or "cpu"; reason: for the user."""

    name: str
    reason: str


def choose_device(requested: str = "auto") -> DeviceChoice:
    """The device to use, with the reason for users.

    Args:
        requested: "cpu", "cuda", "cuda:N", "mps", or "auto" for CUDA, then MPS, then the CPU.
    Raises:
        ConfigError: the requested device is unknown or not available; there is no fallback.
    """
    torch = require("torch", purpose="Running a model")
    if requested == "auto":
        if torch.cuda.is_available():
            return _with_holder("cuda", f"CUDA device {torch.cuda.get_device_name(0)}")
        if torch.backends.mps.is_available():
            return _with_holder("mps", "Apple GPU (MPS); no CUDA device")
        count = torch.get_num_threads()
        threads = "1 thread" if count == 1 else f"{count} threads"
        return DeviceChoice("cpu", f"no CUDA device found; {threads} of the CPU")
    kind = requested.partition(":")[0]
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and _index(requested) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in available:
        raise ConfigError(f"unknown device {requested!r}", "Use auto, cpu, cuda, cuda:N or mps.")
    if not available[kind]:
        raise ConfigError(
            f"the device {requested!r} is not available here",
            "Use auto, which takes the best available one (--device auto; see medenhance doctor).",
        )
    return _with_holder(requested, "chosen by the user")


def devices_for(requested: str = "auto") -> list[str]:
    """The devices that a long job may use: every CUDA device for "auto", else one.

    Raises ConfigError as `choose_device` does.
    """
    chosen = choose_device(requested).name
    if requested == "auto" and chosen == "cuda":
        torch = require("torch", purpose="Running a model")
        count = torch.cuda.device_count()
        return [f"cuda:{number}" for number in range(count)] if count > 1 else [chosen]
    return [chosen]


def _with_holder(name: str, reason: str) -> DeviceChoice:
    """The choice; its reason names a long job of another process that uses the device."""
    other = holder(name)
    return DeviceChoice(name, f"{reason}; {other} works there too" if other else reason)


def _index(requested: str) -> int:
    number = requested.partition(":")[2] or "0"
    if not number.isdigit():
        raise ConfigError(f"unknown device {requested!r}", "Use auto, cpu, cuda, cuda:N or mps.")
    return int(number)
