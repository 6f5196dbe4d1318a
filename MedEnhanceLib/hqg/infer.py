"""Enhances a volume with a bundle.

decide (of the whole volume) → each frame: filter with its network → motion, look or blur → bias
field → rounding → blend at the strength

Slices are finished as they are computed, into the array of the result. Where a step needs the whole
result before that, it is in float32 meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from MedEnhanceLib.hqg.appearance import Appearance, measure_appearance
from MedEnhanceLib.hqg.bias_field import BiasField, measure_bias_field
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.decide import Decision, decide, mean_frame, measured_noise
from MedEnhanceLib.hqg.denoise import FITTED_ON, Finish, denoise, expected_deviation
from MedEnhanceLib.hqg.groups import GuidedNetwork
from MedEnhanceLib.hqg.matching import match_appearance
from MedEnhanceLib.hqg.motion import undo_motion
from MedEnhanceLib.hqg.restore import NetworkStage, network_on
from MedEnhanceLib.hqg.sharpness import undo_blur
from MedEnhanceLib.hqg.strength import Enhancement
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.nets.grouped import engine_for
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
    look: Volume | Appearance | None,
    frame: int | None,
    slices: tuple[int, int] | None,
    cache: VolumeCache | None,
    scratch: Path | None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, with a verified bundle, checked guides and a checked look."""
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
    steps = _Steps(
        decision=decision,
        only=only,
        has_uncertainty=config.uncertainty,
        # The look of a part depends on the whole: previews are without it.
        look=_measured_look(look, monitor) if look is not None and slices is None else None,
        # One coil shades all frames alike, and frames divided by one field do not flicker.
        bias_field=_bias_field(mean_frame(frames), monitor)
        if decision.corrects_bias and len(frames) > 1
        else None,
        network=network,
        device=choice.name,
        guides=_aligned(guides, frames, cache, monitor),
        scratch=scratch,
    )
    # What was measured took memory that is not needed again.
    let_go(volume.voxels)
    trim()
    grid = original.crop(k=only)
    enhanced, results = _array(grid.shape, grid.dtype, scratch), []
    for done, number in enumerate(chosen):
        part = monitor.part(done / len(chosen), (done + 1) / len(chosen))
        out = enhanced[done] if original.is_sequence else enhanced
        results.append(steps.run(frames[number], caches[number], out, part))
    measured = decision.facts | results[0].facts
    if guides:
        measured["guide"] = {
            "used": round(float(np.mean([result.use for result in results])), 4),
            "series": [aligned.facts for aligned in steps.guides],
        }
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + corrections_in_words(measured)
        + (f" ({messages_of(warnings)})" if warnings else "")
    )

    def joined(maps: Sequence[Floats | None], did: str) -> Volume | None:
        """Maps of all frames as a volume; None where they were not made."""
        arrays = [each for each in maps if each is not None]
        if not arrays:
            return None
        return grid.with_voxels(np.stack(arrays) if original.is_sequence else arrays[0], did=did)

    full = Enhancement(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=joined([result.deviation for result in results], _UNCERTAINTY_NOTE),
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        share=decision.share,
        uncertainty_facts={"calibration": {"fitted_on": FITTED_ON[bundle.modality]}}
        if config.uncertainty
        else {},
        warnings=warnings,
        bias_field=results[0].bias_field,
        measured=measured,
        noises=tuple(noise for n in chosen if (noise := caches[n].noise) is not None),
        first_slice=only.start,
        guide_use=joined([result.use_map for result in results], _USE_NOTE),
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


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
            f"slices {first} to before {stop} of a volume that has {count}",
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
            if scaling.scale < _LOWEST_TOP:
                raise InputError(
                    f"{frame.source or 'volume'}: intensities up to {scaling.scale:.3g} "
                    "are too small for the measure of the noise",
                    "Multiply them, as by changing their unit.",
                )
        except InputError as cause:
            if len(frames) == 1:
                raise
            raise InputError(
                f"{cause.message} in frame {number}", "Leave this frame out, or take one frame."
            ) from cause
        cache.scaling = scaling
        # Lower values are undershoot: magnitudes are not below 0 or the lowest of the input.
        if frame.modality != "CT":
            cache.floor = min(0.0, float(frame.voxels.min()))


def _measured_look(look: Volume | Appearance, monitor: Monitor) -> Appearance:
    """The appearance of a look, measured once for all frames."""
    appearance = measure_appearance(look, monitor) if isinstance(look, Volume) else look
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
    if not guides:
        return ()
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


def _use_map(network: NetworkStage, part: slice, shape: tuple[int, ...]) -> Floats | None:
    """How far guides changed each voxel; nothing where there was no noise to remove."""
    made = network.use_map(part)
    return np.zeros(shape, np.float32) if made is None and network.guides else made


@dataclass(frozen=True)
class _FrameResult:
    """What came of one frame beside its voxels.

    Attributes:
        deviation: of the errors of its voxels, in its units; None where it is not requested.
        facts: what was found out on the way, for manifests.
        bias_field: that it was divided by; None where none was corrected.
        use: how far guides changed it, in σ of the noise.
        use_map: the same at each voxel, at most 1; None without guides.
    """

    deviation: Floats | None
    facts: dict[str, Any]
    bias_field: BiasField | None
    use: float
    use_map: Floats | None


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """What is done to each frame.

    Attributes:
        decision: the same for all frames.
        only: the slices that are wanted.
        has_uncertainty: whether the deviation of the errors is estimated.
        look: the appearance that is wanted.
        bias_field: of a sequence; that of a single volume is measured in its result.
        network: what goes on from the filter, on its device.
        device: as torch names it.
        guides: other series of the examination on the grid of the frames.
        scratch: where large arrays go, if not into memory.
    """

    decision: Decision
    only: slice
    has_uncertainty: bool
    look: Appearance | None
    bias_field: BiasField | None
    network: GuidedNetwork
    device: str
    guides: Sequence[AlignedGuide]
    scratch: Path | None

    def run(
        self, frame: Volume, cache: VolumeCache, out: npt.NDArray[Any], monitor: Monitor
    ) -> _FrameResult:
        """One frame at strength 1; its voxels go into `out`, of the frame's type."""
        assert cache.scaling is not None
        guides = [aligned.voxels for aligned in self.guides if aligned.is_usable]
        network = NetworkStage(self.network, self.device, cache.scaling.scale, guides)
        noise = measured_noise(frame, cache, monitor)
        engine = engine_for(self.device, monitor)
        decision, only = self.decision, self.only
        denoised = partial(
            denoise, frame, noise, share=decision.share, network=network, engine=engine
        )
        finish = Finish(frame.dtype, cache.floor)
        is_whole = any(step is not None for step in (decision.motion, self.look, decision.blur))
        if not (is_whole or decision.corrects_bias or self.has_uncertainty):
            denoised(only=only, finish=finish, out=out, monitor=monitor)
            use_map = _use_map(network, slice(None), out.shape)
            return _FrameResult(None, {}, None, network.use, use_map)
        # The deviation of a slice depends on its neighbors.
        around = slice(max(0, only.start - 1), min(len(frame.voxels), only.stop + 1))
        before = monitor.part(0.0, 0.9) if decision.corrects_bias else monitor
        facts: dict[str, Any] = {}
        if is_whole:
            around = slice(0, len(frame.voxels))
            values, facts = self._whole(frame, noise, denoised, before)
        else:
            room = _array((around.stop - around.start, *frame.shape[1:]), "f4", self.scratch)
            values = denoised(only=around, out=room, monitor=before)
        deviation: Floats | None = None
        if self.has_uncertainty:
            deviation = _array(out.shape, "f4", self.scratch)
            expected_deviation(
                values, frame, noise,
                share=decision.share, first=around.start, only=only, out=deviation,
            )  # fmt: skip
        inner = slice(only.start - around.start, only.stop - around.start)
        values = values[inner]
        for slab in slabs(values):
            np.maximum(slab, cache.floor, out=slab, dtype=np.float32)
        bias_field = self.bias_field
        if decision.corrects_bias and bias_field is None:
            bias_field = _bias_field(frame.with_voxels(values), monitor)
        for part in parts_of(0, len(out)):
            result = values[part]
            if bias_field is not None:
                result = result / bias_field[part]
                if deviation is not None:
                    deviation[part] /= bias_field[part]
            out[part] = finish(result)
            let_go(values)
            let_go(out)
        use_map = _use_map(network, inner, out.shape)
        return _FrameResult(deviation, facts, bias_field, network.use, use_map)

    def _whole(
        self, frame: Volume, noise: NoiseEstimate, denoised: partial[Any], monitor: Monitor
    ) -> tuple[Floats, dict[str, Any]]:
        """The result of a step of which each part depends on the whole frame, and its facts."""
        decision = self.decision
        if decision.motion is not None:

            def at_level(voxels: Floats, sigma: float) -> Floats:
                """The filter alone, for a given σ instead of the measured one."""
                factor = np.float32(sigma / max(noise.level, 1e-6))
                louder = replace(noise, sigma=noise.sigma * factor, level=sigma, rician=False)
                quiet = Monitor(cancel=lambda: monitor.cancelled)
                engine = denoised.keywords["engine"]
                return denoise(frame.with_voxels(voxels), louder, engine=engine, monitor=quiet)

            still = undo_motion(
                frame.voxels,
                decision.motion,
                noise=noise.level,
                denoise=at_level,
                monitor=monitor,
            )
            return still, {}
        if self.look is not None:
            matched, match = match_appearance(
                frame,
                self.look,
                denoise=lambda: denoised(monitor=monitor),
                monitor=monitor,
            )
            return matched.voxels.astype(np.float32), {"look": match.facts()}
        assert decision.blur is not None
        sharp = undo_blur(
            frame.voxels,
            decision.blur,
            noise=noise.level * decision.share,
            denoised=denoised(
                out=_array(frame.shape, "f4", self.scratch), monitor=monitor.part(0, 0.9)
            ),
            monitor=monitor,
        )
        return sharp, {}
