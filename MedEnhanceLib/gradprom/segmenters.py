"""Segmenters, which label a volume, and their registry.

A head is opened as the segmenter for the kind of network that its card states. Another one is a
class in a file of its own, and a line in SEGMENTERS, as CONTRIBUTING.md shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from MedEnhanceLib.bundles.store import Bundle, open_bundle, read_bundle
from MedEnhanceLib.core.arrays import Bytes, Floats
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.gradprom.config import STRUCTURES, SegmentConfig
from MedEnhanceLib.runtime.dependencies import load_packages
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.registry import Registry

Model = TypeVar("Model")
_PURPOSE = "Segmenting a volume"
MONAI = "monai"
#: Kind of network that the card of a head states, or MONAI → class, which takes the head's bundle,
#: or the folder of MONAI's.
SEGMENTERS = Registry(
    "medenhance.segmenters",
    {
        STRUCTURES: "MedEnhanceLib.gradprom.structures.segmenting:StructureSegmenter",
        MONAI: "MedEnhanceLib.gradprom.monai_segmenter:MonaiSegmenter",
    },
)


@dataclass(frozen=True)
class VoxelLabels:
    """Labels of a volume, before they are measured and turned back to its order.

    Attributes:
        labels: [K, J, I], 0 for the background.
        uncertainty: [K, J, I], 0 to 1; None of a segmenter that does not estimate it.
        quality: expected Dice by label name, NaN or missing if unknown.
        warnings: why labels of this volume may be wrong.
        intervals: factors of a label's volume between which another reader's is expected, by label
            name; INTRACRANIAL is that of all labels, if they are all that lies within the skull.
    """

    labels: Bytes
    uncertainty: Floats | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of a volume with the training images of a segmenter.

    Attributes:
        difference: what makes the volume unlike them; "" for nothing.
        placement: what the segmenter found on the way, and needs to label the volume.
    """

    difference: str = ""
    placement: Any = None


class Segmenter(Protocol):
    """A model that labels single volumes in canonical order.

    Attributes:
        name: that users give.
        origin: where it is from, such as "shipped with MedEnhance".
        modality: of the images that it was trained on.
        anatomy: the same, "" if none is stated.
        labels: that it finds.
        limits: what its labels are not to be used for.
        warnings: that hold for every volume.
    """

    name: str
    origin: str
    modality: str
    anatomy: str
    labels: tuple[Label, ...]
    limits: tuple[str, ...]
    warnings: tuple[str, ...]

    def identity(self) -> dict[str, str]:
        """Return name, kind and hash, as manifests record them."""

    def compare(self, volume: Volume) -> Comparison:
        """Compare a volume, single and in canonical order, with the training images."""

    def segment(
        self, volume: Volume, device: str, monitor: Monitor, placement: Any = None
    ) -> VoxelLabels:
        """Label a volume.

        Args:
            volume: single, in canonical order.
            device: as torch names it.
            monitor: receives progress; may cancel.
            placement: by `compare`, of this volume or of the one that it was enhanced from.
        """


@dataclass(frozen=True, eq=False)
class OpenHead:
    """A segmenter, after a volume was found to suit it.

    Attributes:
        config: that it was opened by.
        warning: all that limits its labels, "" for nothing.
        placement: by `Segmenter.compare`.
    """

    segmenter: Segmenter
    config: SegmentConfig
    warning: str
    placement: Any


class HeadSegmenter:
    """The part of a segmenter that a head's bundle states."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, metadata = bundle, bundle.metadata
        self.name, self.origin = bundle.name, bundle.origin
        self.modality, self.anatomy = bundle.modality, bundle.anatomy
        self.labels = tuple(config_from_json(Label, each) for each in metadata["labels"])
        self.limits, self.warnings = tuple(metadata.get("limits", ())), bundle.warnings
        self.identity = bundle.identity

    def opened(self, open_model: Callable[[Bundle], Model]) -> Model:
        """Return what a function makes of the bundle; it stays loaded between jobs."""
        return cast("Model", _opened(open_model, self.bundle.folder, self.bundle.sha256))


@lru_cache(maxsize=8)
def _opened(open_model: Callable[[Bundle], Any], folder: Path, sha256: str) -> Any:
    """Open a head; other weights have another hash."""
    return open_model(read_bundle(folder, expected_sha256=sha256))


def open_segmenter(volume: Volume, config: SegmentConfig, monitor: Monitor) -> Segmenter:
    """Open the segmenter that a configuration names for a volume.

    Args:
        volume: its modality selects the head for "auto".
        config: model or monai_bundle.
        monitor: receives a message before packages are loaded.
    Raises:
        ConfigError: both are given.
        ModelError: there is none for the modality, or it is damaged, or of an unknown kind.
    """
    if config.monai_bundle:
        if config.model != "auto":
            raise ConfigError(
                f"model {config.model} and MONAI bundle {config.monai_bundle}",
                "Name one of them.",
            )
        load_packages("torch", "monai", purpose="A MONAI bundle", monitor=monitor)
        return segmenter_class(MONAI)(Path(config.monai_bundle))
    head = open_bundle(config.model, kind="head", modality=volume.modality)
    kind = str(head.metadata.get("network", {}).get("kind", ""))
    if not SEGMENTERS.knows(kind) or kind == MONAI:
        raise ModelError(
            f"head {head.name}: unknown kind of network {kind!r}", "Update MedEnhance."
        )
    load_packages("torch", purpose=_PURPOSE, monitor=monitor)
    return segmenter_class(kind)(head)


def segmenter_class(kind: str) -> Callable[[Bundle | Path], Segmenter]:
    """Import the class of a kind of the registry."""
    return cast("Callable[[Bundle | Path], Segmenter]", SEGMENTERS.member(kind))
