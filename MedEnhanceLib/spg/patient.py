"""Distills one patient to the end: in steps, within memory, with a checkpoint, cancelable.

Also estimates from a few timed steps how long that takes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from MedEnhanceLib.errors import DeviceMemoryError
from MedEnhanceLib.nets.checkpoint import Checkpoint
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.training import training_steps
from MedEnhanceLib.runtime.device import is_out_of_memory, release_memory
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import CHECKPOINT
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.matching import MEASURED, PatientLoop, Raw

_MUCH_SATURATED = 0.1
#: Raw images to time with, at least: as many as are degraded whole at once.
_RAW_IMAGES = 8


@dataclass(frozen=True)
class PatientImages:
    """Images of a patient, float32 [M, H, W] in [0, 1], and how they were made.

    measured: means of the last outer step: `alignment`, the distance from the gradients of the raw
    images; `structure`, from the prior; `saturation`, a share of the pixels.
    """

    images: Floats
    measured: dict[str, float]


@without_tf32()
def distill_patient(
    raw: Raw,
    config: DistillConfig,
    device: str = "cpu",
    *,
    folder: Path | None = None,
    hashes: Mapping[str, str] | None = None,
    monitor: Monitor | None = None,
) -> PatientImages:
    """Distill one patient, or resume; meanwhile no other long job has the GPU.

    folder: for the checkpoint; None: no checkpoint. hashes: of data and prior, which a checkpoint
    must agree in.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: the checkpoint is of another configuration or data.
        ModelError: the distillation diverged, or the checkpoint is damaged.
        DeviceMemoryError: memory ran out with half the batch, too.
    """
    monitor = monitor or Monitor()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    patient = f"patient {raw.number + 1}"
    loop = PatientLoop(raw, config, device)
    start, checkpoint = 0, None
    if folder is not None:
        checkpoint = Checkpoint(folder / CHECKPOINT, **loop.parts(hashes or {}))
    if checkpoint is not None and checkpoint.path.exists():
        start, notes = checkpoint.load()
        loop.batch = int(notes["batch"])
        loop.forget_images()
        monitor.log(f"{patient}: resumed at step {start}")

    def save(number: int) -> None:
        if checkpoint is not None:
            checkpoint.save(number, {"batch": loop.batch})

    total = config.loop.steps
    for number in training_steps(start, total, save, config.checkpoint_s, monitor, of=patient):
        step_within_memory(loop, number, monitor)
        if loop.ends_outer(number):
            outer = loop.outer_of(number)
            values = loop.measured[outer].tolist()
            for name, value in zip(MEASURED, values, strict=True):
                monitor.metric(f"{name} of {patient}", value, outer)
    measured = {
        name: float(f"{value:.6g}")
        for name, value in zip(MEASURED, loop.measured[-1].tolist(), strict=True)
    }
    if measured["saturation"] > _MUCH_SATURATED:
        monitor.warn(
            f"{patient}: {measured['saturation']:.0%} of the pixels have reached the largest "
            "allowed change: choose a prior that is more like the patients"
        )
    return PatientImages(loop.images(), measured)


def step_within_memory(loop: PatientLoop, number: int, monitor: Monitor) -> None:
    """Run a step; from the first time that memory runs out, with half the batch (`loop.batch`).

    Raises DeviceMemoryError where memory runs out with half the batch, too.
    """
    whole = loop.config.loop.batch
    try:
        loop.step(number)
    except (MemoryError, RuntimeError) as cause:
        if not is_out_of_memory(cause):
            raise
        if loop.batch < whole or whole < 2:
            raise DeviceMemoryError(
                f"memory ran out on {loop.device} with {loop.batch} patches at once",
                "Use smaller patches or images (loop.patch, images.size), or another device; "
                "run the same command again to resume.",
            ) from cause
    else:
        return
    loop.batch = whole // 2
    monitor.warn(
        f"memory ran out on {loop.device}; continuing with {loop.batch} patches, not {whole}"
    )
    release_memory(loop.device)
    step_within_memory(loop, number, monitor)


@without_tf32()
def seconds_of_a_patient(
    config: DistillConfig, modality: str, device: str, monitor: Monitor | None = None
) -> float:
    """Estimate the seconds that distilling one patient takes, without reading and audit.

    Times a step of each kind on random images, after a warm-up.
    """
    monitor = monitor or Monitor()
    rng = np.random.default_rng(config.seed)
    count, size = config.images_per_patient, config.images.size
    images = rng.uniform(0.4, 0.9, (max(count, _RAW_IMAGES), size, size)).astype(np.float32)
    loop = PatientLoop(Raw(images, images[:count], modality), config, device)
    counts = config.loop
    # Number of a step, and how many are like it: the first of a network, matches, learning.
    kinds = (
        (0, 1),
        (1 + counts.teaching, counts.inner - 1),
        (1, counts.inner * counts.teaching),
    )
    seconds = 0.0
    for number, like_it in kinds:
        if like_it:
            monitor.check()
            seconds += like_it * _seconds(loop, number)
    return counts.outer * seconds


def _seconds(loop: PatientLoop, number: int) -> float:
    for _ in range(2):
        began = time.perf_counter()
        loop.step(number)
        if loop.device.startswith("cuda"):
            torch.cuda.synchronize(loop.device)
    return time.perf_counter() - began
