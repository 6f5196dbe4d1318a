"""A method that removes noise by the median of neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import SimpleITK

from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.denoise.denoisers import Denoised, Denoiser, FramePart, Frames, Resources


@dataclass(frozen=True, kw_only=True)
class MedianOptions(Options):
    """Options of the median filter."""

    radius: int = option(1, help="voxels to each side, along each axis", low=1, high=5)


@dataclass(frozen=True)
class MedianFilter(Denoiser):
    """A median filter, which treats each frame alone."""

    chosen: MedianOptions = MedianOptions()
    is_joint: ClassVar[bool] = False  # True: takes all frames of a sequence together
    options: ClassVar[type[Options]] = MedianOptions

    @classmethod
    def prepared(cls, resources: Resources) -> MedianFilter:
        """Make the filter."""
        return cls(resources.options)

    def denoise(self, frames: Frames) -> Denoised:
        """Filter each frame; as `Denoiser.denoise`."""
        return Denoised(self._filtered(frames, number) for number in frames.numbers)

    def _filtered(self, frames: Frames, number: int) -> FramePart:
        frames.monitors_of(number)[0].check()  # a canceled run stops
        image = SimpleITK.GetImageFromArray(frames.volumes[number].voxels.astype(np.float32))
        filtered = SimpleITK.GetArrayFromImage(SimpleITK.Median(image, (self.chosen.radius,) * 3))
        return FramePart(number, frames.slices, filtered[frames.slices])
