"""Trains the predictor's network that ships for a modality."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from MedEnhanceLib.core.options import WithPresets, config_to_json, option
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.volume_files import load
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.predictor.features import COUNT, FEATURE
from MedEnhanceLib.unicompress.codecs.predictor.learned import model_of
from MedEnhanceLib.unicompress.codecs.predictor.network import (
    LARGEST_ACTIVATION,
    MOST_WIDTH,
    Network,
    quantize,
)
from MedEnhanceLib.unicompress.codecs.predictor.tables import WIDER
from MedEnhanceLib.unicompress.codecs.predictor.tuning import (
    KEPT,
    SHAPE_RANGE,
    SHARE_START,
    SHARE_STEP,
    SMALLEST_SCALE,
    SPREAD,
    Samples,
    draw_samples,
    join,
)

_MOST = 1 << 31
CHECKPOINT = "predictor-checkpoint.safetensors"
WEIGHTS = "predictor.safetensors"
#: Scale and shape before anything is learned: 2 ** −1.4 of the local scale, a fifth step.
_START = (0.0, -1.4, 2.0)
_WARMUP = 200
_LEAST_RATE = 0.02
_LARGEST_SCALE = 1e5
#: Share of the time after which volumes are read, and voxels are drawn, about.
_READ, _DRAWN = 0.15, 0.25


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(WithPresets):
    """Training of one modality's network."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 20, "batch": 256, "pool": 20_000, "drawn": 5_000, "widths": (8, 8)},
        "cpu": {},
        "full": {"steps": 60_000, "pool": 4_000_000, "drawn": 40_000},
    }

    modality: Literal["CT", "MR", "EM"] = option("CT", help="for the model's name")
    widths: tuple[int, int] = option((32, 32), help="of the two hidden layers, 1 to 64 each")
    steps: int = option(7_000, help="of the optimizer", low=1, high=_MOST)
    batch: int = option(4_096, help="voxels per step", low=1, high=_MOST)
    learning_rate: float = option(
        6e-3, help="the highest; it falls to nothing along a cosine", low=1e-6, high=1
    )
    pool: int = option(
        1_000_000, help="voxels that are kept to draw batches from", low=1, high=_MOST
    )
    drawn: int = option(
        40_000,
        help="voxels of the pool that are replaced every `refresh` steps, by voxels of another "
        "part of another volume",
        low=1,
        high=_MOST,
    )
    refresh: int = option(100, help="steps from one replacement to the next", low=1, high=_MOST)
    checkpoint_every: int = option(1_000, help="steps", low=1, high=_MOST)
    seed: int = option(0, help="of everything that is drawn")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= width <= MOST_WIDTH for width in self.widths):
            raise ConfigError(
                f"widths is {self.widths}", f"Give two widths from 1 to {MOST_WIDTH}."
            )


class FloatNetwork(nn.Module):
    """The network before it is made of whole numbers: features [n, F] → outputs [n, 3]."""

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        sizes = (COUNT - 1, *widths, 3)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        last = self._linears()[-1]
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(torch.tensor(_START))

    def forward(self, features: Tensor) -> Tensor:
        """features: in local scales."""
        *hidden, last = self._linears()
        for layer in hidden:
            features = torch.clamp(layer(features), 0, LARGEST_ACTIVATION)
        outputs: Tensor = last(features)
        return outputs

    def network(self) -> Network:
        """In whole numbers."""
        linears = self._linears()
        return quantize(
            [linear.weight.detach().numpy() for linear in linears],
            [linear.bias.detach().numpy() for linear in linears],
        )

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


