"""Trains the predictor's network that ships for a modality: as it is taught a volume, on many."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from MedEnhanceLib.core.options import WithPresets, config_to_json, option
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.volume_files import load
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.predictor.features import COUNT
from MedEnhanceLib.unicompress.codecs.predictor.learned import model_of
from MedEnhanceLib.unicompress.codecs.predictor.network import MOST_WIDTH
from MedEnhanceLib.unicompress.codecs.predictor.tuning import (
    Learner,
    Samples,
    Weights,
    draw_samples,
    join,
)

_MOST = 1 << 31
WEIGHTS = "predictor.safetensors"
#: Scale and shape before anything is learned: 2 ** −1.4 of the local scale, a fifth step.
_START = (0.0, -1.4, 2.0)
_WARMUP = 200
_LEAST_RATE = 0.02
#: Steps from one replacement of voxels to the next, and between two reports.
_REFRESH, _REPORTED = 100, 1_000
#: Share of the time after which volumes are read, and voxels are drawn, about.
_READ, _DRAWN = 0.15, 0.25


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(WithPresets):
    """Training of one modality's network; a minute, so it is not resumed."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 20, "batch": 256, "pool": 20_000, "drawn": 5_000, "widths": (8, 8)},
        "cpu": {},
        "full": {"steps": 60_000, "pool": 4_000_000},
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
        help="voxels of the pool that are replaced every 100 steps, by voxels of another part of "
        "another volume",
        low=1,
        high=_MOST,
    )
    seed: int = option(0, help="of everything that is drawn")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= width <= MOST_WIDTH for width in self.widths):
            raise ConfigError(
                f"widths is {self.widths}", f"Give two widths from 1 to {MOST_WIDTH}."
            )


def train_predictor(
    config: PredictorConfig,
    data_files: Sequence[str | Path],
    out: str | Path,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Train on volumes and write the model `predictor.safetensors` into the folder `out`.

    Returns the model's path, alone. Raises InputError without volumes, Cancelled.
    """
    monitor = monitor or Monitor()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    volumes = _read(data_files, monitor.part(0.0, _READ))
    generator = np.random.default_rng(config.seed)
    learner = Learner(_start(config.widths, generator))
    pool = _Pool(volumes, config, generator, monitor.part(_READ, _DRAWN))
    monitor = monitor.part(_DRAWN, 1.0)
    for step in range(config.steps):
        monitor.progress(step / config.steps, "train the predictor")
        if step and step % _REFRESH == 0:
            pool.refresh()
        chosen = generator.integers(0, len(pool.samples), config.batch)
        bits = learner.step(pool.samples, chosen, learning_rate(config, step))
        if (step + 1) % _REPORTED == 0 or step + 1 == config.steps:
            monitor.metric("bits per voxel", bits, step + 1)
    monitor.progress(1.0, "trained")
    facts = {
        "modality": config.modality,
        "config": json.dumps(config_to_json(config)),
        "trained_on": json.dumps(["/".join(Path(path).parts[-2:]) for path in data_files]),
        "seed": str(config.seed),
    }
    network = learner.weights.network()
    model = model_of(network, f"codec-{config.modality.lower()}", facts)
    path = folder / WEIGHTS
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_bytes(model.data)
    return [path]


def _start(widths: tuple[int, int], generator: np.random.Generator) -> Weights:
    """Evenly within 1 / √inputs, as is usual; the last layer a tenth of that, around `_START`."""
    matrices, biases = [], []
    for inputs, outputs in pairwise((COUNT - 1, *widths, len(_START))):
        reach = inputs**-0.5
        matrices.append(generator.uniform(-reach, reach, (outputs, inputs)).astype(np.float32))
        biases.append(generator.uniform(-reach, reach, outputs).astype(np.float32))
    matrices[-1] *= np.float32(0.1)
    biases[-1] = np.array(_START, np.float32)
    return Weights(matrices, biases)


def learning_rate(config: PredictorConfig, step: int) -> float:
    """After a warm-up, along a cosine to almost nothing."""
    done = step / config.steps
    cosine = _LEAST_RATE + (1 - _LEAST_RATE) * 0.5 * (1 + np.cos(np.pi * done))
    return float(config.learning_rate * min(1.0, (step + 1) / _WARMUP) * cosine)


class _Pool:
    """Voxels to draw batches from; the oldest are replaced."""

    def __init__(
        self,
        volumes: Sequence[Voxels],
        config: PredictorConfig,
        generator: np.random.Generator,
        monitor: Monitor,
    ) -> None:
        self._volumes, self._drawn, self._generator = volumes, config.drawn, generator
        parts = []
        count = max(1, config.pool // config.drawn)
        for number in range(count):
            monitor.progress(number / count, "draw voxels")
            parts.append(draw_samples(volumes, config.drawn, generator))
        self.samples, self._oldest = join(parts), 0

    def refresh(self) -> None:
        new: Samples = draw_samples(self._volumes, self._drawn, self._generator)
        at = (self._oldest + np.arange(len(new))) % len(self.samples)
        for field in ("features", "linear", "scale", "index"):
            getattr(self.samples, field)[at] = getattr(new, field)
        self._oldest = int(at[-1] + 1)


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
