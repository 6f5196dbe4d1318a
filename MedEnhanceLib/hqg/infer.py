"""Enhances a volume with a bundle.

decide (of the whole volume) → each frame: filter with its network → motion, look or blur → bias
field → rounding → blend at the strength

Slices are finished as they are computed, into the array of the result. Where a step needs the whole
result before that, it is in float32 meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.bundles.suitability import (
    anatomy_warning,
    messages_of,
    training_length_warning,
)
from MedEnhanceLib.core.manifest import UNCERTAINTY_MAP, corrections_in_words, derived_note
from MedEnhanceLib.core.slabs import empty, let_go, slabs, trim
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.appearance import Appearance, combine, measure_appearance
from MedEnhanceLib.hqg.bias_field import BiasField, measure_bias_field
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.decide import Decision, decide, mean_frame, measured_noise
from MedEnhanceLib.hqg.denoise import FITTED_ON, Finish, denoise, expected_deviation
from MedEnhanceLib.hqg.matching import match_appearance
from MedEnhanceLib.hqg.motion import undo_motion
from MedEnhanceLib.hqg.restore import NetworkStage, network_on
from MedEnhanceLib.hqg.sharpness import undo_blur
from MedEnhanceLib.hqg.strength import Enhancement
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.nets.grouped import Engine, engine_for
from MedEnhanceLib.nets.grouped_run import parts_of
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.noise import NoiseEstimate
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.guide import AlignedGuide

Floats = npt.NDArray[np.float32]
#: Of the brightest tissue; below it floors of the computation count as noise.
_LOWEST_TOP = 1e-4
#: Fewer patients as a look are announced.
_FEW_LOOKS = 5
_UNCERTAINTY_NOTE = derived_note(f"{UNCERTAINTY_MAP} (expected error, calibrated)")
_USE_NOTE = derived_note("how far guides changed each voxel, in σ of the noise, at most 1")


@without_tf32()
def enhance(
    volume: Volume,
    bundle: Bundle,
    config: EnhanceConfig,
    *,
    guides: Sequence[Volume],
    looks: Iterable[Volume] | None,
    frame: int | None,
    slices: tuple[int, int] | None,
    cache: VolumeCache | None,
    scratch: Path | None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, with a verified bundle, checked guides and checked looks."""
    began = time.monotonic()
    only = _chosen_slices(slices, volume, config)
    frames, cache = volume.frames(), cache or VolumeCache()
    original = volume if frame is None else volume.frame(frame)
    chosen = range(len(frames)) if frame is None else [frame]
    caches = [cache.of_frame(number) for number in range(len(frames))]
    if any(each.scaling is None for each in caches):
        refuse_not_finite(volume)
    _measure(frames, caches, chosen)  # of all frames before the first is enhanced
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    network = network_on(bundle, choice.name)
    decision = decide(
        frames, caches, config, chosen=chosen, is_preview=slices is not None, monitor=monitor
    )
    of_bundle = (training_length_warning(bundle), anatomy_warning(bundle, volume))
    warnings = tuple(warning for warning in of_bundle if warning) + decision.warnings
    for warning in warnings:
        monitor.warn(warning.text)
    # The look of a part depends on the whole: previews are without it.
    look = _measured_look(looks, monitor) if looks is not None and slices is None else None
    # One coil shades all frames alike, and frames divided by one field do not flicker.
    bias_field = None
    if decision.corrects_bias and len(frames) > 1:
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
    grid = original.crop(k=only)
    enhanced = _array(grid.shape, grid.dtype, scratch)
    deviation = _array(grid.shape, "f4", scratch) if config.uncertainty else None
    use = np.zeros(grid.shape, np.float32) if usable else None
    uses = []
    for done, number in enumerate(chosen):
        here = done if original.is_sequence else ()
        each, part = frames[number], monitor.part(done / len(chosen), (done + 1) / len(chosen))
        scaling = caches[number].scaling
        assert scaling is not None
        steps = _Steps(
            frame=each,
            noise=measured_noise(each, caches[number], part),
            decision=decision,
            look=look,
            finish=Finish(each.dtype, caches[number].floor),
            network=NetworkStage(network, choice.name, scaling.scale, usable),
            engine=engine_for(choice.name, part),
            scratch=scratch,
        )
        of_errors = deviation[here] if deviation is not None else None
        inner, field, facts = steps.run(only, bias_field, enhanced[here], of_errors, part)
        measured |= facts
        uses.append(steps.network.use)
        if use is not None and (changed := steps.network.use_map(inner)) is not None:
            use[here] = changed
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
    full = Enhancement(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=None
        if deviation is None
        else grid.with_voxels(deviation, did=_UNCERTAINTY_NOTE),
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        share=decision.share,
        uncertainty_facts=calibration if config.uncertainty else {},
        warnings=warnings,
        bias_field=field,
        measured=measured,
        noises=tuple(noise for n in chosen if (noise := caches[n].noise) is not None),
        first_slice=only.start,
        guide_use=None if use is None else grid.with_voxels(use, did=_USE_NOTE),
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


# --- before the first frame -----------------------------------------------------------------------


def _array(shape: tuple[int, ...], dtype: npt.DTypeLike, scratch: Path | None) -> npt.NDArray[Any]:
    """An array for a result; a large one in a file in `scratch`, if given."""
    try:
        return empty(shape, np.dtype(dtype), scratch)
    except OSError as cause:
        from MedEnhanceLib.io.atomic import output_error

        raise output_error(scratch or Path(), cause) from cause


def _chosen_slices(slices: tuple[int, int] | None, volume: Volume, config: EnhanceConfig) -> slice:
    count = volume.shape[-3]
    first, stop = slices or (0, count)
    if not 0 <= first < stop <= count:
        raise ConfigError(
            f"slices {first}:{stop} (stop excluded) of a volume that has {count}",
            f"Choose a first one and one to stop before, within 0 to {count}.",
        )
    if slices is not None and config.bias_correction == "n4":
        raise ConfigError(
            "N4 needs the whole volume, not some slices of it",
            "Leave the bias correction out here, or enhance the whole volume.",
        )
    return slice(first, stop)


def _measure(
    frames: Sequence[Volume], caches: Sequence[VolumeCache], chosen: Sequence[int]
) -> None:
    """Scaling and floor of each frame that is enhanced, into its cache.

    Raises InputError that names the frame where one shows nothing.
    """
    for number in chosen:
        frame, cache = frames[number], caches[number]
        if cache.scaling is not None:
            continue
        try:
            scaling = scaling_for(frame)
        except InputError as cause:
            if len(frames) == 1:
                raise
            raise InputError(
                f"{cause.message} in frame {number}", "Leave this frame out, or take one frame."
            ) from cause
        if scaling.scale < _LOWEST_TOP:
            raise InputError(
                f"{frame.source or 'volume'}: intensities up to {scaling.scale:.3g} are too "
                "small for the measure of the noise",
                "Multiply them, as by changing their unit.",
            )
        cache.scaling = scaling
        # Lower values are undershoot: magnitudes are not below 0 or the lowest of the input.
        if frame.modality != "CT":
            cache.floor = min(0.0, float(frame.voxels.min()))


def _measured_look(looks: Iterable[Volume], monitor: Monitor) -> Appearance:
    """The appearance of all looks, which need not be in memory at once."""
    appearance = combine([measure_appearance(look, monitor) for look in looks])
    if (count := len(appearance.patients)) < _FEW_LOOKS:
        monitor.warn(
            f"{count} patient{'s' if count > 1 else ''} as look: assumed representative of the "
            "kernel or scanner; five or more patients are safer"
        )
    return appearance


def _aligned(
    guides: Sequence[Volume], frames: Sequence[Volume], cache: VolumeCache, monitor: Monitor
) -> tuple[AlignedGuide, ...]:
    """The guides on the grid of the volume, aligned once for all frames and all runs over it."""
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


# --- one frame ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """What is done to a frame.

    Attributes:
        frame: [K, J, I].
        noise: as measured in it.
        decision: the same for all frames.
        look: the appearance that is wanted.
        finish: what makes voxels of its type.
        network: what goes on from the filter, with the guides.
        engine: of the filter.
        scratch: where large arrays go, if not into memory.
    """

    frame: Volume
    noise: NoiseEstimate
    decision: Decision
    look: Appearance | None
    finish: Finish
    network: NetworkStage
    engine: Engine
    scratch: Path | None

    def run(
        self,
        only: slice,
        bias_field: BiasField | None,
        out: npt.NDArray[Any],
        deviation: Floats | None,
        monitor: Monitor,
    ) -> tuple[slice, BiasField | None, dict[str, Any]]:
        """The frame at strength 1.

        Args:
            only: the slices that are wanted.
            bias_field: of a sequence; that of a single volume is measured in its result.
            out: where they go, of the frame's type.
            deviation: where the deviation of their errors goes; None where it is not requested.
            monitor: progress and cancelling.
        Returns:
            where `only` is in the slices that were denoised; the bias field that the result was
            divided by; what was found out on the way, for manifests.
        """
        decision, count = self.decision, len(self.frame.voxels)
        is_whole = any(step is not None for step in (decision.motion, self.look, decision.blur))
        if not (is_whole or decision.corrects_bias or deviation is not None):
            self._denoised(monitor, only=only, finish=self.finish, out=out)
            return slice(None), None, {}
        # The deviation of a slice depends on its neighbors.
        around = slice(max(0, only.start - 1), min(count, only.stop + 1))
        around = slice(0, count) if is_whole else around
        before = monitor.part(0.0, 0.9) if decision.corrects_bias else monitor
        facts: dict[str, Any] = {}
        if decision.motion is not None:
            values = self._without_motion(before)
        elif self.look is not None:
            matched, match = match_appearance(
                self.frame, self.look, denoise=lambda: self._denoised(before), monitor=before
            )
            values, facts = matched.voxels.astype(np.float32), {"look": match.facts()}
        elif decision.blur is not None:
            values = undo_blur(
                self.frame.voxels,
                decision.blur,
                noise=self.noise.level * decision.share,
                denoised=self._denoised(before.part(0, 0.9), only=around),
                monitor=before,
            )
        else:
            values = self._denoised(before, only=around)
        if deviation is not None:
            expected_deviation(
                values, self.frame, self.noise,
                share=decision.share, first=around.start, only=only, out=deviation,
            )  # fmt: skip
        inner = slice(only.start - around.start, only.stop - around.start)
        values = values[inner]
        for slab in slabs(values):
            np.maximum(slab, self.finish.floor, out=slab, dtype=np.float32)
        if decision.corrects_bias and bias_field is None:
            bias_field = _bias_field(self.frame.with_voxels(values), monitor)
        for part in parts_of(0, len(out)):
            result = values[part]
            if bias_field is not None:
                result = result / bias_field[part]
                if deviation is not None:
                    deviation[part] /= bias_field[part]
            out[part] = self.finish(result)
            let_go(values)
            let_go(out)
        return inner, bias_field, facts

    def _denoised(
        self,
        monitor: Monitor,
        *,
        only: slice | None = None,
        finish: Finish | None = None,
        out: npt.NDArray[Any] | None = None,
    ) -> Floats:
        """Some slices after filter and network, or all; in float32 where nothing finishes them."""
        if out is None:
            first, stop, _ = (only or slice(None)).indices(len(self.frame.voxels))
            out = _array((stop - first, *self.frame.shape[1:]), "f4", self.scratch)
        return denoise(
            self.frame,
            self.noise,
            share=self.decision.share,
            only=only,
            network=self.network,
            engine=self.engine,
            finish=finish,
            out=out,
            monitor=monitor,
        )

    def _without_motion(self, monitor: Monitor) -> Floats:
        """The frame without motion between its slices, denoised by the filter alone."""
        assert self.decision.motion is not None
        quiet = Monitor(cancel=lambda: monitor.cancelled)

        def filtered(voxels: Floats, sigma: float) -> Floats:
            """For a given σ instead of the measured one."""
            factor = np.float32(sigma / max(self.noise.level, 1e-6))
            louder = replace(self.noise, sigma=self.noise.sigma * factor, level=sigma, rician=False)
            volume = self.frame.with_voxels(voxels)
            return denoise(volume, louder, engine=self.engine, monitor=quiet)

        return undo_motion(
            self.frame.voxels,
            self.decision.motion,
            noise=self.noise.level,
            denoise=filtered,
            monitor=monitor,
        )
