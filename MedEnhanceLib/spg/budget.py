"""What a step may take: where memory runs out, the batch is halved once."""

from __future__ import annotations

import torch

from MedEnhanceLib.errors import DeviceMemoryError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.loop import PatientLoop

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


def step_within_memory(loop: PatientLoop, number: int, monitor: Monitor) -> None:
    """The step; after the first time that memory runs out, with half the batch from then on.

    Raises DeviceMemoryError where that is too much as well. What the result was made with is told
    by `loop.batch`.
    """
    try:
        loop.step(number)
    except (MemoryError, RuntimeError) as cause:
        if not _ran_out(cause):
            raise
        whole = loop.config.loop.batch
        if loop.batch < whole or whole < 2:
            raise DeviceMemoryError(
                f"memory ran out on {loop.device} with {loop.batch} patches at once",
                "Use smaller patches or images (loop.patch, images.size), or another device; "
                "start again with the same line to go on.",
            ) from cause
        loop.batch = whole // 2
        monitor.warn(
            f"memory ran out on {loop.device}; going on with {loop.batch} patches, not {whole}"
        )
    else:
        return
    if loop.device.startswith("cuda"):
        torch.cuda.empty_cache()
    step_within_memory(loop, number, monitor)


def _ran_out(cause: BaseException) -> bool:
    text = str(cause).lower()
    is_kind = isinstance(cause, torch.OutOfMemoryError | MemoryError)
    return is_kind or any(words in text for words in _WORDS)
