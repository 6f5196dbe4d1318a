"""Removes noise from groups of similar blocks of 4 × 4 × 4 voxels.

A first stage transforms each block alone (DCT) and thresholds its coefficients. Each round then
takes the result so far as *pilot*. For every reference block of a grid it searches the pilot nearby
for the most similar blocks. The mean of the noisy blocks at these places passes a Wiener filter in
each frequency. The difference of each block from that mean is estimated in the span of the pilot's
differences: with their covariance C, by the linear filter C (C + σ²)⁻¹. The overlapping blocks are
averaged.

Sources: groups of similar blocks and two stages, Dabov et al., IEEE Trans. Image Process. 16
(2007) 2080; in volumes, Maggioni et al., IEEE Trans. Image Process. 22 (2013) 119; mean and
covariance of a group instead of a transform, Lebrun et al., SIAM J. Imaging Sci. 6 (2013) 1665.
Written from these descriptions. Ours: the Wiener filter of the mean, a system with as many unknowns
as a group has blocks, several rounds that assume more noise than there is, and noise of known
spectrum.

Volumes pass as slabs from stage to stage: only slices near the current one are in memory. The
grid and the order of every sum depend on the whole volume alone, so that neither slabs nor threads
change a bit of the result; nor does the processor, where it fuses multiply-adds. The compiled
library (`native`) computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import WHOLE, Array, Floats, Region, widened, within
from MedEnhanceLib.filters.block_matching_run import Level, Run, Stage, large_enough
from MedEnhanceLib.filters.layers import RegionCrop
from MedEnhanceLib.filters.layers import Round as Round
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.native import CELLS, SIDE
from MedEnhanceLib.runtime import machine
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.filters.regions import Air

# Tuned on crops of open volumes beside BM4D. Measured again by Benchmarks/enhancement.py. Halved or
# doubled in eight cases of MR and four of CT: 2.7 loses .4 to 1.9 dB, `keep` .04 to .5, `damp` .02
# to .4 in the mean.
#: The first stage: its threshold in σ (2.7 as in BM3D), and steps of its grid.
_THRESHOLD = Round(step=2, keep=1, damp=2.7)
#: For MR, whose noise is white. Each round has a better pilot than the one before.
MR_ROUNDS = (Round(step=4), Round(step=4, damp=1.2), Round(step=3, damp=1.2))
#: For CT, whose noise neighbors share: in the first pilot, blocks nearby have much of it in common.
CT_ROUNDS = (Round(step=4, damp=2.0, apart=4), Round(step=3, damp=1.4))
#: By the modality that others are like.
ROUNDS: dict[str, tuple[Round, ...]] = {"CT": CT_ROUNDS, "MR": MR_ROUNDS}
#: Least relative variance of a frequency; 0 would give infinite weights.
LEAST_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class BlockMatchingFilter:
    """The filter with its settings, on one volume: the threshold (unless there is a pilot), rounds.

    Attributes:
        noisy: [K, J, I], finite, any unit.
        level: σ of the noise at each voxel, same shape and unit, finite, ≥ 0. Where it is 0, the
            result is the input. A broadcast view serves for one σ.
        spectrum: [64], relative variance of the noise in each frequency of a block's cosine
            transform (slices first, then rows, columns); None for white noise.
        rounds: of the block-matching filter; each takes the result of the one before as pilot.
        pilot: an estimate to begin with instead of the threshold's, [K, J, I].
        matched: another image, [K, J, I], in which blocks are compared; None: the pilot.
        spacing: mm along i, j, k, as in `Geometry`; along thick slices less is searched.
        air: where the pilot of the first round stays, if anywhere.
        engine: None for the compiled library of this installation.
        threads: that compute at once; None for all that this process may use.
        monitor: for progress and cancel.
    Raises ValueError where shapes do not match; DependencyError where the library is missing.
    """

    noisy: Array
    level: Level
    spectrum: Array | None = None
    _: KW_ONLY
    rounds: Sequence[Round] = MR_ROUNDS
    pilot: Array | None = None
    matched: Array | None = None
    spacing: Sequence[float] = (1.0, 1.0, 1.0)
    air: Air | None = None
    engine: NativeEngine | None = None
    threads: int | None = None
    monitor: Monitor = field(default_factory=Monitor)

    def __post_init__(self) -> None:
        noisy, level = self.noisy.shape, self.level.shape
        if len(noisy) != 3 or not self.noisy.size or level != noisy:
            raise ValueError(f"noisy {noisy} and level {level} must have one shape, [K, J, I]")

    def denoised(self) -> Floats:
        """Filter the whole volume: float32 [K, J, I]; raises as `Run.finished`."""
        with self.run() as run:
            return np.concatenate([run.finished(slab)[1] for slab in run.slabs()])

    def run(self, only: slice | None = None, region: Region = WHOLE) -> Run:
        """Begin a run over the volume, mirrored along axes shorter than a block.

        Args:
            only: the slices of the result, equal to those of a whole run.
            region: their rows and columns, likewise.
        """
        large, level, air = large_enough(self.noisy), self.level, self.air
        if large is not self.noisy:
            # Mirrored voxels repeat their noise, so less of it averages out.
            louder = math.prod(math.sqrt(SIDE / min(side, SIDE)) for side in self.noisy.shape)
            level = large_enough(np.asarray(level[:], np.float32)) * np.float32(louder)
            air = None
        white = np.ones(CELLS) if self.spectrum is None else self.spectrum.reshape(CELLS)
        window = window_for(self.spacing)
        stages = [Stage(large.shape, window, each) for each in self.rounds]
        if self.pilot is None:
            stages.insert(0, Stage(large.shape, (1, 1, 1), _THRESHOLD, "threshold"))
        windows = [stage.window[1:] for stage in stages]
        rows, columns = (widened(region[axis], 0, self.noisy.shape[1 + axis]) for axis in (0, 1))
        # Mirrored slices are small: they are computed whole.
        sides = slice(0, large.shape[1]), slice(0, large.shape[2])
        crop = RegionCrop.around(
            (rows, columns) if large is self.noisy else sides, large.shape[1:], windows
        )
        return Run(
            crop.of(large),
            crop.of(level),
            np.maximum(white, LEAST_SHARE).astype(np.float32),
            stages=stages,
            pilot=crop.of(large if self.pilot is None else large_enough(self.pilot)),
            matched=None if self.matched is None else crop.of(large_enough(self.matched)),
            box=(only or slice(0, self.noisy.shape[0]), *within((rows, columns), crop.region)),
            crop=crop,
            air=air,
            engine=self.engine or engine(self.monitor),
            threads=self.threads or machine.cpu_threads(),
            monitor=self.monitor,
        )


def window_for(spacing: Sequence[float]) -> tuple[int, int, int]:
    """Return the search window along slices, rows, columns for a spacing in mm along i, j, k.

    It is full along the axis of least spacing and extends as many mm along the others, but at least
    one voxel to each side.
    """
    least = min(spacing)
    sides = []
    for most, mm in zip(native.MOST_WINDOW, reversed(spacing), strict=True):
        radius = max(1, round((most - 1) // 2 * least / mm))
        sides.append(2 * radius + 1 + (most + 1) % 2)  # an even window has one more voxel ahead
    return sides[0], sides[1], sides[2]


def engine(monitor: Monitor | None = None) -> NativeEngine:
    """Return the engine of this installation; raises DependencyError where it is not compiled.

    monitor: told of a build, if the library is missing and a compiler is installed as a package.
    """
    return NativeEngine(native.require("Removing noise", monitor=monitor))
