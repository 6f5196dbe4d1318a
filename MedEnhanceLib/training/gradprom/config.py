"""Options of the training of heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import config_from_json, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.training.config import NetworkTrainingConfig


@dataclass(frozen=True, kw_only=True)
class TrainHeadConfig(NetworkTrainingConfig):
    """Training of a head from label maps."""

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
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 10, "cpu": 340, "full": 3600}

    maps: tuple[str, ...] = option(("*",), help="patterns of label maps below the data folder")
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
    label_origin: str = option(
        "", help="who or what made the labels, for the card; empty: not stated"
    )
    warnings: tuple[str, ...] = option((), help="sentences for the card and every run")
    images: str = option(
        "",
        help="folder of labeled images, to learn from besides the label maps: NAME_T1w.nii.gz and "
        "so on, with a label map NAME_dseg.nii.gz; empty: none",
        metavar="DIR",
    )
    image_share: float = option(
        0.3, help="share of the scans that show a labeled image, if there are any", low=0, high=1
    )
    sizes_from: str = option(
        "",
        help="folder of labeled images, as those of images: the volumes of the structures are made "
        "right on average on these, and no network learns from them; empty: on painted scans",
        metavar="DIR",
    )
    name: str = "structures"
    # Chosen in trials (decision 0075). Measured as a whole by Benchmarks/segmentation.py.
    steps: int = option(9000, help="of the optimizer of the corrector", low=0, high=10_000_000)
    locator_steps: int = option(
        3000, help="of the optimizer of the locator", low=0, high=10_000_000
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
    learning_rate: float = option(1e-3, help="of the optimizer", low=1e-9, high=1)
    ema: float = option(0.995, help="decay of the averaged weights", low=0, high=0.99999)

    @property
    def label_set(self) -> tuple[Label, ...]:
        """The structures as labels."""
        labels = tuple(config_from_json(Label, entry) for entry in self.structures)
        if len({label.name for label in labels}) < len(labels):
            raise ConfigError("structures has two labels of one name", "Rename one of them.")
        return labels
