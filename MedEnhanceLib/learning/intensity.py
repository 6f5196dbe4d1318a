"""Conversion of intensities to the scale of the networks, and back to their units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.describe import LARGEST, refuse_too_large

#: Values above this are tissue, on the network's scale.
TISSUE = {"MR": 0.1, "CT": -0.5}
_HINT = "Choose a volume with image content."
#: Least steps of single precision from the lowest value to the highest; with fewer, rounding shows.
_LEVELS = 1000


@dataclass(frozen=True)
class Scaling:
    """Linear scaling; nothing is clipped, so undoing it is exact.

    Attributes:
        offset, scale: scaled = (value − offset) / scale.
    """

    offset: float
    scale: float

    def apply(self, voxels: Array) -> Floats:
        """Convert values in their units to float32 on the network's scale."""
        scaled = voxels.astype(np.float32, order="C")  # layouts in memory change no bit
        scaled -= np.float32(self.offset)
        scaled /= np.float32(self.scale)
        return scaled

    def undo(self, scaled: Floats) -> Floats:
        """Invert `apply`."""
        return scaled * np.float32(self.scale) + np.float32(self.offset)


def scaling_for(volume: Volume) -> Scaling:
    """Choose a scale. CT: HU / 1000. Others: 0 stays, the robust maximum becomes 1.

    Raises InputError where voxels are boolean, constant, too large, nearly equal in single
    precision (in which all is computed), or almost nowhere positive.
    """
    name = volume.source or "volume"
    if volume.dtype.kind == "b":
        raise InputError(f"{name}: voxels are boolean, not intensities", _HINT)
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if not max(-low, high) <= LARGEST:
        refuse_too_large(volume)
    if low == high:
        raise InputError(f"{name}: intensities are constant", _HINT)
    if high - low < _LEVELS * float(np.spacing(np.float32(max(abs(low), abs(high))))):
        raise InputError(
            f"{name}: the range of intensities, {low:.12g} to {high:.12g}, is too narrow for "
            "single precision",
            "Subtract the lowest intensity first.",
        )
    if volume.profile.is_absolute:
        return Scaling(0.0, 1000.0)
    step = max(1, volume.voxels.size // 20_000_000)  # percentiles of large volumes need no more
    top = robust_max(volume.voxels[..., ::step, :, :])
    if not top > 0:
        raise InputError(f"{name}: almost no intensity is positive", _HINT)
    return Scaling(0.0, top)
