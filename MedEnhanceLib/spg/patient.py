"""Runs a patient's distillation to its end: in steps, with checkpoints, stoppable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from MedEnhanceLib.nets.training import training_steps
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.spg.budget import step_within_memory
from MedEnhanceLib.spg.checkpoints import Checkpoints
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.loop import MEASURED, PatientLoop, Raw
from MedEnhanceLib.spg.slices import Floats

#: A checkpoint after so many outer steps, and after `checkpoint_s` seconds.
_OUTER_STEPS = 10
#: Of the outer steps: the first and the last so many are told as means.
_TOLD_SHARE = 0.1
_MUCH_SATURATED = 0.1


@dataclass(frozen=True)
class PatientImages:
    """A patient's images, float32 [M, H, W] in [0, 1], and how they came about.

    batch: patches of a match, fewer than configured where memory ran out. measured: for each of
    MEASURED its means over the first and over the last tenth of the outer steps.
    """

    images: Floats
    batch: int
    measured: dict[str, tuple[float, float]]


def distil_patient(
    raw: Raw,
    config: DistillConfig,
    device: str = "cpu",
    *,
    folder: Path | None = None,
    hashes: Mapping[str, str] | None = None,
    monitor: Monitor | None = None,
) -> PatientImages:
    """Distil one patient, or go on with it.

    device: a torch device. folder: for checkpoints; None keeps none. hashes: of data and prior,
    which a checkpoint must agree in.
    Raises Cancelled after a checkpoint was written, ConfigError for a checkpoint of another
    configuration or data, ModelError on divergence, DeviceMemoryError.
    """
    monitor = monitor or Monitor()
    loop = PatientLoop(raw, config, device)
    checkpoints = Checkpoints(folder) if folder is not None else None
    parts = loop.parts(hashes or {})
    start = 0
    found = checkpoints.load(parts, monitor) if checkpoints else None
    if found is not None:
        start, notes = found
        loop.batch = int(notes["batch"])
        loop.forget_images()
        monitor.log(f"patient {raw.number + 1}: goes on at step {start}")

    def save(number: int) -> None:
        if checkpoints is not None:
            checkpoints.save(number, parts, {"batch": loop.batch})

    steps = training_steps(start, loop.steps, save, config.checkpoint_s, monitor)
    for number in steps:
        step_within_memory(loop, number, monitor)
        if not loop.ends_outer(number):
            continue
        outer = loop.outer_of(number)
        for name, value in zip(MEASURED, loop.history["measured"][outer].tolist(), strict=True):
            monitor.metric(f"{name} of patient {raw.number + 1}", value, outer)
        if (outer + 1) % _OUTER_STEPS == 0:
            save(number + 1)
    return _finished(loop, raw.number, monitor)


def _finished(loop: PatientLoop, number: int, monitor: Monitor) -> PatientImages:
    history = loop.history["measured"].double()
    count = max(1, round(_TOLD_SHARE * len(history)))
    ends = torch.stack([history[:count].mean(0), history[-count:].mean(0)], dim=1)
    measured = {
        name: (float(f"{first:.6g}"), float(f"{last:.6g}"))
        for name, (first, last) in zip(MEASURED, ends.tolist(), strict=True)
    }
    if measured["saturation"][1] > _MUCH_SATURATED:
        monitor.warn(
            f"patient {number + 1}: {measured['saturation'][1]:.0%} of the changes are as large as "
            "they can be: lower generator.rate, or raise generator.structure"
        )
    return PatientImages(loop.images(), loop.batch, measured)
