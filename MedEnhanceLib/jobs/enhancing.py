"""Enhancement of a volume in memory, with its segmentation and record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedEnhanceLib import denoise, gradprom
from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.core.findings import history_of, mean_change, mean_changed
from MedEnhanceLib.core.labels import Segmentation
from MedEnhanceLib.core.manifest import ENHANCED, as_json, make_manifest
from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.core.quantity import PHASE, UNFIT, quantity_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.error_left import check_second, compare
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import ConfigError, DeviceMemoryError, InputError
from MedEnhanceLib.gradprom.config import FORCE, SegmentConfig
from MedEnhanceLib.io.describe import REQUEST, refuse_unfit
from MedEnhanceLib.jobs.dicom import LabelMap, Objects
from MedEnhanceLib.runtime.dependencies import load_packages
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import text
from MedEnhanceLib.slices.slice_plan import plan_slices, refuse_other_options

#: Limits of every enhancer for CT, measured with planted lesions (docs/results.md): by default, and
#: with `for_viewing`.
CT_LIMIT = "small faint lesions lose a part of their contrast: compare with the input"
VIEWING_LIMIT = "small faint lesions disappear in low-dose CT: do not look for them in the result"
# Chosen on the runs that the lines name; no script repeats these counts.
#: Change of tissue over σ from which more than noise was removed: a trusted σ is within 10 % of the
#: truth. Of 105 runs on undamaged CT and MR none is beyond it, the farthest at .94
#: (Benchmarks/harm.py).
_MORE_THAN_NOISE = 1.1
#: Change of the mean of all frames, over what noise leaves, and the excess over σ, from which it is
#: warned of: in alike frames, where up to .39 was seen in real scans, and in others.
_SHARED, _ALIKE, _OTHERS = 1.25, 0.5, 0.2
#: Time of the head as a share of the time of the enhancer.
_HEAD_PASSES = 0.4


@dataclass(frozen=True, kw_only=True)
class SegmenterChoice(Options):
    """Options of everything that segments what it enhanced."""

    force_segmenter: bool = FORCE
    segment: bool = option(False, help="segment the enhanced volume too", flag=None)
    segmenter: str = option(
        "auto",
        help="the model that segments the enhanced volume, by name or folder; auto: the one for "
        "the modality",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.segmenter != "auto" or self.force_segmenter) and not self.wants_labels:
            raise ConfigError(
                f"segmenter {self.segmenter} is named or forced, but no segmentation is requested",
                "Add segment (--segment), or leave out segmenter and force_segmenter.",
            )

    @property
    def wants_labels(self) -> bool:
        """Whether labels are requested."""
        return self.segment

    def segmentation(self, device: str) -> SegmentConfig | None:
        """Configure the segmentation, on the device of the enhancement; None if not requested."""
        if not self.wants_labels:
            return None
        return SegmentConfig(
            model=self.segmenter, device=device, force_segmenter=self.force_segmenter
        )


def enhance_volume(
    volume: Volume,
    config: EnhanceConfig,
    *,
    segmenter: SegmentConfig | None = None,
    frame: int | None = None,
    box: Mapping[str, tuple[int, int]] | None = None,
    cache: denoise.VolumeCache | None = None,
    scratch: Path | None = None,
    against: Volume | None = None,
    on_draft: Callable[[Array], None] | None = None,
    monitor: Monitor,
) -> Enhanced:
    """Remove noise or make thin slices, in memory, then segment for a `segmenter`.

    Raises as `denoise.enhance` and `slices.thin_slices.enhance_slices` do.

    Args:
        volume: as in `denoise.enhance`.
        config: likewise.
        segmenter: labels the result, which must have one frame (give `frame`); None: no labels.
            If it refuses the volume, that is a warning; a missing one is an error at once.
        frame: as in `denoise.enhance`.
        box: its slices, rows and columns, those that are given.
        cache: as in `denoise.enhance`.
        scratch: likewise.
        against: the same measured again, by which the error that is left is measured.
        on_draft: as in `denoise.enhance`.
        monitor: receives progress, messages and warnings, and can cancel.
    """
    began = time.monotonic()
    config, taken_as = _check_input(volume, config, monitor)
    single = volume if frame is None else volume.frame(frame)
    head, besides = None, dict[str, Any]()
    if against is not None:
        check_second(single, against)
    if segmenter is not None:
        load_packages("torch", purpose="Segmenting a volume", monitor=monitor)
        single = single.single("Give frame to segment one of them, or leave the segmentation out.")
        with _refusal_as_warning(besides, single, monitor):
            head = gradprom.open_head_for(single, segmenter, monitor)
    share = 1 / (1 + _HEAD_PASSES) if head else 1.0
    part = monitor.part(0.0, share)
    if config.task == "slices":
        refuse_other_options(config, slices=(box or {}).get("slices"))
        result = _thin_slices_of(volume if frame is None else volume.frame(frame), config, part)
    else:
        result = denoise.enhance(
            volume,
            config,
            frame=frame,
            cache=cache,
            scratch=scratch,
            on_draft=on_draft,
            monitor=part,
            **(box or {}),
        )
    is_guess = volume.modality_is_guess and config.scanner is None
    taken_as["guessed_modality"] = result.volume.modality if is_guess else ""
    if any(taken_as.values()):
        result = replace(result, measured={"taken_as": taken_as, **result.measured})
    _warn_of_change(result, monitor)
    if head is not None:
        with _refusal_as_warning(besides, single, monitor):
            part = monitor.part(share, 1.0)
            labels = gradprom.segment(result.volume, head=head, monitor=part)
            result = replace(result, segmentation=labels)
    if against is not None:
        compared = compare(single, result.volume, against, result.segmentation, result.sigma)
        result = replace(result, error_left=compared)
        besides["against"] = compared.facts
        for warning in compared.warnings:
            monitor.warn(warning)
    result = replace(result, measured=result.measured | besides, seconds=time.monotonic() - began)
    requested = {**(box or {}), **({} if frame is None else {"frame": frame})}
    return replace(result, record=_record_of(result, config, segmenter, requested))


def _thin_slices_of(volume: Volume, config: EnhanceConfig, monitor: Monitor) -> Enhanced:
    plan_slices(volume, config)  # refuses before PyTorch is loaded
    load_packages("torch", purpose="Making thin slices", monitor=monitor)
    from MedEnhanceLib.slices.thin_slices import enhance_slices

    return enhance_slices(volume, config, monitor)


@contextmanager
def _refusal_as_warning(
    refused: dict[str, Any], volume: Volume, monitor: Monitor
) -> Iterator[None]:
    """Warn of a segmentation that is refused; the reason in `refused` does not name the volume."""
    try:
        yield
    except (InputError, DeviceMemoryError) as cause:
        reason = cause.message.replace(volume.source or "the volume", "the volume")
        refused["segmentation"] = {"refused": reason}
        monitor.warn(f"not segmented: {reason}. {cause.hint}")


def _check_input(
    volume: Volume, config: EnhanceConfig, monitor: Monitor
) -> tuple[EnhanceConfig, dict[str, str]]:
    """Refuse as `refuse_unfit` does, and warn if a volume was changed.

    Returns the configuration, at strength 0 for what looks like phase, and the quantity taken.
    """
    name = Path(volume.source).name or "volume"
    if volume.lossy:
        monitor.warn(text("compressed", name=name))
    if config.task != "slices" and any(step.startswith(ENHANCED) for step in volume.history):
        monitor.warn(text("enhanced_before", name=name))
    quantity, is_stated = quantity_of(volume)
    is_asked = config.as_intensity or config.task == "slices"
    if quantity == PHASE and not (is_stated or is_asked) and volume.profile.is_known:
        monitor.warn(text("phase_left", name=name, instead=UNFIT[PHASE], request=REQUEST))
        return replace(config, strength=0.0), {"left_alone": quantity}
    quantity = refuse_unfit(volume, monitor, model=config.model, on_request=config.as_intensity)
    return config, {"quantity": quantity}


def _warn_of_change(result: Enhanced, monitor: Monitor) -> None:
    """Warn if a removal of noise alone changed tissue by clearly more than the noise."""
    noise = result.measured.get("noise")
    if not noise or result.measured.keys() & {"bias_field", "scanner"}:
        return  # more than noise was to change
    if result.strength * noise.get("changed", 0) > _MORE_THAN_NOISE * noise["sigma"]:
        monitor.warn(text("large_change"))
    mean, alone = (noise.get(f"mean_changed{by}", 0) for by in ("", "_by_noise"))
    is_alike = "frames" in noise or noise.get("is_stated")
    least = _ALIKE if is_alike and not result.volume.gradients else _OTHERS
    excess = result.strength * math.sqrt(max(mean**2 - alone**2, 0))
    if mean_change(noise) or (mean > _SHARED * alone and excess > least * noise["sigma"]):
        monitor.warn(text("mean_lost", change=mean_changed(noise, result.strength)))


def _record_of(
    result: Enhanced,
    config: EnhanceConfig,
    segmenter: SegmentConfig | None,
    requested: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect configuration and results of an enhancement, for its manifest.

    requested: the part of the volume; empty for all.
    """
    noise = result.measured.get("noise", {})
    is_changed = noise.get("changed", config.task != "slices")
    has_limit = result.volume.profile.is_projected and is_changed
    limit = CT_LIMIT if "ct_share" in noise else VIEWING_LIMIT
    facts = {
        "uncertainty": result.uncertainty_facts,
        "measured": result.measured,
        "limits": [limit] if has_limit else [],
    }
    options = config.to_json()
    if isinstance(config.noise, str):  # names of files may hold those of patients
        options["noise"] = "map"
    if config.scanner is not None:
        options["scanner"] = "measured"
    if segmenter is not None:
        options["segmenter"] = segmenter.to_json()
    options |= requested
    results = {
        **segmentation_figures(result.segmentation),
        "warnings": [warning.to_json() for warning in result.warnings],
        **{name: figures for name, figures in facts.items() if figures},
        # "auto" and "full" are in the configuration, what they removed is in `measured`.
        **({} if isinstance(config.strength, str) else {"strength": result.strength}),
    }
    return {"config": options, "results": results}


