"""Options of the network of thin slices, and of the patches that it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MedEnhanceLib.core.options import Options, option


@dataclass(frozen=True, kw_only=True)
class SliceNetConfig(Options):
    """Size of the network."""

    # Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/slices.py.
    widths: tuple[int, ...] = option(
        (32, 64, 96), help="channels of each level", low=1, high=4096, items=(1, 6)
    )
    depth: int = option(1, help="residual blocks of each level on the way down", low=1, high=16)


@dataclass(frozen=True, kw_only=True)
class SlicePatchConfig:
    """Patches of a training step for thin slices, and the rate at which the network learns."""

    modality: Literal["MR", "CT"] = "MR"
    seed: int = 0
    # Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/slices.py.
    batch: int = option(8, help="patches per step", low=1, high=4096)
    rows: int = option(96, help="thin slices of a patch", low=32, high=1024, multiple=8)
    columns: int = option(64, help="pixels of a patch within the slices", low=16, high=1024)
    learning_rate: float = option(1e-3, help="learning rate of AdamW", low=1e-9, high=1)
    synthetic: float = option(
        0.0,
        help="share of the patches that show synthetic volumes: random shapes and textures",
        low=0,
        high=1,
    )
