"""Options of the training of thin slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from MedEnhanceLib.core.options import option
from MedEnhanceLib.slices.config import SliceNetConfig, SlicePatchConfig
from MedEnhanceLib.training.config import NetworkTrainingConfig


@dataclass(frozen=True, kw_only=True)
class TrainSlicesConfig(NetworkTrainingConfig, SlicePatchConfig):
    """One training run, reproducible from this, the seed and the data.

    Presets: smoke: for tests; quick: some further steps of a trained network (`start`); cpu; full:
    for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "batch": 2,
            "rows": 32,
            "columns": 16,
            "network": {"widths": (8, 8)},
        },
        "quick": {"steps": 400, "learning_rate": 1e-4},
        "cpu": {},
        "full": {"steps": 60_000, "batch": 64},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 6, "cpu": 90, "full": 6900}

    files: tuple[str, ...] = option(
        ("**/*.nii.gz",),
        help="patterns of volumes below the data folder; their slices are used, of nearly "
        "isotropic volumes all three sets of planes",
    )
    noiseless: tuple[str, ...] = option(
        (),
        help="patterns of volumes without noise, such as those of a distilled set; noise is not "
        "measured in them, as texture could be taken for noise",
    )
    name: str = "mr-slices"
    start: str = option(
        "", help="name or folder of a model of the same size that training starts from"
    )
    # Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/slices.py.
    steps: int = option(6000, help="steps of the optimizer", low=1, high=10_000_000)
    network: SliceNetConfig = option(factory=SliceNetConfig, help="size of the network")
