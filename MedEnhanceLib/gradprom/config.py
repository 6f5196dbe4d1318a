"""Options of segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.runtime.device import DEVICES

#: Kind of a head's network, as its metadata state it: structures, trained on label maps.
STRUCTURES = "structures"


#: An option of everything that segments.
FORCE: Any = option(
    False, help="segment even a volume unlike the training images of the segmentation model"
)


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(Options):
    """Options of a segmentation."""

    force_segmenter: bool = FORCE
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
