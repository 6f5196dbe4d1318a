"""Enhances a volume with a bundle.

decide (of the whole volume) → each frame: filter with its network → blur → bias field → rounding
→ blend at the strength; blur and bias field on request

Slices are finished as they are computed, into the array of the result. Where a step needs the whole
result before that, it is in float32 meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.store import open_bundle_for
from MedEnhanceLib.bundles.suitability import anatomy_warning, messages_of, training_length_warning
from MedEnhanceLib.core.arrays import Array, Floats, empty, let_go, parts_of, slabs, trim
from MedEnhanceLib.core.manifest import UNCERTAINTY_MAP, corrections_in_words, derived_note
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.filters.bias_field import BiasField, measure_bias_field
from MedEnhanceLib.filters.block_matching import Engine, engine_for
from MedEnhanceLib.filters.blur import undo_blur
from MedEnhanceLib.filters.regions import ConstantRegions
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.decide import Decision, VolumeCache, decide, mean_frame
from MedEnhanceLib.hqg.denoise import FITTED_ON, denoise, expected_deviation
from MedEnhanceLib.hqg.strength import Enhanced
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.io.describe import refuse_not_finite, refuse_too_large
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.guide import AlignedGuide
    from MedEnhanceLib.hqg.network_stage import NetworkStage

#: Of the brightest tissue; below it floors of the computation count as noise.
_LOWEST_TOP = 1e-4
_DEVIATION_NOTE = derived_note(f"{UNCERTAINTY_MAP} (expected error, calibrated)")
_USE_NOTE = derived_note("how far guides changed each voxel, in SD of the noise, at most 1")


def enhance(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    guide: Volume | Sequence[Volume] | None = None,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    cache: VolumeCache | None = None,
    scratch: Path | None = None,
    filter_alone: bool = False,
    monitor: Monitor | None = None,
) -> Enhanced:
    """Enhance every slice of a volume, and every frame of a sequence.

    What is done to a sequence is decided once, for all of its frames. Source: arXiv 2307.07829;
    details reconstructed.

    Args:
        volume: geometry, type and units of the result are the same.
        config: model, strength and further options; None takes the defaults.
        guide: another series of the same examination, or several, of any contrast and grid; what
            they show at the same place helps to separate noise from anatomy.
        frame: of a sequence, only this one is enhanced, as in a run over the whole sequence.
        slices: (start, stop) along K, stop excluded. Only these are returned, with the geometry of
            the crop, as in a whole run bit for bit: measurements are of the whole volume.
        cache: measurements of an earlier run over this volume, filled by this one.
        scratch: a folder; if given, a large result stays in an unnamed file there, not in memory.
        filter_alone: whether the network is left out, to measure what it adds to the filter.
        monitor: receives progress, messages and warnings, and can cancel.
    Returns:
        The result at `config.strength`: a number scales the correction of "auto", by blending.
    Raises:
        ConfigError: slices are out of range, or combined with N4.
        ModelError: no model fits.
        InputError: the volume or a guide cannot be used, there is no such frame, or N4 is
            requested for a CT.
        DeviceMemoryError: memory ran out on the CPU.
        Cancelled: the monitor asked to stop.
    """
    began = time.monotonic()
    config, monitor, cache = config or EnhanceConfig(), monitor or Monitor(), cache or VolumeCache()
    # Unusable input is refused before a model is looked for.
    guides = list(_checked(guide, volume))
    bundle, volume = open_bundle_for(volume, config.model, kind="enhancer", monitor=monitor)
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    if config.correct_bias_field and volume.modality == "CT":
        raise InputError(
            f"{volume.source or 'volume'}: a CT has no bias field of the kind N4 corrects",
            "A CT needs no correction of the bias field (--correct-bias-field).",
        )
    from MedEnhanceLib.hqg.network_stage import NetworkStage, network_on
    from MedEnhanceLib.learning.precision import without_tf32

    original = volume if frame is None else volume.frame(frame)
    wanted = _chosen_slices(slices, volume, config)
    frames = volume.frames()
    chosen = range(len(frames)) if frame is None else [frame]
    if not cache.ranges:
        refuse_not_finite(volume)
    for number in chosen:  # all frames before the first is enhanced
        if number not in cache.ranges:
            cache.ranges[number] = _range_of(frames, number)
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    network, engine = network_on(bundle, choice.name), engine_for(choice.name, monitor)
    # Blur is measured and undone in the whole volume: previews are without.
    asked = config if slices is None else replace(config, task="noise")
    decision = decide(frames, cache, asked, chosen=chosen, monitor=monitor)
    of_bundle = (training_length_warning(bundle), anatomy_warning(bundle, volume))
    warnings = tuple(warning for warning in of_bundle if warning) + decision.warnings
    for warning in warnings:
        monitor.warn(warning.text)
    # One coil shades all frames alike, and frames divided by one field do not flicker.
    bias_field = None
    if config.correct_bias_field and len(frames) > 1:
        bias_field = _bias_field(mean_frame(frames), monitor)
    measured = dict(decision.facts)
    aligned: tuple[AlignedGuide, ...] = ()
    if guides and not bundle.uses_guides:
        reason = f"{bundle.name}: this model does not use a guide"
        monitor.warn(reason)
        measured["guide"] = {"used": 0.0, "reason": reason}
    elif guides:
        aligned = _aligned(guides, frames, cache, monitor)
    usable = [each.voxels for each in aligned if each.is_usable]
    # What was measured took memory that is not needed again.
    let_go(volume.voxels)
    trim()
    grid = original.crop(k=wanted)
    enhanced = _array(grid.shape, grid.dtype, scratch)
    deviation = _array(grid.shape, "f4", scratch) if config.uncertainty else None
    use = np.zeros(grid.shape, np.float32) if usable else None
    uses = []
    for done, number in enumerate(chosen):
        here = done if original.is_sequence else ()
        top, floor = cache.ranges[number]
        stage = NetworkStage(network, choice.name, top, usable)
        frame_ = _Frame(
            volume=frames[number],
            regions=cache.constant(number, frames[number], decision.noise.level),
            decision=decision,
            corrects_bias=config.correct_bias_field,
            strength=config.share,
            floor=floor,
            network=None if filter_alone else stage,
            engine=engine,
            scratch=scratch,
            monitor=monitor.part(done / len(chosen), (done + 1) / len(chosen)),
        )
        of_errors = None if deviation is None else deviation[here]
        with without_tf32():  # of filter and network
            frame_.enhance(wanted, bias_field, enhanced[here], of_errors)
        uses.append(stage.use)
        if use is not None and stage.change is not None:
            inner = slice(wanted.start - stage.first, wanted.stop - stage.first)
            np.minimum(stage.change[inner], 1, out=use[here])
        of_guides = None if use is None else use[here]
        numbers = range(wanted.start, wanted.stop)
        frame_.regions.put_back(numbers, enhanced[here], of_errors, of_guides)
    if aligned:
        measured["guide"] = {
            "used": round(float(np.mean(uses)), 4),
            "series": [each.facts for each in aligned],
        }
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + corrections_in_words(measured)
        + (f" ({messages_of(warnings)})" if warnings else "")
    )
    calibration = {"calibration": {"fitted_on": FITTED_ON[bundle.modality]}}
    uncertainty = None if deviation is None else grid.with_voxels(deviation, did=_DEVIATION_NOTE)
    full = Enhanced(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=uncertainty,
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        share=decision.removal.share,
        uncertainty_facts=calibration if config.uncertainty else {},
        warnings=warnings,
        measured=measured,
        noises=(decision.noise,) * len(chosen),
        first_slice=wanted.start,
        guide_use=None if use is None else grid.with_voxels(use, did=_USE_NOTE),
    )
    result = full.at_strength(config.share)
    return replace(result, uncertainty=uncertainty, seconds=time.monotonic() - began)


# --- before the first frame -----------------------------------------------------------------------


def _checked(given: Volume | Sequence[Volume] | None, volume: Volume) -> Iterator[Volume]:
    """Yield guides of a volume, each checked when it is its turn; InputError for an unfit one."""
    for each in [given] if isinstance(given, Volume) else given or ():
        name = each.source or "guide"
        # Voxels first: the modality of a file that states none is guessed from its content.
        refuse_too_large(each)
        if each.voxels.min() == each.voxels.max():
            raise InputError(
                f"{name}: the guide is constant, every voxel is {each.voxels.flat[0]:g}",
                "Choose a volume with image content.",
            )
        if each.modality != volume.modality:
            raise InputError(
                f"{name}: the guide is {each.modality}, the volume {volume.modality}",
                "Choose a guide of the same modality.",
            )
        each = each.single("Choose a single volume, or a frame, as the guide.")
        is_same_grid = each.shape == volume.shape[-3:] and each.geometry == volume.geometry
        own = volume.voxels.reshape(-1, *volume.shape[-2:])  # of one frame
        if is_same_grid and np.array_equal(each.voxels, own):
            raise InputError(
                f"{name}: the guide is the volume itself",
                "Choose another series of the same examination.",
            )
        yield each


def _chosen_slices(slices: tuple[int, int] | None, volume: Volume, config: EnhanceConfig) -> slice:
    count = volume.shape[-3]
    first, stop = slices or (0, count)
    if not 0 <= first < stop <= count:
        raise ConfigError(
            f"slices {first}:{stop} (stop excluded) are not within the volume's {count} slices",
            f"Give start and stop within 0 to {count}.",
        )
    if slices is not None and config.correct_bias_field:
        raise ConfigError(
            "N4 needs the whole volume, not some slices of it",
            "Leave the correction of the bias field out, or enhance the whole volume.",
        )
    return slice(first, stop)


def _range_of(frames: Sequence[Volume], number: int) -> tuple[float, float]:
    """Intensity of bright tissue in a frame, and the lowest value of its result.

    Raises InputError that names the frame where it shows nothing.
    """
    frame = frames[number]
    try:
        top = scaling_for(frame).scale
    except InputError as cause:
        if len(frames) == 1:
            raise
        raise InputError(
            f"{cause.message} in frame {number}", "Leave this frame out, or take one frame."
        ) from cause
    if top < _LOWEST_TOP:
        raise InputError(
            f"{frame.source or 'volume'}: intensities up to {top:.3g} are too small to measure "
            "the noise",
            "Multiply them by a constant, for example by changing their unit.",
        )
    # Lower values are undershoot: magnitudes are not below 0 or the lowest of the input.
    return top, -np.inf if frame.modality == "CT" else min(0.0, float(frame.voxels.min()))


def _aligned(
    guides: Sequence[Volume], frames: Sequence[Volume], cache: VolumeCache, monitor: Monitor
) -> tuple[AlignedGuide, ...]:
    """Align the guides with the volume's grid, once for all frames and all runs over it."""
    from MedEnhanceLib.hqg.guide import align

    aligned = []
    for guide in guides:
        kept = next((before for of, before in cache.guides if of is guide), None)
        aligned.append(kept or align(guide, mean_frame(frames), monitor))
    cache.guides = tuple(zip(guides, aligned, strict=True))
    return tuple(aligned)


