"""How voxels of a volume become the numbers that the network sees, and how they lie in cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress.implicit.config import CELL, THICK

#: CT is measured against water and air: its scale is the same for every volume.
_HOUNSFIELD = (0, 1024)
TAILS = (0.5, 99.5)
#: A block's scale is at least such a part of its volume's.
LEAST_PART = 10


@dataclass(frozen=True)
class Scaling:
    """Voxel = offset + scale · value; both are integers, and stored with the codes."""

    offset: int
    scale: int

    def of_block(self, block: Voxels) -> Scaling:
        """All but the outermost hundredth of a block → −1 to 1; self is that of its volume.

        A block that is nearly even keeps a tenth of the volume's scale: its noise is no structure.
        """
        low, high = _tails(block)
        scale = max(int(np.ceil((high - low) / 2)), self.scale // LEAST_PART, 1)
        return Scaling(int(np.floor((low + high) / 2)), scale)

    @classmethod
    def of(cls, voxels: Voxels, modality: str) -> Scaling:
        """For CT 0 HU → 0 and 1024 HU → 1; else all but the outermost hundredth → −1 to 1."""
        if modality == "CT":
            return cls(*_HOUNSFIELD)
        low, high = _tails(voxels)
        return cls(int(np.floor((low + high) / 2)), max(1, int(np.ceil((high - low) / 2))))

    def apply(self, voxels: Voxels) -> npt.NDArray[np.float32]:
        """Voxels on the network's scale."""
        scaled: npt.NDArray[np.float32] = (
            (voxels.astype(np.float64) - self.offset) / self.scale
        ).astype(np.float32)
        return scaled


def _tails(voxels: Voxels) -> tuple[float, float]:
    low, high = np.percentile(voxels.ravel()[:: max(1, voxels.size // 1_000_000)], TAILS)
    return float(low), float(high)


def is_thick(spacing: Sequence[float]) -> bool:
    """Whether slices are more than three pixels apart. spacing: (i, j, k) in mm."""
    return spacing[2] > THICK * max(spacing[:2])


def padded_extents(shape: tuple[int, int, int], *, thick: bool) -> tuple[int, int, int]:
    """Extents of a block, made multiples of what a cell spans."""
    spans = (CELL // 2 if thick else CELL, CELL, CELL)
    k, j, i = (-(-n // span) * span for n, span in zip(shape, spans, strict=True))
    return k, j, i
