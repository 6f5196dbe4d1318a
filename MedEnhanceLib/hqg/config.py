"""What can be chosen in HQG-Net: its training and its use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from MedEnhanceLib.core.options import Options, WithPresets, option
from MedEnhanceLib.runtime.device import DEVICES


@dataclass(frozen=True, kw_only=True)
class TrainConfig(WithPresets):
    """One training run, reproducible from this, the seed and the data.

    Presets: smoke: seconds, for tests; cpu: within three hours on two cores; full: for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 6},
        "cpu": {},
        "full": {},
    }

    high_quality: tuple[str, ...] = option(
        ("hq/*",), help="patterns of files below the data folder"
    )
    low_quality: tuple[str, ...] = option(
        (), help="patterns of images of low quality, of other people"
    )
    data: tuple[dict[str, str], ...] = option(
        (), help="for the bundle's card: name, subjects, licence and source of each collection"
    )
    licence: str = option("", help="of the weights, for the card; empty: not stated")
    modality: Literal["MR", "CT"] = option("MR", help="of the images")
    anatomy: str = option("", help="what the images show; users are informed of it")
    name: str = option("mr", help="of the bundle that comes out", is_name=True)
    seed: int = option(0, help="of everything that is drawn")
    steps: int = option(6000, help="of the optimizer", low=1, high=10_000_000)
    held_out: int = option(
        0,
        help="how many high-quality volumes, the last by name, are validated on and not learned "
        "from",
        low=0,
        high=10_000,
    )
    device: str = option("auto", help=DEVICES)


@dataclass(frozen=True)
class EnhanceConfig(Options):
    """How a volume is enhanced."""

    model: str = option(
        "auto", help="a model's name or folder; auto: the one for the modality", metavar="NAME"
    )
    uncertainty: bool = option(
        False, help="make a map of the uncertainty too: the standard deviation of the error"
    )
    device: str = option("auto", help=DEVICES, metavar="D")
    _: KW_ONLY
    strength: float | Literal["auto", "full"] = option(
        "auto",
        help="how much is corrected; auto: as much as the measured noise calls for, which is "
        "little where a volume is clean; a number from 0 to 1 scales that; full: all of it, "
        "whatever the noise",
        low=0,
        high=1,
        ranged=False,
        metavar="S",
    )
    bias_correction: Literal["auto", "none", "n4"] = option(
        "auto",
        help="n4 removes the shading of MR; auto: where it is measured to be strong, and never in "
        "previews",
    )
    task: Literal["auto", "noise", "sharpness", "slices", "artifacts"] = option(
        "auto",
        help="what is improved: noise alone; sharpness: noise and blur; slices: thick slices "
        "become thin ones, on a new grid; artifacts: MR with missing lines of k-space or motion; "
        "auto: noise, and blur and shading where they are measured",
    )
    slice_spacing: float | Literal["isotropic", "half"] = option(
        "isotropic",
        help="with the task slices, what the slices are apart afterwards: isotropic (as the "
        "pixels), half (of what it was), or mm",
        low=0.01,
        high=100,
        metavar="T",
    )

    @property
    def share(self) -> float:
        """What the correction of `auto`, or all of it, is scaled by."""
        return 1.0 if isinstance(self.strength, str) else float(self.strength)
