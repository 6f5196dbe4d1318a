"""Options of the trainings of heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import config_from_json, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.config import HeadConfig
from MedEnhanceLib.training.config import NetworkTrainingConfig


@dataclass(frozen=True, kw_only=True)
class LabelTrainingConfig(NetworkTrainingConfig):
    """Options of both trainings of heads."""

    structures: tuple[dict[str, Any], ...] = option(
        (), help="value, name and color of each label, and its codes: fields of gradprom.Label"
    )
    label_origin: str = option(
        "", help="who or what made the labels, for the card; empty: not stated"
    )
    warnings: tuple[str, ...] = option((), help="sentences for the card and every run")
    # Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
    learning_rate: float = option(1e-3, help="of the optimizer", low=1e-9, high=1)
    ema: float = option(0.995, help="decay of the averaged weights", low=0, high=0.99999)

    @property
    def label_set(self) -> tuple[Label, ...]:
        """The structures as labels."""
        labels = tuple(config_from_json(Label, entry) for entry in self.structures)
        if len({label.name for label in labels}) < len(labels):
            raise ConfigError("structures has two labels of one name", "Rename one of them.")
        return labels


@dataclass(frozen=True, kw_only=True)
class TrainHeadConfig(LabelTrainingConfig):
    """Training of a head."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "batch": 2,
            "patch": 32,
            "damaged": 1,
            "network": {"context": 1, "widths": (4, 8, 8, 8)},
        },
        "quick": {"steps": 1000, "damaged": 1},
        "cpu": {},
        "full": {"steps": 30_000, "batch": 24, "damaged": 10},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 6, "cpu": 20, "full": 500}

    images: tuple[str, ...] = option(("images/*",), help="patterns of files below the data folder")
    labels: tuple[str, ...] = option(
        (),
        help="patterns of their label volumes, in the same order",
    )
    enhancer: str = option(
        "",
        help="name or folder of the enhancer that the head is for: trained on clean images, on "
        "low-quality ones, and on these enhanced; empty: without enhanced ones",
        metavar="NAME",
    )
    damaged: int = option(
        3,
        help="simulated low-quality versions of each image (MR: Rician noise, every second one "
        "with blur and a bias field too; CT: low dose)",
        low=0,
        high=100,
    )
    labeled_share: float = option(
        0.0,
        help="share of patches around a labeled voxel, for rare structures",
        low=0,
        high=1,
    )
    on_request: bool = option(
        False,
        help="whether users must select the model by name, as it does not suit every image of "
        "its modality",
    )
    name: str = "segmentation"
    # Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
    steps: int = option(3000, help="of the optimizer", low=1, high=10_000_000)
    batch: int = option(6, help="patches per step", low=1, high=4096)
    patch: int = option(160, help="side of a patch", low=32, high=4096, multiple=16, unit="pixels")
    network: HeadConfig = option(factory=HeadConfig, help="size of the head")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.labels:
            raise ConfigError("labels is empty", "State the patterns of the label volumes.")
        if not self.structures:
            raise ConfigError("structures is empty", "List value, name and color of each label.")
        _ = self.label_set  # raises ConfigError for invalid ones


@dataclass(frozen=True, kw_only=True)
class TrainFromLabelsConfig(LabelTrainingConfig):
    """Training of a head from label maps alone."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "locator_steps": 4,
            "sides": (32, 32, 32),
            "widths": (8, 8, 8, 8),
            "locator_widths": (4, 8, 8, 8),
        },
        "quick": {"steps": 200, "locator_steps": 200},
        "cpu": {},
        "full": {"steps": 60_000},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 1, "quick": 10, "cpu": 480, "full": 3600}

    images: tuple[str, ...] = option(("*",), help="patterns of label maps below the data folder")
    structures: tuple[dict[str, Any], ...] = option(
        (),
        help="value, name and color of each label, and its codes: fields of gradprom.Label; labels "
        "named Left … and Right … are one structure with sides; empty: each value by itself",
    )
    tissues: tuple[dict[str, Any], ...] = option(
        (), help="values that scans show alike, their intensities, and what lies outside"
    )
    merged: dict[str, int] = option(
        factory=dict, help="values of the maps that count as the value of a label"
    )
    name: str = "structures"
    # Chosen in trials (decision 0075). Measured as a whole by Benchmarks/segmentation.py.
    steps: int = option(9000, help="of the optimizers", low=1, high=10_000_000)
    locator_steps: int = option(
        3000, help="of the optimizer of the locator", low=1, high=10_000_000
    )
    sides: tuple[int, ...] = option(
        (48, 64, 48),
        help="voxels of 2 mm of a painted scan along slices, rows and columns; late steps have "
        "larger ones, too",
        low=32,
        high=256,
        multiple=16,
        items=(3, 3),
    )
    least_information: float = option(
        0.0,
        help="mutual information with the priors below which a volume is refused; 0: by painted "
        "scans",
        low=0,
        high=10,
    )
    widths: tuple[int, ...] = option(
        (32, 48, 72, 104), help="channels of stages, finest first", low=1, high=4096, items=(2, 5)
    )
    locator_widths: tuple[int, ...] = option(
        (24, 40, 64, 96), help="the same of the locator", low=1, high=4096, items=(2, 5)
    )
