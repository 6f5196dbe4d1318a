"""Trains the predictor's network that ships for a modality, by the steps of `tuning`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from MedEnhanceLib.core.arrays import Floats, Voxels
from MedEnhanceLib.core.options import option
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.atomic import atomic_write, make_folder, refuse_unwritable
from MedEnhanceLib.io.volume_files import load
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.unicompress.config import CodecTrainingConfig
from MedEnhanceLib.unicompress.codecs.predictor.features import COUNT
from MedEnhanceLib.unicompress.codecs.predictor.learned import NAMES, model_of
from MedEnhanceLib.unicompress.codecs.predictor.tuning import (
    PredictorLearner,
    draw_samples,
)
from MedEnhanceLib.unicompress.config import Speed

# Widths tuned on open volumes (decision 0071), the rest by hand: Benchmarks/compression.py.
#: Nodes of both hidden layers: a small network takes half of the time, and 1 to 2 % more bytes.
_WIDTHS: dict[Speed, int] = {"normal": 32, "fast": 8}
#: Outputs before training: no shift, 2 ** −1.4 of the local scale, the third of the shapes.
_START = (0.0, -1.4, 2.0)
_RATE, _LEAST_RATE, _WARMUP = 6e-3, 0.02, 200
_BATCH = 4096
#: Voxels drawn from a part of a volume; voxels of the pool for each step, and at most.
_DRAWN, _POOL_PER_STEP, _LARGEST_POOL = 40_000, 150, 4_000_000
#: Steps from one replacement of voxels to the next, and between two reports.
_REFRESH, _REPORTED = 100, 1_000
#: Progress after reading volumes, and after drawing voxels.
_READ, _FILLED = 0.15, 0.25


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(CodecTrainingConfig):
    """Training of one modality's networks; a minute or two, so it is not resumed."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 20},
        "quick": {},  # the default takes a minute or two
        "cpu": {},
        "full": {"steps": 60_000},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.2, "quick": 2, "cpu": 2, "full": 15}

    modality: Literal["CT", "MR", "EM"] = option(
        "CT", help="modality as which all volumes are taken"
    )
    steps: int = option(7_000, help="optimizer steps", low=1, high=10_000_000)


@blas_on_one_thread
def train(
    config: PredictorConfig,
    data_files: Sequence[str | Path],
    out: str | Path,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Train on volumes and write a model for each speed; returns their paths.

    Args:
        config: steps, seed and the modality, for the name.
        data_files: volumes of that modality; those that are not integers are left out.
        out: the folder, made if missing; the models in it are replaced.
        monitor: gets progress and bits per voxel; may cancel.
    Raises InputError without volumes, Cancelled.
    """
    monitor = monitor or Monitor()
    refuse_unwritable(Path(out))
    volumes = _read(data_files, config.modality, monitor.part(0.0, _READ))
    generator = np.random.default_rng(config.seed)
    filling, parts = monitor.part(_READ, _FILLED), []
    count = max(1, min(_POOL_PER_STEP * config.steps, _LARGEST_POOL) // _DRAWN)
    for number in range(count):
        filling.progress(number / count, "drawing voxels")
        parts.append(draw_samples(volumes, _DRAWN, generator))
    pool, oldest = np.concatenate(parts), 0
    learners = {
        speed: PredictorLearner(_start(width, generator), generator.choice(pool, _BATCH))
        for speed, width in _WIDTHS.items()
    }
    monitor = monitor.part(_FILLED, 1.0)
    for step in range(config.steps):
        monitor.progress(step / config.steps, "training the predictor")
        if step and step % _REFRESH == 0:  # the oldest voxels are replaced
            new = draw_samples(volumes, _DRAWN, generator)
            at = (oldest + np.arange(len(new))) % len(pool)
            pool[at] = new
            oldest = int(at[-1] + 1)
        batch = pool[generator.integers(0, len(pool), _BATCH)]
        # After a warm-up, along a cosine to almost nothing.
        cosine = 0.5 * (1 + np.cos(np.pi * step / config.steps))
        rate = _RATE * (_LEAST_RATE + (1 - _LEAST_RATE) * cosine)
        for speed, learner in learners.items():
            bits = learner.step(batch, float(rate * min(1.0, (step + 1) / _WARMUP)))
            if (step + 1) % _REPORTED == 0 or step + 1 == config.steps:
                monitor.metric(f"bits per voxel, {speed}", bits, step + 1)
    monitor.progress(1.0, "trained")
    facts = {
        "modality": config.modality,
        "volumes": len(data_files),
        "steps": config.steps,
        "seed": config.seed,
    }
    paths = []
    for speed, learner in learners.items():
        model = model_of(learner.network(), f"codec-{config.modality.lower()}", facts)
        paths.append(make_folder(out) / f"{NAMES[speed]}.safetensors")
        with atomic_write(paths[-1], overwrite=True) as temporary:
            temporary.write_bytes(model.data)
    return paths


def _start(width: int, generator: np.random.Generator) -> list[Floats]:
    """Draw weights within ±1 / √inputs; a tenth of that in the last layer, with bias `_START`."""
    matrices = []
    for inputs, outputs in pairwise((COUNT, width, width, len(_START))):
        reach = inputs**-0.5
        matrices.append(generator.uniform(-reach, reach, (outputs, inputs + 1)).astype(np.float32))
    matrices[-1] *= np.float32(0.1)
    matrices[-1][:, -1] = _START
    return matrices


def _read(data_files: Sequence[str | Path], modality: str, monitor: Monitor) -> list[Voxels]:
    volumes: list[Voxels] = []
    for number, path in enumerate(data_files):
        monitor.progress(number / len(data_files), "reading volumes")
        part = monitor.part(number / len(data_files), (number + 1) / len(data_files))
        voxels = load(path, modality=modality, monitor=part).voxels
        volumes += list(voxels.reshape(-1, *voxels.shape[-3:]))
    usable = [each for each in volumes if each.dtype.kind in "iu" and min(each.shape[1:]) >= 2]
    if not usable:
        raise InputError(
            "no integer volumes to train the predictor on",
            "Use volumes as the scanner stores them, without a rescale slope.",
        )
    return usable
