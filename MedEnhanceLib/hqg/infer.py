"""Enhances a volume with a trained bundle.

open_bundle → scaling_for → encode_guide → predict_slices → (n4_field) → blend → restore_dtype
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.bundles.anatomy import doubt_about
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.device import choose_device
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.bias import n4_field
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.findings import Findings, findings_of
from MedEnhanceLib.hqg.predict import predict_slices
from MedEnhanceLib.manifest import derived_note
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.slices import GRID, Plan, SliceStacks
from MedEnhanceLib.nets.stoppable import stoppable
from MedEnhanceLib.progress import Monitor, attend
from MedEnhanceLib.volume import Volume, restore_dtype

Floats = npt.NDArray[np.float32]

#: Mirrorings that samples cycle through: none, columns, rows, both.
_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


@dataclass(frozen=True)
class Enhancement:
    """What came out.

    volume: same grid, type and units as the input. uncertainty: standard deviation over sampled
    cues and mirrorings in the input's units, float32, or None where it was not asked for; not
    calibrated. model: name and sha256. device: where it ran. seconds: of wall time.
    doubt: what speaks against the model, where the images say that they show another part.
    """

    volume: Volume
    uncertainty: Volume | None
    model: dict[str, str]
    device: str
    seconds: float
    doubt: str = ""


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
    and equal those of the whole run bit for bit, as what is measured of the whole volume is.
    Raises ConfigError for slices that are not there, or together with N4, ModelError for no
    fitting model, InputError for a volume or guide that cannot be used, DeviceMemoryError,
    Cancelled. Source: arXiv 2307.07829; details reconstructed.
    """
    config, monitor = config or EnhanceConfig(), monitor or Monitor()
    began = time.monotonic()
    where = _chosen_slices(slices, volume, config)
    bundle = open_bundle(config.model, kind="enhancer", modality=volume.modality)
    doubt = doubt_about(bundle, volume)
    if doubt:
        monitor.warn(f"{doubt}: look closely at what comes out")
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} on {choice.name}: {choice.reason}")
    model = _warm_enhancer(bundle.folder, bundle.sha256)
    move(model.guide, "cpu")
    cue = model.bank.mean[None]
    if guide is not None:
        cue = encode_guide(guide, model, volume.modality, monitor)
    plan = Plan.make(choice.name, batch=config.batch, tile=config.tile, overlap=config.overlap)

    run = _Run(model, cue, config, plan, where)
    frames = volume.frames()
    results = [
        _enhance_frame(frame, run, monitor.part(n / len(frames), (n + 1) / len(frames)))
        for n, frame in enumerate(frames)
    ]
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}" + (f" ({doubt})" if doubt else "")
    )
    enhanced, uncertainty = (
        _joined(volume, [result[which] for result in results]) for which in (0, 1)
    )
    assert enhanced is not None
    grid = _cropped(volume, where)
    return Enhancement(
        volume=grid.with_voxels(enhanced, did=note),
        uncertainty=None
        if uncertainty is None
        else grid.with_voxels(uncertainty, did=derived_note("uncertainty of the enhancement")),
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        doubt=doubt,
    )


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

    Raises InputError for a guide of another modality, a sequence, or one that shows nothing.
    Source: arXiv 2307.07829; the mean is our reconstruction.
    """
    name = guide.source or "guide"
    if guide.modality != modality:
        raise InputError(
            f"{name}: the guide is {guide.modality}, the volume {modality}",
            "Choose a guide of the same modality.",
        )
    if guide.is_sequence:
        raise InputError(f"{name}: the guide is a sequence", "Choose a single volume, or a frame.")
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
    if min(slices.shape[-2:]) < GRID:
        slices = F.pad(slices, (0, GRID, 0, GRID), mode="replicate")
    mean: Tensor = model.guide(slices).mean
    return mean


def _enhance_frame(
    frame: Volume, run: _Run, monitor: Monitor
) -> tuple[npt.NDArray[Any], Floats | None]:
    """One frame's enhanced voxels in its type, and its uncertainty in its units."""
    model, config, only = run.model, run.config, run.only
    findings = _measured(frame)
    scaling = findings.scaling
    assert scaling is not None
    stacks = SliceStacks(frame.voxels, scaling, model.config.context)
    wants_n4 = config.bias_correction == "n4"
    passes = 1 + config.uncertainty
    # Without a further step each batch goes straight into the result's type, which saves memory.
    output = np.empty(frame.voxels[only].shape, np.float32 if wants_n4 else frame.dtype)
    with torch.inference_mode(), stoppable(model.enhancer, monitor):
        part = monitor.part(0, (0.9 if wants_n4 else 1) / passes)
        for where, scaled, _ in predict_slices(
            model, stacks, run.cue, run.plan, part, findings=findings, only=only
        ):
            blended = _blended(frame.voxels[where], scaling.undo(scaled), config.strength)
            np.maximum(blended, findings.floor, out=blended)
            inside = slice(where.start - only.start, where.stop - only.start)
            output[inside] = blended if wants_n4 else restore_dtype(blended, frame.dtype)
        field = None
        if wants_n4:
            monitor.progress(0.9 / passes, "correcting shading (N4)")
            corrected = frame.with_voxels(output)
            field = attend(lambda: n4_field(corrected), monitor)
            output /= field
            output = restore_dtype(np.maximum(output, findings.floor), frame.dtype)
        if not config.uncertainty:
            return output, None
        spread = _spread(stacks, run, findings, monitor.part(1 / passes, 1))
    spread *= np.float32(scaling.scale * config.strength)
    return output, spread if field is None else spread / field


