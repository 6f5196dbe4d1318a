"""Enhances a volume.

decide (of the whole volume) → method of `denoisers`, which yields slices of frames → each frame:
Rician bias → bias field or scanner, on request → rounding → blend at the strength
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib import native
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
    IntensityRange,
    VolumeCache,
    checked_noise,
    decide,
)
from MedEnhanceLib.denoise.denoisers import (
    BLOCK_MATCHING,
    PRINCIPAL_IMAGES,
    SET_NETWORK,
    VIEW_NETWORK,
    BlockMatching,
    Denoiser,
    FirstRound,
    Frames,
    Resources,
    denoiser_class,
    network_in,
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
from MedEnhanceLib.denoise.scanner_network import ScannerModel
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.filters.block_matching import engine_for
from MedEnhanceLib.io.describe import refuse_too_large, refuse_unfit
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.noise.even_region import even_tissue_of
from MedEnhanceLib.noise.movement import STILL
from MedEnhanceLib.runtime.dependencies import imported, load_packages
from MedEnhanceLib.runtime.device import choose_device, needs_torch
from MedEnhanceLib.runtime.machine import blas_on_one_thread, openmp_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import Text, text
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.slices.slice_plan import plan_slices, refuse_other_options

if TYPE_CHECKING:
    from MedEnhanceLib.denoise.guide import AlignedGuide

#: Least intensity of bright tissue; below it, lower bounds in the computation would act as noise.
_LOWEST_TOP = 1e-4
#: Share of the progress for the registration of guides, and for the removal of noise before the
#: bias field is corrected.
_REGISTRATION, _FILTER = 0.3, 0.9
#: The same for a draft: its share of the time.
_DRAFT = 0.06
#: Slices in which the change of a result is measured, and that of the mean of its frames.
_SLICES_COMPARED, _SLICES_OF_MEAN = 32, 8
#: Slices, rows and columns of the middle that are filtered in both ways where the kind of a
#: sequence is not known, the most frames of it, and the least share that is said to be left.
_TRIAL, _TRIAL_FRAMES, _LEAST_LEFT = (6, 48, 48), 24, 0.2
_DEVIATION_NOTE = derived_note(f"{UNCERTAINTY_MAP} (expected error, calibrated)")
_USE_NOTE = derived_note("how far guides changed each voxel, in SD of the noise, at most 1")


def enhance(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    guide: Volume | Sequence[Volume] | None = None,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    cache: VolumeCache | None = None,
    scratch: Path | None = None,
    on_draft: Callable[[Array], None] | None = None,
    monitor: Monitor | None = None,
) -> Enhanced:
    """Enhance every slice of a volume and every frame of a sequence, or restore thin slices.

    The correction of a sequence is decided once, for all frames. Source: arXiv 2307.07829; details
    reconstructed.

    Args:
        volume: the result has the same type and units, and its grid except for the task slices.
        config: model, strength and further options; None takes the defaults.
        guide: another series of the same examination, or several, of any contrast and grid; their
            anatomy helps to separate noise from anatomy at the same place.
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
            without slices, or with uncertainty; what thin slices do not take.
        ModelError: no model fits.
        InputError: the volume, a guide or a scanner cannot be used, there is no such frame, or N4
            is requested for a CT.
        DeviceMemoryError: memory ran out on the CPU.
        Cancelled: the monitor asked to stop.
    """
    began = time.monotonic()
    config, monitor = config or EnhanceConfig(), monitor or Monitor()
    if config.task == "slices":
        refuse_other_options(config, guide=guide or None, slices=slices)
        return _thin_slices_of(volume if frame is None else volume.frame(frame), config, monitor)
    run = _prepared(
        volume, config, guide, frame=frame, box=(slices, rows, columns),
        cache=cache or VolumeCache(),
        scratch=scratch, monitor=monitor.part(0.0, _REGISTRATION if guide else 0.0),
    )  # fmt: skip
    monitor = monitor.part(_REGISTRATION if guide else 0.0, 1.0)
    if on_draft is not None and isinstance(run.denoiser, BlockMatching):
        on_draft(_draft_of(run, run.denoiser, monitor.part(0.0, _DRAFT)))
        monitor = monitor.part(_DRAFT, 1.0)
    guided, uncertainty = bool(run.shown), config.uncertainty
    outputs = outputs_for(run.original, uncertainty=uncertainty, guided=guided, scratch=scratch)
    full = _result_of(run, outputs, *_denoised(run, outputs.turned(run.turn), monitor))
    result = (full if slices else _with_places(full)).at_strength(config.share)
    # The uncertainty was computed for this strength.
    return replace(result, uncertainty=full.uncertainty, seconds=time.monotonic() - began)


def _draft_of(run: EnhancerRun, denoiser: BlockMatching, monitor: Monitor) -> Array:
    """Return the voxels of a run with the same measurements, whose filter stops early."""
    config = replace(run.config, uncertainty=False)
    run = replace(run, config=config, denoiser=FirstRound(denoiser.engine), guides=())
    outputs = outputs_for(run.original, uncertainty=False, guided=False, scratch=run.scratch)
    draft = _result_of(run, outputs, *_denoised(run, outputs.turned(run.turn), monitor))
    return draft.at_strength(config.share).volume.voxels


def _thin_slices_of(volume: Volume, config: EnhanceConfig, monitor: Monitor) -> Enhanced:
    plan_slices(volume, config)  # refuses before PyTorch is loaded
    load_packages("torch", purpose="Enhancing a volume", monitor=monitor)
    from MedEnhanceLib.slices.thin_slices import enhance_slices

    return enhance_slices(volume, config, monitor)


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
        config: as of `enhance`; guides are not known.
        cache: filled with all that a preview of the volume measures in it.
        monitor: receives progress; may cancel.
    Raises:
        InputError: the volume cannot be used.
        Cancelled: the monitor asked to stop.
    """
    config, cache, monitor = config or EnhanceConfig(), cache or VolumeCache(), monitor or Monitor()
    is_joint, _reason = _way_of(volume, config, guided=False)
    seen, numbers, empty = _seen(volume, None, cache, is_part=True, scratch=None)
    frames, kind = seen.frames(), _kind_of(seen, config)
    decision = decide(frames, cache, config, monitor, is_joint=is_joint, kind=kind)
    for number in numbers if len(frames) == 1 and not empty else ():
        cache.regions_of(number, frames[number], decision.noise.level)
    return decision


