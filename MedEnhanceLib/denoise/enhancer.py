"""Enhances a volume.

prepare (checks, scanner, methods; noise measured and decided on) → method of `denoisers`, which
yields slices of frames → each frame: Rician bias → bias field or scanner, on request → rounding →
result → blend at the strength
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.bundles.suitability import ModelWarning, messages_of
from MedEnhanceLib.core.arrays import Array, foreground, slabs
from MedEnhanceLib.core.findings import UNCERTAIN, history_of, noise_found
from MedEnhanceLib.core.manifest import UNCERTAINTY_MAP, derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.decide import (
    Decision,
    VolumeCache,
    decide,
)
from MedEnhanceLib.denoise.denoisers import (
    BlockMatching,
    FirstRound,
    Frames,
)
from MedEnhanceLib.denoise.frame import (
    EnhancerRun,
    Frame,
    Outputs,
    outputs_for,
)
from MedEnhanceLib.denoise.preparing import kind_of, prepared, seen_of, way_of
from MedEnhanceLib.denoise.principal_images import FEWEST
from MedEnhanceLib.denoise.removal import FITTED_ON
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.noise.even_region import even_tissue_of
from MedEnhanceLib.noise.movement import STILL
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor

#: Share of the progress for the removal of noise before the bias field is corrected.
_FILTER = 0.9
#: The same for a draft: its share of the time.
_DRAFT = 0.06
#: Slices in which the change of a result is measured, and that of the mean of its frames.
_SLICES_COMPARED, _SLICES_OF_MEAN = 32, 8
#: Slices, rows and columns of the middle that are filtered in both ways where the kind of a
#: sequence is not known, the most frames of it, and the least share that is said to be left. Shares
#: in % that differ by this are about the same.
_TRIAL, _TRIAL_FRAMES, _LEAST_LEFT, _ALIKE = (6, 48, 48), 24, 0.2, 5
_DEVIATION_NOTE = derived_note(f"{UNCERTAINTY_MAP} (expected error, calibrated)")


def enhance(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    cache: VolumeCache | None = None,
    scratch: Path | None = None,
    on_draft: Callable[[Array], None] | None = None,
    monitor: Monitor | None = None,
) -> Enhanced:
    """Remove the noise of every slice of a volume and of every frame of a sequence.

    The correction of a sequence is decided once, for all frames.

    Args:
        volume: the result has the same grid, type and units.
        config: strength and further options; None takes the defaults.
        frame: number of the only frame to enhance, as in a run over the whole sequence.
        slices: (start, stop) along K, stop excluded, of the crop that is returned. It equals a
            whole run, but where that has slices along another axis (`Geometry.turn`).
        rows: of these slices, likewise, along J; None for all.
        columns: the same along I.
        cache: measurements of an earlier run over this volume, filled by this one.
        scratch: a folder; if given, a large result stays in an unnamed file there, not in memory.
        on_draft: called with voxels that resemble the result's, long before it is there, if the
            method begins with the block-matching filter.
        monitor: receives progress, messages and warnings, and can cancel.
    Returns:
        The result at `config.strength`; a number scales the correction of "auto", by blending.
    Raises:
        ConfigError: slices, rows or columns are out of range, or combined with N4; rows or columns
            without slices, or with uncertainty.
        ModelError: the model that is named does not fit.
        InputError: the volume or a scanner cannot be used, there is no such frame, or N4 is
            requested for a CT.
        DependencyError: the compiled library is missing.
        DeviceMemoryError: memory ran out on the CPU.
        Cancelled: the monitor asked to stop.
    """
    began = time.monotonic()
    config, monitor = config or EnhanceConfig(), monitor or Monitor()
    run = prepared(
        volume, config, frame=frame, box=(slices, rows, columns), cache=cache or VolumeCache(),
        scratch=scratch, monitor=monitor.part(0.0, 0.0),
    )  # fmt: skip
    if run.apart and run.apart.key == "frames_unstated" and not (slices or frame or config.noise):
        run = replace(run, decision=_with_advice(run, monitor))
    monitor.log(str(noise_found(run.decision.facts["noise"])))
    for warning in run.decision.warnings:
        monitor.warn(warning.text)
    if on_draft is not None and isinstance(run.denoiser, BlockMatching):
        on_draft(_draft_of(run, monitor.part(0.0, _DRAFT)))
        monitor = monitor.part(_DRAFT, 1.0)
    outputs = outputs_for(run.original, uncertainty=config.uncertainty, scratch=scratch)
    full = _result_of(run, outputs, _denoised(run, outputs.turned(run.turn), monitor))
    result = (full if slices else _with_places(full)).at_strength(config.share)
    # The uncertainty was computed for this strength.
    return replace(result, uncertainty=full.uncertainty, seconds=time.monotonic() - began)


def _draft_of(run: EnhancerRun, monitor: Monitor) -> Array:
    """Return the voxels of a run with the same measurements, whose filter stops early."""
    config = replace(run.config, uncertainty=False)
    run = replace(run, config=config, denoiser=FirstRound())
    outputs = outputs_for(run.original, uncertainty=False, scratch=run.scratch)
    draft = _result_of(run, outputs, _denoised(run, outputs.turned(run.turn), monitor))
    return draft.at_strength(config.share).volume.voxels


def measure(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    cache: VolumeCache | None = None,
    monitor: Monitor | None = None,
) -> Decision:
    """Measure a volume and decide on its correction, without enhancing it.

    Args:
        volume: a volume or a sequence of any modality.
        config: as of `enhance`.
        cache: filled with all that a preview of the volume measures in it.
        monitor: receives progress; may cancel.
    Raises:
        InputError: the volume cannot be used.
        Cancelled: the monitor asked to stop.
    """
    config, cache, monitor = config or EnhanceConfig(), cache or VolumeCache(), monitor or Monitor()
    is_joint, _reason = way_of(volume, config)
    seen, numbers, empty = seen_of(volume, None, cache, is_part=True, scratch=None)
    frames, kind = seen.frames(), kind_of(seen, config)
    decision = decide(frames, cache, config, monitor, is_joint=is_joint, kind=kind)
    for number in numbers if len(frames) == 1 and not empty else ():
        cache.regions_of(number, frames[number], decision.noise.level)
    return decision


@blas_on_one_thread
def _denoised(run: EnhancerRun, outputs: Outputs, monitor: Monitor) -> dict[str, Any]:
    """Fill the frames of the result; returns facts of the method."""
    is_sequence, removal = run.original.is_sequence, run.decision.removal
    monitor.progress(0.0, "removing noise")
    acting = [n for n in run.numbers if n not in run.empty and removal.acts_on(run.frames[n])]
    share = _FILTER if run.config.correct_bias_field or run.scanner else 1.0
    given = Frames(
        volumes=run.frames, noise=removal.noise, numbers=acting, slices=run.around,
        region=run.region_around,
        usable=[n for n in range(len(run.frames)) if n not in run.empty],
        odd={each.number: each.gain for each in run.decision.odd}, regions=run.regions_of,
        scratch=run.scratch, monitor=monitor, share=share,
    )  # fmt: skip
    frames = {}
    for place, number in enumerate(run.numbers):
        rest = given.monitors_of(number)[1] if number in acting else monitor
        out = outputs.at(place) if is_sequence else outputs
        frames[number] = Frame(run, number, out, rest)
        if number not in acting:
            frames[number].keep()
    facts: dict[str, Any] = {}
    if acting:
        denoised = run.denoiser.denoise(given)
        facts = dict(denoised.facts)
        for part in denoised.parts:
            frames[part.number].add(part)
    for frame in frames.values():
        facts |= frame.facts
    return facts


def _with_advice(run: EnhancerRun, monitor: Monitor) -> Decision:
    """State what both ways would leave of the noise of frames of unknown kind, by a trial.

    Where they would leave about the same, nothing is said. What a filter leaves has nothing in
    common with what it removes (`core.findings`).

    Args:
        run: with the frames, whose middle is filtered in both ways, and with the decision on them,
            which is returned with the advice.
        monitor: may cancel.
    """
    decision, count = run.decision, len(run.frames) - len(run.empty)
    sigma, is_plain = decision.noise.level, not run.original.profile.is_absolute
    if count < FEWEST or run.cache.movement_of(run.frames, monitor) > STILL or not is_plain:
        return decision
    middle = [
        slice(max(0, (side - most) // 2), (side + most) // 2)
        for side, most in zip(run.frames[0].shape, _TRIAL, strict=True)
    ]
    last, most = len(run.frames) - 1, min(len(run.frames), _TRIAL_FRAMES)
    some = [run.frames[n].crop(*middle) for n in np.linspace(0, last, most).astype(int)]
    part = replace(some[0], voxels=np.stack([each.voxels for each in some]), dicom_origin=None)
    left = {}
    for way in ("each", "joint"):
        trial = EnhanceConfig(noise=sigma, sequence=way)
        with suppress(MedEnhanceError):  # the middle may show nothing
            frame = len(some) // 2 if way == "each" else None
            change = enhance(part, trial, frame=frame).measured["noise"]["changed"] / sigma
            left[way] = 5 * round(20 * math.sqrt(max(_LEAST_LEFT**2, 1 - change**2)))
    if len(left) < 2:
        return decision
    others = tuple(each for each in decision.warnings if each.code != "sequence-kind")
    differs = abs(left["each"] - left["joint"]) > _ALIKE
    advice = (ModelWarning("sequence-advice", left),) if differs else ()
    return replace(decision, warnings=(*advice, *others))


def _result_of(run: EnhancerRun, outputs: Outputs, method: Mapping[str, Any]) -> Enhanced:
    """Make the result at strength 1; method: facts of the denoiser."""
    grid, decision = run.original, run.decision
    network = run.scanner.bundle if run.scanner else None
    model = network.identity() if network else {"name": run.method, "sha256": ""}
    before, after = map(run.turn.apply, (grid.voxels, outputs.voxels))
    changes = {"changed": _typical_change(before, after)}
    tissue = [place for place, number in enumerate(run.numbers) if number not in run.empty]
    if len(tissue) > 1 and not run.config.correct_bias_field:
        changes |= _shared_change(before, after, tissue)
    facts = decision.facts | {"noise": decision.facts["noise"] | changes} | dict(method)
    facts["denoiser"] = run.method
    note = derived_note(
        f"enhanced with {model['name']} {model['sha256'][:12]}".rstrip()
        + f", {history_of(facts)}"
        + (f" ({messages_of(decision.warnings)})" if decision.warnings else "")
    )
    uncertainty = None
    if outputs.deviation is not None:
        uncertainty = grid.with_voxels(outputs.deviation, did=_DEVIATION_NOTE)
    fitted_on = FITTED_ON[grid.profile.like]
    calibration = {"calibration": {"fitted_on": fitted_on}}
    return Enhanced(
        volume=grid.with_voxels(outputs.voxels, did=note),
        uncertainty=uncertainty,
        model=model,
        device=run.scanner.device if run.scanner else run.denoiser.device,
        seconds=0.0,
        original=grid,
        share=decision.removal.share,
        uncertainty_facts=calibration if run.config.uncertainty else {},
        warnings=decision.warnings,
        measured=facts,
        noises=(decision.noise,) * len(run.numbers),
        turn=run.turn,
        part=(run.slices, *run.region),
    )


def _with_places(result: Enhanced) -> Enhanced:
    """Add where noise that is uncertain can be measured in the volume."""
    noise = result.measured["noise"]
    if noise["verdict"] != UNCERTAIN:
        return result
    even = even_tissue_of(result.original, noise["interval"][1])
    known = {"places": even.places, "even_sigma": even.level}
    noise = noise | {name: value for name, value in known.items() if value}
    return replace(result, measured=result.measured | {"noise": noise})


def _typical_change(before: Array, after: Array) -> float:
    """Return the root mean square change of tissue, in some slices; 0 only if no voxel changed."""
    step = -(-before[..., 0, 0].size // _SLICES_COMPARED)
    places = [*np.ndindex(before.shape[:-2])][step // 2 :: step]
    old, new = (
        np.stack([voxels[place] for place in places]).astype(np.float32)
        for voxels in (before, after)
    )
    # In the input, noisy air may be above the mean too.
    change = np.mean(np.square(new - old)[foreground(new)], dtype=float)
    if change == 0:
        parts = zip(slabs(before), slabs(after), strict=True)
        change = sum(float(np.square(b.astype(float) - a).sum()) for a, b in parts) / before.size
    return _rounded(change)


def _shared_change(before: Array, after: Array, numbers: Sequence[int]) -> dict[str, float]:
    """Measure how the mean of all frames, [T, K, J, I], changed in tissue, in some slices.

    numbers: of frames with tissue. Returns also the change that noise alone leaves in the mean.
    """
    step = -(-before.shape[1] // _SLICES_OF_MEAN)
    total, power, image = (np.zeros(before[0, step // 2 :: step].shape) for _ in range(3))
    for number in numbers:
        old, new = (voxels[number, step // 2 :: step].astype(float) for voxels in (before, after))
        total += new - old
        power += np.square(new - old)
        image += new
    tissue, count = foreground(image), len(numbers)
    shared, alone = np.square(total / count), power / count**2
    return {
        "mean_changed": _rounded(shared[tissue].mean()),
        "mean_changed_by_noise": _rounded(alone[tissue].mean()),
    }


def _rounded(square: float) -> float:
    return float(f"{np.sqrt(square):.3g}")
