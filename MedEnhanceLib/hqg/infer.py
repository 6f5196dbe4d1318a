"""Enhances a volume with a bundle.

decide (of the whole volume) → each frame: filter with its network and further steps → bias field
→ rounding → blend at the strength

Slices are rounded as they are computed, into the array of the result. Where a step needs the whole
result before that, it is in float32 meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.bundles.suitability import (
    PIXEL_SPACING,
    ModelWarning,
    anatomy_warning,
    messages_of,
    pixel_size_warning,
    segmenter_warning,
    training_length_warning,
)
from MedEnhanceLib.core.manifest import UNCERTAINTY_MAP, corrections_in_words, derived_note
from MedEnhanceLib.core.slabs import empty, let_go, slabs, trim
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.appearance import Appearance, measure_appearance
from MedEnhanceLib.hqg.bias_field import BiasField, bias_field
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.chain import (
    Chain,
    Decision,
    decide,
    mean_frame,
    measured_noise,
    run_chain,
    warn_of_few_looks,
)
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.denoise import FITTED_ON, Rounding, expected_deviation
from MedEnhanceLib.hqg.restore import NetworkFilter, NetworkStage
from MedEnhanceLib.hqg.strength import Enhancement
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.nets.grouped import engine_for
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.guide import AlignedGuide

Floats = npt.NDArray[np.float32]
#: Slices whose expected deviation is computed at once.
_SLICES_AT_ONCE = 16
#: Of the brightest tissue; below it floors of the computation count as noise.
_LOWEST_TOP = 1e-4


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
    if any(known.scaling is None for known in caches):
        refuse_not_finite(volume)
    _measure(frames, caches, chosen)  # of all frames before the first is enhanced
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    network = NetworkFilter.open(bundle, choice.name)
    decision = decide(
        frames, caches, config, chosen=chosen, is_preview=slices is not None, monitor=monitor
    )
    warnings = _warnings(volume, bundle) + decision.warnings
    for warning in warnings:
        monitor.warn(warning.text)
    steps = _Steps(
        config,
        decision,
        choice.name,
        only,
        shading=_shading_of_all(frames, decision, monitor),
        # The look of a part depends on the whole: previews are without it.
        wanted=_wanted(look, monitor) if look is not None and slices is None else None,
        network=network,
        guides=_aligned(guides, frames, cache, monitor),
        scratch=scratch,
    )
    # What was measured took memory that is not needed again.
    let_go(volume.voxels)
    trim()
    grid = original.crop(k=only)
    enhanced, made = _room_for(grid.shape, grid.dtype, scratch), []
    for done, number in enumerate(chosen):
        part = monitor.part(done / len(chosen), (done + 1) / len(chosen))
        out = enhanced[done] if original.is_sequence else enhanced
        made.append(steps.run(frames[number], caches[number], out, part))
    measured = decision.facts | made[0].facts
    if guides:
        measured["guide"] = {
            "used": round(float(np.mean([each.use for each in made])), 4),
            "series": [aligned.facts for aligned in steps.guides],
        }
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + corrections_in_words(measured)
        + (f" ({messages_of(warnings)})" if warnings else "")
    )
    uncertainty = _joined(original, [each.deviation for each in made])
    use = _joined(original, [each.use_map for each in made])
    full = Enhancement(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=None
        if uncertainty is None
        else grid.with_voxels(uncertainty, did=_UNCERTAINTY_NOTE),
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        share=decision.share,
        uncertainty_facts={"calibration": {"fitted_on": FITTED_ON[bundle.modality]}}
        if config.uncertainty
        else {},
        warnings=warnings,
        shading=made[0].shading,
        measured=measured,
        noises=tuple(noise for n in chosen if (noise := caches[n].noise) is not None),
        first_slice=only.start,
        guide_use=None if use is None else grid.with_voxels(use, did=_USE_NOTE),
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


def _room_for(
    shape: tuple[int, ...], dtype: npt.DTypeLike, scratch: Path | None
) -> npt.NDArray[Any]:
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
        frame, known = frames[number], caches[number]
        if known.scaling is not None:
            continue
        try:
            known.scaling = scaling_for(frame)
            if known.scaling.scale < _LOWEST_TOP:
                raise InputError(
                    f"{frame.source or 'volume'}: intensities up to {known.scaling.scale:.3g} "
                    "are too small for the measure of the noise",
                    "Multiply them, as by changing their unit.",
                )
        except InputError as cause:
            known.scaling = None
            if len(frames) == 1:
                raise
            raise InputError(
                f"{cause.message} in frame {number}", "Leave this frame out, or take one frame."
            ) from cause
        # Lower values are undershoot: magnitudes are not below 0 or the lowest of the input.
        if frame.modality != "CT":
            known.floor = min(0.0, float(frame.voxels.min()))


def _warnings(volume: Volume, bundle: Bundle) -> tuple[ModelWarning, ...]:
    trained_mm = bundle.metadata.get(PIXEL_SPACING)
    di, dj, _ = volume.geometry.spacing
    warnings = (
        training_length_warning(bundle),
        segmenter_warning(bundle),
        anatomy_warning(bundle, volume),
        pixel_size_warning(bundle.name, float(trained_mm), (di, dj)) if trained_mm else None,
    )
    return tuple(warning for warning in warnings if warning)


def _shading_of_all(
    frames: Sequence[Volume], decision: Decision, monitor: Monitor
) -> BiasField | None:
    """The bias field of a sequence; None where there is none, or one that its result shows."""
    if len(frames) == 1 or not decision.corrects_shading:
        return None
    # One coil shades all frames alike, and frames divided by one field do not flicker.
    return attend(lambda: bias_field(mean_frame(frames)), monitor)


def _wanted(look: Volume | Appearance, monitor: Monitor) -> Appearance:
    """The appearance of a look, measured once for all frames."""
    wanted = measure_appearance(look, monitor) if isinstance(look, Volume) else look
    warn_of_few_looks(wanted, monitor)
    return wanted


def _aligned(
    guides: Sequence[Volume],
    frames: Sequence[Volume],
    cache: VolumeCache,
    monitor: Monitor,
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


@dataclass(frozen=True)
class _Made:
    """What came of one frame.

    Attributes:
        deviation: of the errors of its voxels, in its units; None where it is not requested.
        shading: the bias field that it was divided by; None where none was corrected.
        facts: what was found out on the way, for manifests.
        use: how far guides changed it, in σ of the noise.
        use_map: the same at each voxel, at most 1; None without guides.
    """

    deviation: Floats | None = None
    shading: BiasField | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    use: float = 0.0
    use_map: Floats | None = None


@dataclass(frozen=True)
class _Steps:
    """What is done to each frame.

    Attributes:
        config: how it is enhanced.
        decision: what is done, the same for all frames.
        device: as torch names it.
        only: the slices that are wanted.
        shading: the bias field of a sequence; of a single volume it comes from its result.
        wanted: the appearance that a look shows.
        network: what goes on from the filter.
        guides: other series of the examination on the grid of the frames.
        scratch: where large arrays go, if not into memory.
    """

    config: EnhanceConfig
    decision: Decision
    device: str
    only: slice
    shading: BiasField | None
    wanted: Appearance | None
    network: NetworkFilter
    guides: Sequence[AlignedGuide]
    scratch: Path | None

    def run(
        self, frame: Volume, known: VolumeCache, out: npt.NDArray[Any], monitor: Monitor
    ) -> _Made:
        """One frame at strength 1; its voxels go into `out`, of the frame's type."""
        assert known.scaling is not None
        shown = [aligned.voxels for aligned in self.guides if aligned.is_usable]
        network = NetworkStage(self.network, known.scaling.scale, shown)
        noise = measured_noise(frame, known, monitor)
        engine = engine_for(self.device, monitor)
        chain = Chain(frame, noise, self.decision, self.wanted, engine, network)
        rounding = Rounding(frame.dtype, known.floor)
        corrects, wants_map = self.decision.corrects_shading, self.config.uncertainty
        if not (chain.needs_whole or corrects or wants_map):
            run_chain(chain, self.only, monitor, rounding=rounding, out=out)
            return _Made(use=network.use, use_map=_use_map(network, slice(None), out.shape))
        around = self._around(frame) if wants_map else self.only
        if chain.needs_whole:
            around = slice(0, len(frame.voxels))
        room = self._floats(around, frame)
        before = monitor.part(0.0, 0.9) if corrects else monitor
        made, facts = run_chain(chain, around, before, out=room)
        deviation = self._deviation(made, around, chain) if wants_map else None
        inner = slice(self.only.start - around.start, self.only.stop - around.start)
        output = made[inner]
        for part in slabs(output):
            np.maximum(part, known.floor, out=part, dtype=np.float32)
        shading = self.shading
        if corrects and shading is None:
            monitor.progress(0.9, "correcting shading (N4)")
            corrected = frame.with_voxels(output)
            shading = attend(lambda: bias_field(corrected), monitor)
        for first in range(0, len(output), _SLICES_AT_ONCE):
            here = slice(first, min(first + _SLICES_AT_ONCE, len(output)))
            values: Floats = output[here]
            if corrects and shading is not None:
                field = shading[here]
                values = values / field
                if deviation is not None:
                    deviation[here] /= field
            out[here] = rounding(values)
            let_go(output)
            let_go(out)
        use_map = _use_map(network, inner, output.shape)
        return _Made(deviation, shading, facts, network.use, use_map)

    def _floats(self, slices: slice, frame: Volume) -> Floats:
        """An array for some slices in float32."""
        shape = (slices.stop - slices.start, *frame.shape[1:])
        return _room_for(shape, np.float32, self.scratch)

    def _around(self, frame: Volume) -> slice:
        """The wanted slices with a neighbor on each side, on which their deviation depends."""
        return slice(max(0, self.only.start - 1), min(len(frame.voxels), self.only.stop + 1))

    def _deviation(self, made: Floats, around: slice, chain: Chain) -> Floats:
        """How far the wanted slices may be off, in the units of the frame.

        made: the result, in the slices `around`.
        """
        wanted = self.only
        deviation = self._floats(wanted, chain.frame)
        for first in range(wanted.start, wanted.stop, _SLICES_AT_ONCE):
            last = min(first + _SLICES_AT_ONCE, wanted.stop)
            where = slice(max(around.start, first - 1), min(around.stop, last + 1))
            part = expected_deviation(
                made[where.start - around.start : where.stop - around.start],
                chain.frame,
                chain.noise,
                share=self.decision.share,
                where=where,
            )
            deviation[first - wanted.start : last - wanted.start] = part[
                first - where.start : last - where.start
            ]
        return deviation


def _use_map(network: NetworkStage, part: slice, shape: tuple[int, ...]) -> Floats | None:
    """How far guides changed each voxel; nothing where there was no noise to remove."""
    made = network.use_map(part)
    return np.zeros(shape, np.float32) if made is None and network.guides else made


def _joined(volume: Volume, frames: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    arrays = [frame for frame in frames if frame is not None]
    if not arrays:
        return None
    return np.stack(arrays) if volume.is_sequence else arrays[0]


_UNCERTAINTY_NOTE = derived_note(f"{UNCERTAINTY_MAP} (expected error, calibrated)")
_USE_NOTE = derived_note("how far guides changed each voxel, in σ of the noise, at most 1")
