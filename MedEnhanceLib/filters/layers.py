"""Layers of block matching: reference blocks, their groups, and the arrays of their computation.

`native_engine` and `torch_engine` compute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.native import SIDE

StageKind = Literal["grouped", "threshold"]
#: Weight of each voxel along a side of a block (Kaiser window), [4], and of all its voxels, [64].
TAPER_LINE: Floats = np.kaiser(SIDE, 2.0).astype(np.float32)
TAPER: Floats = np.einsum("i,j,k->ijk", *(3 * [TAPER_LINE])).reshape(-1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class BlockGroups:
    """Groups of similar blocks of a layer, in the order of their references: arrays or tensors.

    Attributes:
        index: [N, keep], place in the flat slab of each block's first voxel: the reference's, then
            nearest first. A group with fewer candidates is filled up with its reference.
        distance: [N, keep], squared differences of the pilot from the reference, summed over a
            block.
        level: [N], σ of the noise at the reference.
    """

    index: Any
    distance: Any
    level: Any


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """Arrays that C computes a layer from, and adds to: float32.

    Attributes:
        noisy: the slab [window[0] + 3, ny, nx].
        pilot: the better estimate, like the slab; in the first stage it is not read.
        matched: what blocks are compared in, like the slab: the pilot, or another image.
        level: σ of the noise, like the slab, ≥ 0.
        spectrum: [64], > 0, variance of the noise in each frequency, in units of level².
        total: like the slab, sums of weighted blocks.
        weight: [window[0], ny, nx], weights of blocks by the place in which they start.
    """

    noisy: Floats
    pilot: Floats
    matched: Floats
    level: Floats
    spectrum: Floats
    total: Floats
    weight: Floats


@dataclass(frozen=True, kw_only=True)
class Round:
    """Round over all groups of blocks.

    Attributes:
        step: voxels between references, 1 to 4; the cost falls with its cube.
        keep: blocks in a group, the reference included, 1 to 64.
        damp: factor on the variance of the noise, above 1 smooths more; for the stage `threshold`
            the threshold, in σ.
        apart: least distance in voxels, along one axis, of other blocks from the reference; for
            noise that neighboring voxels share.
    """

    step: int
    keep: int = 32
    damp: float = 1.0
    apart: int = 0


@dataclass(frozen=True)
class Layer:
    """Reference blocks that start in one slice, and where their groups are searched.

    The slab of a layer is what its candidates cover: window[0] + 3 slices.

    Attributes:
        number: of the layer in the volume; every second one is shifted by half a step.
        z: slice of the slab in which the references start.
        window: starting places of candidates along slices, rows and columns.
        round: settings of the groups.
    """

    number: int
    z: int
    window: tuple[int, int, int]
    round: Round

    def rows(self, ny: int) -> int:
        """Count the rows of references in slices of ny rows."""
        return len(places(ny, self.round.step, is_shifted=bool(self.number & 1)))


def places(side: int, step: int, *, is_shifted: bool) -> list[int]:
    """List the starts of references along a side; the last possible one is always included.

    Args:
        side: voxels.
        step: from one reference to the next.
        is_shifted: whether all except the two ends are shifted by half a step.
    """
    last, shift = side - SIDE, step // 2 if is_shifted else 0
    inner = [0, *(at for at in range(step - shift, last, step) if at > 0)]
    return inner if last == 0 else [*inner, last]
