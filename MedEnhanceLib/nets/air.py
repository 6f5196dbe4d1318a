"""Air around the body, whose noise is removed by the filter's first stage alone.

A cell is 8 × 8 voxels of a slice. It is air if its mean and its largest value are, and if air
connects it with the border of the slice, which leaves out lungs and bowel. Groups and network pass
over cells that are far from all others. That depends on a few slices around, so that parts of a
volume are treated as the whole is.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.nets.constant import connected, over
from MedEnhanceLib.noise.blocks import AIR_MEAN
from MedEnhanceLib.noise.estimate import NoiseEstimate

Mask = npt.NDArray[np.bool_]
#: Voxels along a side of a cell; cells in the plane, and slices, by which air is far from the rest.
_SIDE, _CELLS_FAR, _SLICES_FAR = 8, 1, 6
#: HU below which the mean of a cell is air: lungs are above it.
_AIR_HU = -950.0
#: Mean of a cell over that of air, and largest value in σ: four and five standard deviations.
_MOST_OF_MEAN, _MOST_OF_VALUES = 1.25, 5.5
#: σ of air over that of tissue, beyond which air may be tissue as weak as its noise.
_MOST_OF_TISSUE = 1.15
_HELD = 64


class Air:
    """Air of a volume."""

    def __init__(self, voxels: Any, mean: float, largest: float) -> None:
        """Keep the volume, of which slices are read as they are needed.

        voxels: [K, J, I].
        mean: of a cell, below which it is air.
        largest: value that a cell of air may have.
        """
        self._voxels, self._mean, self._largest = voxels, mean, largest
        self._air = lru_cache(_HELD)(self._cells_of_air)

    @classmethod
    def of(cls, volume: Volume, noise: NoiseEstimate, voxels: Any) -> Air | None:
        """Return the air of a volume, None if nothing says what air is.

        noise: of the volume.
        voxels: of the volume, with neutral values in place of padding.
        """
        if volume.modality == "CT":
            return cls(voxels, _AIR_HU, np.inf)
        if noise.air is None or noise.air > _MOST_OF_TISSUE * noise.level:
            return None
        return cls(voxels, _MOST_OF_MEAN * AIR_MEAN * noise.air, _MOST_OF_VALUES * noise.air)

    def far_from_tissue(self, z: int) -> Mask:
        """Find where slice z is air with nothing else near, [J, I]."""
        count, rows, columns = self._voxels.shape
        near = range(max(0, z - _SLICES_FAR), min(count, z + _SLICES_FAR + 1))
        air = reduce(np.logical_and, map(self._air, near))
        side = 2 * _CELLS_FAR + 1
        far = over(np.logical_and, np.pad(air, _CELLS_FAR, constant_values=True), (side, side))
        return np.asarray(far.repeat(_SIDE, 0).repeat(_SIDE, 1)[:rows, :columns])

    def _cells_of_air(self, z: int) -> Mask:
        """Find the cells of slice z that are air and connected with the border."""
        plane = self._voxels[z : z + 1][0].astype(np.float32)
        plane = np.pad(plane, [(0, -side % _SIDE) for side in plane.shape], mode="edge")
        cells = plane.reshape(len(plane) // _SIDE, _SIDE, -1, _SIDE)
        air = (cells.mean((1, 3)) < self._mean) & (cells.max((1, 3)) < self._largest)
        border = np.ones(air.shape, np.bool_)
        border[1:-1, 1:-1] = False
        return connected(air, border)