@blas_on_one_thread
def _denoised(
    run: EnhancerRun, outputs: Outputs, monitor: Monitor
) -> tuple[list[float], dict[str, Any]]:
    """Fill the frames of the result; returns their change by guides, and facts of the method."""
    is_sequence, removal = run.original.is_sequence, run.decision.removal
    monitor.progress(0.0, "removing noise")
    acting = [n for n in run.numbers if n not in run.empty and removal.acts_on(run.frames[n])]
    share = _FILTER if run.config.correct_bias_field or run.scanner else 1.0
    given = Frames(
        volumes=run.frames, noise=removal.noise, numbers=acting, slices=run.around,
        region=run.region_around,
        usable=[n for n in range(len(run.frames)) if n not in run.empty],
        odd={each.number: each.gain for each in run.decision.odd},
        tops={number: run.cache.ranges[number].top for number in acting}, guides=run.shown,
        regions=run.regions_of, correct=removal.taken, scratch=run.scratch, monitor=monitor,
        share=share,
    )  # fmt: skip
    frames = {}
    for place, number in enumerate(run.numbers):
        rest = given.monitors_of(number)[1] if number in acting else monitor
        out = outputs.at(place) if is_sequence else outputs
        frames[number] = Frame(run, number, out, rest)
        if number not in acting:
            frames[number].keep()
    facts: dict[str, Any] = {}
    exact: Any = nullcontext()
    if imported("torch"):  # computes, or may compute
        from MedEnhanceLib.learning.precision import without_tf32 as exact
    with exact, openmp_on_one_thread():  # filter and network have threads of their own
        if acting:
            denoised = run.denoiser.denoise(given)
            facts = dict(denoised.facts)
            for part in denoised.parts:
                frames[part.number].add(part)
    for frame in frames.values():
        facts |= frame.facts
    return [frame.use for frame in frames.values()], facts


