"""Enhances a volume with a trained bundle.

open_bundle → scaling_for → encode_guide → predict_oriented → (n4_field) → restore_dtype
            → (spread_of_samples → calibration) → blend at the strength
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.bundles.anatomy import doubt_about
from MedEnhanceLib.bundles.doubt import Doubt, messages_of
from MedEnhanceLib.bundles.length import doubt_about_length
from MedEnhanceLib.bundles.spacing import PIXEL_SPACING, doubt_about_pixels
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.bias import n4_field
from MedEnhanceLib.hqg.bundle import EnhancerModel, check_deblurring, open_enhancer
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.findings import Findings, findings_of
from MedEnhanceLib.hqg.guide import check_guide
from MedEnhanceLib.hqg.orientations import predict_oriented
from MedEnhanceLib.hqg.predict import shrunk
from MedEnhanceLib.hqg.range import Verdict, check_range
from MedEnhanceLib.hqg.result import Enhancement
from MedEnhanceLib.hqg.strength import lowest_value
from MedEnhanceLib.hqg.uncertainty import raw_deviation, spread_of_samples
from MedEnhanceLib.io.finite import refuse_not_finite
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.slices import Plan, SliceStacks
from MedEnhanceLib.nets.stoppable import stoppable
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Run:
    """What all frames share. only: the slices along K that are wanted."""

    model: EnhancerModel
    cue: Tensor
    config: EnhanceConfig
    plan: Plan
    only: slice


def enhance(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    guide: Volume | None = None,
    slices: tuple[int, int] | None = None,
    monitor: Monitor | None = None,
) -> Enhancement:
    """Enhance every slice of a volume, and every frame of a sequence.

    guide: a high-quality volume of the same modality whose look is taken on; None takes the mean
    cue of the model's own high-quality bank. Geometry, type and units stay.
    slices: (first, before which) along K: only these come out, with the geometry of that crop,
    and equal those of a whole run bit for bit, as what is measured is measured of the whole volume.
    At a strength other than 1 the result is blended with its input, shading and all (`blend`).
    Raises ConfigError for slices that are not there, or together with N4, ModelError for no
    fitting model, InputError for a volume or guide that cannot be used, DeviceMemoryError,
    Cancelled. Source: arXiv 2307.07829; details reconstructed.
    """
    config, monitor = config or EnhanceConfig(), monitor or Monitor()
    began = time.monotonic()
    where = _chosen_slices(slices, volume, config)
    bundle = open_bundle(config.model, kind="enhancer", modality=volume.modality)
    if config.deblur:
        check_deblurring(bundle)
    if findings_of(volume).scaling is None:  # else it has been looked at before
        refuse_not_finite(volume)
    frames = volume.frames()
    measured = _measured(volume)  # of all frames before the first is enhanced
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} on {choice.name}: {choice.reason}")
    described = json.dumps(bundle.metadata, sort_keys=True, default=str)
    model = _warm_enhancer(bundle.folder, bundle.sha256, described)
    move(model.guide, "cpu")
    verdict = check_range(volume, model)
    doubts = _doubts(volume, model, verdict)
    for doubt in doubts:
        monitor.warn(doubt.text)
    if verdict is None:
        monitor.log(f"{bundle.name} cannot tell whether the volume is like what it learned from")
    cue = model.bank.mean[None]
    if guide is not None:
        cue = encode_guide(guide, model, volume.modality, monitor)
    if config.deblur:
        cue = model.guide.asking(cue, torch.ones(1))
    plan = Plan.make(choice.name, batch=config.batch, tile=config.tile, overlap=config.overlap)

    run = _Run(model, cue, config, plan, where)
    results = [
        _enhance_frame(frame, found, run, monitor.part(n / len(frames), (n + 1) / len(frames)))
        for n, (frame, found) in enumerate(zip(frames, measured, strict=True))
    ]
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + (", blur undone" if config.deblur else "")
        + (f", mean of {config.orientations} orientations" if config.orientations > 1 else "")
        + (f" ({messages_of(doubts)})" if doubts else "")
    )
    enhanced, uncertainty, shading = (
        _joined(volume, [result[which] for result in results]) for which in (0, 1, 2)
    )
    assert enhanced is not None
    grid = _cropped(volume, where)
    facts = _uncertainty_facts(model, config)
    full = Enhancement(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=None
        if uncertainty is None
        else grid.with_voxels(uncertainty, did=_uncertainty_note(facts)),
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=grid,
        floors=tuple(found.floor for found in measured),
        uncertainty_facts=facts,
        doubts=doubts,
        verdict=verdict,
        shading=shading,
    )
    return replace(full.at_strength(config.strength), seconds=time.monotonic() - began)


def _uncertainty_facts(model: EnhancerModel, config: EnhanceConfig) -> dict[str, Any]:
    if not config.uncertainty:
        return {}
    calibration = model.calibration
    return {
        "samples": config.samples,
        "flips": config.samples > 1,
        "expected_error": True,
        # Measured without undoing blur: of what is left of it, it knows nothing.
        "calibration": calibration.identity()
        if calibration.is_fitted and not config.deblur
        else None,
    }


def _uncertainty_note(facts: dict[str, Any]) -> str:
    samples = f"{facts['samples']} samples, " if facts["samples"] else ""
    state = "calibrated" if facts["calibration"] else "not calibrated"
    return derived_note(f"uncertainty of the enhancement ({samples}expected error, {state})")


def _doubts(volume: Volume, model: EnhancerModel, verdict: Verdict | None) -> tuple[Doubt, ...]:
    bundle = model.bundle
    learned = bundle.metadata.get(PIXEL_SPACING)
    di, dj, _ = volume.geometry.spacing
    of_bundle = (
        doubt_about_length(bundle),
        doubt_about(bundle, volume),
        doubt_about_pixels(bundle.name, float(learned), (di, dj)) if learned else None,
    )
    of_images = verdict.doubts if verdict else ()
    return (*(doubt for doubt in of_bundle if doubt), *of_images)


def _chosen_slices(slices: tuple[int, int] | None, volume: Volume, config: EnhanceConfig) -> slice:
    count = volume.shape[-3]
    first, stop = slices or (0, count)
    if not 0 <= first < stop <= count:
        raise ConfigError(
            f"slices {first} to before {stop} of a volume that has {count}",
            f"Choose a first one and one to stop before, within 0 to {count}.",
        )
    if slices is not None and config.bias_correction != "none":
        raise ConfigError(
            "N4 needs the whole volume, not some slices of it",
            "Leave the bias correction out here, or enhance the whole volume.",
        )
    return slice(first, stop)


def _cropped(volume: Volume, where: slice) -> Volume:
    return replace(
        volume,
        voxels=volume.voxels[..., where, :, :],
        geometry=volume.geometry.cropped((where.start, 0, 0)),
        origin=volume.origin and volume.origin.cropped(where.start, where.stop),
    )


def encode_guide(
    guide: Volume, model: EnhancerModel, modality: str, monitor: Monitor | None = None
) -> Tensor:
    """Reduce a high-quality volume to its cue, [1, cue_size]: the mean over up to 32 slices.

    Its grid may be any: only its slices are looked at. Raises InputError as `check_guide` does.
    Source: arXiv 2307.07829; the mean is our reconstruction.
    """
    check_guide(guide, modality)
    known = findings_of(guide).cues
    if model.bundle.sha256 in known:
        return known[model.bundle.sha256]
    stacks = SliceStacks(guide.voxels, scaling_for(guide), context=0)
    cues = []
    with torch.inference_mode():
        for centre in stacks.telling(32):
            if monitor is not None:
                monitor.check()
            cues.append(_cue_mean(model, stacks.take(np.array([centre]))))
        known[model.bundle.sha256] = torch.cat(cues).mean(dim=0, keepdim=True)
    return known[model.bundle.sha256]


def _cue_mean(model: EnhancerModel, slices: Tensor) -> Tensor:
    mean: Tensor = model.guide(slices).mean
    return mean


def _enhance_frame(
    frame: Volume, findings: Findings, run: _Run, monitor: Monitor
) -> tuple[npt.NDArray[Any], Floats | None, Floats | None]:
    """One frame's voxels at full strength in its type, its uncertainty in its units, its shading.

    The last two are None where no uncertainty is asked for, or no shading corrected.
    """
    model, config, only = run.model, run.config, run.only
    scaling = findings.scaling
    assert scaling is not None
    stacks = SliceStacks(frame.voxels, scaling, model.config.context)
    wants_n4 = config.bias_correction == "n4"
    passes = int(config.runs_share_start) + config.orientations + config.samples
    begun, share = int(config.runs_share_start) / passes, 1 - config.samples / passes
    # Without a further step each batch goes straight into the result's type, which saves memory.
    output = np.empty(frame.voxels[only].shape, np.float32 if wants_n4 else frame.dtype)
    error = np.empty(output.shape, np.float32) if config.uncertainty else None
    with torch.inference_mode(), stoppable(model.enhancer, monitor):
        start = None
        if config.runs_share_start:
            needed = only if config.orientations == 1 else slice(0, len(stacks))
            start = shrunk(model, stacks, run.plan, monitor.part(0, begun), only=needed)
        for where, scaled, expected in predict_oriented(
            model,
            stacks,
            run.cue,
            run.plan,
            monitor.part(begun, (0.9 if wants_n4 else 1) * share),
            orientations=config.orientations,
            findings=findings,
            only=only,
            start=start,
            wants_error=error is not None,
        ):
            enhanced = np.maximum(scaling.undo(scaled), findings.floor, dtype=np.float32)
            inside = slice(where.start - only.start, where.stop - only.start)
            output[inside] = enhanced if wants_n4 else restore_dtype(enhanced, frame.dtype)
            if error is not None and expected is not None:
                error[inside] = expected
        shading = None
        if wants_n4:
            monitor.progress(0.9 * share, "correcting shading (N4)")
            corrected = frame.with_voxels(output)
            shading = attend(lambda: n4_field(corrected), monitor)
            output /= shading
            output = restore_dtype(np.maximum(output, findings.floor), frame.dtype)
        if error is None:
            return output, None, None
        deviation = _deviation(error, stacks, start, run, findings, monitor.part(share, 1))
    deviation *= np.float32(scaling.scale)
    if shading is not None:
        deviation /= shading
    return output, deviation, shading


def _deviation(
    error: Floats,
    stacks: SliceStacks,
    start: SliceStacks | None,
    run: _Run,
    findings: Findings,
    monitor: Monitor,
) -> Floats:
    """Standard deviation on the network's scale: from the expected error, and samples if any."""
    spread = None
    if run.config.samples:
        spread = spread_of_samples(
            run.model,
            stacks,
            run.cue,
            run.plan,
            monitor,
            samples=run.config.samples,
            seed=run.config.seed,
            findings=findings,
            only=run.only,
            start=start,
        )
    return run.model.calibration(raw_deviation(error, spread), sampled=spread is not None)


def _measured(volume: Volume) -> list[Findings]:
    """What each whole frame says of its intensities.

    Raises InputError that names the frame where one shows nothing.
    """
    measured = []
    for number, frame in enumerate(volume.frames()):
        findings = findings_of(frame)
        if findings.scaling is None:
            try:
                findings.scaling = scaling_for(frame)
            except InputError as cause:
                if not volume.is_sequence:
                    raise
                raise InputError(
                    f"{cause.message} in frame {number}", "Leave this frame out, or take one frame."
                ) from cause
            findings.floor = lowest_value(frame)
        measured.append(findings)
    return measured


def _joined(volume: Volume, frames: list[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    arrays = [frame for frame in frames if frame is not None]
    if not arrays:
        return None
    return np.stack(arrays) if volume.is_sequence else arrays[0]


@lru_cache(maxsize=4)
def _warm_enhancer(folder: Path, sha256: str, described: str) -> EnhancerModel:  # noqa: ARG001
    """Models stay loaded between jobs of one process; other weights have another hash.

    described: all metadata, as a calibration or a range may be new where the weights are not.
    """
    return open_enhancer(read_bundle(folder, expected_sha256=sha256))
