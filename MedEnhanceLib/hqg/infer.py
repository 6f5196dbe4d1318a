"""Enhances a volume with a trained bundle.

scaling_for → encode_guide → predict_oriented → (bias_field) → restore_dtype
→ (spread_of_samples → calibration) → blend at the strength
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from MedEnhanceLib.hqg.bundle import EnhancerModel, check_deblurring, open_enhancer
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.chain import Chain, plan_chain, run_chain, run_rounded
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.denoise import FITTED_ON, expected_deviation
from MedEnhanceLib.hqg.predict import SliceRun, predict_oriented, shrunk
from MedEnhanceLib.hqg.range import Verdict
from MedEnhanceLib.hqg.strength import Enhancement, lowest_value
from MedEnhanceLib.hqg.uncertainty import raw_deviation, spread_of_samples
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.nets.grouped import engine_for
from MedEnhanceLib.nets.intensity import Scaling, scaling_for
from MedEnhanceLib.nets.precision import move, without_tf32
from MedEnhanceLib.nets.slices import GRID, Plan, SliceStacks, stoppable
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]
#: Slices of a guide that its cue is the mean of.
_GUIDE_SLICES = 32
#: Slices that leave the filter at once.
_SLICES_AT_ONCE = 16
#: Of the brightest tissue; below it floors of the computation count as noise.
_LOWEST_TOP = 1e-4


@without_tf32()
def enhance(
    volume: Volume,
    bundle: Bundle,
    config: EnhanceConfig,
    *,
    guide: Volume | Appearance | None,
    slices: tuple[int, int] | None,
    cache: VolumeCache | None,
    guide_cache: VolumeCache | None,
    monitor: Monitor,
) -> Enhancement:
    """As `hqg.enhance`, with a verified bundle and a checked guide."""
    began = time.monotonic()
    only = _chosen_slices(slices, volume, config)
    if config.deblur:
        check_deblurring(bundle)
    if cache is None or volume.is_sequence or cache.scaling is None:
        refuse_not_finite(volume)
    frames = volume.frames()
    caches = _measured(volume, cache)  # of all frames before the first is enhanced
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    described = json.dumps(bundle.metadata, sort_keys=True, default=str)
    model = _warm_enhancer(bundle.folder, bundle.sha256, described)
    move(model.guide, "cpu")
    # What a network learned from matters where it has a part in the result.
    is_learned = _network_runs(model, config)
    verdict = model.compare(frames[0], caches[0]) if is_learned else None
    warnings = _warnings(volume, bundle, verdict) if is_learned else ()
    for warning in warnings:
        monitor.warn(warning.text)
    if is_learned and verdict is None:
        monitor.log(f"{bundle.name} cannot check whether the volume resembles its training data")
    cue = model.bank.mean[None]
    if isinstance(guide, Volume) and not bundle.starts_grouped:
        cue = encode_guide(guide, model, monitor, guide_cache)
    if config.deblur:
        cue = model.guide.asking(cue, torch.ones(1))
    chains: list[Chain | None] = [None] * len(frames)
    is_looked_at = config.guide_use == "appearance" and slices is None
    if bundle.starts_grouped and isinstance(guide, Volume) and is_looked_at:
        guide = measure_appearance(guide, monitor)  # once for all frames
    if bundle.starts_grouped:
        engine = engine_for(choice.name, monitor)
        chains = [
            plan_chain(
                frame,
                known,
                config,
                guide=guide,
                is_preview=slices is not None,
                engine=engine,
                monitor=monitor,
            )
            for frame, known in zip(frames, caches, strict=True)
        ]
    plan = Plan.make(choice.name, batch=config.batch, tile=config.tile, overlap=config.overlap)
    results = []
    for number, (frame, known, chain) in enumerate(zip(frames, caches, chains, strict=True)):
        assert known.scaling is not None
        stacks = SliceStacks(frame.voxels, known.scaling, model.config.context)
        run = SliceRun(model, stacks, cue, plan, only, known)
        part = monitor.part(number / len(frames), (number + 1) / len(frames))
        results.append(_enhance_frame(frame, run, chain, config, part))
    measured = chains[0].facts if chains[0] is not None else {}
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + (", blur undone" if config.deblur else "")
        + corrections_in_words(measured)
        + (f", mean of {config.orientations} orientations" if config.orientations > 1 else "")
        + (f" ({messages_of(warnings)})" if warnings else "")
    )
    enhanced, uncertainty, shading = (
        _joined(volume, [result[which] for result in results]) for which in (0, 1, 2)
    )
    assert enhanced is not None
    grid = volume.crop(k=slice(only.start, only.stop))
    facts = _uncertainty_facts(model, config)
    full = Enhancement(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=None
        if uncertainty is None
        else grid.with_voxels(uncertainty, did=_uncertainty_note(facts)),
        model=bundle.identity(is_learned=is_learned),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        floors=tuple(known.floor for known in caches),
        uncertainty_facts=facts,
        warnings=warnings,
        verdict=verdict,
        shading=shading,
        measured=measured,
        noises=tuple(chain.noise for chain in chains if chain is not None),
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


def _measured(volume: Volume, cache: VolumeCache | None) -> list[VolumeCache]:
    """Scaling and floor of each whole frame; of a single volume in `cache`.

    Raises InputError that names the frame where one shows nothing.
    """
    measured = []
    for number, frame in enumerate(volume.frames()):
        known = VolumeCache() if cache is None or volume.is_sequence else cache
        if known.scaling is None:
            try:
                known.scaling = scaling_for(frame)
                if known.scaling.scale < _LOWEST_TOP:
                    raise InputError(
                        f"{frame.source or 'volume'}: intensities up to {known.scaling.scale:.3g} "
                        "are too small for the measure of the noise",
                        "Multiply them, as by changing their unit.",
                    )
            except InputError as cause:
                if not volume.is_sequence:
                    raise
                raise InputError(
                    f"{cause.message} in frame {number}", "Leave this frame out, or take one frame."
                ) from cause
            known.floor = lowest_value(frame)
        measured.append(known)
    return measured


@lru_cache(maxsize=4)
def _warm_enhancer(folder: Path, sha256: str, described: str) -> EnhancerModel:  # noqa: ARG001
    """Models stay loaded between jobs of one process; other weights have another hash.

    described: all metadata, as calibration or range may be new where the weights are not.
    """
    return open_enhancer(read_bundle(folder, expected_sha256=sha256))


def _warnings(volume: Volume, bundle: Bundle, verdict: Verdict | None) -> tuple[ModelWarning, ...]:
    trained_mm = bundle.metadata.get(PIXEL_SPACING)
    di, dj, _ = volume.geometry.spacing
    of_bundle = (
        training_length_warning(bundle),
        segmenter_warning(bundle),
        anatomy_warning(bundle, volume),
        pixel_size_warning(bundle.name, float(trained_mm), (di, dj)) if trained_mm else None,
    )
    of_images = verdict.warnings if verdict else ()
    return (*(warning for warning in of_bundle if warning), *of_images)


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


def _enhance_frame(
    frame: Volume, run: SliceRun, chain: Chain | None, config: EnhanceConfig, monitor: Monitor
) -> tuple[npt.NDArray[Any], Floats | None, Floats | None]:
    """One frame's voxels at full strength in its type, its uncertainty in its units, its shading.

    The last two are None where no uncertainty is requested, or no shading corrected.
    """
    model, only, floor = run.model, run.only, run.cache.floor
    wants_n4 = config.bias_correction == "n4" or (
        chain is not None and config.bias_correction == "auto" and chain.is_shaded
    )
    if chain is not None and not (wants_n4 or config.uncertainty or _network_runs(model, config)):
        rounded = run_rounded(chain, only, floor, monitor)
        if rounded is not None:
            return rounded, None, None
    samples = 0 if _judged_by_filter(model, config) else config.samples
    passes = 1 + config.orientations + samples
    share = 1 - samples / passes
    # Without a further step each part goes straight into the result's type, which saves memory.
    output = np.empty(frame.voxels[only].shape, np.float32 if wants_n4 else frame.dtype)
    error = np.empty(output.shape, np.float32) if config.uncertainty else None
    with torch.inference_mode(), stoppable(model.enhancer, monitor):
        run = _started(run, chain, config, monitor.part(0, share / passes))
        part = monitor.part(share / passes, (0.9 if wants_n4 else 1) * share)
        for where, values, expected in _enhanced_slices(run, chain, config, part):
            enhanced = np.maximum(values, floor, dtype=np.float32)
            inside = slice(where.start - only.start, where.stop - only.start)
            output[inside] = enhanced if wants_n4 else restore_dtype(enhanced, frame.dtype)
            if error is not None and expected is not None:
                error[inside] = expected
        shading = None
        if wants_n4:
            monitor.progress(0.9 * share, "correcting the bias field (N4)")
            corrected = frame.with_voxels(output)
            shading = attend(lambda: bias_field(corrected), monitor)
            output /= shading
            output = restore_dtype(np.maximum(output, floor), frame.dtype)
        if error is None:
            return output, None, None
        spread = None
        if samples:
            spread = spread_of_samples(
                run, monitor.part(share, 1), samples=samples, seed=config.seed
            )
        deviation = error
        if not _judged_by_filter(model, config):
            deviation = model.calibration(raw_deviation(error, spread), sampled=spread is not None)
    deviation *= np.float32(run.stacks.scaling.scale)
    if shading is not None:
        deviation /= shading
    return output, deviation, shading


def _network_runs(model: EnhancerModel, config: EnhanceConfig) -> bool:
    """Whether the network has a part in the result, or the filter before it makes all of it."""
    if not model.bundle.starts_grouped or config.deblur:
        return True
    return config.second_pass == "on" or (
        config.second_pass == "auto" and model.bundle.has_second_pass
    )


def _judged_by_filter(model: EnhancerModel, config: EnhanceConfig) -> bool:
    """Whether the uncertainty is the filter's: it makes all of the result, or nearly all."""
    return not (_network_runs(model, config) and model.bundle.expects_error)


