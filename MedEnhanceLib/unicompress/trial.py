"""Codes the middle of a volume in every way there is, to tell which the whole should take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from MedEnhanceLib.core.slabs import extremes
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress import video, wavelet
from MedEnhanceLib.unicompress.activity import activity_of
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.seek import seek
from MedEnhanceLib.unicompress.videoencoders import LIBAOM, Encoder, encoders
from MedEnhanceLib.unicompress.videorate import SIZE_SLOPE, against_wavelet

_SIDE = 128
_SLICES = 48
_TOLERANCE = 0.15
#: Of two encoders that differ by less, in dB, either may be the better one on the whole.
_NEAR = 0.5
#: A part with fewer bytes than this tells little.
_SURE_BYTES = 4000


@dataclass(frozen=True)
class VideoTrial:
    """A part, coded as a video. step: in stored units, such that the whole has the bytes it should.

    wins: in dB over a wavelet of equal bytes; infinity where it has no such code.
    """

    encoder: Encoder
    step: float
    wins: float


@dataclass(frozen=True)
class Trial:
    """What a part of a volume, coded in equal bytes, tells of it.

    videos: those that could be, the best one first. small: the part had too few bytes to tell,
    most of them for what a stream begins with.
    """

    videos: tuple[VideoTrial, ...] = ()
    small: bool = False

    @property
    def video_wins(self) -> float:
        """The best video over the wavelet, in dB; minus infinity where there is none."""
        return self.videos[0].wins if self.videos else -math.inf

    def is_near(self, one: VideoTrial, speed: Speed) -> bool:
        """Whether it may be the best on the whole; where it is to be fast, one is enough."""
        return speed != "fast" and not one.wins < self.video_wins - _NEAR


def try_types(voxels: Voxels, bits: float, context: DecodeContext) -> Trial:
    """Code the middle of the middle block as videos and as wavelets, in `bits` for each voxel."""
    block = middle_of(voxels)
    if not video.fits(block) or not wavelet.fits(block):
        return Trial()
    part = _Part(block, limits_of(voxels), context)
    size = max(bits * block.size / 8, 2 * video.HEAD.size)
    coded = (part.of_size(size, encoder) for encoder in encoders_of(block))
    found = sorted((one for one in coded if one), key=lambda one: one.wins, reverse=True)
    # The whole differs from its middle by how much there is to code.
    videos = tuple(replace(one, step=_carried(one.step, block, voxels)) for one in found)
    return Trial(videos, size < _SURE_BYTES)


def at_step(voxels: Voxels, step: float, context: DecodeContext) -> VideoTrial:
    """The video that wins most over wavelets in steps of that size; 0 dB where none can tell."""
    block = middle_of(voxels)
    if not video.fits(block):
        return VideoTrial(LIBAOM, step, 0.0)
    part = _Part(block, limits_of(voxels), context)
    tried = (part.told(part.code(step, encoder), step, encoder) for encoder in encoders_of(block))
    return max(tried, key=lambda one: one.wins)


def middle_of(voxels: Voxels) -> Voxels:
    """At most `_SLICES` slices of `_SIDE` × `_SIDE`, from the middle of the middle block."""
    grid = video_grid(voxels.shape)
    block = grid.box(len(grid) // 2).of(voxels)
    most = (_SLICES, _SIDE, _SIDE)
    starts = [max(0, extent - side) // 2 for extent, side in zip(block.shape, most, strict=True)]
    return block[
        tuple(slice(start, start + side) for start, side in zip(starts, most, strict=True))
    ]


def encoders_of(block: Voxels) -> list[Encoder]:
    """Those that code a block of this shape."""
    slices, height, width = block.shape
    return [encoder for encoder in encoders() if encoder.takes(slices, height, width)]


def limits_of(voxels: Voxels) -> tuple[float, float]:
    """The smallest and the largest voxel: bits that a part would not need, the whole may."""
    low, high = extremes(voxels)
    return float(low), float(high)


@dataclass(frozen=True)
class _Part:
    """A block that is coded for a trial. limits: of the volume that it is a part of."""

    block: Voxels
    limits: tuple[float, float]
    context: DecodeContext

    def code(self, step: float, encoder: Encoder) -> bytes:
        coded = video.encode(self.block, step, speed="fast", encoder=encoder, limits=self.limits)
        return coded.data

    def of_size(self, size: float, encoder: Encoder) -> VideoTrial | None:
        """As a video of about so many bytes."""
        coded: dict[float, bytes] = {}

        def measure(setting: float) -> float:
            coded[setting] = self.code(2.0**setting, encoder)
            return math.log2(len(coded[setting]))

        span = self.limits[1] - self.limits[0]
        start = math.log2(span / 16) - math.log2(8 * size / self.block.size + 0.01) / 2
        chosen = seek(
            measure, start, math.log2(size), slope=SIZE_SLOPE, tolerance=_TOLERANCE, most=3
        )
        return None if chosen is None else self.told(coded[chosen], 2.0**chosen, encoder)

    def told(self, data: bytes, step: float, encoder: Encoder) -> VideoTrial:
        """What a coding in `step` tells."""
        wins, _ = against_wavelet(self.block, data, self.context)
        return VideoTrial(encoder, step, wins)


def _carried(step: float, block: Voxels, voxels: Voxels) -> float:
    busier = activity_of(block, step) * voxels.size / max(activity_of(voxels, step), 1e-9)
    octaves = math.log2(max(busier / block.size, 0.1)) / SIZE_SLOPE
    return float(step * 2.0 ** max(-1.0, min(octaves, 1.0)))
