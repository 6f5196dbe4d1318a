"""Trains the implicit network: a teacher with encoders and codebooks, then a student of it.

Validation on blocks that stay the same, a report with curves and samples, and the export.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.training import Journal, training_steps
from MedEnhanceLib.report.drawing import draw_curves, draw_image_grid
from MedEnhanceLib.report.page import Fact, Page, Picture, Table, make_folder, write_page
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder, count_weights, positions_of
from MedEnhanceLib.unicompress.codecs.implicit.export import export_codec
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks
from MedEnhanceLib.unicompress.codecs.implicit.trainer import (
    MODALITIES,
    Blocks,
    Source,
    Trainer,
    read_sources,
)

CHECKPOINT = "checkpoint.safetensors"
_METRIC_EVERY = 50
_VALIDATE_EVERY = 0.1
#: Blocks of the validation of each modality, and which.
_BLOCKS, _SEED = 2, 1_000_003
#: Slices of a block that are decoded: enough to judge, at once.
_SLICES = 1
#: The network's scale goes from −1 to 1, nearly.
PEAK = 2.0
_CURVES, _SAMPLES = "curves.png", "samples.png"


@without_tf32()
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
            self.journal.add(trainer.step(number))
            if number % _METRIC_EVERY == 0 or number == total - 1:
                self.journal.report(number)
            if (number + 1) % every == 0:
                self._validate(number)

    def _validate(self, number: int) -> None:
        networks = self.trainer.networks
        is_student = number >= self.config.teacher_steps
        decoder = networks.student if is_student else networks.teacher
        found = self.validation.psnr(networks, decoder, networks.tokeniser.refinements)
        name = "student" if is_student else "teacher"
        self.journal.record({f"{name} psnr_db {m}": v for m, v in found.items()}, number)

    def export(self, monitor: Monitor) -> Path:
        """The model's two files, its card and the report's page."""
        folder = export_codec(self.trainer, self.out, self.seconds, monitor)
        try:
            write_report(self)
        except (MedEnhanceError, OSError) as cause:
            self.monitor.warn(f"the report could not be written: {cause}")
        monitor.progress(1.0, "model written")
        return folder


@dataclass(frozen=True)
class Sample:
    """The middle slice of a block: what it is, and by name what was made of it, [J, I]."""

    modality: str
    target: npt.NDArray[np.float32]
    decoded: dict[str, npt.NDArray[np.float32]]


class Validation:
    """Fixed blocks of each modality."""

    def __init__(self, sources: Sequence[Source]) -> None:
        rng = np.random.default_rng(_SEED)
        self._batches = []
        for modality in MODALITIES:
            found = [source for source in sources if source.modality == modality]
            if found:
                self._batches.append((modality, *Blocks(found).draw(_BLOCKS, rng)))

    @torch.no_grad()
    def psnr(self, networks: Networks, decoder: Decoder, refinements: int) -> dict[str, float]:
        """PSNR in dB by modality, against a peak of 2 on the network's scale."""
        result = {}
        for modality, blocks, thick in self._batches:
            wanted, values = _decode_slices(networks, decoder, blocks, thick, refinements)
            error = float(torch.mean((values - wanted) ** 2))
            result[modality] = float(10 * np.log10(PEAK**2 / max(error, 1e-12)))
        return result

    @torch.no_grad()
    def samples(self, networks: Networks, ways: dict[str, tuple[Decoder, int]]) -> list[Sample]:
        """One of each modality. ways: name → decoder and number of layers."""
        found = []
        for modality, blocks, thick in self._batches:
            decoded = {}
            for name, (decoder, refinements) in ways.items():
                wanted, values = _decode_slices(networks, decoder, blocks[:1], thick, refinements)
                decoded[name] = values[0, 0].cpu().numpy()
            found.append(Sample(modality, wanted[0, 0].cpu().numpy(), decoded))
        return found


def _decode_slices(
    networks: Networks, decoder: Decoder, blocks: Tensor, thick: bool, refinements: int
) -> tuple[Tensor, Tensor]:
    """The middle slices of blocks, as they are and decoded: [B, slices, J, I] each."""
    device = next(decoder.parameters()).device
    blocks = blocks.to(device)
    used = torch.full((len(blocks),), refinements, device=device)
    tokens = networks.tokeniser(blocks, used, thick=thick)
    middle = blocks.shape[2] // 2
    extents = (range(middle, middle + _SLICES), range(blocks.shape[3]), range(blocks.shape[4]))
    axes = [torch.tensor(list(extent), device=device) for extent in extents]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    positions = positions_of(voxels, thick=thick)[None].expand(len(blocks), -1, -1)
    values = decoder(tokens.low, tokens.high, positions).values
    wanted = blocks[:, 0, middle : middle + _SLICES]
    return wanted, values.view_as(wanted)


def write_report(training: ImplicitTraining) -> Path:
    """Write `out/report/index.html` and its pictures; the page."""
    networks, config = training.trainer.networks, training.config
    most = networks.tokeniser.refinements
    networks.student.fixed = True
    ways = {
        "teacher": (networks.teacher, most),
        "student": (networks.student, most),
        "student, 2 layers": (networks.student, min(2, most)),
    }
    measured = {
        name: training.validation.psnr(networks, decoder, layers)
        for name, (decoder, layers) in ways.items()
    }
    folder = make_folder(training.out / "report")
    draw_curves(folder / _CURVES, training.journal.curves)
    samples = training.validation.samples(networks, ways)
    images = {name: [sample.decoded[name] for sample in samples] for name in samples[0].decoded}
    draw_image_grid(
        folder / _SAMPLES,
        {"source": [sample.target for sample in samples], **images},
        reference="source",
        titles=[sample.modality for sample in samples],
    )
    names = list(next(iter(measured.values())))
    weights = count_weights(networks.teacher), count_weights(networks.student)
    page = Page(
        title=f"Training of {config.name}: the implicit network",
        about=[
            ("Modality", config.modality),
            ("Steps", f"{config.teacher_steps:,} of the teacher, {config.student_steps:,} after"),
            ("Time", f"{training.seconds / 60:.0f} min on {training.trainer.device}"),
            ("Volumes", str(len(training.sources))),
        ],
        summary=[
            f"The student has {weights[1]:,} weights, the teacher {weights[0]:,}: "
            f"{weights[0] / weights[1]:.1f} times as many.",
            "Figures are of blocks of volumes that were learned from; those of volumes that were "
            "not are in the benchmark.",
        ],
        facts=[
            Fact(f"{value:.1f} dB", f"student, {name}")
            for name, value in measured["student"].items()
        ],
        tables=[
            Table(
                "PSNR, dB",
                ("decoder", *names),
                [
                    (way, *(f"{found[name]:.2f}" for name in names))
                    for way, found in measured.items()
                ],
                "Peak 2 on the network's scale; for CT that is 2048 HU.",
            )
        ],
        pictures=[
            Picture(
                _SAMPLES,
                "Samples",
                "Rows: the source, then what was decoded.",
                "Middle slices of the fixed blocks, with the window of the source.",
            ),
            Picture(_CURVES, "Curves", "Losses and PSNR by step.", "Running means."),
        ],
        provenance={"Configuration": config.to_json()},
    )
    return write_page(folder, page, overwrite=True)
