"""One frame of a run: filter with its network → blur → bias field → rounding.

Slices are rounded into the array of the result as they are computed. If a step needs the whole
result before it is rounded, that is kept in float32 meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Array, Floats, let_go, parts_of, slabs
from MedEnhanceLib.core.geometry import AxisTurn
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.filters.bias_field import BiasField, measure_bias_field
from MedEnhanceLib.filters.block_matching import Engine
from MedEnhanceLib.filters.block_matching_run import Slab
from MedEnhanceLib.filters.blur import undo_blur
from MedEnhanceLib.filters.regions import ConstantRegions
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.decide import Decision, VolumeCache
from MedEnhanceLib.hqg.denoise import denoise, expected_deviation
from MedEnhanceLib.hqg.outputs import Outputs, new_array
from MedEnhanceLib.runtime.machine import openmp_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.groups import GuidedNetwork
    from MedEnhanceLib.hqg.guide import AlignedGuide


@dataclass(frozen=True, kw_only=True, eq=False)
class EnhancerRun:
    """What is chosen and measured before the first frame.

    Attributes:
        original: the frames and slices of the input that are returned.
        frames: of the whole input, in the order of `turn`.
        numbers: of the frames to enhance.
        empty: numbers of the frames without tissue, which stay as they are.
        slices: of each of `frames`, along K.
        turn: from the input's order to the canonical one.
        decision: with all warnings and facts.
        guides: on the grid of the volume; none where the model uses none.
        bias_field: of a sequence: one coil shades all frames alike, and frames divided by one field
            do not flicker. That of a single volume is measured in its result.
    """

    config: EnhanceConfig
    bundle: Bundle
    device: str
    network: GuidedNetwork | None
    engine: Engine
    original: Volume
    frames: Sequence[Volume]
    numbers: Sequence[int]
    empty: Sequence[int]
    slices: slice
    turn: AxisTurn
    decision: Decision
    guides: tuple[AlignedGuide, ...]
    bias_field: BiasField | None
    cache: VolumeCache
    scratch: Path | None

    @property
    def shown(self) -> list[Floats]:
        """Voxels of the guides that could be registered."""
        return [each.voxels for each in self.guides if each.is_usable]


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a run.

    Attributes:
        number: in the sequence, from 0.
        monitor: of its part of the run.
    """

    run: EnhancerRun
    number: int
    monitor: Monitor

    @property
    def volume(self) -> Volume:
        """The frame before enhancement."""
        return self.run.frames[self.number]

    @property
    def regions(self) -> ConstantRegions:
        """Its constant regions, measured once for all runs with this σ."""
        key, cache = (self.number, self.run.decision.noise.level), self.run.cache.regions
        if key not in cache:
            cache[key] = ConstantRegions(self.volume.voxels, key[1])
        return cache[key]

    @property
    def range(self) -> tuple[float, float]:
        """Intensity of bright tissue, and lowest value of the result."""
        return self.run.cache.ranges[self.number]

    def enhance(self, out: Outputs) -> float:
        """Fill the slices of the run at strength 1; returns their change by guides (RMS, in σ)."""
        from MedEnhanceLib.learning.precision import without_tf32

        run, part, blur = self.run, self.run.slices, self.run.decision.blur
        if self.number in run.empty:
            out.voxels[...] = self.volume.voxels[part]
            if out.deviation is not None:
                out.deviation[...] = run.decision.noise[part] if np.ptp(out.voxels) else 0
            return 0.0
        with without_tf32, openmp_on_one_thread():  # filter and network have threads of their own
            if blur is None and not run.config.correct_bias_field and out.deviation is None:
                around = part
                slab = self._denoise(part, self.monitor, self._finish, out.voxels)
            else:
                # The deviation of a slice depends on its neighbors.
                around = slice(max(0, part.start - 1), min(len(self.volume.voxels), part.stop + 1))
                around = around if blur is None else slice(0, len(self.volume.voxels))
                slab = self._corrected(around)
                self._write(slab.voxels, around.start, out)
        if out.use is not None and slab.change is not None:
            inner = slice(part.start - around.start, part.stop - around.start)
            np.minimum(slab.change[inner], 1, out=out.use)
        self.monitor.progress(1.0, "removing noise")  # also where nothing is removed
        self.regions.put_back(range(part.start, part.stop), out.voxels, out.deviation, out.use)
        return slab.use

    def _corrected(self, part: slice) -> Slab:
        """Compute some slices without noise and blur, float32."""
        run, voxels, monitor = self.run, self.volume.voxels, self.monitor
        monitor = monitor.part(0.0, 0.9) if run.config.correct_bias_field else monitor
        blur, removal = run.decision.blur, run.decision.removal
        values = new_array(voxels[part].shape, "f4", run.scratch)
        noise_monitor = monitor if blur is None else monitor.part(0, 0.9)
        slab = self._denoise(part, noise_monitor, lambda values: values, values)
        if blur is not None:
            remaining = run.decision.noise.level * removal.share
            monitor.progress(0.9, "correcting the blur")
            undo_blur(voxels, blur, noise=remaining, denoised=values, monitor=monitor)
        return slab

    def _write(self, values: Floats, first: int, out: Outputs) -> None:
        """Measure the deviation, divide by the bias field, and round to the type of the result.

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
            np.maximum(slab, self.range[1], out=slab, dtype=np.float32)
        bias_field = run.bias_field
        if run.config.correct_bias_field and bias_field is None:
            bias_field = measured_bias_field(self.volume.with_voxels(values), self.monitor)
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

    def _denoise(
        self, part: slice, monitor: Monitor, finish: Callable[[Floats], Array], out: Array
    ) -> Slab:
        """Write some slices to `out`, after filter and network."""
        from MedEnhanceLib.hqg.network_stage import NetworkStage

        run, network = self.run, None
        if run.network is not None:
            network = NetworkStage(run.network, run.device, self.range[0], run.shown)
        return denoise(
            self.volume, run.decision.removal, regions=self.regions, only=part,
            network=network, engine=run.engine, finish=finish, out=out, monitor=monitor,
        )  # fmt: skip

    def _finish(self, values: Floats) -> Array:
        """Clip to the lowest value of the result, and round to its type."""
        values = np.maximum(values, np.float32(self.range[1]))
        return restore_dtype(values, self.run.original.dtype)


def measured_bias_field(volume: Volume, monitor: Monitor) -> BiasField:
    """Measure the bias field of a volume; a cancel takes effect at once."""
    monitor.progress(0.9, "correcting the bias field (N4)")
    return attend(lambda: measure_bias_field(volume), monitor)
