"""What is done to a volume, from what is measured in it: noise and, on request, blur.

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
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.denoise import need_of
from MedEnhanceLib.hqg.noise_check import noise_warning
from MedEnhanceLib.hqg.sharpness import BlurEstimate, measure_blur
from MedEnhanceLib.nets.constant import ConstantRegions
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise, noise_to_contrast
from MedEnhanceLib.runtime.progress import Monitor

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
        regions: that are constant, by number of the frame.
        guides: those of the last run that had any, each with its copy on the volume's grid.
    """

    ranges: dict[int, tuple[float, float]] = field(default_factory=dict)
    noises: dict[int, NoiseEstimate] = field(default_factory=dict)
    regions: dict[int, ConstantRegions] = field(default_factory=dict)
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

    def constant(self, number: int, frame: Volume, monitor: Monitor) -> ConstantRegions:
        """The constant regions of a frame, measured once for all runs over it."""
        if number not in self.regions:
            level = self.noise(number, frame, monitor).level
            self.regions[number] = ConstantRegions(frame.voxels, level)
        return self.regions[number]


@dataclass(frozen=True)
class Decision:
    """What is done to a volume, or to every frame of a sequence.

    Attributes:
        share: of the noise's removal, 0 to 1.
        blur: that is undone; None for none.
        warnings: that the measurement of the noise may not suit the volume.
        facts: what was measured and decided, as manifests record it.
    """

    share: float
    blur: BlurEstimate | None
    warnings: tuple[ModelWarning, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def decide(
    frames: Sequence[Volume],
    cache: VolumeCache,
    config: EnhanceConfig,
    *,
    chosen: Sequence[int] = (0,),
    monitor: Monitor,
) -> Decision:
    """Measure a volume and decide what is done to it; to all frames of a sequence the same.

    In a sequence up to nine frames, spread evenly, are measured; the median frame counts.

    Args:
        frames: [K, J, I] each, all of a sequence.
        cache: measurements of earlier runs over them, filled by this one.
        config: task, strength and whether the bias field is corrected.
        chosen: the frames that are going to be enhanced.
        monitor: messages and cancelling.
    """
    numbers = _spread(frames, chosen)
    noises = [cache.noise(number, frames[number], monitor) for number in numbers]
    needs = [need_of(noise, frames[0].modality) for noise in noises]
    middle = _median([need.share for need in needs])
    typical, noise, need = frames[numbers[middle]], noises[middle], needs[middle]
    is_full = config.strength == "full"
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
    if config.correct_bias_field:
        facts["bias_field"] = {"corrected": True}
    blur = None
    if config.task == "sharpness" and typical.modality != "MR":
        monitor.warn("blur is measured in MR alone: only noise is removed")
    elif config.task == "sharpness":
        blurs = [
            measure_blur(frames[n].voxels, noise=of.level, noise_to_contrast=noise_to_contrast(of))
            for n, of in zip(numbers, noises, strict=True)
        ]
        # Of frames that are blurred the sharper axis decides.
        blur = blurs[_median([min(b.sigma_px) if b.is_blurred else 0.0 for b in blurs])]
        facts["blur"] = {"undone": blur.is_blurred, "reason": blur.reason}
        monitor.log(blur.reason)
    undone = blur if blur is not None and blur.is_blurred else None
    return Decision(share, undone, warnings, facts)


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
