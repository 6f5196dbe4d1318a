"""What happens before the first frame: input checked, scanner and methods opened, noise measured.

Whatever can be refused is refused here, the cheapest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.bundles.schema import ENHANCER
from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.bundles.suitability import model_warnings
from MedEnhanceLib.core.arrays import Where, let_go, trim
from MedEnhanceLib.core.geometry import AS_STORED, AxisTurn
from MedEnhanceLib.core.imaging import mean_frame
from MedEnhanceLib.core.modality import SET_MODALITY, likely_modalities
from MedEnhanceLib.core.sequence_kind import REPEATS, is_filtered_together
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.decide import VolumeCache, checked_noise, decide
from MedEnhanceLib.denoise.denoisers import (
    BLOCK_MATCHING,
    PRINCIPAL_IMAGES,
    Denoiser,
    Resources,
    denoiser_class,
    options_for,
)
from MedEnhanceLib.denoise.frame import EnhancerRun, measured_bias_field
from MedEnhanceLib.denoise.principal_images import FEWEST, PrincipalImages
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.io.describe import refuse_too_large
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.noise.movement import STILL
from MedEnhanceLib.runtime.device import refuse_unknown
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import Text, text
from MedEnhanceLib.scanner.corrector.scanner_network import ScannerModel
from MedEnhanceLib.scanner.scanner import Scanner

#: Least intensity of bright tissue; below it, lower bounds in the computation would act as noise.
_LOWEST_TOP = 1e-4


def prepared(
    volume: Volume,
    config: EnhanceConfig,
    *,
    frame: int | None,
    box: Sequence[tuple[int, int] | None],
    cache: VolumeCache,
    scratch: Path | None,
    monitor: Monitor,
) -> EnhancerRun:
    """Check the input, open what is named, measure, and decide.

    Args:
        volume: as of `enhancer.enhance`.
        config: likewise.
        frame: likewise.
        box: slices, rows and columns that are requested; None for all.
        cache: as of `enhancer.enhance`.
        scratch: likewise.
        monitor: receives messages and warnings; may cancel.
    Raises as `enhancer.enhance`.
    """
    refuse_unknown(config.device)
    is_joint, reason = way_of(volume, config)
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
        warnings = "; ".join(scanner.scanner.refusals)
        monitor.warn(text("scanner_refused", warnings=warnings), about="scanner", is_general=True)
        scanner = None
    seen, numbers, empty = seen_of(volume, frame, cache, is_part=is_part, scratch=scratch)
    frames, turn = seen.frames(), cache.turn
    if config.noise is not None:
        checked_noise(config.noise, frames[numbers[0]])
    method = _method_of(config, is_joint=is_joint)
    if is_joint and (reason := _apart(frames, empty, cache, monitor)):
        is_joint, method = False, method[-1:]
    denoiser = _made(method, config, monitor)
    kind = kind_of(seen, config)
    decision = decide(frames, cache, config, monitor, is_joint=is_joint, kind=kind)
    if bundle is not None:
        decision = replace(decision, warnings=model_warnings(bundle, volume) + decision.warnings)
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
        turn=turn, decision=decision, apart=reason, bias_field=bias_field, scanner=scanner,
        cache=cache, scratch=scratch,
    )  # fmt: skip


def seen_of(
    volume: Volume, frame: int | None, cache: VolumeCache, *, is_part: bool, scratch: Path | None
) -> tuple[Volume, Sequence[int], tuple[int, ...]]:
    """Turn a volume to the order in which it is measured, and measure its ranges.

    Args:
        volume: as it is stored.
        frame: number of the only frame to enhance; None for all.
        cache: filled with the order and the ranges.
        is_part: whether some slices are requested, not the whole volume.
        scratch: folder for a large array; None: in memory.
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


def kind_of(volume: Volume, config: EnhanceConfig) -> str:
    """Return the kind of a sequence, as the user or its file states it."""
    return REPEATS if config.sequence == REPEATS else volume.sequence_kind


def way_of(volume: Volume, config: EnhanceConfig) -> tuple[bool, Text | None]:
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
        monitor.warn(f"{method[-1]} runs on {denoiser.device}, not on {config.device}")
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
