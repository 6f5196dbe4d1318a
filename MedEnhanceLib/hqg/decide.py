"""What is done to a volume, from what is measured in it: noise, blur, bias field, motion.

`decide` looks at the whole volume, and at all frames of a sequence together, so that parts of it
are treated as the whole is and no frame differs from the next in what is done to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.core.manifest import findings_in_words
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.bias_field import measure_bias_field
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.denoise import need_of
from MedEnhanceLib.hqg.motion import MotionEstimate, measure_motion
from MedEnhanceLib.hqg.noise_check import noise_warning
from MedEnhanceLib.hqg.sharpness import BlurEstimate, measure_blur
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise, noise_to_contrast
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.guide import AlignedGuide

#: Frames of a sequence that are measured for what is decided once, spread over all of it.
_FRAMES_MEASURED = 9


@dataclass
class VolumeCache:
    """Measurements of one volume, filled by the first run over it.

    Owned by who keeps the volume in memory; valid as long as nobody writes to its voxels.

    Attributes:
        ranges: intensity of bright tissue and lowest value of a result, by number of the frame.
        noises: the noise, by number of the frame.
        guides: those of the last run that had any, each with its copy on the volume's grid.
    """

    ranges: dict[int, tuple[float, float]] = field(default_factory=dict)
    noises: dict[int, NoiseEstimate] = field(default_factory=dict)
    guides: tuple[tuple[Volume, AlignedGuide], ...] = ()

    def noise(self, number: int, frame: Volume, monitor: Monitor) -> NoiseEstimate:
        """The noise of a frame, measured once for all runs over it."""
        monitor.check()
        if number not in self.noises:
            spacing = frame.geometry.spacing
            self.noises[number] = measure_noise(
                frame.voxels, modality=frame.modality, spacing=spacing
            )
        return self.noises[number]


@dataclass(frozen=True)
class Decision:
    """What is done to a volume, or to every frame of a sequence.

    Attributes:
        share: of the noise's removal, 0 to 1.
        blur: that is undone; None for none.
        motion: that is undone; None for none.
        corrects_bias: whether results are divided by their bias field (N4).
        warnings: that the measurement of the noise may not suit the volume.
        facts: what was measured and decided, as manifests record it.
    """

    share: float
    blur: BlurEstimate | None
    motion: MotionEstimate | None
    corrects_bias: bool
    warnings: tuple[ModelWarning, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def decide(
    frames: Sequence[Volume],
    cache: VolumeCache,
    config: EnhanceConfig,
    *,
    chosen: Sequence[int] = (0,),
    is_preview: bool = False,
    monitor: Monitor,
) -> Decision:
    """Measure a volume and decide what is done to it; to all frames of a sequence the same.

    In a sequence up to nine frames, spread evenly, are measured: noise and blur by the median
    frame, the bias field in the mean of all frames.

    Args:
        frames: [K, J, I] each, all of a sequence.
        cache: measurements of earlier runs over them, filled by this one.
        config: task, strength and bias correction.
        chosen: the frames that are going to be enhanced.
        is_preview: leaves out what needs all slices.
        monitor: messages and cancelling.

    Raises:
        InputError: motion too strong to be corrected, or in a sequence.
    """
    numbers = _spread(frames, chosen)
    noises = [cache.noise(number, frames[number], monitor) for number in numbers]
    needs = [need_of(noise, frames[0].modality) for noise in noises]
    middle = _median([need.share for need in needs])
    typical, noise, need = frames[numbers[middle]], noises[middle], needs[middle]
    is_full, is_mr = config.strength == "full", typical.modality == "MR"
    share = 1.0 if is_full else need.share
    facts: dict[str, Any] = {
        "noise": {
            "sigma": float(f"{noise.level:.4g}"),
            "units": typical.units,
            "confidence": round(noise.confidence, 2),
            "share_removed": share,
        }
        | ({"reason": need.reason} if share < 1 else {})
        | ({"frames_measured": len(numbers)} if len(frames) > 1 else {})
    }
    monitor.log(*findings_in_words(facts))
    warning = noise_warning(typical, noise, is_full=is_full)
    warnings = (warning,) if warning else ()
    if is_preview:
        monitor.log("the preview removes noise; it leaves out blur, bias field and look")
        return Decision(share, None, None, False, warnings, facts)
    blur = motion = None
    corrects_bias = config.bias_correction == "n4"
    if config.task in ("auto", "sharpness") and is_mr:
        blurs = [
            measure_blur(frames[n].voxels, noise=of.level, noise_to_contrast=noise_to_contrast(of))
            for n, of in zip(numbers, noises, strict=True)
        ]
        # Of frames that are blurred the sharper axis decides.
        blur = blurs[_median([min(b.sigma_px) if b.is_blurred else 0.0 for b in blurs])]
        facts["blur"] = {"undone": blur.is_blurred, "reason": blur.reason}
        if blur.is_blurred or config.task == "sharpness":
            monitor.log(blur.reason)
    if corrects_bias:
        facts["bias_field"] = {"corrected": True, "reason": "as requested"}
    elif is_mr and config.task == config.bias_correction == "auto":
        mean = mean_frame(frames)
        bias_field = attend(lambda: measure_bias_field(mean, noise=noise.level), monitor)
        corrects_bias = bias_field.is_strong
        facts["bias_field"] = {"corrected": corrects_bias, "reason": bias_field.reason}
    if config.task == "motion":
        motion = _correctable_motion(frames, chosen, facts, monitor)
    return Decision(
        share,
        blur if blur is not None and blur.is_blurred else None,
        motion,
        corrects_bias,
        warnings,
        facts,
    )


def mean_frame(frames: Sequence[Volume]) -> Volume:
    """The mean of all frames in float32; a single frame as it is."""
    if len(frames) == 1:
        return frames[0]
    total = np.zeros(frames[0].shape, np.float64)
    for frame in frames:
        total += frame.voxels
    return frames[0].with_voxels((total / len(frames)).astype(np.float32))


def _spread(frames: Sequence[Volume], chosen: Sequence[int]) -> list[int]:
    """Frames to be measured, spread evenly; none that is constant, unless it is a chosen one."""
    last = len(frames) - 1
    places = np.linspace(0, last, min(len(frames), _FRAMES_MEASURED)).round().astype(int)
    shown = [int(n) for n in places if frames[n].voxels.min() < frames[n].voxels.max()]
    return shown or list(chosen)


def _median(values: Sequence[float]) -> int:
    """Where the median is; of an even number of values the lower one."""
    return sorted(range(len(values)), key=values.__getitem__)[(len(values) - 1) // 2]


def _correctable_motion(
    frames: Sequence[Volume], chosen: Sequence[int], facts: dict[str, Any], monitor: Monitor
) -> MotionEstimate | None:
    name = frames[0].source or "volume"
    if len(chosen) > 1:
        raise InputError(
            f"{name}: motion is corrected in a single frame, and this is a sequence",
            "Enhance one frame after another (frame).",
        )
    motion = measure_motion(frames[chosen[0]])
    facts["motion"] = {
        "corrected": motion.is_correctable,
        "reason": motion.reason,
    }
    if motion.angle and not motion.is_correctable:
        raise InputError(
            f"{name}: {motion.reason}",
            "Scan again where that is possible, or remove its noise alone (task noise).",
        )
    (monitor.log if motion.is_correctable else monitor.warn)(motion.reason)
    return motion if motion.is_correctable else None
