"""Enhances a volume with a bundle.

decide (of the whole volume) → each frame: filter and its further steps, or the network, or both
→ bias field → restore_dtype → blend at the strength
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle, read_bundle
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
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.appearance import Appearance, measure_appearance
from MedEnhanceLib.hqg.bias_field import bias_field
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.chain import (
    N4_AS_ASKED,
    Chain,
    Decision,
    decide,
    mean_frame,
    measured_noise,
    run_chain,
    run_rounded,
    warn_of_few_looks,
)
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.denoise import FITTED_ON, expected_deviation
from MedEnhanceLib.hqg.predict import SliceRun, predict_slices
from MedEnhanceLib.hqg.strength import Enhancement
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.nets.grouped import engine_for
from MedEnhanceLib.nets.intensity import Scaling, scaling_for
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.slices import GRID, Plan, SliceStacks, stoppable
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]
#: Slices of a guide that its cue is the mean of.
_GUIDE_SLICES = 32
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
    guides: Sequence[Volume],  # noqa: ARG001 - of the next network
    look: Volume | Appearance | None,
    frame: int | None,
    slices: tuple[int, int] | None,
    cache: VolumeCache | None,
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
    # What a network learned from matters where it has a part in the result.
    model = _own_model(bundle) if bundle.network_runs else None
    warnings = _warnings(volume, bundle) if model else ()
    is_n4 = config.bias_correction == "n4"
    decision = Decision(1.0, corrects_shading=is_n4, facts=N4_AS_ASKED if is_n4 else {})
    if bundle.starts_grouped:
        decision = decide(
            frames, caches, config, chosen=chosen, is_preview=slices is not None, monitor=monitor
        )
    warnings += decision.warnings
    for warning in warnings:
        monitor.warn(warning.text)
    shading = None
    if decision.corrects_shading and len(frames) > 1:
        # One coil shades all frames alike, and frames divided by one field do not flicker.
        shading = attend(lambda: bias_field(mean_frame(frames)), monitor)
    steps = _Steps(bundle, config, decision, choice.name, shading=shading, only=only)
    if slices is None:
        steps = steps.looking_like(look, monitor)
    if model is not None:
        cue = model.bank.mean[None]
        if isinstance(look, Volume) and not bundle.starts_grouped:
            cue = encode_guide(look, model, monitor)
        steps = replace(steps, model=model, cue=cue)
    made = []
    for done, number in enumerate(chosen):
        part = monitor.part(done / len(chosen), (done + 1) / len(chosen))
        made.append(steps.run(frames[number], caches[number], part))
    measured = decision.facts | made[0].facts
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + corrections_in_words(measured)
        + (f" ({messages_of(warnings)})" if warnings else "")
    )
    enhanced = _joined(original, [each.voxels for each in made])
    assert enhanced is not None
    uncertainty = _joined(original, [each.deviation for each in made])
    grid = original.crop(k=only)
    facts = _uncertainty_facts(model, bundle, config)
    full = Enhancement(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=None
        if uncertainty is None
        else grid.with_voxels(uncertainty, did=_uncertainty_note(facts)),
        model=bundle.identity(is_learned=model is not None),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        share=decision.share,
        uncertainty_facts=facts,
        warnings=warnings,
        shading=made[0].shading,
        measured=measured,
        noises=tuple(noise for n in chosen if (noise := caches[n].noise) is not None),
        first_slice=only.start,
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


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


@lru_cache(maxsize=4)
def _warm_enhancer(folder: Path, sha256: str, described: str) -> EnhancerModel:  # noqa: ARG001
    """Models stay loaded between jobs of one process; other weights have another hash.

    Never run, nor moved to a device: jobs of several threads share it. described: all metadata, as
    the calibration may be new where the weights are not.
    """
    return open_enhancer(read_bundle(folder, expected_sha256=sha256))


def _own_model(bundle: Bundle) -> EnhancerModel:
    """The networks of a bundle for one run, which may move them and put hooks on them."""
    described = json.dumps(bundle.metadata, sort_keys=True, default=str)
    kept = _warm_enhancer(bundle.folder, bundle.sha256, described)
    return replace(kept, enhancer=copy.deepcopy(kept.enhancer), guide=copy.deepcopy(kept.guide))


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


def encode_guide(
    guide: Volume,
    model: EnhancerModel,
    monitor: Monitor | None = None,
    cache: VolumeCache | None = None,
) -> Tensor:
    """Reduce a high-quality volume to its cue.

    Source: arXiv 2307.07829; the mean over slices is our reconstruction.

    Args:
        guide: a volume that `check_guide` accepts, on any grid.
        model: whose guidance encoder sees it.
        monitor: a safe point for cancelling before each slice.
        cache: of the guide, from which a known cue is taken.

    Returns:
        [1, cue_size]: the mean over up to 32 slices.
    """
    cues = (cache or VolumeCache()).cues
    sha256 = model.bundle.sha256
    if sha256 not in cues:
        stacks = SliceStacks(guide.voxels, scaling_for(guide), context=0)
        means = []
        with torch.inference_mode():
            for center in stacks.informative(_GUIDE_SLICES):
                if monitor is not None:
                    monitor.check()
                means.append(_cue_mean(model, stacks.take(np.array([center]))))
            cues[sha256] = torch.cat(means).mean(dim=0, keepdim=True)
    return cues[sha256]


def _cue_mean(model: EnhancerModel, slices: Tensor) -> Tensor:
    mean: Tensor = model.guide(slices).mean
    return mean


@dataclass(frozen=True)
class _Made:
    """What came of one frame.

    Attributes:
        voxels: at strength 1, in the type of the frame.
        deviation: of their errors, in the units of the frame; None where it is not requested.
        shading: the bias field that they were divided by; None where none was corrected.
        facts: what was found out on the way, for manifests.
    """

    voxels: npt.NDArray[Any]
    deviation: Floats | None = None
    shading: Floats | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Steps:
    """What is done to each frame.

    Attributes:
        bundle: of the network, if one runs.
        config: how it is enhanced.
        decision: what is done, the same for all frames.
        device: as torch names it.
        only: the slices that are wanted.
        shading: the bias field of a sequence; of a single volume it comes from its result.
        wanted: the appearance that a look shows.
        model: the network; None where the filter makes all of the result.
        cue: of the network, [1, cue_size].
    """

    bundle: Bundle
    config: EnhanceConfig
    decision: Decision
    device: str
    only: slice
    shading: Floats | None = None
    wanted: Appearance | None = None
    model: EnhancerModel | None = None
    cue: Tensor | None = None

    def looking_like(self, look: Volume | Appearance | None, monitor: Monitor) -> _Steps:
        """With the appearance of a look, measured once for all frames."""
        if look is None or not self.bundle.starts_grouped:
            return self
        wanted = measure_appearance(look, monitor) if isinstance(look, Volume) else look
        warn_of_few_looks(wanted, monitor)
        return replace(self, wanted=wanted)

    def run(self, frame: Volume, known: VolumeCache, monitor: Monitor) -> _Made:
        """One frame at strength 1."""
        chain = None
        if self.bundle.starts_grouped:
            engine, noise = engine_for(self.device, monitor), measured_noise(frame, known, monitor)
            chain = Chain(frame, noise, self.decision, wanted=self.wanted, engine=engine)
        corrects, wants_map = self.decision.corrects_shading, self.config.uncertainty
        if chain is not None and self.model is None and not (corrects or wants_map):
            rounded = run_rounded(chain, self.only, known.floor, monitor)
            if rounded is not None:
                return _Made(rounded)
        part = monitor.part(0.0, 0.9) if corrects else monitor
        output, deviation, found = self._enhanced(frame, known, chain, part)
        np.maximum(output, known.floor, out=output, dtype=np.float32)
        shading = self.shading
        if corrects:
            monitor.progress(0.9, "correcting shading (N4)")
            if shading is None:
                corrected = frame.with_voxels(output)
                shading = attend(lambda: bias_field(corrected), monitor)
            output /= shading
            np.maximum(output, known.floor, out=output, dtype=np.float32)
            if deviation is not None:
                deviation /= shading
        return _Made(restore_dtype(output, frame.dtype), deviation, shading, found)

    def _enhanced(
        self, frame: Volume, known: VolumeCache, chain: Chain | None, monitor: Monitor
    ) -> tuple[Floats, Floats | None, dict[str, Any]]:
        """The wanted slices in float32, how far they may be off, and facts."""
        if self.model is None:
            assert chain is not None
            made, facts = run_chain(chain, self.only, monitor)
            output = made[self.only] if chain.needs_whole else made
            by_filter, deviation = self.config.uncertainty, None
        else:
            output, deviation, facts = self._by_network(frame, known, chain, monitor)
            by_filter = self.config.uncertainty and deviation is None
        if by_filter:
            assert chain is not None
            deviation = self._deviation_of_filter(output, chain)
        return output, deviation, facts

    def _deviation_of_filter(self, output: Floats, chain: Chain) -> Floats:
        deviation = np.empty(output.shape, np.float32)
        for first in range(0, len(output), _SLICES_AT_ONCE):
            part = slice(first, min(first + _SLICES_AT_ONCE, len(output)))
            where = slice(self.only.start + part.start, self.only.start + part.stop)
            deviation[part] = expected_deviation(
                output[part], chain.frame, chain.noise, share=self.decision.share, where=where
            )
        return deviation

    def _by_network(
        self, frame: Volume, known: VolumeCache, chain: Chain | None, monitor: Monitor
    ) -> tuple[Floats, Floats | None, dict[str, Any]]:
        """The same; no deviation where the network does not say it."""
        model, config = self.model, self.config
        assert model is not None
        assert self.cue is not None
        assert known.scaling is not None
        plan = Plan.make(self.device, batch=config.batch, tile=config.tile, overlap=config.overlap)
        stacks = SliceStacks(frame.voxels, known.scaling, model.config.context)
        run = SliceRun(model, stacks, self.cue, plan, self.only, known)
        facts: dict[str, Any] = {}
        if chain is not None:
            needed = run.all_slices if chain.needs_whole else _needed(run)
            made, facts = run_chain(chain, needed, monitor.part(0.0, 0.5))
            run = replace(run, start=_padded(made, needed, stacks))
            monitor = monitor.part(0.5, 1.0)
        wants_error = config.uncertainty and self.bundle.expects_error
        output = np.empty(frame.voxels[self.only].shape, np.float32)
        deviation = np.empty(output.shape, np.float32) if wants_error else None
        with torch.inference_mode(), stoppable(model.enhancer, monitor):
            for where, scaled, error in predict_slices(run, monitor, wants_error=wants_error):
                inside = slice(where.start - self.only.start, where.stop - self.only.start)
                output[inside] = known.scaling.undo(scaled)
                if deviation is not None and error is not None:
                    deviation[inside] = model.calibration(error)
        if deviation is not None:
            deviation *= np.float32(known.scaling.scale)
        return output, deviation, facts


def _padded(made: Floats, needed: slice, stacks: SliceStacks) -> SliceStacks:
    """What the filter made of the needed slices, as the network starts from it."""
    depth, rows, columns = stacks.voxels.shape
    scaled = np.zeros((depth, rows + -rows % GRID, columns + -columns % GRID), np.float32)
    margins = ((0, 0), (0, -rows % GRID), (0, -columns % GRID))
    scaled[needed] = np.pad(stacks.scaling.apply(made), margins, mode="edge")
    return SliceStacks(scaled, Scaling(0.0, 1.0), stacks.context)


def _needed(run: SliceRun) -> slice:
    """The slices of the start that the wanted slices depend on."""
    # Whole chunks: the other slices of a chunk enter the network too and have to be images.
    reach, size = run.model.config.context, run.plan.suited(*run.stacks.voxels.shape[1:]).slices
    first = max(0, run.only.start - reach) // size * size
    return slice(first, min(len(run.stacks), -(-(run.only.stop + reach) // size) * size))


def _joined(volume: Volume, frames: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    arrays = [frame for frame in frames if frame is not None]
    if not arrays:
        return None
    return np.stack(arrays) if volume.is_sequence else arrays[0]


def _uncertainty_facts(
    model: EnhancerModel | None, bundle: Bundle, config: EnhanceConfig
) -> dict[str, Any]:
    if not config.uncertainty:
        return {}
    if model is not None and bundle.expects_error:
        return {"calibration": model.calibration.identity()}
    fitted_on = FITTED_ON[bundle.modality]
    if model is not None:
        fitted_on += ", for the filter alone, without what the network changes"
    return {"calibration": {"fitted_on": fitted_on}}


def _uncertainty_note(facts: dict[str, Any]) -> str:
    state = "calibrated" if facts["calibration"] else "not calibrated"
    return derived_note(f"{UNCERTAINTY_MAP} (expected error, {state})")