def _measured(frame: Volume) -> Findings:
    """What the whole frame says of its intensities."""
    findings = findings_of(frame)
    if findings.scaling is None:
        findings.scaling = scaling_for(frame)
        if frame.modality != "CT":
            # Magnitudes: below the lowest, and below nothing, there is only undershoot.
            findings.floor = min(0.0, float(frame.voxels.min()))
    return findings


def _spread(stacks: SliceStacks, run: _Run, findings: Findings, monitor: Monitor) -> Floats:
    """Standard deviation over sampled cues and mirrorings, on the network's scale (Welford)."""
    model, config, only = run.model, run.config, run.only
    generator = torch.Generator().manual_seed(config.seed)
    mean = np.zeros(stacks.voxels[only].shape, np.float32)
    squares = np.zeros(mean.shape, np.float32)
    for sample in range(config.uncertainty):
        drawn = run.cue + model.bank.spread * torch.randn(run.cue.shape, generator=generator)
        part = monitor.part(sample / config.uncertainty, (sample + 1) / config.uncertainty)
        for where, scaled, _ in predict_slices(
            model,
            stacks,
            drawn,
            run.plan,
            part,
            findings=findings,
            only=only,
            flips=_FLIPS[sample % len(_FLIPS)],
        ):
            inside = slice(where.start - only.start, where.stop - only.start)
            step = scaled - mean[inside]
            mean[inside] += step / (sample + 1)
            squares[inside] += step * (scaled - mean[inside])
    return np.sqrt(squares / max(config.uncertainty - 1, 1))


def _blended(source: npt.NDArray[Any], enhanced: Floats, strength: float) -> Floats:
    if strength == 1:
        return enhanced
    original = source.astype(np.float32)
    return original + np.float32(strength) * (enhanced - original)


def _joined(volume: Volume, frames: list[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    arrays = [frame for frame in frames if frame is not None]
    if not arrays:
        return None
    return np.stack(arrays) if volume.is_sequence else arrays[0]


@lru_cache(maxsize=4)
def _warm_enhancer(folder: Path, sha256: str) -> EnhancerModel:
    """Models stay loaded between jobs of one process; a changed file has another hash."""
    return open_enhancer(read_bundle(folder, expected_sha256=sha256))
