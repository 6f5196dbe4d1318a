"""What a user may choose when compressing."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.errors import ConfigError

Mode = Literal["lossless", "max_error", "ratio", "psnr", "ssim"]
Speed = Literal["normal", "fast", "slow"]
SPEEDS: tuple[Speed, ...] = get_args(Speed)
BlockType = Literal["auto", "implicit"]

#: Each thread holds a block and its code; more than this gains little and costs memory.
_MOST_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """Exactly one promise: lossless, max_error, ratio, psnr or ssim.

    lossless: every voxel equal.
    max_error: no voxel off by more than this, in stored units (HU for CT); 0 is lossless.
    ratio: the file has at most 1/ratio of the raw voxels' bytes, in the best quality for it.
    psnr: the smallest file found with at least so many dB, against the full range of the source.
    ssim: the smallest file found with at least this structural similarity (below 1), in 3D.
    speed: "fast" codes about eight times as fast; files are 5 to 10 % larger. With ratio, psnr and
        ssim it codes about twice, and reads about four times as fast, for some tenths of a dB.
        "slow" takes some five times as long there and gains 0.1 to 0.2 dB; otherwise it is
        "normal".
    block_type: of ratio mode: "auto" takes the best; "implicit" the implicit network's alone.
    fit: seconds for refining the codes of the implicit network for this volume, in ratio mode.
    embed_model: the file carries the models that it needs, so that it opens anywhere; in ratio
        mode they are counted.
    threads: 0 takes all processors, up to 16. The file is the same for any number.
    """

    lossless: bool = False
    max_error: float | None = None
    ratio: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    speed: Speed = "normal"
    block_type: BlockType = "auto"
    fit: float = 0.0
    embed_model: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        numbers = (self.max_error, self.ratio, self.psnr, self.ssim)
        for name, number in zip(("max_error", "ratio", "psnr", "ssim"), numbers, strict=True):
            if number is not None and not isinstance(number, int | float | np.number):
                raise ConfigError(f"{name} is {number!r}", "Use a number.")
        chosen = [self.lossless is True, *(number is not None for number in numbers)]
        if sum(chosen) != 1:
            raise ConfigError(
                f"{sum(chosen)} compression modes are chosen",
                "Choose exactly one of lossless, max_error, ratio, psnr and ssim.",
            )
        if self.max_error is not None and not 0 <= self.max_error < math.inf:
            raise ConfigError(f"max_error is {self.max_error}", "Use 0 or more, in stored units.")
        if self.ratio is not None and not 1 <= self.ratio < math.inf:
            raise ConfigError(f"ratio is {self.ratio}", "Use 1 or more.")
        if self.psnr is not None and not 0 < self.psnr <= 200:
            raise ConfigError(f"psnr is {self.psnr}", "Use more than 0 and at most 200, in dB.")
        if self.ssim is not None and not 0 < self.ssim < 1:
            raise ConfigError(f"ssim is {self.ssim}", "Use more than 0 and less than 1.")
        if self.speed not in SPEEDS:
            raise ConfigError(f"speed is {self.speed!r}", "Use normal, fast or slow.")
        if self.block_type not in ("auto", "implicit"):
            raise ConfigError(f"block_type is {self.block_type!r}", "Use auto or implicit.")
        check_range("fit", self.fit, 0, 86_400)
        if self.ratio is None and (self.block_type != "auto" or self.fit):
            raise ConfigError(
                "block_type and fit are for ratio", "Choose ratio, or leave them out."
            )
        check_range("threads", self.threads, 0, 1024)

    @property
    def mode(self) -> Mode:
        """The promise that is chosen."""
        if self.lossless:
            return "lossless"
        if self.max_error is not None:
            return "max_error"
        if self.ratio is not None:
            return "ratio"
        return "ssim" if self.psnr is None else "psnr"


def thread_count(wish: int, most: int | None = None) -> int:
    """0 → as many as there are processors for this process; never more than `most`."""
    if not wish:
        affinity = getattr(os, "sched_getaffinity", None)
        wish = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(wish, _MOST_THREADS, most or _MOST_THREADS))
