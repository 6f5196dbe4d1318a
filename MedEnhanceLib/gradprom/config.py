"""Options of segmentation."""

from __future__ import annotations

from dataclasses import dataclass

from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.runtime.device import DEVICES

#: Kind of a head's network, as its metadata state it: structures, trained on label maps.
STRUCTURES = "structures"


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
