"""Runs a patient's distillation to its end: in steps, with checkpoints, stoppable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.nets.training import training_steps
from MedEnhanceLib.runtime.gpu_lock import hold_gpu
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.budget import step_within_memory
from MedEnhanceLib.spg.checkpoints import Checkpoints
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.loop import MEASURED, PatientLoop, Raw
from MedEnhanceLib.spg.slices import Floats

#: A checkpoint after so many outer steps, and after `checkpoint_s` seconds.
_OUTER_STEPS = 10
#: New networks and batches on which prior and result are compared.
_COMPARED = 5
_MUCH_SATURATED = 0.1


@dataclass(frozen=True)
class PatientImages:
    """A patient's images, float32 [M, H, W] in [0, 1], and how they came about.

    batch: patches of a match, fewer than configured where memory ran out. measured: `alignment`,
    the mean distance from the raw images' gradients, for new networks and batches, and
    `alignment_of_prior`, the same of the prior's images: not with differential privacy, whose
    noise they would not have; `structure` and `saturation` (a share of the pixels), means of the
    last outer step.
    """

    images: Floats
    batch: int
    measured: dict[str, float]


def distil_patient(
    raw: Raw,
    config: DistillConfig,
    device: str = "cpu",
    *,
    folder: Path | None = None,
    hashes: Mapping[str, str] | None = None,
    secret: int | None = None,
    monitor: Monitor | None = None,
) -> PatientImages:
    """Distil one patient, or go on with it; meanwhile no other long job has the GPU.

    device: a torch device, whose memory is given back at the end. folder: for checkpoints; None
    keeps none. hashes: of data and prior, which a checkpoint must agree in. secret: of the noise of
    differential privacy, where there is any: going on to the same images takes the same one; None
    draws one.
    Raises Cancelled after a checkpoint was written, ConfigError for a checkpoint of another
    configuration or data, ModelError on divergence, DeviceMemoryError.
    """
    monitor = monitor or Monitor()
    checkpoints = Checkpoints(folder) if folder is not None else None
    with hold_gpu([device], "distill", monitor):
        return _distil(raw, config, device, secret, checkpoints, hashes or {}, monitor)


def _distil(
    raw: Raw,
    config: DistillConfig,
    device: str,
    secret: int | None,
    checkpoints: Checkpoints | None,
    hashes: Mapping[str, str],
    monitor: Monitor,
) -> PatientImages:
    """All steps that are left; what they take on the device is nobody's when this returns."""
    loop = PatientLoop(raw, config, device, secret=secret)
    parts = loop.parts(hashes)
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

    whose = f"patient {raw.number + 1}"
    steps = training_steps(start, loop.steps, save, config.checkpoint_s, monitor, of=whose)
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
    compared = {} if loop.config.dp is not None else _compared(loop, number, monitor)
    last = dict(zip(MEASURED, loop.history["measured"][-1].tolist(), strict=True))
    if last["saturation"] > _MUCH_SATURATED:
        monitor.warn(
            f"patient {number + 1}: {last['saturation']:.0%} of the changes are as large as they "
            "can be: lower generator.rate, or raise generator.restraint"
        )
    del last["alignment"]  # of the batches that were learned from
    told = {name: float(f"{value:.6g}") for name, value in (last | compared).items()}
    return PatientImages(loop.images(), loop.batch, told)


def _compared(loop: PatientLoop, number: int, monitor: Monitor) -> dict[str, float]:
    found = []
    for pair in loop.compare(_COMPARED):
        found.append(pair)
        if monitor.cancelled:
            raise Cancelled(
                f"cancelled after the last step of patient {number + 1}; the checkpoint is written",
                "Start again with the same output folder to go on.",
            )
    before, after = np.mean(found, axis=0).tolist()
    return {"alignment_of_prior": before, "alignment": after}