def train_predictor(
    config: PredictorConfig,
    data_files: Sequence[str | Path],
    out: str | Path,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Train on volumes and write the model `predictor.safetensors` into the folder `out`.

    Goes on from the checkpoint in `out` where there is one. Returns the model's path, alone.
    Raises InputError without volumes, ConfigError for a checkpoint of another configuration,
    Cancelled; the checkpoint stays.
    """
    monitor = monitor or Monitor()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    volumes = _read(data_files, monitor.part(0.0, _READ))
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    network = FloatNetwork(config.widths)
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, betas=(0.9, 0.98))
    state = {
        "config": config_to_json(config),
        "modules": {"network": network},
        "optimizers": {"adam": optimizer},
        "generator": generator,
    }
    checkpoint = folder / CHECKPOINT
    first = load_checkpoint(checkpoint, **state) if checkpoint.exists() else 0  # type: ignore[arg-type]
    pool = _Pool(volumes, config, generator, monitor.part(_READ, _DRAWN))
    monitor = monitor.part(_DRAWN, 1.0)
    for step in range(first, config.steps):
        monitor.progress(step / config.steps, "train the predictor")
        if step and step % config.refresh == 0:
            pool.refresh()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        loss = voxel_bits(network, pool.batch()).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            monitor.metric("bits per voxel", loss.item(), step + 1)
            save_checkpoint(checkpoint, step=step + 1, **state)  # type: ignore[arg-type]
    monitor.progress(1.0, "trained")
    return [_write(network, config, data_files, folder)]


def learning_rate(config: PredictorConfig, step: int) -> float:
    """After a warm-up, along a cosine to almost nothing."""
    done = step / config.steps
    cosine = _LEAST_RATE + (1 - _LEAST_RATE) * 0.5 * (1 + np.cos(np.pi * done))
    return float(config.learning_rate * min(1.0, (step + 1) / _WARMUP) * cosine)


def voxel_bits(network: FloatNetwork, samples: Samples) -> Tensor:
    """Bits of each voxel, as `tuning` counts them."""
    features = torch.from_numpy(samples.features).float() / FEATURE
    scale, index = torch.from_numpy(samples.scale), torch.from_numpy(samples.index)
    outputs = network(features)
    off = index - torch.from_numpy(samples.linear) - scale * outputs[:, 0].clamp(-8, 8)
    width = (scale * torch.exp2(outputs[:, 1])).clamp(SMALLEST_SCALE, _LARGEST_SCALE)
    share = torch.sigmoid(SHARE_START + SHARE_STEP * outputs[:, 2].clamp(*SHAPE_RANGE))
    mass = torch.lerp(_mass(off, width, index), _mass(off, width * WIDER, index), share)
    return -torch.log2(mass.clamp(min=0) * KEPT + SPREAD)


def _mass(off: Tensor, width: Tensor, index: Tensor) -> Tensor:
    upper, lower = (off + 0.5) / width, (off - 0.5) / width
    # Index 0 holds all that lies below it too.
    lower = torch.where(index <= 0, -1e4, lower)
    flip = upper + lower > 0
    above, below = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    return functional.sigmoid(above) - functional.sigmoid(below)


class _Pool:
    """Voxels to draw batches from; the oldest are replaced."""

    def __init__(
        self,
        volumes: Sequence[Voxels],
        config: PredictorConfig,
        generator: np.random.Generator,
        monitor: Monitor,
    ) -> None:
        self._volumes, self._config, self._generator = volumes, config, generator
        parts = []
        count = max(1, config.pool // config.drawn)
        for number in range(count):
            monitor.progress(number / count, "draw voxels")
            parts.append(draw_samples(volumes, config.drawn, generator))
        self._samples, self._oldest = join(parts), 0

    def refresh(self) -> None:
        new = draw_samples(self._volumes, self._config.drawn, self._generator)
        at = (self._oldest + np.arange(len(new))) % len(self._samples)
        for field in ("features", "linear", "scale", "index"):
            getattr(self._samples, field)[at] = getattr(new, field)
        self._oldest = int(at[-1] + 1)

    def batch(self) -> Samples:
        chosen = self._generator.integers(0, len(self._samples), self._config.batch)
        return self._samples.part(chosen)


def _read(data_files: Sequence[str | Path], monitor: Monitor) -> list[Voxels]:
    volumes: list[Voxels] = []
    for number, path in enumerate(data_files):
        monitor.progress(number / len(data_files), "read volumes")
        part = monitor.part(number / len(data_files), (number + 1) / len(data_files))
        voxels = load(path, monitor=part).voxels
        volumes += list(voxels) if voxels.ndim == 4 else [voxels]
    usable = [one for one in volumes if one.dtype.kind in "iu" and min(one.shape[1:]) >= 2]
    if not usable:
        raise InputError(
            "there is no volume of whole numbers to train the predictor on",
            "Give volumes as a scanner stores them.",
        )
    return usable


def _write(
    network: FloatNetwork, config: PredictorConfig, data_files: Sequence[str | Path], folder: Path
) -> Path:
    facts = {
        "modality": config.modality,
        "config": json.dumps(config_to_json(config)),
        "trained_on": json.dumps(["/".join(Path(path).parts[-2:]) for path in data_files]),
        "seed": str(config.seed),
    }
    model = model_of(network.network(), f"codec-{config.modality.lower()}", facts)
    path = folder / WEIGHTS
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_bytes(model.data)
    return path