# --- before the first frame -----------------------------------------------------------------------


def _prepared(
    volume: Volume,
    config: EnhanceConfig,
    guide: Volume | Sequence[Volume] | None,
    *,
    frame: int | None,
    box: Sequence[tuple[int, int] | None],
    cache: VolumeCache,
    scratch: Path | None,
    monitor: Monitor,
) -> EnhancerRun:
    """Check the input, open the model, measure and decide; arguments and errors of `enhance`."""
    # What can be refused is refused before PyTorch is loaded, which takes seconds.
    guides = list(_checked(guide, volume, config.model, monitor))
    is_joint, reason = _way_of(volume, config, guided=bool(guides))
    given = Scanner.read(config.scanner) if isinstance(config.scanner, str) else config.scanner
    if given is not None and volume.modality_is_guess:
        likely = likely_modalities(volume.voxels, volume.geometry.spacing)
        volume = volume.as_modality(given.modality) if given.modality in likely else volume
    bundle, volume = _opened(volume, config, monitor)
    original = volume if frame is None else volume.frame(frame)
    part, is_part = _requested_part(box, volume, config), box[0] is not None
    scanner = _scanner_of(original, config, given, bundle, is_part=is_part)
    seen, numbers, empty = _seen(volume, frame, cache, is_part=is_part, scratch=scratch)
    frames, turn = seen.frames(), cache.turn
    if config.noise is not None:
        checked_noise(config.noise, frames[numbers[0]])
    if guides or needs_torch(config.device) or native.find(native.HERE)[0] is None:
        load_packages("torch", purpose="Enhancing a volume", monitor=monitor)
    of_model = "model" if config.model != "auto" else "guide" if guides else ""
    if config.denoiser != "auto" and of_model and not denoiser_class(config.denoiser).needs_model:
        raise ConfigError(
            f"the denoiser {config.denoiser} takes no {of_model}",
            f"Leave it out, or choose a denoiser of a model: {SET_NETWORK}, {VIEW_NETWORK}.",
        )
    method = _method_of(config, bundle, is_joint=is_joint)
    if is_joint and (reason := _apart(frames, empty, cache, monitor)):
        is_joint, method = False, method[-1:]
        if config.denoiser == "auto":
            method = _method_of(config, bundle, is_joint=False)
    device, denoiser = _on_device(method, bundle, config, monitor)
    kind = _kind_of(seen, config)
    decision = decide(frames, cache, config, monitor, is_joint=is_joint, kind=kind)
    if reason and reason.key == "frames_unstated" and not (is_part or frame or config.noise):
        decision = _with_advice(seen, len(frames) - len(empty), decision, config, cache, monitor)
    if bundle is not None and not is_joint:
        decision = replace(decision, warnings=model_warnings(bundle, volume) + decision.warnings)
    monitor.log(str(noise_found(decision.facts["noise"])))
    for warning in decision.warnings:
        monitor.warn(warning.text)
    mean = functools.cache(lambda: mean_frame([f for n, f in enumerate(frames) if n not in empty]))
    is_shared = config.correct_bias_field and len(frames) > 1
    bias_field = measured_bias_field(mean(), monitor) if is_shared else None
    aligned, facts = _aligned(guides, bundle, mean, cache, monitor)
    if reason:
        facts["sequence"] = {"frames": len(frames), "images": 0, "reason": reason.to_json()}
    # The measurements used memory that is not needed again.
    del mean
    let_go(seen.voxels)
    trim()
    within, *region = _turned(part, turn, volume.shape[-3:])
    return EnhancerRun(
        config=config, bundle=bundle, method=_name_of(method), device=device, denoiser=denoiser,
        original=original.crop(*part), frames=frames, numbers=numbers, empty=empty, slices=within,
        region=(region[0], region[1]), turn=turn,
        decision=replace(decision, facts=decision.facts | facts), guides=aligned,
        bias_field=bias_field, scanner=scanner, cache=cache, scratch=scratch,
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


def _way_of(volume: Volume, config: EnhanceConfig, *, guided: bool) -> tuple[bool, Text | None]:
    """Choose whether frames are filtered together, and why not; None for a single volume.

    Raises ConfigError for frames together with a guide.
    """
    kind = volume.sequence_kind
    if not volume.is_sequence:
        return False, None
    if config.sequence in ("joint", REPEATS) and guided:
        raise ConfigError(
            "frames that are filtered together take no guide",
            "Leave the guide out, or use sequence each.",
        )
    if config.sequence in ("joint", REPEATS) or (
        config.sequence == "auto" and is_filtered_together(kind)
    ):
        return not guided, text("with_guide") if guided else None
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
    config: EnhanceConfig,
    cache: VolumeCache,
    monitor: Monitor,
) -> Decision:
    """State what both ways would leave of the noise of frames of unknown kind, by a trial.

    Where they would leave the same, nothing is said.

    What a filter leaves has nothing in common with what it removes (`core.findings`).

    Args:
        volume: whose middle is filtered in both ways.
        count: of its frames with tissue.
        decision: on the volume.
        config: of the run.
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
        trial = EnhanceConfig(model=config.model, device=config.device, noise=sigma, sequence=way)
        with suppress(MedEnhanceError):  # the middle may show nothing
            frame = len(some) // 2 if way == "each" else None
            change = enhance(part, trial, frame=frame).measured["noise"]["changed"] / sigma
            left[way] = 5 * round(20 * math.sqrt(max(_LEAST_LEFT**2, 1 - change**2)))
    if len(left) < 2:
        return decision
    others = tuple(each for each in decision.warnings if each.code != "sequence-kind")
    advice = (ModelWarning("sequence-advice", left),) if left["each"] != left["joint"] else ()
    return replace(decision, warnings=(*advice, *others))


def _method_of(config: EnhanceConfig, bundle: Bundle | None, *, is_joint: bool) -> tuple[str, ...]:
    """Choose the methods, by name: one, or principal images and the one that filters them.

    Raises ConfigError for a joint method where frames are not filtered together.
    """
    name = config.denoiser
    if name == "auto":
        name = BLOCK_MATCHING if is_joint or bundle is None else network_in(bundle)
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


def _opened(
    volume: Volume, config: EnhanceConfig, monitor: Monitor
) -> tuple[Bundle | None, Volume]:
    """Open the model, if a method may need one; a guessed modality becomes that of the model."""
    if config.denoiser != "auto" and not denoiser_class(config.denoiser).needs_model:
        return None, volume
    bundle = open_bundle(config.model, kind="enhancer", modality=volume.modality)
    if volume.modality_is_guess and volume.modality != bundle.modality:
        monitor.log(f"taken as {bundle.modality}, which model {bundle.name} is for")
        volume = volume.as_modality(bundle.modality)
    return bundle, volume


def _on_device(
    method: Sequence[str], bundle: Bundle | None, config: EnhanceConfig, monitor: Monitor
) -> tuple[str, Denoiser]:
    """Choose the device, and prepare the methods for it; the last one filters."""
    choice = choose_device(config.device)
    is_used = bundle and denoiser_class(method[-1]).needs_model
    name = f"{bundle.name} ({bundle.origin})" if bundle and is_used else method[-1]
    monitor.log(f"running {name} on {choice.name}: {choice.reason}")
    engine = engine_for(choice.name, monitor)
    options = options_for(method[-1], config.denoiser_options)
    resources = Resources(bundle=bundle, device=choice.name, engine=engine, options=options)
    denoiser = denoiser_class(method[-1]).prepared(resources)
    if len(method) > 1:
        denoiser = PrincipalImages(denoiser)
    return choice.name, denoiser


def _checked(
    guides: Volume | Sequence[Volume] | None, volume: Volume, model: str, monitor: Monitor
) -> Iterator[Volume]:
    """Yield the guides of a volume after a check; raises InputError for an unsuitable one."""
    for each in [guides] if isinstance(guides, Volume) else guides or ():
        refuse_unfit(each, monitor, on_request=True, model=model)
        name = each.source or "guide"
        # Voxels first: a missing modality is guessed from them.
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
        voxels = volume.voxels.reshape(-1, *volume.shape[-2:])  # of one frame
        if is_same_grid and np.array_equal(each.voxels, voxels):
            raise InputError(
                f"{name}: the guide is the volume itself",
                "Choose another series of the same examination.",
            )
        yield each


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
        model = ScannerModel.of(bundle, choose_device(config.device).name)
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
    if not cache.ranges:
        refuse_too_large(volume)
    empty = cache.kinds_of(frames).empty
    for number in numbers:
        if number not in (*cache.ranges, *empty):
            cache.ranges[number] = _range_of(frames, number)
    return empty


def _range_of(frames: Sequence[Volume], number: int) -> IntensityRange:
    """Measure the intensity of bright tissue in a frame, and the lowest value of its result.

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
    lowest = -np.inf if frame.profile.is_absolute else min(0.0, float(frame.voxels.min()))
    return IntensityRange(top, lowest)


