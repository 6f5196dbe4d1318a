"""Distills one patient to the end: in steps, within memory, with checkpoints, cancelable.

Also estimates from a few timed steps how long that takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedEnhanceLib.errors import DeviceMemoryError
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.training import training_steps
from MedEnhanceLib.runtime.device import is_out_of_memory
from MedEnhanceLib.runtime.locks import hold_gpu, release_memory
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import CHECKPOINTS, step_of
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.matching import MEASURED, PatientLoop, Raw

#: Outer steps between checkpoints, besides those after `checkpoint_s` seconds.
_OUTER_STEPS = 10
_MUCH_SATURATED = 0.1
#: Raw images to time with, at least: as many as are degraded whole at once.
_RAW_IMAGES = 8


@dataclass(frozen=True)
class PatientImages:
    """A patient's images and how they were made.

    Args:
        images: float32 [M, H, W] in [0, 1].
        batch: patches of a match; fewer than configured if memory ran out.
        measured: means of the last outer step: `alignment`, the distance from the gradients of the
            raw images; `structure`, from the prior; `saturation`, a share of the pixels.
    """

    images: Floats
    batch: int
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

    Args:
        raw: the patient's images and the prior.
        config: of the distillation.
        device: a torch device, whose memory is released at the end.
        folder: for checkpoints; None: no checkpoints.
        hashes: of data and prior, which a checkpoint must agree in.
        monitor: gets progress and may cancel.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: a checkpoint is of another configuration or data.
        ModelError: the distillation diverged.
        DeviceMemoryError: memory ran out with half the batch, too.
    """
    monitor = monitor or Monitor()
    checkpoints = Checkpoints(folder) if folder is not None else None
    with hold_gpu([device], monitor):
        return _distill(raw, config, device, checkpoints, hashes or {}, monitor)


def _distill(
    raw: Raw,
    config: DistillConfig,
    device: str,
    checkpoints: Checkpoints | None,
    hashes: Mapping[str, str],
    monitor: Monitor,
) -> PatientImages:
    """Run the remaining steps; device memory is released when this returns."""
    whose = f"patient {raw.number + 1}"
    loop = PatientLoop(raw, config, device)
    parts = loop.parts(hashes)
    start = 0
    found = checkpoints.load(parts, monitor) if checkpoints else None
    if found is not None:
        start, notes = found
        loop.batch = int(notes["batch"])
        loop.forget_images()
        monitor.log(f"{whose}: resumed at step {start}")

    def save(number: int) -> None:
        if checkpoints is not None:
            checkpoints.save(number, parts, {"batch": loop.batch})

    steps = training_steps(start, config.loop.steps, save, config.checkpoint_s, monitor, of=whose)
    for number in steps:
        step_within_memory(loop, number, monitor)
        if not loop.ends_outer(number):
            continue
        outer = loop.outer_of(number)
        for name, value in zip(MEASURED, loop.history["measured"][outer].tolist(), strict=True):
            monitor.metric(f"{name} of {whose}", value, outer)
        if (outer + 1) % _OUTER_STEPS == 0:
            save(number + 1)
    measured = {
        name: float(f"{value:.6g}")
        for name, value in zip(MEASURED, loop.history["measured"][-1].tolist(), strict=True)
    }
    if measured["saturation"] > _MUCH_SATURATED:
        monitor.warn(
            f"{whose}: {measured['saturation']:.0%} of the pixels have reached the largest allowed "
            "change: choose a prior that is more like the patients"
        )
    return PatientImages(loop.images(), loop.batch, measured)


class Checkpoints:
    """The last two checkpoints of a patient, each written atomically, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / name for name in CHECKPOINTS]
        self._next = 0

    def save(self, step: int, parts: dict[str, Any], notes: dict[str, Any]) -> None:
        """Replace the older one."""
        save_checkpoint(self._paths[self._next], step=step, notes=notes, **parts)
        self._next = 1 - self._next

    def load(self, parts: dict[str, Any], monitor: Monitor) -> tuple[int, dict[str, Any]] | None:
        """Restore the latest intact one: the next step and the notes; None if there is none.

        Raises:
            ConfigError: it is of another configuration or other data.
            ModelError: there are some, and all are damaged.
        """
        steps = {path: step_of(path) for path in self._paths if path.exists()}
        if not steps:
            return None
        latest = max(steps, key=lambda path: steps[path] or -1)
        notes: dict[str, Any] = {}
        step = load_checkpoint(latest, notes=notes, **parts)
        if None in steps.values():
            monitor.warn("the latest checkpoint is damaged; resuming from the one before")
        self._next = 1 - self._paths.index(latest)
        return step, notes


def step_within_memory(loop: PatientLoop, number: int, monitor: Monitor) -> None:
    """Run a step; from the first time that memory runs out, with half the batch (`loop.batch`).

    Raises:
        DeviceMemoryError: memory runs out with half the batch, too.
    """
    try:
        loop.step(number)
    except (MemoryError, RuntimeError) as cause:
        if not is_out_of_memory(cause):
            raise
        whole = loop.config.loop.batch
        if loop.batch < whole or whole < 2:
            raise DeviceMemoryError(
                f"memory ran out on {loop.device} with {loop.batch} patches at once",
                "Use smaller patches or images (loop.patch, images.size), or another device; "
                "run the same command again to resume.",
            ) from cause
        loop.batch = whole // 2
        monitor.warn(
            f"memory ran out on {loop.device}; continuing with {loop.batch} patches, not {whole}"
        )
    else:
        return
    release_memory(loop.device)
    step_within_memory(loop, number, monitor)


@without_tf32()
def seconds_of_a_patient(
    config: DistillConfig, modality: str, device: str, monitor: Monitor | None = None
) -> float:
    """Estimate how long distilling one patient takes, without reading and audit.

    Times each kind of step (drawing a new network, matching, teaching) on random images, if
    possible after a warm-up; takes about as long as five steps.

    Args:
        config: of the distillation.
        modality: "CT" or "MR".
        device: a torch device of this machine.
        monitor: may cancel.
    Returns:
        Seconds.
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
