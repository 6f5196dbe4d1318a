"""Trains HQG-Net on two unpaired pools; resumable, stoppable, reproducible from its seed.

Every step degrades clean slabs of the high-quality pool at random strength and restores them,
guided by another high-quality slice. Some steps also use real low-quality slabs. From the
configured step on, a task's head learns along and teaches the enhancer through a gate. The loss
terms are in `losses`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.hqg.bundle import CueBank, export_enhancer
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.network import Enhancer, GuidanceEncoder
from MedEnhanceLib.hqg.train.calibrate import calibrate_on_held_out
from MedEnhanceLib.hqg.train.pools import Batch, Pools, worker_count
from MedEnhanceLib.hqg.train.trainer import RETRY, Trainer
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.processes import join_processes
from MedEnhanceLib.nets.training import DivergenceError, Journal, cancelled_before, training_steps
from MedEnhanceLib.report.training import TrainingStory, training_report
from MedEnhanceLib.runtime.progress import Monitor

#: The last checkpoint, and beside it the last one with calm losses where that is another.
_CHECKPOINT, _CALM = "checkpoint.safetensors", "checkpoint-calm.safetensors"
_METRIC_EVERY = 20
#: Seconds between two reports; drawing one takes a second or two.
_REPORT_S = 60.0
_BANK_PATCHES = 256
Floats = npt.NDArray[np.float32]
_SLABS = 6
#: Not among the seeds of training.
_SEED = 7_000_000


@without_tf32()
def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    make_task: Callable[[str, Monitor], Any] | None = None,
) -> Path:
    """Train and export a bundle.

    Under torchrun every process calls this; the first one writes.

    Args:
        config: of the training.
        data: folder that the configuration's patterns are relative to.
        out: for checkpoint, metrics, report and bundle. Where it holds a checkpoint of the same
            configuration, the training continues from it.
        monitor: progress, metrics, warnings and cancelling.
        make_task: (device, monitor) → head with its gate, and labeled data.
    Returns:
        The bundle's folder, `out/<name>`.
    Raises:
        Cancelled: from the first step on after writing a checkpoint.
        DivergenceError: after exporting the last good weights; the last good checkpoint stays.
        InputError: data are missing or do not fit.
    """
    monitor = monitor or Monitor()
    with join_processes(config.device) as (processes, choice):
        # The other processes are silent, but can be cancelled.
        own = monitor if processes.is_first else Monitor(cancel=lambda: monitor.cancelled)
        own.log(f"training on {choice.name}: {choice.reason}")
        if processes.count > 1:
            own.log(f"{processes.count} processes train together")
        out.mkdir(parents=True, exist_ok=True)
        make = None if make_task is None else (lambda name: make_task(name, own))
        try:
            pools = Pools.load(config, data, own.part(0.0, 0.03))
            trainer = Trainer(config, pools, choice.name, processes=processes, make_task=make)
        except Cancelled as cause:
            raise cancelled_before(resumed=(out / _CHECKPOINT).exists()) from cause
        return _Run(trainer, out, own).finish()


class _Run:
    """A training in its folder, from a checkpoint, if any, to the bundle."""

    def __init__(self, trainer: Trainer, out: Path, monitor: Monitor) -> None:
        self.trainer, self.config, self.out, self.monitor = trainer, trainer.config, out, monitor
        self.checkpoint, self.calm = out / _CHECKPOINT, out / _CALM
        self.start = self._resume()
        if self.start:
            monitor.log(f"resumed at step {self.start}")
        self._began = time.monotonic() - trainer.seconds
        self._is_first = trainer.processes.is_first
        self._journal = Journal(
            out / "metrics.jsonl" if self._is_first else None, self.start, monitor
        )
        self._validation = Validation(trainer.pools, self.config, trainer.device)
        self._last: Validated | None = None
        self._validated_at = self._reported_at = -math.inf

    @property
    def folder(self) -> Path:
        """Of the bundle."""
        return self.out / self.config.name

    def _resume(self) -> int:
        """The step to continue with; the calm checkpoint gives the weights to return to."""
        start = 0
        for path in (self.calm, self.checkpoint):
            if path.exists():
                start = self.trainer.resume(path)
        self._saved_calm = self.trainer.is_sound
        return start

    def finish(self) -> Path:
        """The remaining steps, and the bundle."""
        try:
            self._learn()
            if not self.trainer.is_finite:
                raise DivergenceError("the training diverged at its last step", RETRY)
        except DivergenceError as cause:
            try:
                raise self._rescue(cause) from cause
            finally:
                self._wait_for_the_first()
        try:
            if self._is_first:
                self._validate(self.config.steps)
                self._export()
                self._report(self.config.steps, "finished")
        except Cancelled as cause:
            raise Cancelled(
                "cancelled before the model was complete; the checkpoint holds all steps",
                "Start again with the same output folder to write the model.",
            ) from cause
        finally:
            self._wait_for_the_first()
        with suppress(Cancelled):  # the model is written: too late to cancel
            self.monitor.progress(1.0, "model written")
        return self.folder

    def _wait_for_the_first(self) -> None:
        """All processes stay until the model is written: torchrun ends all when one has ended."""
        self.trainer.processes.any([False])

    def _learn(self) -> None:
        trainer, config = self.trainer, self.config
        numbers = training_steps(
            self.start,
            config.steps,
            self._save,
            config.checkpoint_s,
            self.monitor.part(0.03, 0.98),
            agree=trainer.processes.any,
        )
        workers = worker_count(config.workers, trainer.device)
        batches = trainer.batches.starting(
            self.start, workers=workers, pin=trainer.device.startswith("cuda")
        )
        for number in numbers:
            self._journal.add(trainer.step(number, next(batches)))
            trainer.seconds = time.monotonic() - self._began
            if number % _METRIC_EVERY == 0 or number == config.steps - 1:
                self._journal.report(number)
            if self._is_first and time.monotonic() - self._validated_at > config.validation_s:
                self._validate(number)

    def _save(self, step: int) -> None:
        """Write a checkpoint; while losses are far off, the last calm one is kept beside it."""
        is_calm = self.trainer.is_sound
        if self._is_first and not is_calm and self._saved_calm and self.checkpoint.exists():
            self.checkpoint.replace(self.calm)
        self.trainer.save(self.checkpoint, step)
        if self._is_first and is_calm:
            self.calm.unlink(missing_ok=True)
        self._saved_calm = is_calm
        due = time.monotonic() - self._reported_at > _REPORT_S
        if self._is_first and due and step < self.config.steps:
            self._report(step, "still running")

    def _validate(self, step: int) -> None:
        self._last = self._validation.measure(*self.trainer.averaged())
        self._validated_at = time.monotonic()
        self._journal.record({"psnr_db": self._last.psnr_db}, step)

    def _rescue(self, cause: DivergenceError) -> DivergenceError:
        """Export the bundle of the last good weights; returns the error that reports it."""
        trainer = self.trainer
        if self._is_first and not self._saved_calm:
            self.checkpoint.unlink(missing_ok=True)
            if self.calm.exists():
                self.calm.replace(self.checkpoint)
        if not trainer.good_step:
            return DivergenceError(f"{cause.message}. There are no good weights to keep yet", RETRY)
        trainer.go_back()
        kept = f"These are the averaged weights of step {trainer.good_step}"
        if self._is_first:
            self._validate(trainer.good_step)
            self._export(f"{cause.message}. {kept}, from before.")
            self._report(trainer.good_step, f"stopped: {cause.message}. {kept}.")
        return DivergenceError(
            f"{cause.message}. The averaged weights of step {trainer.good_step} are kept in "
            f"{self.folder}",
            RETRY,
        )

    def _export(self, warning: str = "") -> None:
        enhancer, guide = self.trainer.averaged()
        bank = CueBank.measure(guide, self._bank_patches())
        limits = [*([warning] if warning else []), *training_length_limits(self.config.steps)]
        if not self.config.loss.error:
            limits.append("The expected error was not trained: do not rely on it.")
        part = self.monitor.part(0.98, 1.0)
        part.check()
        seconds = self.trainer.seconds
        export_enhancer(self.folder, self.config, enhancer, guide, bank, seconds, limits=limits)
        calibrate_on_held_out(
            self.folder, self.trainer.pools.held_out_files, self.trainer.device, part
        )

    def _bank_patches(self) -> Tensor:
        rng = np.random.default_rng(self.config.seed + 2)
        count = math.ceil(_BANK_PATCHES / self.config.batch)
        pools = self.trainer.pools
        guides = [pools.cycle_batch(rng).guide for _ in range(count)]
        return torch.cat(guides)

    def _report(self, step: int, ending: str) -> None:
        """Write the HTML page; a failure becomes a warning."""
        trainer = self.trainer
        self._reported_at = time.monotonic()
        story = TrainingStory(
            name=self.config.name,
            modality=self.config.modality,
            step=step,
            steps=self.config.steps,
            ending=ending,
            seconds=trainer.seconds,
            device=trainer.device,
            processes=trainer.processes.count,
            skipped=trainer.skipped,
            curves=self._journal.curves,
            samples=self._last,
            gate=trainer.teaching.task.gate.diagnostics() if trainer.teaching else None,
            is_held_out=self._validation.is_held_out,
            config=config_to_json(self.config),
            data=self.config.data,
        )
        try:
            training_report(self.out / "report", story)
        except (MedEnhanceError, OSError) as cause:
            self.monitor.warn(f"the report could not be written: {cause}")


@dataclass(frozen=True)
class Validated:
    """The result of a validation.

    psnr_db, input_psnr_db: means over the slabs after and before enhancement, with peak 1 on the
    network's scale. degraded, enhanced, target, error (expected): middle slices, [N, P, P] each.
    """

    psnr_db: float
    input_psnr_db: float
    degraded: Floats
    enhanced: Floats
    target: Floats
    error: Floats


class Validation:
    """Fixed degraded slabs: of held-out volumes where there are any, else of the training's."""

    def __init__(self, pools: Pools, config: TrainConfig, device: str) -> None:
        self.is_held_out = bool(pools.held_out)
        self._device = device
        fixed = replace(config, batch=1, appearance=0.0)
        drawn = Pools(fixed, pools.held_out or pools.high, ())
        batches = [drawn.cycle_batch(np.random.default_rng(_SEED + n)) for n in range(_SLABS)]
        self._slabs = reduce(Batch.joined, batches)

    def measure(self, enhancer: Enhancer, guide: GuidanceEncoder) -> Validated:
        """Enhance the slabs, one by one; deterministic."""
        degraded, target = self._slabs.degraded.numpy(), self._slabs.target.numpy()
        middle = target.shape[1] // 2
        enhanced, errors = np.empty_like(target), np.empty_like(target)
        with torch.inference_mode():
            for index in range(len(target)):
                slab, _, guiding = (
                    part[index : index + 1].to(self._device) for part in self._slabs[:3]
                )
                image, error = enhancer.estimate(slab, guide(guiding).mean)
                enhanced[index], errors[index] = image[0].cpu(), error[0].cpu()
        return Validated(
            _mean_psnr(enhanced, target),
            _mean_psnr(degraded, target),
            *(part[:, middle] for part in (degraded, enhanced, target, errors)),
        )


def _mean_psnr(images: Floats, targets: Floats) -> float:
    squares = np.square(images - targets, dtype=np.float64).mean(axis=(1, 2, 3))
    return float(np.mean(-10 * np.log10(np.maximum(squares, 1e-12))))