def _aligned(
    guides: Sequence[Volume],
    bundle: Bundle | None,
    mean: Callable[[], Volume],
    cache: VolumeCache,
    monitor: Monitor,
) -> tuple[tuple[AlignedGuide, ...], dict[str, Any]]:
    """Align the guides with the mean of all frames, once for all runs over the volume.

    For a model that does not use guides, returns none, and the reason for the manifest.
    """
    if guides and not (bundle and bundle.uses_guides):
        reason = text("takes_no_guide", method=bundle.name if bundle else "this method")
        monitor.warn(reason)
        return (), {"guide": {"used": 0.0, "reason": reason.to_json()}}
    from MedEnhanceLib.denoise.guide import align

    aligned = []
    for number, guide in enumerate(guides):
        earlier = next((copy for known, copy in cache.guides if known is guide), None)
        part = monitor.part(number / len(guides), (number + 1) / len(guides))
        aligned.append(earlier or align(guide.canonical().compact(), mean(), part))
    if guides:
        cache.guides = tuple(zip(guides, aligned, strict=True))
    return tuple(aligned), {}


def _result_of(
    run: EnhancerRun, outputs: Outputs, uses: Sequence[float], method: Mapping[str, Any]
) -> Enhanced:
    """Make the result at strength 1.

    uses: change of each frame by guides, in σ of the noise. method: facts of the denoiser.
    """
    grid, decision = run.original, run.decision
    model = _model_of(run, method)
    before, after = map(run.turn.apply, (grid.voxels, outputs.voxels))
    changes = {"changed": _typical_change(before, after)}
    tissue = [place for place, number in enumerate(run.numbers) if number not in run.empty]
    if len(tissue) > 1 and not run.config.correct_bias_field:
        changes |= _shared_change(before, after, tissue)
    facts = decision.facts | {"noise": decision.facts["noise"] | changes} | dict(method)
    facts["denoiser"] = run.method
    if run.guides:
        series = [each.facts for each in run.guides]
        facts["guide"] = {"used": round(float(np.mean(uses)), 4), "series": series}
    note = derived_note(
        f"enhanced with {model['name']} {model['sha256'][:12]}".rstrip()
        + f", {history_of(facts)}"
        + (f" ({messages_of(decision.warnings)})" if decision.warnings else "")
    )
    uncertainty = guide_use = None
    if outputs.deviation is not None:
        uncertainty = grid.with_voxels(outputs.deviation, did=_DEVIATION_NOTE)
    if outputs.use is not None:
        guide_use = grid.with_voxels(outputs.use, did=_USE_NOTE)
    fitted_on = FITTED_ON[grid.profile.like]
    calibration = {"calibration": {"fitted_on": fitted_on}}
    return Enhanced(
        volume=grid.with_voxels(outputs.voxels, did=note),
        uncertainty=uncertainty,
        guide_use=guide_use,
        model=model,
        device=run.device,
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


def _model_of(run: EnhancerRun, method: Mapping[str, Any]) -> dict[str, str]:
    """Return the identity of the model that was used, or the name of the method."""
    denoiser = run.denoiser
    if isinstance(denoiser, PrincipalImages) and "reason" not in method.get("sequence", {}):
        denoiser = denoiser.spatial
        if not denoiser.needs_model:
            return {"name": run.method, "sha256": ""}
    return run.bundle.identity() if run.bundle else {"name": run.method, "sha256": ""}


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
