"""Options of segmentation heads: their training and their use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.errors import ConfigError, ModelError
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
