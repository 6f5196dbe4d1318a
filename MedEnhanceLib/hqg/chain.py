"""What is done to a volume before any network: steps that are measured in it, none of them learned.

measure → noise removed (grouped filter) → blur undone → lines of k-space completed, as `task` says
                 └ pilot from an earlier scan           └ appearance of a guide

Everything is measured in the whole frame, so that parts of it are treated as the whole is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg import appearance, artifacts, earlier_scan, matching, sharpness
from MedEnhanceLib.hqg.bias_field import measure_bias_field
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.denoise import Rounding, denoise, need_of
from MedEnhanceLib.nets.grouped import WholeEngine
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise, noise_to_contrast
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]
#: Fewer patients as a guide are announced.
_FEW_GUIDES = 5


@dataclass(frozen=True)
class Chain:
    """The steps for one frame.

    Attributes:
        frame: the whole frame, [K, J, I].
        noise: as measured in it.
        share: of the noise's removal that is applied, 0 to 1.
        blur: where blur is to be undone.
        repair: where lines of k-space are to be completed, or motion undone.
        wanted: the appearance that a guide shows.
        earlier: the patient's earlier scan on the grid of the frame, in its units.
        is_shaded: whether its bias field is to be corrected (N4), for bias_correction "auto".
        engine: what computes the filter; None for the default one.
        facts: what was measured and decided, as manifests record it.
    """

    frame: Volume
    noise: NoiseEstimate
    share: float = 1.0
    blur: sharpness.BlurEstimate | None = None
    repair: artifacts.ArtifactEstimate | None = None
    wanted: appearance.Appearance | None = None
    earlier: Floats | None = None
    is_shaded: bool = False
    engine: WholeEngine | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_whole(self) -> bool:
        """Whether a part of the result depends on all of the frame."""
        return any(step is not None for step in (self.blur, self.repair, self.wanted))


def plan_chain(
    frame: Volume,
    known: VolumeCache,
    config: EnhanceConfig,
    *,
    guide: Volume | appearance.Appearance | None = None,
    is_preview: bool = False,
    engine: WholeEngine | None = None,
    monitor: Monitor,
) -> Chain:
    """Measure a frame and decide what is done to it.

    Args:
        frame: [K, J, I].
        known: measurements of an earlier run over it, filled by this one.
        config: task, strength and what the guide is for.
        guide: the wanted appearance or a volume that has it, or the patient's earlier scan.
        is_preview: leaves out what needs all slices.
        engine: of the filter.
        monitor: messages and cancelling.

    Raises:
        InputError: artifacts too strong to be repaired; a guide that does not fit.
    """
    monitor.check()
    spacing = frame.geometry.spacing
    if known.noise is None:
        known.noise = measure_noise(frame.voxels, modality=frame.modality, spacing=spacing)
    noise, need = known.noise, need_of(known.noise)
    share = need.share if config.strength == "auto" else 1.0
    facts: dict[str, Any] = {
        "noise": {
            "sigma": float(f"{noise.level:.4g}"),
            "units": frame.units,
            "confidence": round(noise.confidence, 2),
            "share_removed": round(share, 2),
        }
    }
    units = f" {frame.units}" if frame.units else ""
    monitor.log(f"measured noise: σ {noise.level:.3g}{units}, confidence {noise.confidence:.2f}")
    if share < 1:
        facts["noise"]["reason"] = need.reason
        monitor.log(f"{share:.0%} of the correction is applied: {need.reason}")
    chain = Chain(frame, noise, share, engine=engine, facts=facts)
    if is_preview:
        left_out = "blur and bias field" + (", and the guide" if guide is not None else "")
        monitor.log(f"the preview shows what happens to the noise; without {left_out}")
        return chain
    if config.task in ("auto", "sharpness") and not config.deblur and frame.modality == "MR":
        blur = sharpness.measure_blur(
            frame.voxels,
            spacing=spacing,
            noise=noise.level,
            noise_to_contrast=noise_to_contrast(noise),
        )
        facts["blur"] = {"undone": blur.is_blurred, "reason": blur.reason}
        if blur.is_blurred or config.task == "sharpness":
            monitor.log(blur.reason)
        chain = replace(chain, blur=blur if blur.is_blurred else None)
    if config.task == "auto" and config.bias_correction == "auto" and frame.modality == "MR":
        measured = attend(lambda: measure_bias_field(frame, noise=noise.level), monitor)
        facts["shading"] = {"corrected": measured.is_strong, "reason": measured.reason}
        chain = replace(chain, is_shaded=measured.is_strong)
    if config.task == "artifacts":
        chain = replace(chain, repair=_repairable(frame, facts, monitor))
    return chain if guide is None else _guided(chain, guide, config, monitor)


def _repairable(
    frame: Volume, facts: dict[str, Any], monitor: Monitor
) -> artifacts.ArtifactEstimate | None:
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


def _guided(
    chain: Chain, guide: Volume | appearance.Appearance, config: EnhanceConfig, monitor: Monitor
) -> Chain:
    if config.guide_use == "earlier-scan" and isinstance(guide, Volume):
        found = earlier_scan.register(guide, chain.frame, monitor)
        chain.facts["guide"] = {"use": "earlier-scan"} | found.to_json()
        scaling = scaling_for(chain.frame)
        return replace(chain, earlier=scaling.undo(found.aligned))
    wanted = appearance.measure_appearance(guide, monitor) if isinstance(guide, Volume) else guide
    if (count := len(wanted.patients)) < _FEW_GUIDES:
        monitor.warn(
            f"{count} patient{'s' if count > 1 else ''} as guide: taken for typical of the kernel "
            "or scanner; a folder of five or more patients is a safer guide"
        )
    return replace(chain, wanted=wanted)


def run_chain(chain: Chain, only: slice, monitor: Monitor) -> Floats:
    """The result of all steps.

    Args:
        chain: from `plan_chain`.
        only: the slices that are wanted; all where the chain `needs_whole`.
        monitor: progress and cancelling.

    Returns:
        float32 [n, J, I], in the units of the frame, not rounded.
    """
    frame, noise = chain.frame, chain.noise
    if chain.needs_whole:
        only = slice(0, frame.shape[0])
    if chain.repair is not None:
        return artifacts.repair(
            frame.voxels,
            chain.repair,
            noise=noise.level,
            denoise=_at_any_level(chain, monitor),
            monitor=monitor,
        )
    if chain.wanted is not None:
        matched, match = matching.match_appearance(
            frame,
            chain.wanted,
            denoise=lambda volume: volume.with_voxels(_denoised(chain, only, monitor)),
            monitor=monitor,
        )
        summary = "; ".join(match.sentences())
        chain.facts["guide"] = {"use": "appearance", "summary": summary} | match.to_json()
        return matched.voxels.astype(np.float32)
    result = _denoised(chain, only, monitor.part(0, 0.9))
    if chain.blur is not None:
        result = sharpness.undo_blur(
            frame.voxels,
            chain.blur,
            noise=noise.level * chain.share,
            denoise=lambda _: result,
            monitor=monitor,
        )
    return result


def run_rounded(
    chain: Chain, only: slice, floor: float, monitor: Monitor
) -> npt.NDArray[Any] | None:
    """As `run_chain`, rounded to the frame's type on the device that computes it.

    None where it has to come back first: the chain has more steps, or no such device.
    """
    rounding = Rounding(chain.frame.dtype, floor)
    if chain.needs_whole or chain.engine is None or not rounding.knows(rounding.dtype):
        return None
    return _denoised(chain, only, monitor, rounding)


def _denoised(
    chain: Chain, only: slice, monitor: Monitor, rounding: Rounding | None = None
) -> npt.NDArray[Any]:
    return denoise(
        chain.frame,
        chain.noise,
        share=chain.share,
        only=only,
        earlier=chain.earlier,
        engine=chain.engine,
        rounding=rounding,
        monitor=monitor,
    )


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
