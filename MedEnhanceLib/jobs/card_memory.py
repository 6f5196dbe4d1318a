"""What a distillation takes of a graphics card: known, and stated, before it begins.

Bytes of the tensors alive at once were counted for one step on the CPU; they grow with the number
of pixels in a step. Twice as much allows for cuDNN's workspace and for cached memory that cannot be
used, and the CUDA context is always there.
"""

from __future__ import annotations

from typing import Any

from MedEnhanceLib.runtime.lazy import imported
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig

#: Of a distillation: bytes for each pixel of a match.
DISTILLING = 4200
_CONTEXT = 500_000_000
_ROOM = 2


def needed(config: object) -> int | None:
    """Bytes of a card that a run with this configuration takes at most; None where not known."""
    if isinstance(config, DistillConfig):
        loop = config.loop
        return _CONTEXT + _ROOM * DISTILLING * loop.batch * loop.patch**2
    return None


def of_presets() -> dict[str, dict[str, int | None]]:
    """For "distill" what each preset takes."""
    presets = ("smoke", "cpu", "full")
    return {"distill": {name: needed(DistillConfig.preset(name)) for name in presets}}


def state(device: str, config: object, monitor: Monitor) -> None:
    """Say what a CUDA device has free and what a run will take; warn where that is too much."""
    torch: Any = imported("torch")
    if torch is None or not device.startswith("cuda"):
        return
    free, total = torch.cuda.mem_get_info(device)
    room, needs = f"{device} has {_gigabytes(free)} of {_gigabytes(total)} free", needed(config)
    if needs is None:
        monitor.log(f"{room}; what this run takes of it is not known beforehand")
    elif free >= needs:
        monitor.log(f"{room}; this run takes up to {_gigabytes(needs)}")
    else:
        less = (
            "with less it takes half as many patches at once, and stops where that is not enough"
            if isinstance(config, DistillConfig)
            else "with less it may stop because memory ran out"
        )
        monitor.warn(
            f"{room}, and this run takes up to {_gigabytes(needs)}: {less}; the same command goes "
            "on from the last checkpoint, with --device cpu on the CPU"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
