"""Options of segmentation heads: their training and their use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import Options, config_from_json, option
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.learning.config import NetworkTrainingConfig
from MedEnhanceLib.runtime.device import DEVICES

#: Kinds of a head's network: over slices, trained on images; in space, trained on label maps.
SLICES, STRUCTURES = "slices", "structures"


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Options):
    """Size of a head."""

    kind: str = option(
        SLICES, help="kind of network: slices, or another one of SEGMENTERS that can be trained"
    )
    # Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/segmentation.py.
    context: int = option(2, help="slices of context on each side", low=0, high=16)
    widths: tuple[int, ...] = option(
        (24, 48, 72, 96), help="channels of stages, finest first", low=1, high=4096, items=(2, 5)
    )
    window: tuple[float, ...] = option(
        (),
        help="lower and upper end of the intensity window, on the network's scale; empty for all "
        "intensities, most of which are bone and air in CT",
        low=-20,  # metal in CT is at 3
        high=20,
        unit="(in CT: HU / 1000)",
        items=(0, 2),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window and not self.window[0] < self.window[-1]:
            raise ConfigError(
                f"window is {list(self.window)}",
                "Give a lower and a higher end, in CT as HU / 1000: [-0.16, 0.24].",
            )


def network_kind(network: Mapping[str, Any]) -> str:
    """Return the kind of network that a head's metadata states; one that states none is of slices.

    network: the object of this name in the metadata.
    """
    return str(network.get("kind", SLICES))


def size_of(network: Mapping[str, Any]) -> HeadConfig:
    """Read the size of a head of slices; ModelError if it is another, or takes several images."""
    if network_kind(network) != SLICES:
        raise ModelError(
            f"the head is of {network_kind(network)}, not of slices (network.kind)",
            "Use it to segment. A head that teaches an enhancer with its images is of slices.",
        )
    if network.get("images", 1) != 1:
        raise ModelError(
            "the head takes two images, enhanced and noisy (network.images)", "Train it on one."
        )
    return HeadConfig.from_json({n: v for n, v in network.items() if n != "images"})


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
class ForceSegmenter(Options):
    """An option of everything that segments."""

    force_segmenter: bool = option(
        False, help="segment even a volume unlike the training images of the segmentation model"
    )


@dataclass(frozen=True, kw_only=True)
class SegmenterChoice(ForceSegmenter):
    """Options of everything that segments what it enhanced."""

    segment: bool = option(False, help="segment the enhanced volume too", flag=None)
    segmenter: str = option(
        "auto",
        help="the model that segments the enhanced volume, by name or folder; auto: the one for "
        "the modality",
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(ForceSegmenter):
    """Options of a segmentation."""

    model: str = option(
        "auto", help="a head's name or folder; auto: the one for the modality", metavar="NAME"
    )
    device: str = option("auto", help=DEVICES, metavar="D")
    monai_bundle: str = option(
        "",
        help="folder of a MONAI bundle that segments in place of a head (docs/segmenters.md)",
        flag="--monai-bundle",
        metavar="PATH",
    )


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
