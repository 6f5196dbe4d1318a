"""Enhances a volume.

decide (of the whole volume) → method of `denoisers`, which yields slices of frames → each frame:
Rician bias → bias field or scanner, on request → rounding → blend at the strength
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

from MedEnhanceLib.bundles.schema import ENHANCER
from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.bundles.suitability import ModelWarning, messages_of, model_warnings
from MedEnhanceLib.core.arrays import Array, Where, foreground, let_go, slabs, trim
from MedEnhanceLib.core.findings import UNCERTAIN, history_of, noise_found
from MedEnhanceLib.core.geometry import AS_STORED, AxisTurn
from MedEnhanceLib.core.imaging import mean_frame
from MedEnhanceLib.core.manifest import UNCERTAINTY_MAP, derived_note
from MedEnhanceLib.core.modality import SET_MODALITY, likely_modalities
from MedEnhanceLib.core.sequence_kind import REPEATS, is_filtered_together
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.decide import (
    Decision,
    VolumeCache,
    checked_noise,
    decide,
)
from MedEnhanceLib.denoise.denoisers import (
    BLOCK_MATCHING,
    PRINCIPAL_IMAGES,
    BlockMatching,
    Denoiser,
    FirstRound,
    Frames,
    Resources,
    denoiser_class,
    options_for,
)
from MedEnhanceLib.denoise.frame import (
    EnhancerRun,
    Frame,
    Outputs,
    measured_bias_field,
    outputs_for,
)
from MedEnhanceLib.denoise.principal_images import FEWEST, PrincipalImages
from MedEnhanceLib.denoise.removal import FITTED_ON
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError, ModelError
from MedEnhanceLib.io.describe import refuse_too_large
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.noise.even_region import even_tissue_of
from MedEnhanceLib.noise.movement import STILL
from MedEnhanceLib.runtime.device import refuse_unknown
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import Text, text
from MedEnhanceLib.scanner.corrector.scanner_network import ScannerModel
from MedEnhanceLib.scanner.scanner import Scanner

#: Least intensity of bright tissue; below it, lower bounds in the computation would act as noise.
_LOWEST_TOP = 1e-4
#: Share of the progress for the removal of noise before the bias field is corrected.
_FILTER = 0.9
#: The same for a draft: its share of the time.
_DRAFT = 0.06
#: Slices in which the change of a result is measured, and that of the mean of its frames.
_SLICES_COMPARED, _SLICES_OF_MEAN = 32, 8
#: Slices, rows and columns of the middle that are filtered in both ways where the kind of a
#: sequence is not known, the most frames of it, and the least share that is said to be left.
_TRIAL, _TRIAL_FRAMES, _LEAST_LEFT = (6, 48, 48), 24, 0.2
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
    run = _prepared(
        volume, config, frame=frame, box=(slices, rows, columns), cache=cache or VolumeCache(),
        scratch=scratch, monitor=monitor.part(0.0, 0.0),
    )  # fmt: skip
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
    is_joint, _reason = _way_of(volume, config)
    seen, numbers, empty = _seen(volume, None, cache, is_part=True, scratch=None)
    frames, kind = seen.frames(), _kind_of(seen, config)
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


# --- before the first frame -----------------------------------------------------------------------


def _prepared(
    volume: Volume,
    config: EnhanceConfig,
    *,
    frame: int | None,
    box: Sequence[tuple[int, int] | None],
    cache: VolumeCache,
    scratch: Path | None,
    monitor: Monitor,
) -> EnhancerRun:
    """Check the input, measure and decide; arguments and errors of `enhance`."""
    refuse_unknown(config.device)
    is_joint, reason = _way_of(volume, config)
    given = Scanner.read(config.scanner) if isinstance(config.scanner, str) else config.scanner
    bundle = _scanner_bundle(volume, config)
    modality = bundle.modality if bundle else given.modality if given else ""
    if modality and volume.modality_is_guess:
        likely = likely_modalities(volume.voxels, volume.geometry.spacing)
        volume = volume.as_modality(modality) if modality in likely else volume
    _refuse_unmeasured(volume, config)
    original = volume if frame is None else volume.frame(frame)
    part, is_part = _requested_part(box, volume, config), box[0] is not None
    scanner = _scanner_of(original, config, given, bundle, monitor, is_part=is_part)
    if scanner is not None and not scanner.scanner.applies:
        warnings = "; ".join(scanner.scanner.warnings)
        monitor.warn(text("scanner_refused", warnings=warnings), about="scanner", is_general=True)
        scanner = None
    seen, numbers, empty = _seen(volume, frame, cache, is_part=is_part, scratch=scratch)
    frames, turn = seen.frames(), cache.turn
    if config.noise is not None:
        checked_noise(config.noise, frames[numbers[0]])
    method = _method_of(config, is_joint=is_joint)
    if is_joint and (reason := _apart(frames, empty, cache, monitor)):
        is_joint, method = False, method[-1:]
    denoiser = _made(method, config, monitor)
    kind = _kind_of(seen, config)
    decision = decide(frames, cache, config, monitor, is_joint=is_joint, kind=kind)
    if reason and reason.key == "frames_unstated" and not (is_part or frame or config.noise):
        decision = _with_advice(seen, len(frames) - len(empty), decision, cache, monitor)
    if bundle is not None:
        decision = replace(decision, warnings=model_warnings(bundle, volume) + decision.warnings)
    monitor.log(str(noise_found(decision.facts["noise"])))
    for warning in decision.warnings:
        monitor.warn(warning.text)
    bias_field = None
    if config.correct_bias_field and len(frames) > 1:
        mean = mean_frame([frame for n, frame in enumerate(frames) if n not in empty])
        bias_field = measured_bias_field(mean, monitor)
        del mean
    if reason:
        sequence = {"frames": len(frames), "images": 0, "reason": reason.to_json()}
        decision = replace(decision, facts=decision.facts | {"sequence": sequence})
    # The measurements used memory that is not needed again.
    let_go(seen.voxels)
    trim()
    within, *region = _turned(part, turn, volume.shape[-3:])
    return EnhancerRun(
        config=config, method=_name_of(method), denoiser=denoiser, original=original.crop(*part),
        frames=frames, numbers=numbers, empty=empty, slices=within, region=(region[0], region[1]),
        turn=turn, decision=decision, bias_field=bias_field, scanner=scanner, cache=cache,
        scratch=scratch,
    )  # fmt: skip


def _seen(
    volume: Volume, frame: int | None, cache: VolumeCache, *, is_part: bool, scratch: Path | None
) -> tuple[Volume, Sequence[int], tuple[int, ...]]:
    """Turn a volume to the order in which it is measured, and measure its ranges.

    Returns it, the numbers of the frames to enhance, and of those without content.
    """
    turn = _turn_of(volume, is_part=is_part)
    seen = (volume if turn == AS_STORED else volume.canonical()).compact(scratch)
    if cache.turn != turn:  # measured in another order
        vars(cache).update(vars(VolumeCache(turn=turn)))
    frames = seen.frames()
    numbers = range(len(frames)) if frame is None else [frame]
    return seen, numbers, _measure_ranges(volume, frames, numbers, cache)


def _turn_of(volume: Volume, *, is_part: bool) -> AxisTurn:
    """Return the turn to canonical order; none where the requested slices are no slices there."""
    turn = volume.geometry.turn
    return AS_STORED if is_part and turn.axes[0] != 0 else turn


def _turned(part: Where, turn: AxisTurn, shape: Sequence[int]) -> list[slice]:
    """Return where a part of stored voxels is in canonical order; shape: of the volume, stored."""
    turned = [
        each if step > 0 else slice(side - each.stop, side - each.start)
        for each, step, side in zip(part, turn.steps, shape, strict=True)
    ]
    return [turned[axis] for axis in turn.axes]


def _kind_of(volume: Volume, config: EnhanceConfig) -> str:
    """Return the kind of a sequence, as the user or its file states it."""
    return REPEATS if config.sequence == REPEATS else volume.sequence_kind


def _way_of(volume: Volume, config: EnhanceConfig) -> tuple[bool, Text | None]:
    """Choose whether frames are filtered together, and why not; None for a single volume."""
    kind = volume.sequence_kind
    if not volume.is_sequence:
        return False, None
    if config.sequence in ("joint", REPEATS) or (
        config.sequence == "auto" and is_filtered_together(kind)
    ):
        return True, None
    if config.sequence == "each":
        return False, text("on_request")
    if kind:
        return False, text("frames_repeat", kind=kind)
    return False, text("frames_unstated")


def _apart(
    frames: Sequence[Volume], empty: Sequence[int], cache: VolumeCache, monitor: Monitor
) -> Text | None:
    """Return why frames that are to be filtered together cannot be, with a warning; or None."""
    reason, movement = None, cache.movement_of(frames, monitor)
    if len(frames) - len(empty) < FEWEST:
        reason = text("frames_few", fewest=FEWEST)
    elif movement > STILL:
        reason = text("frames_move", movement=movement)
    if reason:
        monitor.warn(f"the frames are filtered one by one: {reason}")
    return reason


def _with_advice(
    volume: Volume,
    count: int,
    decision: Decision,
    cache: VolumeCache,
    monitor: Monitor,
) -> Decision:
    """State what both ways would leave of the noise of frames of unknown kind, by a trial.

    What a filter leaves has nothing in common with what it removes (`core.findings`).

    Args:
        volume: whose middle is filtered in both ways.
        count: of its frames with tissue.
        decision: on the volume.
        cache: of what was measured in the volume.
        monitor: may cancel.
    """
    sigma, is_plain = decision.noise.level, not volume.profile.is_absolute
    if count < FEWEST or cache.movement_of(volume.frames(), monitor) > STILL or not is_plain:
        return decision
    middle = [
        slice(max(0, (side - most) // 2), (side + most) // 2)
        for side, most in zip(volume.shape[1:], _TRIAL, strict=True)
    ]
    some = np.linspace(0, volume.shape[0] - 1, min(volume.shape[0], _TRIAL_FRAMES)).astype(int)
    part = volume.crop(*middle)
    part = replace(part, voxels=part.voxels[some], dicom_origin=None, time_points=None)
    left = {}
    for way in ("each", "joint"):
        trial = EnhanceConfig(noise=sigma, sequence=way)
        with suppress(MedEnhanceError):  # the middle may show nothing
            frame = len(some) // 2 if way == "each" else None
            change = enhance(part, trial, frame=frame).measured["noise"]["changed"] / sigma
            left[way] = 5 * round(20 * math.sqrt(max(_LEAST_LEFT**2, 1 - change**2)))
    if len(left) < 2:
        return decision
    others = [each for each in decision.warnings if each.code != "sequence-kind"]
    return replace(decision, warnings=(ModelWarning("sequence-advice", left), *others))


def _method_of(config: EnhanceConfig, *, is_joint: bool) -> tuple[str, ...]:
    """Choose the methods, by name: one, or principal images and the one that filters them.

    Raises ConfigError for a joint method where frames are not filtered together.
    """
    name = BLOCK_MATCHING if config.denoiser == "auto" else config.denoiser
    if denoiser_class(name).is_joint:
        if not is_joint:
            raise ConfigError(
                f"the denoiser {name} takes the frames of a sequence together",
                "Use sequence joint for a sequence, and another denoiser for a single volume.",
            )
        return (name, BLOCK_MATCHING) if name == PRINCIPAL_IMAGES else (name,)
    return (PRINCIPAL_IMAGES, name) if is_joint else (name,)


def _name_of(method: Sequence[str]) -> str:
    """Name the methods of a run: the first, and what filters its images unless it is usual."""
    return ", ".join(name for name in method if name != BLOCK_MATCHING) or BLOCK_MATCHING


def _scanner_bundle(volume: Volume, config: EnhanceConfig) -> Bundle | None:
    """Open the model that is named; None for none.

    Raises ModelError for a model that inverts no scanner: nothing learned removes noise.
    """
    if config.model == "auto":
        return None
    bundle = open_bundle(config.model, kind=ENHANCER, modality=volume.modality)
    if not bundle.inverts:
        raise ModelError(
            f"{bundle.name} inverts no scanner",
            "Leave the model out: noise is removed without one.",
        )
    return bundle


def _refuse_unmeasured(volume: Volume, config: EnhanceConfig) -> None:
    """Raise InputError for a modality whose noise has no model, unless a method is named."""
    if volume.profile.is_measured or config.denoiser != "auto":
        return
    name = volume.source or "volume"
    if not volume.profile.is_known:
        raise InputError(
            f"{name}: the modality is unknown, and the filter depends on it",
            "State it: --modality MR or CT (modality= in Python).",
        )
    raise InputError(
        f"{name}: noise is removed from MR and CT, and this is {volume.modality}",
        f"To filter it all the same, like MR: --denoiser {BLOCK_MATCHING} (denoiser= in Python).",
    )


def _made(method: Sequence[str], config: EnhanceConfig, monitor: Monitor) -> Denoiser:
    """Prepare the methods of a run; the last one filters."""
    options = options_for(method[-1], config.denoiser_options)
    resources = Resources(device=config.device, options=options)
    denoiser = denoiser_class(method[-1]).prepared(resources)
    if config.device not in ("auto", "cpu", denoiser.device) and config.model == "auto":
        monitor.log(f"{method[-1]} runs on {denoiser.device}, not on {config.device}")
    return PrincipalImages(denoiser) if len(method) > 1 else denoiser


def _requested_part(
    box: Sequence[tuple[int, int] | None], volume: Volume, config: EnhanceConfig
) -> Where:
    """Return slices, rows and columns, all where they are None, after a check."""
    if config.correct_bias_field and not volume.profile.has_bias_field:
        raise InputError(
            f"{volume.source or 'volume'}: a {volume.modality} has no bias field that N4 corrects",
            "Leave out the correction of the bias field (--correct-bias-field).",
        )
    parts = []
    for name, part, count in zip(
        ("slices", "rows", "columns"), box, volume.shape[-3:], strict=True
    ):
        first, stop = part or (0, count)
        if not 0 <= first < stop <= count:
            raise ConfigError(
                f"{name} {first}:{stop} (stop excluded) are not within the volume's {count} {name}",
                f"Give start and stop within 0 to {count}.",
            )
        parts.append(slice(first, stop))
    slices, *region = box
    if any(region) and (slices is None or config.uncertainty):
        raise ConfigError(
            "rows and columns are for previews of slices, without uncertainty",
            "Give slices too, and leave out uncertainty.",
        )
    if slices is not None and config.correct_bias_field:
        raise ConfigError(
            "N4 needs the whole volume, not some slices of it",
            "Leave the correction of the bias field out, or enhance the whole volume.",
        )
    return parts[0], parts[1], parts[2]


def _scanner_of(
    volume: Volume,
    config: EnhanceConfig,
    given: Scanner | None,
    bundle: Bundle | None,
    monitor: Monitor,
    *,
    is_part: bool,
) -> ScannerModel | None:
    """Return the scanner that is inverted, with the network of a model; None for none.

    Raises InputError for an unsuitable volume, ConfigError for a part of one, and for options that
    such a model does not take.
    """
    if bundle is not None and bundle.inverts:
        if given is not None or config.uncertainty or config.correct_bias_field:
            raise ConfigError(
                f"model {bundle.name} inverts a scanner of its own, corrects the bias field, and "
                "takes no uncertainty",
                "Leave out scanner, uncertainty and correct_bias_field, or the model.",
            )
        model = ScannerModel.of(bundle, config.device, monitor)
    elif given is None:
        return None
    else:
        model = ScannerModel(given)
    scanner = model.scanner
    volume.single("A scanner is inverted in single volumes: name a frame.")
    if volume.modality != scanner.modality:
        raise InputError(
            f"{volume.source or 'volume'}: the scanner was measured in {scanner.modality}, and "
            f"this is {volume.modality}",
            f"Take a scanner of the same modality; if the volume's is another: {SET_MODALITY}.",
        )
    if is_part:
        raise ConfigError(
            "a scanner is inverted in the whole volume, not in some slices of it",
            "Leave the scanner out, or enhance the whole volume.",
        )
    return model


def _measure_ranges(
    volume: Volume, frames: Sequence[Volume], numbers: Sequence[int], cache: VolumeCache
) -> tuple[int, ...]:
    """Measure all frames before the first is enhanced; InputError for a volume without content.

    Returns the numbers of the frames of a sequence that have none.
    """
    if not cache.lowest:
        refuse_too_large(volume)
    empty = cache.kinds_of(frames).empty
    for number in numbers:
        if number not in (*cache.lowest, *empty):
            cache.lowest[number] = _lowest_of(frames, number)
    return empty


def _lowest_of(frames: Sequence[Volume], number: int) -> float:
    """Return the lowest value of the result of a frame, below which is undershoot.

    Raises InputError, which names the frame, for one without content.
    """
    frame = frames[number]
    try:
        top = scaling_for(frame).scale
    except InputError as cause:
        if len(frames) == 1:
            raise
        raise InputError(f"{cause.message} in frame {number}", cause.hint) from cause
    if top < _LOWEST_TOP:
        raise InputError(
            f"{frame.source or 'volume'}: intensities up to {top:.3g} are too small to measure "
            "the noise",
            "Multiply them by a constant, for example by changing their unit.",
        )
    # Magnitudes are not below 0, or not below the input's lowest.
    return -np.inf if frame.profile.is_absolute else min(0.0, float(frame.voxels.min()))


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
