"""What is done to a volume: steps that are measured in it, and the network of the filter.

measure → noise removed (filter, network) → blur undone → lines of k-space completed, as `task` says
                 └ guides                                  └ appearance of a look

`decide` looks at the whole volume, and at all frames of a sequence together, so that parts of it
are treated as the whole is and no frame differs from the next in what is done to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg import appearance, artifacts, matching, sharpness
from MedEnhanceLib.hqg.bias_field import measure_bias_field
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.denoise import Need, Rounding, denoise, need_of
from MedEnhanceLib.hqg.noise_check import noise_warning
from MedEnhanceLib.nets.grouped import Engine
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise, noise_to_contrast
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.restore import NetworkStage

Floats = npt.NDArray[np.float32]
#: Fewer patients as a look are announced.
_FEW_LOOKS = 5
#: What is recorded where N4 was asked for, whatever the shading.
N4_AS_ASKED = {"shading": {"corrected": True, "reason": "as was asked for"}}
#: Frames of a sequence that are measured for what is decided once, spread over all of it.
_FRAMES_MEASURED = 9


@dataclass(frozen=True)
class Decision:
    """What is done to a volume, or to every frame of a sequence.

    Attributes:
        share: of the noise's removal, 0 to 1.
        blur: where blur is to be undone.
        repair: where lines of k-space are to be completed, or motion undone.
        corrects_shading: whether the bias field is divided by (N4).
        warnings: that the measurement of the noise may not suit the volume.
        facts: what was measured and decided, as manifests record it.
    """

    share: float
    blur: sharpness.BlurEstimate | None = None
    repair: artifacts.ArtifactEstimate | None = None
    corrects_shading: bool = False
    warnings: tuple[ModelWarning, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chain:
    """The steps for one frame.

    Attributes:
        frame: the whole frame, [K, J, I].
        noise: as measured in it.
        decision: what is done.
        wanted: the appearance that a look shows.
        engine: what computes the filter; None for the default one.
        network: what goes on from the filter, with its guides; None for the filter alone.
    """

    frame: Volume
    noise: NoiseEstimate
    decision: Decision
    wanted: appearance.Appearance | None = None
    engine: Engine | None = None
    network: NetworkStage | None = None

    @property
    def needs_whole(self) -> bool:
        """Whether a part of the result depends on all of the frame."""
        steps = (self.decision.blur, self.decision.repair, self.wanted)
        return any(step is not None for step in steps)


def decide(
    frames: Sequence[Volume],
    caches: Sequence[VolumeCache],
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
        caches: measurements of earlier runs over the frames, filled by this one.
        config: task, strength and bias correction.
        chosen: the frames that are going to be enhanced.
        is_preview: leaves out what needs all slices.
        monitor: messages and cancelling.

    Raises:
        InputError: artifacts too strong to be repaired, or in a sequence.
    """
    numbers = _spread(frames, chosen)
    noises = [measured_noise(frames[number], caches[number], monitor) for number in numbers]
    needs = [need_of(noise) for noise in noises]
    middle = _median([need.share for need in needs])
    typical, noise, need = frames[numbers[middle]], noises[middle], needs[middle]
    is_full = config.strength == "full"
    share = 1.0 if is_full else need.share
    facts: dict[str, Any] = {"noise": _noise_facts(typical, noise, need, share)}
    if len(frames) > 1:
        facts["noise"]["frames_measured"] = len(numbers)
    _log_noise(facts["noise"], monitor)
    warning = noise_warning(typical, noise, is_full=is_full)
    decision = Decision(share, warnings=(warning,) if warning else (), facts=facts)
    if is_preview:
        monitor.log("the preview shows what happens to the noise; without blur, shading and look")
        return decision
    is_mr = typical.modality == "MR"
    if config.task in ("auto", "sharpness") and is_mr:
        pairs = zip([frames[number] for number in numbers], noises, strict=True)
        blurs = [_blur_of(frame, noise) for frame, noise in pairs]
        blur = blurs[_median([_sharper(blur) for blur in blurs])]
        facts["blur"] = {"undone": blur.is_blurred, "reason": blur.reason}
        if blur.is_blurred or config.task == "sharpness":
            monitor.log(blur.reason)
        decision = replace(decision, blur=blur if blur.is_blurred else None)
    if config.bias_correction == "n4":
        facts |= N4_AS_ASKED
        decision = replace(decision, corrects_shading=True)
    elif config.task == "auto" and config.bias_correction == "auto" and is_mr:
        field = attend(lambda: measure_bias_field(mean_frame(frames), noise=noise.level), monitor)
        facts["shading"] = {"corrected": field.is_strong, "reason": field.reason}
        decision = replace(decision, corrects_shading=field.is_strong)
    if config.task == "artifacts":
        decision = replace(decision, repair=_repairable(frames, chosen, facts, monitor))
    return decision


def measured_noise(frame: Volume, known: VolumeCache, monitor: Monitor) -> NoiseEstimate:
    """The noise of a frame, measured once for all runs over it."""
    monitor.check()
    if known.noise is None:
        known.noise = measure_noise(
            frame.voxels, modality=frame.modality, spacing=frame.geometry.spacing
        )
    return known.noise


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