def manifest_of(result: Enhanced, volume: Volume, warnings: Sequence[str]) -> dict[str, Any]:
    """Make the manifest of an enhancement in memory.

    Args:
        result: with its record.
        volume: the input.
        warnings: of the run.
    """
    return make_manifest(
        "enhanced",
        inputs={"input": volume.path},
        device=result.device,
        seconds=result.seconds,
        model=result.model,
        dicom=volume.dicom_origin.facts() if volume.dicom_origin else None,
        warnings=warnings,
        **result.record,
    )


def objects_of(result: Volume | Enhanced | Segmentation, source: Volume | None = None) -> Objects:
    """Collect the volumes of a result that become DICOM objects.

    source: the volume that was enhanced or segmented; None if it is not available.
    """
    if isinstance(result, Volume):
        if result.profile.is_labels:
            return Objects(result, "exported", segmentation=LabelMap(result, ()))
        return Objects(result, "exported", volume=result)
    if source is None:
        source = replace(result.volume, history=result.volume.history[:-1])
    if not isinstance(result, Enhanced):
        return Objects(source, "segmented", segmentation=result)
    options = [f"strength {result.strength:g}"] if result.strength != 1 else []
    options += [history_of(result.measured, result.strength)]
    options += [str(warning.message) for warning in result.warnings]
    return Objects(
        source,
        "enhanced",
        options=", ".join(filter(None, options)),
        volume=result.volume,
        segmentation=result.segmentation,
        uncertainty=result.uncertainty,
        model=result.model,
    )


def segmentation_figures(segmentation: Segmentation | None) -> dict[str, Any]:
    """Return the fields of a manifest for a segmentation; {} for None."""
    if segmentation is None:
        return {}
    return {
        "labels": as_json(segmentation.labels),
        "table": as_json(segmentation.table),
        **({"intracranial": segmentation.intracranial} if segmentation.intracranial else {}),
        "head": dict(segmentation.model),
        "segmentation_limits": list(segmentation.limits),
        **({"segmentation_warning": segmentation.warning} if segmentation.warning else {}),
    }
