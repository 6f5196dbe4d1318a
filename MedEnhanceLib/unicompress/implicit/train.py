"""Trains the implicit network: a teacher with encoders and codebooks, then a student of it."""

from __future__ import annotations

import time
from pathlib import Path

from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.nets.journal import Journal
from MedEnhanceLib.nets.training import training_steps
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.implicit.data import Blocks, Source, read_sources
from MedEnhanceLib.unicompress.implicit.trainer import Trainer
from MedEnhanceLib.unicompress.implicit.validation import Validation

CHECKPOINT = "checkpoint.safetensors"
_METRIC_EVERY = 50
_VALIDATE_EVERY = 0.1


def train_implicit(
    config: ImplicitConfig, data: Path, out: Path, monitor: Monitor | None = None
) -> Path:
    """Train, or go on with a training, and export; the folder that `export_codec` gives.

    Raises Cancelled after writing a checkpoint, InputError where there is nothing to learn from,
    ModelError on divergence or a damaged checkpoint, ConfigError for one of another configuration.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    out.mkdir(parents=True, exist_ok=True)
    sources = read_sources(config, data, monitor.part(0.0, 0.03))
    training = ImplicitTraining(config, sources, out, choice.name, monitor)
    training.learn(monitor.part(0.03, 0.9))
    return training.export(monitor.part(0.9, 1.0))


class ImplicitTraining:
    """A training with its checkpoint, journal and report."""

    def __init__(
        self,
        config: ImplicitConfig,
        sources: list[Source],
        out: Path,
        device: str,
        monitor: Monitor,
    ) -> None:
        self.config, self.sources, self.out, self.monitor = config, sources, out, monitor
        self.trainer = Trainer(config, Blocks(sources), device)
        self.validation = Validation(sources)
        self.checkpoint = out / CHECKPOINT
        self.start, self.seconds = 0, 0.0
        if self.checkpoint.exists():
            self.start, self.seconds = self.trainer.resume(self.checkpoint)
            monitor.log(f"resumed at step {self.start}")
        self.journal = Journal(out / "metrics.jsonl", self.start, monitor)

    def learn(self, monitor: Monitor) -> None:
        """All steps that are left."""
        trainer, total = self.trainer, self.trainer.steps
        if self.start >= total:
            return
        began = time.monotonic() - self.seconds
        every = max(1, round(_VALIDATE_EVERY * total))

        def save(number: int) -> None:
            self.seconds = time.monotonic() - began
            trainer.save(self.checkpoint, number, self.seconds)

        for number in training_steps(self.start, total, save, self.config.checkpoint_s, monitor):
            self.journal.hear(trainer.step(number))
            if number % _METRIC_EVERY == 0 or number == total - 1:
                self.journal.tell(number)
            if (number + 1) % every == 0:
                self._validate(number)

    def _validate(self, number: int) -> None:
        networks = self.trainer.networks
        is_student = number >= self.config.teacher_steps
        decoder = networks.student if is_student else networks.teacher
        found = self.validation.psnr(networks, decoder, networks.tokeniser.refinements)
        name = "student" if is_student else "teacher"
        self.journal.measured({f"{name} psnr_db {m}": v for m, v in found.items()}, number)

    def export(self, monitor: Monitor) -> Path:
        """The model's two files, its card and the report's page."""
        from MedEnhanceLib.unicompress.implicit.export import export_codec
        from MedEnhanceLib.unicompress.implicit.report import write_report

        folder = export_codec(self, monitor)
        try:
            write_report(self)
        except (MedEnhanceError, OSError) as cause:
            self.monitor.warn(f"the report could not be written: {cause}")
        monitor.progress(1.0, "model written")
        return folder
