"""Options of segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import DEVICES

#: Kind of a head's network, as its metadata state it: structures, trained on label maps.
STRUCTURES = "structures"


#: An option of everything that segments.
_FORCE: Any = option(
    False, help="segment even a volume unlike the training images of the segmentation model"
)


@dataclass(frozen=True, kw_only=True)
class SegmenterChoice(Options):
    """Options of everything that segments what it enhanced."""

    force_segmenter: bool = _FORCE
    segment: bool = option(False, help="segment the enhanced volume too", flag=None)
    segmenter: str = option(
        "auto",
        help="the model that segments the enhanced volume, by name or folder; auto: the one for "
        "the modality",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.segmenter != "auto" or self.force_segmenter) and not self.wants_labels:
            raise ConfigError(
                f"segmenter {self.segmenter} is named or forced, but no segmentation is requested",
                "Add segment (--segment), or leave out segmenter and force_segmenter.",
            )

    @property
    def wants_labels(self) -> bool:
        """Whether labels are requested."""
        return self.segment

    def segmentation(self, device: str) -> SegmentConfig | None:
        """Configure the segmentation, on the device of the enhancement; None if not requested."""
        if not self.wants_labels:
            return None
        return SegmentConfig(
            model=self.segmenter, device=device, force_segmenter=self.force_segmenter
        )


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(Options):
    """Options of a segmentation."""

    force_segmenter: bool = _FORCE
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