def _started(
    run: SliceRun, chain: Chain | None, config: EnhanceConfig, monitor: Monitor
) -> SliceRun:
    """The run with what it starts from, where that is computed before and for all passes."""
    if chain is not None:
        needed = run.all_slices if chain.needs_whole else _needed(run, config)
        made = run_chain(chain, needed, monitor)
        depth, rows, columns = run.stacks.voxels.shape
        scaled = np.zeros((depth, rows + -rows % GRID, columns + -columns % GRID), np.float32)
        margins = ((0, 0), (0, -rows % GRID), (0, -columns % GRID))
        scaled[needed] = np.pad(run.stacks.scaling.apply(made), margins, mode="edge")
        return replace(run, start=SliceStacks(scaled, Scaling(0.0, 1.0), run.stacks.context))
    if not config.runs_share_start:
        return run
    needed = run.only if config.orientations == 1 else run.all_slices
    return replace(run, start=shrunk(replace(run, only=needed), monitor))


def _needed(run: SliceRun, config: EnhanceConfig) -> slice:
    """The slices of the start that the wanted slices depend on."""
    if not _network_runs(run.model, config):
        return run.only
    if config.orientations > 1:
        return run.all_slices
    # Whole chunks: the other slices of a chunk enter the network too and have to be images.
    reach, size = run.model.config.context, run.plan.suited(*run.stacks.voxels.shape[1:]).slices
    first = max(0, run.only.start - reach) // size * size
    return slice(first, min(len(run.stacks), -(-(run.only.stop + reach) // size) * size))


def _enhanced_slices(
    run: SliceRun, chain: Chain | None, config: EnhanceConfig, monitor: Monitor
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """Parts of the wanted slices: where, values in the volume's units, and what may be off, scaled.

    That is the network's expected error, or the calibrated deviation of the filter.
    """
    scaling, wants_error = run.stacks.scaling, config.uncertainty > 0
    by_filter = _judged_by_filter(run.model, config)
    for where, values, expected in _corrected(run, config, monitor, wants_error and not by_filter):
        deviation = expected
        if wants_error and by_filter:
            assert chain is not None
            deviation = expected_deviation(
                values, chain.frame, chain.noise, share=chain.share, where=where
            ) / np.float32(scaling.scale)
        yield where, values, deviation


def _corrected(
    run: SliceRun, config: EnhanceConfig, monitor: Monitor, wants_error: bool
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """Parts of what the network, or the filter alone, makes; values in the volume's units."""
    undo = run.stacks.scaling.undo
    if _network_runs(run.model, config):
        for where, scaled, expected in predict_oriented(
            run, monitor, orientations=config.orientations, wants_error=wants_error
        ):
            yield where, undo(scaled), expected
        return
    assert run.start is not None
    rows, columns = run.stacks.voxels.shape[1:]
    for first in range(run.only.start, run.only.stop, _SLICES_AT_ONCE):
        where = slice(first, min(first + _SLICES_AT_ONCE, run.only.stop))
        yield where, undo(run.start.voxels[where, :rows, :columns]), None


def _joined(volume: Volume, frames: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    arrays = [frame for frame in frames if frame is not None]
    if not arrays:
        return None
    return np.stack(arrays) if volume.is_sequence else arrays[0]


def _uncertainty_facts(model: EnhancerModel, config: EnhanceConfig) -> dict[str, Any]:
    if not config.uncertainty:
        return {}
    if _judged_by_filter(model, config):
        fitted_on = FITTED_ON[model.bundle.modality]
        if _network_runs(model, config):
            fitted_on += ", for the filter alone, without what the network changes"
        return {
            "samples": 0,
            "flips": False,
            "expected_error": True,
            "calibration": {"fitted_on": fitted_on},
        }
    # A calibration is measured without undoing blur: it does not cover what is left of the blur.
    is_calibrated = model.calibration.is_fitted and not config.deblur
    return {
        "samples": config.samples,
        "flips": config.samples > 1,
        "expected_error": True,
        "calibration": model.calibration.identity() if is_calibrated else None,
    }


def _uncertainty_note(facts: dict[str, Any]) -> str:
    samples = f"{facts['samples']} samples, " if facts["samples"] else ""
    state = "calibrated" if facts["calibration"] else "not calibrated"
    return derived_note(f"{UNCERTAINTY_MAP} ({samples}expected error, {state})")
