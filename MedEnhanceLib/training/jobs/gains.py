"""Estimate of the gain of the shipped models by a distilled set of a cohort, before it is made.

The shipped models are trained further on a set of one half of the patients, and measured on the
other half, and vice versa. The method is ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import Bundle, read_bundle, shipped_bundle
from MedEnhanceLib.bundles.suitability import is_certain
from MedEnhanceLib.runtime.locks import Workspace
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.hqg.config import TrainConfig, TrainSlicesConfig
from MedEnhanceLib.training.hqg.run import train
from MedEnhanceLib.training.hqg.slice_training import train_slices
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.dataset import PATTERN
from MedEnhanceLib.training.spg.distillation import distill_cohort

#: Crops in the pool of an enhancer's training, and in its validation.
_CROPS, _VALIDATED = 40, 12
#: Share of the enhancer's training in the time of both, on a CPU.
_NOISE = 0.25
#: Learning rate of an enhancer that is already trained; chosen by hand, no table isolates it.
_RATE = 5e-4
_TASKS = {"noise": "in removing noise", "slices": "in restoring thin slices"}


@dataclass(frozen=True)
class Gain:
    """Gain of a shipped model by a set.

    Attributes:
        task: "noise" or "slices".
        over_shipped_db: on other patients, dB.
        error_db: its standard error.
    """

    task: str
    over_shipped_db: float
    error_db: float

    @property
    def is_certain(self) -> bool:
        """Whether the gain exceeds its uncertainty."""
        return is_certain(self.over_shipped_db, self.error_db)

    @property
    def text(self) -> str:
        """The figure and the task."""
        return f"{self.over_shipped_db:+.2f} ± {self.error_db:.2f} dB {_TASKS[self.task]}"


@dataclass(frozen=True)
class Gains:
    """The estimate for a cohort.

    Attributes:
        patients: how many are in it.
        steps: of each training.
    """

    modality: str
    patients: int
    steps: int
    gains: tuple[Gain, ...]

    @property
    def sentence(self) -> str:
        """The verdict for the user, before a distillation."""
        certain = [gain.text for gain in self.gains if gain.is_certain]
        verdict = (
            f"A set can gain {' and '.join(certain)}." if certain else "Use the shipped model."
        )
        measured = ", ".join(gain.text for gain in self.gains)
        return (
            f"{verdict} The shipped models, after {self.steps} further steps on a set of one half "
            f"of the {self.patients} patients, differ on the other half by {measured}."
        )

    def record(self) -> dict[str, Any]:
        """Return the fields of the job's result."""
        rows = [asdict(gain) | {"is_certain": gain.is_certain} for gain in self.gains]
        return asdict(self) | {"gains": rows}


def gains_of(cohort: Cohort, config: DistillConfig, steps: int, monitor: Monitor) -> Gains:
    """Estimate the gain over the shipped models by a set of the method statistics.

    Args:
        cohort: at least FEWEST_PATIENTS.
        config: of the distillation: volumes, prior, size, seed and device are used.
        steps: of each training.
        monitor: gets progress, and may cancel.
    Raises:
        InputError: too few patients, or volumes that cannot be used.
    """
    cohort.require("the estimate")
    config = replace(config, method="statistics")
    first = monitor.part(0.0, 1.0, is_typical=False)  # the trainings differ in pace
    names = np.random.default_rng(config.seed).permutation(sorted(p.id for p in cohort)).tolist()
    half_of = {name: number % 2 for number, name in enumerate(names)}
    with Workspace() as workspace:
        folder = workspace.folder
        modality, numbers = "", itertools.count()
        for patient, volumes in cohort.volumes(monitor=first.part(0.0, 0.05)):
            modality = volumes[0].modality
            subfolder = folder / f"half-{half_of[patient.id]}"
            subfolder.mkdir(exist_ok=True)
            for volume in volumes:
                io.save(volume, subfolder / f"{next(numbers):04d}.nrrd")
        figures: dict[str, list[tuple[float, float]]] = {task: [] for task in _TASKS}
        for half in range(2):
            part = (monitor if half else first).part(0.05 + 0.475 * half, 0.525 + 0.475 * half)
            taught = cohort.only(lambda patient, half=half: half_of[patient.id] == half)  # type: ignore[misc]
            distill_cohort(taught, folder / f"set-{half}", config, part.part(0.0, 0.1))
            for task, figure in _trained(folder, half, modality, config, steps, part.part(0.1, 1)):
                figures[task].append(figure)
    gains = tuple(
        Gain(
            task,
            round(float(np.mean([value for value, _ in pairs])), 3),
            round(math.hypot(*(error for _, error in pairs)) / len(pairs), 3),
        )
        for task, pairs in figures.items()
    )
    return Gains(modality, len(cohort), steps, gains)


def _trained(
    folder: Path, half: int, modality: str, config: DistillConfig, steps: int, monitor: Monitor
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Train both shipped models on the set of a half; yields each task with its `_figure`."""
    shipped = {
        task: shipped_bundle(f"{modality.lower()}{suffix}")
        for task, suffix in (("noise", ""), ("slices", "-slices"))
    }
    tested = f"half-{1 - half}/*.nrrd"
    common = {
        "modality": modality,
        "name": "estimate",
        "seed": config.seed,
        "steps": steps,
        "device": config.device,
    }
    enhancer = TrainConfig.from_json(
        {
            **common,
            "high_quality": [],
            "noiseless": [f"set-{half}/{PATTERN}"],
            "held_out": [tested],
            "start": str(shipped["noise"].folder),
            "network": shipped["noise"].metadata["network"],
            "guide_steps": 0,
            "lesion_steps": 0,
            "crops": min(_CROPS, steps),
            "validated": min(_VALIDATED, steps),
            "learning_rate": _RATE,
        }
    )
    slices = TrainSlicesConfig.from_json(
        {
            **common,
            "files": [],
            "noiseless": [f"set-{half}/{PATTERN}"],
            "held_out": [tested],
            "start": str(shipped["slices"].folder),
            "network": shipped["slices"].metadata["network"],
        }
    )
    out = folder / f"trained-{half}"
    yield "noise", _figure(train(enhancer, folder, out / "noise", monitor.part(0.0, _NOISE)))
    yield "slices", _figure(train_slices(slices, folder, out / "slices", monitor.part(_NOISE, 1.0)))


def _figure(trained: Path) -> tuple[float, float]:
    """Read the gain over the shipped model and its standard error, dB."""
    bundle: Bundle = read_bundle(trained)
    validation = bundle.metadata["training"]["validation"]
    return validation["over_shipped_db"], validation["over_shipped_error_db"]
