"""Options of the training that teaches a network to restore thin slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from MedEnhanceLib.core.options import Options, WithPresets, option
from MedEnhanceLib.runtime.device import DEVICES


@dataclass(frozen=True, kw_only=True)
class SliceNetConfig(Options):
    """Size of the network."""

    widths: tuple[int, ...] = option((32, 64, 96), help="channels of each level")
    depth: int = option(1, help="residual blocks of each level on the way down", low=1, high=16)


@dataclass(frozen=True, kw_only=True)
class TrainSlicesConfig(WithPresets):
    """One training run, reproducible from this, the seed and the data.

    Presets: smoke: seconds, for tests; cpu: half an hour on one core; full: for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "batch": 2,
            "rows": 32,
            "columns": 16,
            "network": {"widths": (8, 8)},
        },
        "cpu": {},
        "full": {"steps": 60_000, "batch": 64},
    }

    files: tuple[str, ...] = option(
        ("**/*.nii.gz",),
        help="patterns, below the data folder, of volumes to learn from; planes that have fine "
        "pixels in both directions are used",
    )
    held_out: tuple[str, ...] = option(
        (), help="patterns of validation volumes, excluded from training"
    )
    data: tuple[dict[str, str], ...] = option(
        (), help="for the bundle's card: name, subjects, license and source of each collection"
    )
    license: str = option("", help="license of the weights, for the card; empty: not stated")
    modality: Literal["MR", "CT"] = option("MR", help="of the images")
    anatomy: str = option("", help="body part that the images show; stated to users")
    name: str = option("mr-slices", help="name of the trained bundle", is_name=True)
    seed: int = option(0, help="random seed")
    steps: int = option(6000, help="of the optimizer", low=1, high=10_000_000)
    batch: int = option(8, help="patches per step", low=1, high=4096)
    rows: int = option(96, help="thin slices of a patch", low=32, high=1024, multiple=8)
    columns: int = option(64, help="pixels of a patch within the slices", low=16, high=1024)
    network: SliceNetConfig = option(factory=SliceNetConfig, help="size of the network")
    device: str = option("auto", help=DEVICES)
