"""What can be chosen in segmentation heads: their training and their use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from MedEnhanceLib.core.options import check_range, config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError

#: Of a window's ends, on the network's scale: metal in CT is at 3.
_FARTHEST = 20.0


@dataclass(frozen=True, kw_only=True)
class Code:
    """A concept as DICOM codes it: its value in a scheme ("SCT" is SNOMED CT), and its meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """One structure: the value of its voxels, its name, its colour as #rrggbb.

    category, type: what it is by DICOM's codes, as segmentations carry them; None where unknown.
    recommended_color: the one that Slicer's terminology gives to the type; "" where unknown.
    """

    value: int
    name: str
    color: str
    category: Code | None = None
    type: Code | None = None
    recommended_color: str = ""

    def __post_init__(self) -> None:
        for name in ("category", "type"):
            code: object = getattr(self, name)
            if isinstance(code, dict):
                object.__setattr__(self, name, config_from_json(Code, code))


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Size of a head: slices of context on each side, channels of its stages, finest first.

    window: lower and upper end of the intensities that it tells apart, on the network's scale (CT:
        HU / 1000); empty for all. In CT most of the scale is bone and air.
    """

    context: int = 2
    widths: tuple[int, ...] = (24, 48, 72, 96)
    window: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.window and not (len(self.window) == 2 and self.window[0] < self.window[1]):
            raise ConfigError(f"window is {list(self.window)}", "Give two ends, the lower first.")
        if any(abs(end) > _FARTHEST for end in self.window):
            raise ConfigError(
                f"window is {list(self.window)}",
                "Give its ends on the network's scale: HU / 1000 in CT, as [-0.16, 0.24].",
            )

    @property
    def channels(self) -> int:
        """Slices that go in together."""
        return 2 * self.context + 1


@dataclass(frozen=True, kw_only=True)
class TrainHeadConfig:
    """One training of a head.

    images: patterns of files below the data folder. labels: patterns of their label volumes, in
        the same order; where empty, the labels are propagated from `atlas_image` and
        `atlas_labels` by registration, and refined by the image's own intensities.
    enhancer: name or folder of the bundle whose output the head also sees; "" for none.
    anatomy: what of the body the images show; users are told that it learned from nothing else.
    licence: of the weights, as their card tells it; empty: not stated.
    damaged: simulated low-quality versions of each image (MR: composite, CT: low dose), each seen
        as it is and enhanced.
    labelled_share: share of patches around a labelled voxel; for structures that are rare.
    held_out: patterns of images that are not learned from, nor any other of their patients' (of
        the same folder, where images lie in several); Dice is measured on them.
    folds, fold: instead, so many folds of patients by the seed, of which this one is held out.
    on_request: whether users have to name the head: it is not the one for any image of its
        modality.
    keep_components: so many largest connected parts of each label are kept in use; 0 keeps all.
    limits: what else its card warns of.
    """

    images: tuple[str, ...] = ("images/*",)
    labels: tuple[str, ...] = ()
    atlas_image: str = ""
    atlas_labels: str = ""
    structures: tuple[dict[str, Any], ...] = ()
    data: tuple[dict[str, str], ...] = ()
    licence: str = ""
    enhancer: str = ""
    damaged: int = 3
    labelled_share: float = 0.0
    held_out: tuple[str, ...] = ()
    folds: int = 0
    fold: int = 0
    on_request: bool = False
    keep_components: int = 0
    limits: tuple[str, ...] = ()
    modality: str = "MR"
    anatomy: str = ""
    name: str = "brain-tissue"
    seed: int = 0
    steps: int = 3000
    batch: int = 6
    patch: int = 160
    learning_rate: float = 1e-3
    ema: float = 0.995
    checkpoint_s: float = 120.0
    network: HeadConfig = field(default_factory=HeadConfig)
    device: str = "auto"

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1, 10_000_000)
        check_range("damaged", self.damaged, 0, 100)
        check_range("labelled_share", self.labelled_share, 0, 1)
        check_range("folds", self.folds, 0, 1000)
        check_range("keep_components", self.keep_components, 0, 1000)
        if self.folds == 1 or not 0 <= self.fold < max(1, self.folds):
            raise ConfigError(
                f"fold {self.fold} of {self.folds}", "Use 2 folds or more, numbered from 0."
            )
        if self.held_out and self.folds:
            raise ConfigError("both held_out and folds are given", "Give one of them.")
        if not self.labels and not (self.atlas_image and self.atlas_labels):
            raise ConfigError(
                "neither labels nor an atlas are given",
                "State labels, or atlas_image and atlas_labels.",
            )
        if not self.structures:
            raise ConfigError("structures is empty", "List value, name and color of each label.")
        for label in self.label_set:
            check_range(f"the value of {label.name!r}", label.value, 1, 255)
            if not re.fullmatch("#[0-9a-fA-F]{6}", str(label.color)):
                raise ConfigError(
                    f"the color of {label.name!r} is {label.color!r}", "Write it as #rrggbb."
                )

    @property
    def label_set(self) -> tuple[Label, ...]:
        """The structures as labels."""
        return tuple(config_from_json(Label, entry) for entry in self.structures)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrainHeadConfig:
        """A partial configuration; `preset` (smoke, cpu, full) decides the length and size."""
        fields = dict(fields)
        preset = fields.pop("preset", "cpu")
        base = config_from_json(cls, fields)
        presets: dict[str, dict[str, Any]] = {
            "smoke": {"steps": 4, "batch": 2, "patch": 32, "damaged": 1},
            "cpu": {},
            "full": {"steps": 30_000, "batch": 24, "damaged": 10},
        }
        if preset not in presets:
            raise ConfigError(f"unknown preset {preset!r}", f"Use one of {', '.join(presets)}.")
        changes = {k: v for k, v in presets[preset].items() if k not in fields}
        if preset == "smoke":
            base = replace(base, network=replace(base.network, context=1, widths=(4, 8, 8, 8)))
        return replace(base, **changes) if changes else base

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return config_to_json(self)


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How a volume is segmented; see hqg's EnhanceConfig for model, device, tile and batch."""

    model: str = "auto"
    device: str = "auto"
    tile: int = 1024
    overlap: float = 0.25
    batch: int | None = None

    def __post_init__(self) -> None:
        check_range("overlap", self.overlap, 0.0, 0.9)
        if self.batch is not None:
            check_range("batch", self.batch, 1, 256)
