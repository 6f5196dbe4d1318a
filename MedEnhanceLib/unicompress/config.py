"""Options of compression, and of trainings of parts of the codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.machine import cpu_threads

Mode = Literal["lossless", "max_error", "ratio", "psnr"]
Speed = Literal["normal", "fast", "fastest"]
BlockChoice = Literal["auto", "implicit"]

#: Modalities with models of the codec.
MODALITIES = ("CT", "MR", "EM")
#: Each thread holds a block and its code; more than this gains little and costs memory.
_MOST_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class CompressConfig(Options):
    """Guarantee of a file: exactly one of the modes; and how to get there."""

    lossless: bool = option(False, help="no loss: every voxel is restored exactly", one_of="mode")
    max_error: float | None = option(
        None,
        help="largest error of any voxel, in the volume's units (HU for CT; 0 is lossless)",
        low=0,
        high=1e300,
        metavar="E",
        one_of="mode",
    )
    ratio: float | None = option(
        None,
        help="a file of at most 1/R of the raw bytes, at the best quality",
        low=1,
        high=1e9,
        metavar="R",
        one_of="mode",
    )
    psnr: float | None = option(
        None,
        help="the smallest file found with at least this PSNR against the full range",
        above=0,
        high=200,
        unit="dB",
        metavar="DB",
        one_of="mode",
    )
    speed: Speed = option(
        "normal",
        help="fast: shorter compression time; a larger file or slightly lower quality; fastest, "
        "for lossless and max_error only: far less time than fast, and more bytes",
    )
    block_type: BlockChoice = option(
        "auto",
        help="with a ratio: auto selects the codec with the smallest loss; implicit selects the "
        "implicit network, whose loss is larger (for research)",
    )
    embed_model: bool = option(
        False,
        help="with implicit: store its network in the file, so that any installation can decode "
        "it; its bytes count; other networks are always in the file",
    )
    threads: int = option(
        0,
        help="number of threads (0: all processors, up to 16), which does not change the file",
        low=0,
        high=1024,
        metavar="N",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = (self.max_error, self.ratio, self.psnr)
        modes = [self.lossless, *(number is not None for number in numbers)]
        if sum(modes) != 1:
            raise ConfigError(
                f"{sum(modes)} compression modes are chosen",
                "Choose one of lossless, max_error, ratio and psnr.",
            )
        if self.ratio is None and self.block_type != "auto":
            raise ConfigError("block_type requires ratio", "Give ratio, or leave block_type out.")
        if self.speed == "fastest" and not self.is_bounded:
            raise ConfigError(
                "speed fastest requires lossless or max_error", "Choose the speed fast or normal."
            )

    @property
    def mode(self) -> Mode:
        """The compression mode."""
        if self.lossless:
            return "lossless"
        if self.max_error is not None:
            return "max_error"
        return "psnr" if self.ratio is None else "ratio"

    @property
    def is_bounded(self) -> bool:
        """Whether no voxel differs by more than a bound, or at all."""
        return self.mode in ("lossless", "max_error")

    @property
    def has_predictor(self) -> bool:
        """Whether blocks may be coded by the learned predictor."""
        return self.speed == "normal" or (self.speed == "fast" and self.is_bounded)


def thread_count(requested: int, most: int | None = None) -> int:
    """Choose the number of threads: 0 takes all processors; at most 16, and at most `most`."""
    return max(1, min(requested or cpu_threads(), _MOST_THREADS, most or _MOST_THREADS))
