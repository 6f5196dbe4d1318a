"""One frame of a run, after its noise is removed: Rician bias → bias field or scanner → rounding.

`Outputs` are the arrays of the result that frames fill; large ones are in files. Slices are rounded
into them as they are computed. If a step needs the whole result before it is rounded, that is kept
in float32 meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import (
    Array,
    Floats,
    Region,
    cached_parts,
    empty,
    let_go,
    parts_of,
    slabs,
    widened,
)
from MedEnhanceLib.core.geometry import AxisTurn
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.decide import Decision, VolumeCache
from MedEnhanceLib.denoise.denoisers import Denoiser, FramePart
from MedEnhanceLib.denoise.removal import REACH, expected_deviation
from MedEnhanceLib.filters.bias_field import BiasField, measure_bias_field
from MedEnhanceLib.filters.regions import ConstantRegions
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.texts import Text, text
from MedEnhanceLib.scanner.corrector.scanner_network import ScannerModel
from MedEnhanceLib.scanner.invert import invert

#: Share of the tissue that contradicts the scan from which this is hardly of the scanner: it was
#: at most .13 in scans of one that was measured in few volumes, .35 in a scan inverted before.
_UNLIKE_SCANNER = 0.2


@dataclass(frozen=True, eq=False)
class Outputs:
    """Arrays of a result, [K, J, I], of a sequence [T, K, J, I]; None for what is not requested.

    Attributes:
        voxels: of the input's type.
        deviation: standard deviation of their errors.
    """

    voxels: Array
    deviation: Floats | None

    def turned(self, turn: AxisTurn) -> Outputs:
        """Return views in canonical order."""
        deviation = None if self.deviation is None else turn.apply(self.deviation)
        return Outputs(turn.apply(self.voxels), deviation)

    def at(self, place: int) -> Outputs:
        """Return the arrays of one frame of a sequence."""
        deviation = None if self.deviation is None else self.deviation[place]
        return Outputs(self.voxels[place], deviation)


def outputs_for(volume: Volume, *, uncertainty: bool, scratch: Path | None) -> Outputs:
    """Make the arrays for the result of a volume.

    Args:
        volume: its shape and type are those of the result.
        uncertainty: whether it is requested.
        scratch: as in `new_array`.
    """
    return Outputs(
        new_array(volume.shape, volume.dtype, scratch),
        new_array(volume.shape, "f4", scratch) if uncertainty else None,
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


@dataclass(frozen=True, kw_only=True, eq=False)
class EnhancerRun:
    """What is chosen and measured before the first frame.

    Attributes:
        config: of the enhancement.
        original: the frames and slices of the input that are returned.
        frames: of the whole input, in the order of `turn`.
        method: name of the denoiser.
        denoiser: ready for use.
        numbers: of the frames to enhance.
        empty: numbers of the frames without tissue, which stay as they are.
        slices: of each of `frames`, along K.
        region: rows and columns of the result in these slices.
        turn: from the input's order to the canonical one.
        decision: with all warnings and facts.
        apart: why the frames of a sequence are filtered one by one; None where they are not.
        bias_field: of a sequence: one coil shades all frames alike, and frames divided by one field
            do not flicker. That of a single volume is measured in its result.
        scanner: that is inverted, and the network that follows; None for none.
        cache: of what was measured in the volume.
        scratch: folder for large arrays; None: they are in memory.
    """

    config: EnhanceConfig
    method: str
    denoiser: Denoiser
    original: Volume
    frames: Sequence[Volume]
    numbers: Sequence[int]
    empty: Sequence[int]
    slices: slice
    region: Region
    turn: AxisTurn
    decision: Decision
    apart: Text | None
    bias_field: BiasField | None
    scanner: ScannerModel | None
    cache: VolumeCache
    scratch: Path | None

    @property
    def needs_all(self) -> bool:
        """Whether a step needs more than one slice at once."""
        config = self.config
        return config.correct_bias_field or config.uncertainty or self.scanner is not None

    @property
    def around(self) -> slice:
        """Slices to denoise: the deviation of a slice depends on its neighbors."""
        part, count = self.slices, len(self.frames[0].voxels)
        return widened(part, 1, count) if self.needs_all else part

    @property
    def region_around(self) -> Region:
        """Rows and columns to denoise, for the correction of the region."""
        rows, columns = self.frames[0].shape[-2:]
        return widened(self.region[0], REACH, rows), widened(self.region[1], REACH, columns)

    def regions_of(self, number: int) -> ConstantRegions:
        """Return the constant regions of a frame, measured once for all runs with this σ."""
        return self.cache.regions_of(number, self.frames[number], self.decision.noise.level)


class Frame:
    """A frame of a run, which takes the denoised slices and fills its part of the result."""

    def __init__(self, run: EnhancerRun, number: int, out: Outputs, monitor: Monitor) -> None:
        """Prepare a frame.

        Args:
            run: that it belongs to.
            number: in the sequence, from 0.
            out: its arrays.
            monitor: of the steps after the removal of noise.
        """
        self.run, self.number, self._out, self._monitor = run, number, out, monitor
        self.facts = dict[str, Any]()
        self._values: Floats | None = None

    @property
    def volume(self) -> Volume:
        """The frame before enhancement."""
        return self.run.frames[self.number]

    @property
    def regions(self) -> ConstantRegions:
        """Its constant regions, measured once for all runs with this σ."""
        return self.run.regions_of(self.number)

    @property
    def lowest(self) -> np.float32:
        """Lowest value of the result, to which lower ones are clipped."""
        return np.float32(self.run.cache.lowest[self.number])

    def keep(self) -> None:
        """Fill the result with the frame as it is; what is no tissue is not corrected either."""
        run, part = self.run, self.run.slices
        if self.number in run.empty:
            self._out.voxels[...] = self.volume.voxels[part, *run.region]
            if self._out.deviation is not None:
                constant = not np.ptp(self._out.voxels)
                self._out.deviation[...] = 0 if constant else run.decision.noise[part]
            return
        for slices in parts_of(run.around.start, run.around.stop):
            self._take(slices, self.volume.voxels[slices, *run.region].astype(np.float32))
            let_go(self.volume.voxels)

    def add(self, part: FramePart) -> None:
        """Correct denoised slices, and write them; parts come in order."""
        corrected = replace(part, voxels=self.run.decision.removal.correct(part, self.regions))
        part = corrected.cropped(self.run.region)
        self._take(part.slices, part.voxels)

    def _take(self, slices: slice, values: Floats) -> None:
        """Round slices into the result; what needs all of them keeps them until the last."""
        run = self.run
        first, stop = (at - run.around.start for at in (slices.start, slices.stop))
        if not run.needs_all:
            for some in cached_parts(values):
                self._out.voxels[first:stop][some] = self._finish(values[some])
            let_go(self._out.voxels)
        else:
            if self._values is None:
                shape = run.around.stop - run.around.start, *values.shape[1:]
                self._values = new_array(shape, "f4", run.scratch)
            self._values[first:stop] = values
            let_go(self._values)
        if slices.stop == run.around.stop:
            self._complete()

    def _complete(self) -> None:
        """Take the steps after the last slice."""
        run, out, part = self.run, self._out, self.run.slices
        if self._values is not None:
            self._write(self._values, run.around.start, out)
            self._values = None
        self._monitor.progress(1.0, "removing noise")  # also where nothing is removed
        self.regions.put_back(
            range(part.start, part.stop), out.voxels, out.deviation, region=run.region
        )

    def _write(self, values: Floats, first: int, out: Outputs) -> None:
        """Measure the deviation, undo bias field or scanner, and round to the type of the result.

        first: the slice that `values` begin with.
        """
        run, slices, share = self.run, self.run.slices, self.run.config.share
        if out.deviation is not None:
            expected_deviation(
                values, self.volume, run.decision.noise,
                share=run.decision.removal.share, strength=share,
                first=first, only=slices, out=out.deviation,
            )  # fmt: skip
        values = values[slices.start - first : slices.stop - first]
        for slab in slabs(values):
            np.maximum(slab, self.lowest, out=slab)
        if run.scanner is not None:
            sigma, without = run.decision.noise.level, run.config.scanner_without
            self._monitor.progress(0.9, "inverting the scanner")
            scan, scanner, monitor = self.volume, run.scanner.scanner, self._monitor
            inversion = invert(scanner, values, scan, sigma, without=without, monitor=monitor)
            inversion = run.scanner.follow(inversion, scan, sigma, monitor)
            values, self.facts["scanner"] = inversion.voxels, inversion.facts
            if scanner.warnings:
                told = text("scanner_warned", warnings="; ".join(scanner.warnings))
                monitor.warn(told, about="scanner", is_general=True)
            if inversion.facts["inconsistent"] > _UNLIKE_SCANNER:
                monitor.warn(text("unlike_scanner", percent=100 * inversion.facts["inconsistent"]))
        bias_field = run.bias_field
        if run.config.correct_bias_field and bias_field is None:
            bias_field = measured_bias_field(self.volume.with_voxels(values), self._monitor)
        for part in parts_of(0, len(out.voxels)):
            result = values[part]
            if bias_field is not None:
                field = bias_field[part]
                result = result / field
                if out.deviation is not None:
                    # In the blend, only the enhanced share is divided by the field.
                    out.deviation[part] /= field / (share + (1 - share) * field)
            out.voxels[part] = self._finish(result)
            let_go(values)
            let_go(out.voxels)

    def _finish(self, values: Floats) -> Array:
        """Clip to the lowest value of the result, and round to its type."""
        values = np.maximum(values, self.lowest)
        return restore_dtype(values, self.run.original.dtype)


def measured_bias_field(volume: Volume, monitor: Monitor) -> BiasField:
    """Measure the bias field of a volume; a cancel takes effect at once."""
    monitor.progress(0.9, "correcting the bias field (N4)")
    return attend(lambda: measure_bias_field(volume), monitor)
