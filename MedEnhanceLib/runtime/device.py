"""Chooses where a network runs, and says why."""

from __future__ import annotations

from dataclasses import dataclass

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.gpu_lock import holder


@dataclass(frozen=True)
class DeviceChoice:
    """name: a torch device, "cuda", "cuda:1", "mps" or "cpu"; reason: for the user."""

    name: str
    reason: str


def choose_device(wish: str = "auto") -> DeviceChoice:
    """`auto` takes CUDA, then MPS, then the CPU; anything else is taken at its word.

    Raises ConfigError where the wished device is not there: no fallback in silence.
    """
    torch = require("torch", purpose="Running a model")
    if wish == "auto":
        if torch.cuda.is_available():
            return _with_neighbour("cuda", f"CUDA device {torch.cuda.get_device_name(0)}")
        if torch.backends.mps.is_available():
            return _with_neighbour("mps", "Apple GPU (MPS); no CUDA device")
        count = torch.get_num_threads()
        threads = "1 thread" if count == 1 else f"{count} threads"
        return DeviceChoice("cpu", f"no CUDA device found; {threads} of the CPU")
    kind = wish.partition(":")[0]
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and _index(wish) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in available:
        raise ConfigError(f"unknown device {wish!r}", "Use auto, cpu, cuda, cuda:N or mps.")
    if not available[kind]:
        raise ConfigError(
            f"the device {wish!r} is not available here",
            "Use auto, which takes the best that is there (--device auto; see medenhance doctor).",
        )
    return _with_neighbour(wish, "chosen by the user")


def devices_for(wish: str = "auto") -> list[str]:
    """The devices that a long job may take: one, or every CUDA device where `auto` finds several.

    Raises ConfigError as `choose_device`.
    """
    chosen = choose_device(wish).name
    if wish == "auto" and chosen == "cuda":
        torch = require("torch", purpose="Running a model")
        count = torch.cuda.device_count()
        return [f"cuda:{number}" for number in range(count)] if count > 1 else [chosen]
    return [chosen]


def _with_neighbour(name: str, reason: str) -> DeviceChoice:
    """The choice, with the long job that works there already: it may take long, or much memory."""
    other = holder(name)
    return DeviceChoice(name, f"{reason}; {other} works there too" if other else reason)


def _index(wish: str) -> int:
    number = wish.partition(":")[2] or "0"
    if not number.isdigit():
        raise ConfigError(f"unknown device {wish!r}", "Use auto, cpu, cuda, cuda:N or mps.")
    return int(number)