def _bias_field(volume: Volume, monitor: Monitor) -> BiasField:
    monitor.progress(0.9, "correcting the bias field (N4)")
    return attend(lambda: measure_bias_field(volume), monitor)


def _array(shape: tuple[int, ...], dtype: npt.DTypeLike, scratch: Path | None) -> Array:
    """Allocate an array for a result; a large one in a file in `scratch`, if given."""
    try:
        return empty(shape, np.dtype(dtype), scratch)
    except OSError as cause:
        raise output_error(scratch or Path(), cause) from cause


# --- one frame ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """A frame with what is done to it. strength: of its uncertainty. floor: of its result."""

    volume: Volume
    regions: ConstantRegions
    decision: Decision
    corrects_bias: bool
    strength: float
    floor: float
    network: NetworkStage | None
    engine: Engine
    scratch: Path | None
    monitor: Monitor

    def enhance(
        self,
        wanted: slice,
        bias_field: BiasField | None,
        out: Array,
        deviation: Floats | None,
    ) -> None:
        """Enhance some slices of the frame at strength 1.

        bias_field: of a sequence; that of a single volume is measured in its result.
        out: where they go, of the frame's type.
        deviation: where the deviation of their errors goes; None where it is not requested.
        """
        decision, count = self.decision, len(self.volume.voxels)

        def finish(values: Floats) -> Array:
            return restore_dtype(np.maximum(values, np.float32(self.floor)), out.dtype)

        if decision.blur is None and not self.corrects_bias and deviation is None:
            self._denoise(wanted, self.monitor, out=out, finish=finish)
            return
        # The deviation of a slice depends on its neighbors.
        around = slice(max(0, wanted.start - 1), min(count, wanted.stop + 1))
        around = around if decision.blur is None else slice(0, count)
        values = self._corrected(
            around, self.monitor.part(0.0, 0.9) if self.corrects_bias else self.monitor
        )
        if deviation is not None:
            expected_deviation(
                values, self.volume, decision.noise,
                share=decision.removal.share, strength=self.strength,
                first=around.start, only=wanted, out=deviation,
            )  # fmt: skip
        values = values[wanted.start - around.start : wanted.stop - around.start]
        for slab in slabs(values):
            np.maximum(slab, self.floor, out=slab, dtype=np.float32)
        if self.corrects_bias and bias_field is None:
            bias_field = _bias_field(self.volume.with_voxels(values), self.monitor)
        for part in parts_of(0, len(out)):
            result = values[part]
            if bias_field is not None:
                field, blended = bias_field[part], self.strength
                result = result / field
                if deviation is not None:
                    # The blend holds so much of the truth, which is no error.
                    deviation[part] /= field / (blended + (1 - blended) * field)
            out[part] = finish(result)
            let_go(values)
            let_go(out)

    def _corrected(self, part: slice, monitor: Monitor) -> Floats:
        """Remove noise and blur from some slices, float32."""
        blur, voxels = self.decision.blur, self.volume.voxels
        values = _array((part.stop - part.start, *voxels.shape[1:]), "f4", self.scratch)
        self._denoise(part, monitor if blur is None else monitor.part(0, 0.9), out=values)
        if blur is not None:
            left = self.decision.noise.level * self.decision.removal.share
            undo_blur(voxels, blur, noise=left, denoised=values, monitor=monitor)
        return values

    def _denoise(self, part: slice, monitor: Monitor, **where: Any) -> None:
        """Write some slices after filter and network to `where`."""
        removal = self.decision.removal
        denoise(
            self.volume, removal.noise, share=removal.share, regions=self.regions, only=part,
            network=self.network, engine=self.engine, monitor=monitor, **where,
        )  # fmt: skip