def _noise_facts(frame: Volume, noise: NoiseEstimate, need: Need, share: float) -> dict[str, Any]:
    facts = {
        "sigma": float(f"{noise.level:.4g}"),
        "units": frame.units,
        "confidence": round(noise.confidence, 2),
        "share_removed": share,
    }
    return facts | ({"reason": need.reason} if share < 1 else {})


def _log_noise(facts: dict[str, Any], monitor: Monitor) -> None:
    units = f" {facts['units']}" if facts["units"] else ""
    level = f"σ {facts['sigma']:.3g}{units}, confidence {facts['confidence']:.2f}"
    monitor.log(f"measured noise: {level}")
    if "reason" in facts:
        monitor.log(f"{facts['share_removed']:.0%} of the correction is applied: {facts['reason']}")


def _blur_of(frame: Volume, noise: NoiseEstimate) -> sharpness.BlurEstimate:
    return sharpness.measure_blur(
        frame.voxels,
        spacing=frame.geometry.spacing,
        noise=noise.level,
        noise_to_contrast=noise_to_contrast(noise),
    )


def _sharper(blur: sharpness.BlurEstimate) -> float:
    """σ in px of the sharper axis where the frame is blurred; 0 where it is not."""
    return min(blur.sigma_px) if blur.is_blurred else 0.0


def _repairable(
    frames: Sequence[Volume], chosen: Sequence[int], facts: dict[str, Any], monitor: Monitor
) -> artifacts.ArtifactEstimate | None:
    if len(chosen) > 1:
        raise InputError(
            f"{frames[0].source or 'volume'}: artifacts of a sequence, whose frames may have "
            "others",
            "Repair one frame after another.",
        )
    frame = frames[chosen[0]]
    found = artifacts.measure_artifacts(frame)
    facts["artifacts"] = {
        "kind": found.kind,
        "severity": round(float(found.severity), 3),
        "repaired": found.is_repairable,
        "reason": found.reason,
    }
    if found.kind == "none":
        monitor.warn(f"no artifacts of k-space were found: {found.reason}")
        return None
    if not found.is_repairable:
        raise InputError(
            f"{frame.source or 'volume'}: its artifacts cannot be repaired: {found.reason}",
            "Scan again where that is possible, or remove its noise alone (task noise).",
        )
    monitor.log(found.reason)
    return found


def warn_of_few_looks(wanted: appearance.Appearance, monitor: Monitor) -> None:
    """Warn where an appearance was measured in too few patients to be typical."""
    if (count := len(wanted.patients)) < _FEW_LOOKS:
        monitor.warn(
            f"{count} patient{'s' if count > 1 else ''} as look: taken for typical of the kernel "
            "or scanner; a folder of five or more patients is safer"
        )


def run_chain(
    chain: Chain,
    only: slice,
    monitor: Monitor,
    *,
    rounding: Rounding | None = None,
    out: npt.NDArray[Any] | None = None,
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """The result of all steps, and what was found out on the way.

    Args:
        chain: the steps.
        only: the slices that are wanted; all where the chain `needs_whole`.
        monitor: progress and cancelling.
        rounding: what makes slices of the frame's type of the result, as they are computed; not
            where the chain `needs_whole`.
        out: where the slices go, of the result's type; None for a new array. A repair, or a look,
            returns an array of its own.

    Returns:
        [n, J, I], in the units of the frame; without `rounding` float32. Facts for manifests.
    """
    frame, noise, decision = chain.frame, chain.noise, chain.decision
    if chain.needs_whole:
        only = slice(0, frame.shape[0])

    def denoised(monitor: Monitor) -> npt.NDArray[Any]:
        return denoise(
            frame,
            noise,
            share=decision.share,
            only=only,
            engine=chain.engine,
            rounding=rounding,
            out=out,
            network=chain.network,
            monitor=monitor,
        )

    if not chain.needs_whole:
        return denoised(monitor), {}
    if decision.repair is not None:
        repaired = artifacts.repair(
            frame.voxels,
            decision.repair,
            noise=noise.level,
            denoise=_at_any_level(chain, monitor),
            monitor=monitor,
        )
        return repaired, {}
    if chain.wanted is not None:
        matched, match = matching.match_appearance(
            frame,
            chain.wanted,
            denoise=lambda volume: volume.with_voxels(denoised(monitor)),
            monitor=monitor,
        )
        summary = "; ".join(match.sentences())
        return matched.voxels.astype(np.float32), {"look": {"summary": summary} | match.to_json()}
    assert decision.blur is not None
    first = denoised(monitor.part(0, 0.9))
    sharp = sharpness.undo_blur(
        frame.voxels,
        decision.blur,
        noise=noise.level * decision.share,
        denoise=lambda _: first,
        monitor=monitor,
    )
    return sharp, {}


def _at_any_level(chain: Chain, monitor: Monitor) -> Callable[[Floats, float], Floats]:
    """The filter for a given σ instead of the measured one, with the measured map and spectrum."""

    def run(voxels: Floats, sigma: float) -> Floats:
        factor = sigma / max(chain.noise.level, 1e-6)
        louder = replace(chain.noise, sigma=chain.noise.sigma * np.float32(factor), level=sigma)
        quiet = Monitor(cancel=lambda: monitor.cancelled)
        return denoise(
            chain.frame.with_voxels(voxels),
            replace(louder, rician=False),
            engine=chain.engine,
            monitor=quiet,
        )

    return run
