"""Arrays of a result that are filled frame by frame; large ones in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Array, Floats, empty
from MedEnhanceLib.core.geometry import AxisTurn
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.atomic import output_error


@dataclass(frozen=True, eq=False)
class Outputs:
    """Arrays of a result, [K, J, I], of a sequence [T, K, J, I]; None for what is not requested.

    Attributes:
        voxels: of the input's type.
        deviation: standard deviation of their errors.
        use: change by guides, in σ of the noise.
    """

    voxels: Array
    deviation: Floats | None
    use: Floats | None

    def turned(self, turn: AxisTurn) -> Outputs:
        """Return views in canonical order."""
        arrays = (self.voxels, self.deviation, self.use)
        return Outputs(*(None if each is None else turn.apply(each) for each in arrays))  # type: ignore[arg-type]

    def at(self, place: int) -> Outputs:
        """Return the arrays of one frame of a sequence."""
        deviation = None if self.deviation is None else self.deviation[place]
        return Outputs(self.voxels[place], deviation, None if self.use is None else self.use[place])


def outputs_for(
    volume: Volume, *, uncertainty: bool, guided: bool, scratch: Path | None
) -> Outputs:
    """Make the arrays for the result of a volume.

    Args:
        volume: its shape and type are those of the result.
        uncertainty: whether it is requested.
        guided: whether guides are used.
        scratch: as in `new_array`.
    """
    return Outputs(
        new_array(volume.shape, volume.dtype, scratch),
        new_array(volume.shape, "f4", scratch) if uncertainty else None,
        np.zeros(volume.shape, np.float32) if guided else None,
    )


def new_array(shape: tuple[int, ...], dtype: npt.DTypeLike, scratch: Path | None) -> Array:
    """Allocate an array; raises OutputError where its file cannot be made.

    Args:
        shape: of the array.
        dtype: of its values.
        scratch: a folder for large arrays, in unnamed files; None: all are in memory.
    """
    try:
        return empty(shape, np.dtype(dtype), scratch)
    except OSError as cause:
        raise output_error(scratch or Path(), cause) from cause
