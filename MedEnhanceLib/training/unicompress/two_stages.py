"""Trains the implicit network: a teacher with encoders and codebooks, then a student of it.

Coordinates are drawn in cubes of 2 × 2 × 2 voxels, so that wavelet bands can be compared where
nothing else was decoded. The student learns first its teacher's features, then its outputs and
the data. Source: arXiv 2405.16850 (two-stage distillation); shares, weights and cubes are our
reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.volume_files import load
from MedEnhanceLib.learning.precision import mixed_precision, without_tf32
from MedEnhanceLib.learning.training import begin_training, run_steps, set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.unicompress.codec_export import save_models
from MedEnhanceLib.training.unicompress.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.codec import (
    LEAST_PART,
    TAILS,
    BlockScaling,
    is_thick,
)
from MedEnhanceLib.unicompress.codecs.implicit.decoder import CORNERS, positions_of
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks, Tokens, haar
from MedEnhanceLib.unicompress.config import MODALITIES

#: A block of training, in units: 4 × 8 × 8 cells.
BLOCK_UNITS = (32, 64, 64)
#: Blocks in files are larger than those of training: this share of the latter is scaled as part of
#: a larger block, with at least this share of its spread.
_PARTS, _LEAST_SPREAD = 0.5, 0.35
#: Voxels of a cube of coordinates.
CUBE = 8
# Chosen in trials on CT, MR and EM; no table isolates them.
#: Weights: of the teacher's outputs at the start and at the end, and of other losses.
_ALPHA_START, _ALPHA_END = 1.0, 0.1
_COMMITMENT, _BANDS, _MATCH = 0.02, 0.02, 0.1
#: Vectors of each branch that the codebooks start from, at least, for each code.
_START_VECTORS = 64
#: Batches whose cells the encoders start from.
_START_BATCHES = 24
_WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class Source:
    """A volume to learn from, large enough for a block.

    Attributes:
        voxels: [K, J, I], on the network's scale.
        thick: whether its slices are, as `is_thick` says.
    """

    modality: str
    voxels: Floats
    thick: bool


def block_shape(*, thick: bool) -> tuple[int, int, int]:
    """Compute the voxels of a block of training."""
    slices, rows, columns = BLOCK_UNITS
    return slices // (2 if thick else 1), rows, columns


def _read_sources(files: Sequence[str | Path], modality: str, monitor: Monitor) -> list[Source]:
    """Read volumes as those of a modality, or of "all"; raises InputError where there are none."""
    modalities, stated = (MODALITIES, None) if modality == "all" else ((modality,), modality)
    sources = []
    for count, path in enumerate(files, 1):
        part = monitor.part((count - 1) / len(files), count / len(files))
        volume = load(path, modality=stated, monitor=part)
        if volume.modality in modalities and len(volume.frames()) == 1:
            sources.append(make_source(volume.single()))
        monitor.progress(count / len(files), "reading volumes")
    if not sources:
        raise InputError(
            "no volumes of this modality to train on",
            "Check `files`, patterns relative to the data folder, and the modality.",
        )
    return sources


def make_source(volume: Volume) -> Source:
    """Scale and pad a volume for training."""
    scaled = BlockScaling.of(volume.voxels, volume.modality).apply(volume.voxels)
    thick = is_thick(volume.geometry.spacing)
    pads = [
        (0, max(0, least - extent))
        for extent, least in zip(scaled.shape, block_shape(thick=thick), strict=True)
    ]
    return Source(volume.modality, np.pad(scaled, pads, mode="edge"), thick)


class TrainingBlocks:
    """Random blocks: modalities equally often, volumes by size, places and flips uniformly."""

    def __init__(self, sources: Sequence[Source]) -> None:
        groups = ([s for s in sources if s.modality == modality] for modality in MODALITIES)
        self._groups = [group for group in groups if group]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, bool]:
        """Draw blocks [count, 1, K, J, I] of one modality and kind of slices, and that kind."""
        group = self._groups[int(rng.integers(len(self._groups)))]
        first = group[int(rng.choice(len(group), p=_by_size(group)))]
        alike = [source for source in group if source.thick == first.thick]
        numbers = rng.choice(len(alike), size=count, p=_by_size(alike))
        crops = [_crop(alike[int(number)], rng) for number in numbers]
        return torch.from_numpy(np.stack(crops)[:, None]), first.thick


def _by_size(sources: Sequence[Source]) -> Any:
    """Compute the probabilities of sources: √voxels, as large volumes are redundant."""
    roots = np.sqrt([source.voxels.size for source in sources])
    return roots / roots.sum()


def _crop(source: Source, rng: np.random.Generator) -> Floats:
    shape = block_shape(thick=source.thick)
    start = [int(rng.integers(n - m + 1)) for n, m in zip(source.voxels.shape, shape, strict=True)]
    block = source.voxels[tuple(slice(s, s + m) for s, m in zip(start, shape, strict=True))]
    block = block[tuple(slice(None, None, int(step)) for step in rng.choice((-1, 1), size=3))]
    if rng.random() < 0.5:
        block = block.transpose(0, 2, 1)
    return np.ascontiguousarray(_rescaled(block, rng))


def _rescaled(block: Floats, rng: np.random.Generator) -> Floats:
    """Scale a block by its own values, as in a file; half of the blocks as part of a larger one."""
    low, high = np.percentile(block[::2, ::2, ::2], TAILS)
    block = (block - (low + high) / 2) / max((high - low) / 2, 1 / LEAST_PART)
    if rng.random() < _PARTS:
        part = rng.uniform(_LEAST_SPREAD, 1)
        block = part * block + (1 - part) * rng.uniform(-1, 1)
    return block.astype(np.float32)


def reconstruction_loss(values: Tensor, target: Tensor) -> Tensor:
    """Compute squared error plus, weighted, the absolute error of the bands of each cube."""
    error = (values - target).view(-1, 1, 2, 2, 2)
    low, high = haar(error)
    bands = torch.cat([low, high], dim=1)
    return (error**2).mean() + _BANDS * bands.abs().mean()


@dataclass(frozen=True)
class Batch:
    """Blocks of a step, and some of their voxels.

    Attributes:
        blocks: [B, 1, K, J, I].
        thick: whether their slices are.
        positions: [B, N, 8, 3], centers of voxels in units.
        target: [B, N, 8], values of these voxels.
    """

    blocks: Tensor
    thick: bool
    positions: Tensor
    target: Tensor


class ImplicitTrainer:
    """Training in two parts: first the teacher with the codebooks, then the student."""

    def __init__(self, config: ImplicitConfig, blocks: TrainingBlocks, device: str) -> None:
        torch.manual_seed(config.seed)
        self.config, self.blocks, self.device = config, blocks, device
        self.networks = Networks(config.token, config.teacher, config.student).to(device)
        # It skips parameters without gradient: in each part, those of networks that do not learn.
        self.optimizer = torch.optim.AdamW(
            self.networks.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY
        )
        self.autocast = mixed_precision(device)

    def step(self, number: int) -> dict[str, float]:
        """Take an optimizer step; returns its loss terms. A resumed step gives the same."""
        config = self.config
        rng = np.random.default_rng([config.seed, number])
        torch.manual_seed(int(rng.integers(2**62)))
        if number < config.teacher_steps:
            return self._teach(number, rng)
        number -= config.teacher_steps
        if number == 0:
            self.networks.start_student()
        return self._distill(number, rng)

    def _teach(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        total = self.config.teacher_steps
        start = round(self.config.warm_up * total)
        if number == 0:
            self._start_encoders(rng)
        if number == start:
            self._start_codebooks(rng)
        batch = self.draw(rng)
        if number < start:
            low, high = (grid.float() for grid in self.latents(batch.blocks, batch.thick))
            terms = {}
        else:
            tokens = self._tokens(batch, rng, learn=True)
            low, high = tokens.low, tokens.high
            terms = {"commitment": _COMMITMENT * tokens.commitment}
        decoded = self.networks.teacher(low, high, batch.positions)
        terms["data"] = reconstruction_loss(decoded.values, batch.target)
        return self._descend("teacher", number, total, terms)

    def _distill(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        config = self.config
        share = number / config.student_steps
        jointly = share >= 1 - config.joint
        batch = self.draw(rng)
        with torch.set_grad_enabled(jointly):
            tokens = self._tokens(batch, rng, learn=jointly)
        decoded = self.networks.student(tokens.low, tokens.high, batch.positions)
        if jointly:
            terms = {"data": reconstruction_loss(decoded.values, batch.target)}
            terms["commitment"] = _COMMITMENT * tokens.commitment
            return self._descend("joint", number, config.student_steps, terms)
        with torch.no_grad():
            taught = self.networks.teacher(tokens.low, tokens.high, batch.positions)
        # The teacher's outputs have full weight while features are matched, then less and less.
        progress = max(0.0, (share - config.match) / max(1 - config.match, 1e-9))
        alpha = _ALPHA_START + (_ALPHA_END - _ALPHA_START) * progress
        terms = {"output": alpha * reconstruction_loss(decoded.values, taught.values)}
        if share < config.match:
            fused = torch.mean((decoded.fused - taught.fused) ** 2)
            last = torch.mean((self.networks.lift(decoded.last) - taught.last) ** 2)
            terms["features"] = _MATCH * (fused + last)
        else:
            terms["data"] = reconstruction_loss(decoded.values, batch.target)
        return self._descend("student", number, config.student_steps, terms)

    def _descend(
        self, part: str, number: int, total: int, terms: dict[str, Tensor]
    ) -> dict[str, float]:
        set_learning_rate(self.optimizer, self.config.learning_rate, number, total)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        # One transfer from the device.
        numbers = torch.stack([term.detach() for term in terms.values()]).tolist()
        return {f"{part} {term}": value for term, value in zip(terms, numbers, strict=True)}

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw blocks and coordinates of a step."""
        blocks, thick = self.blocks.draw(self.config.blocks, rng)
        blocks = blocks.to(self.device)
        size = (len(blocks), self.config.coordinates // CUBE)
        halves = [extent // 2 for extent in blocks.shape[2:]]
        corners = [torch.randint(half, size, device=blocks.device) for half in halves]
        cubes = 2 * torch.stack(corners, dim=-1)[:, :, None] + CORNERS.to(blocks.device)
        rows, columns = blocks.shape[3:]
        flat = (cubes[..., 0] * rows + cubes[..., 1]) * columns + cubes[..., 2]
        target = blocks.flatten(1).gather(1, flat.flatten(1)).view(flat.shape)
        return Batch(blocks, thick, positions_of(cubes, thick=thick), target)

    def latents(self, blocks: Tensor, thick: bool) -> tuple[Tensor, Tensor]:
        """Encode blocks."""
        with self.autocast:
            latents: tuple[Tensor, Tensor] = self.networks.tokenizer.encoders(blocks, thick=thick)
        return latents

    def _tokens(self, batch: Batch, rng: np.random.Generator, *, learn: bool = False) -> Tokens:
        """Tokenize a batch, each block with a random number of layers."""
        tokenizer = self.networks.tokenizer
        layers = len(tokenizer.config.order)
        used = rng.integers(1, layers + 1, size=len(batch.blocks))
        latents = self.latents(batch.blocks, batch.thick)
        return tokenizer.quantize(latents, torch.from_numpy(used).to(self.device), learn=learn)

    def _start_encoders(self, rng: np.random.Generator) -> None:
        """Start the encoders as principal components of random blocks."""
        drawn = (self.blocks.draw(self.config.blocks, rng) for _ in range(_START_BATCHES))
        batches = [(blocks.to(self.device), thick) for blocks, thick in drawn]
        self.networks.tokenizer.encoders.start(batches)
        self.networks.start_values()

    @torch.no_grad()
    def _start_codebooks(self, rng: np.random.Generator) -> None:
        """Start the codebooks from k-means of the encoders' latents of random blocks."""
        cells: list[list[Tensor]] = [[], []]
        while sum(map(len, cells[0])) < _START_VECTORS * self.config.token.codes:
            blocks, thick = self.blocks.draw(self.config.blocks, rng)
            for branch, grid in enumerate(self.latents(blocks.to(self.device), thick)):
                cells[branch].append(grid.float().flatten(2).transpose(1, 2).flatten(0, 1))
        for quantizer, some in zip(self.networks.tokenizer.quantisers, cells, strict=True):
            quantizer.start(torch.cat(some))


@without_tf32
def train(
    config: ImplicitConfig,
    data_files: Sequence[str | Path],
    out: Path,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Train, or resume a training, and write the models into `out`; returns their paths.

    Args:
        config: ConfigError if a checkpoint has another one, except for the device.
        data_files: volumes, taken as of the config's modality; sequences are left out, and with
            "all" those of a modality without a model.
        out: the folder; a checkpoint in it is resumed.
        monitor: gets progress and losses; Cancelled is raised after writing a checkpoint.
    Raises InputError without training data, ModelError on divergence or a damaged
    checkpoint.
    """
    monitor = monitor or Monitor()
    device = begin_training(config.device, out, monitor)
    sources = _read_sources(data_files, config.modality, monitor.part(0.0, 0.03))
    trainer = ImplicitTrainer(config, TrainingBlocks(sources), device)
    # A checkpoint is resumed on another device, but with no other option changed.
    learned = config.to_json() | {"device": ""}
    del learned["license"]  # it does not influence the weights
    run_steps(
        trainer.step,
        config.steps,
        out,
        {
            "config": learned,
            "modules": {"networks": trainer.networks},
            "optimizers": {"all": trainer.optimizer},
        },
        monitor.part(0.03, 1.0),
    )
    return save_models(trainer.networks, config, out)
