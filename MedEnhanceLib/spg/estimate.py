"""How long a patient will take, from a few steps that are timed on images of no patient."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.loop import PatientLoop, Raw

#: Raw images to time with, at least: as many as are damaged whole at once.
_RAW_IMAGES = 8


def seconds_of_a_patient(
    config: DistillConfig, modality: str, device: str, monitor: Monitor | None = None
) -> float:
    """About how many seconds distilling one patient takes on a torch device that is here.

    Each kind of step is run once to warm up where it can be, and timed once: beginning with a new
    network, matching, teaching. A distillation is so many of each. Reading the patients and the
    audit are not in it. Takes about as long as five steps. modality: "CT" or "MR".
    """
    monitor = monitor or Monitor()
    rng = np.random.default_rng(config.seed)
    count, size = config.images_per_patient, config.images.size
    images = rng.uniform(0.4, 0.9, (max(count, _RAW_IMAGES), size, size)).astype(np.float32)
    loop = PatientLoop(Raw(images, images[:count], modality), config, device)
    chosen = config.loop
    per_inner = 1 + chosen.teaching

    def timed(number: int) -> float:
        monitor.check()
        return _seconds(lambda: loop.step(number), device)

    first = timed(0)
    teaching = min(timed(1), timed(2)) if chosen.teaching > 1 else 0.0
    matching = timed(per_inner) if chosen.inner > 1 else first
    again = chosen.inner * per_inner
    beginning = timed(again) - matching if chosen.outer > 1 else first - matching
    per_outer = max(0.0, beginning) + chosen.inner * (matching + chosen.teaching * teaching)
    return chosen.outer * per_outer


def _seconds(work: Callable[[], None], device: str) -> float:
    began = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
