"""Trains HQG-Net on two unpaired pools; resumable, stoppable, reproducible from its seed.

Every step: clean slabs of the high-quality pool are degraded at random strength and have to come
back, guided by another high-quality slice. Some steps also look at real low-quality slabs. From
the configured step on a task's head learns along and teaches the enhancer through a gate. What is
minimised is told in `objective`; why, in docs/decisions/0016-hqg-in-full.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.length import limits_of_length
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.hqg.batches import worker_count
from MedEnhanceLib.hqg.bundle import CueBank, export_enhancer
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.pools import Pools
from MedEnhanceLib.hqg.range_fit import measure_range
from MedEnhanceLib.hqg.trainer import RETRY, Trainer
from MedEnhanceLib.hqg.uncertainty import calibrate_on_held_out
from MedEnhanceLib.hqg.validation import Validated, Validation
from MedEnhanceLib.nets.journal import Journal
from MedEnhanceLib.nets.processes import join_processes
from MedEnhanceLib.nets.training import DivergenceError, cancelled_before, training_steps
from MedEnhanceLib.report.training import TrainingStory, training_report
from MedEnhanceLib.runtime.progress import Monitor

__all__ = ["Trainer", "train"]

#: The last one, and beside it the last one of calm losses where it is another.
_CHECKPOINT, _CALM = "checkpoint.safetensors", "checkpoint-calm.safetensors"
_METRIC_EVERY = 20
#: Drawing the page takes a second or two.
_REPORT_S = 60.0
_BANK_PATCHES = 256


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    make_task: Callable[[str, Monitor], Any] | None = None,
) -> Path:
    """Train and export a bundle; returns its folder, `out/<name>`.

    data: the folder that the configuration's patterns are relative to. out: holds checkpoint,
    metrics, report and bundle; where it holds a checkpoint of the same configuration, the training
    goes on from there. make_task: head, gate and labelled data, from the device's name.
    Under torchrun every process calls this; the first one writes.
    Raises Cancelled after writing a checkpoint, from the first step on. Raises DivergenceError
    after exporting the last good weights; the last good checkpoint stays.
    """
    monitor = monitor or Monitor()
    with join_processes(config.device) as (processes, choice):
        told = monitor if processes.is_first else Monitor(cancel=lambda: monitor.cancelled)
        told.log(f"training on {choice.name}: {choice.reason}")
        if processes.count > 1:
            told.log(f"{processes.count} processes train together")
        out.mkdir(parents=True, exist_ok=True)
        make = None if make_task is None else (lambda name: make_task(name, told))
        try:
            pools = Pools.load(config, data, told.part(0.0, 0.03))
            trainer = Trainer(config, pools, choice.name, processes=processes, make_task=make)
        except Cancelled as cause:
            raise cancelled_before(resumed=(out / _CHECKPOINT).exists()) from cause
        return _Run(trainer, out, told).finish()


class _Run:
    """A training in its folder: from a checkpoint, if there is one, to the bundle."""

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
        """The step to go on with; the calm checkpoint gives the weights to go back to."""
        start = 0
        for path in (self.calm, self.checkpoint):
            if path.exists():
                start = self.trainer.resume(path)
        self._saved_calm = self.trainer.is_sound
        return start

    def finish(self) -> Path:
        """All steps that are left, and the bundle."""
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
        with suppress(Cancelled):  # it is done: nothing is left to stop
            self.monitor.progress(1.0, "model written")
        return self.folder

    def _wait_for_the_first(self) -> None:
        """Nobody leaves before the model is written: torchrun ends all where one has ended."""
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
            self._journal.hear(trainer.step(number, next(batches)))
            trainer.seconds = time.monotonic() - self._began
            if number % _METRIC_EVERY == 0 or number == config.steps - 1:
                self._journal.tell(number)
            if self._is_first and time.monotonic() - self._validated_at > config.validation_s:
                self._validate(number)

    def _save(self, step: int) -> None:
        """A checkpoint; while losses are far off the last one before that is kept beside it."""
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
        self._journal.measured({"psnr_db": self._last.psnr_db}, step)

    def _rescue(self, cause: DivergenceError) -> DivergenceError:
        """The bundle of the last good weights, and the error that tells of it."""
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
        limits = [*([warning] if warning else []), *limits_of_length(self.config.steps)]
        if not self.config.loss.error:
            limits.append("The expected error was not trained: do not rely on it.")
        telling = self.monitor.part(0.98, 1.0)
        inputs = measure_range(self.trainer.pools, guide, self.config, telling)
        seconds = self.trainer.seconds
        export_enhancer(
            self.folder, self.config, enhancer, guide, bank, seconds, inputs, limits=limits
        )
        calibrate_on_held_out(
            self.folder, self.trainer.pools.held_out_files, self.trainer.device, telling
        )

    def _bank_patches(self) -> Tensor:
        rng = np.random.default_rng(self.config.seed + 2)
        count = math.ceil(_BANK_PATCHES / self.config.batch)
        pools = self.trainer.pools
        guides = [pools.cycle_batch(rng).guide for _ in range(count)]
        return torch.from_numpy(np.concatenate(guides))

    def _report(self, step: int, ending: str) -> None:
        """The page; a training does not fail because of it."""
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
