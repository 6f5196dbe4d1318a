"""Enhancement of a volume in memory, with its segmentation and record."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedEnhanceLib import gradprom, hqg
from MedEnhanceLib.core.findings import UNCERTAIN, corrections, corrections_in_words, mean_change
from MedEnhanceLib.core.labels import Segmentation
from MedEnhanceLib.core.manifest import as_json, make_manifest
from MedEnhanceLib.core.options import options_of, shared
from MedEnhanceLib.core.quantity import PHASE, UNFIT, quantity_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, DeviceMemoryError, InputError
from MedEnhanceLib.gradprom.config import ForceSegmenter, SegmentConfig, SegmenterChoice
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.noise_verdict import even_places_of
from MedEnhanceLib.hqg.slices.slice_plan import plan_slices
from MedEnhanceLib.hqg.strength import ENHANCED, Enhanced
from MedEnhanceLib.io.describe import REQUEST, refuse_unfit
from MedEnhanceLib.jobs.dicom import LabelMap, Objects
from MedEnhanceLib.runtime.dependencies import load_packages
from MedEnhanceLib.runtime.progress import Monitor

#: Options that the task slices takes, besides its own.
_OF_THIN_SLICES = ("model", "device", "strength", "task", "as_intensity")
#: Limits of every enhancer for CT, measured with planted lesions (docs/results.md): by default, and
#: with `smooth`.
CT_LIMIT = (
    "noise of low frequency stays, as blobs that look like small faint lesions: compare with the "
    "input"
)
SMOOTH_CT_LIMIT = "small faint lesions disappear in low-dose CT: do not look for them in the result"
# Chosen on the runs that the lines name; no script repeats these counts.
#: Change of tissue over σ from which more than noise was removed: a trusted σ is within 10 % of the
#: truth. Of 30 runs on CT and MR one was beyond it: low-dose CT with half of its noise measured.
_MORE_THAN_NOISE = 1.1
#: Change of the mean of all frames, over what noise leaves, and the excess over σ, from which it is
#: warned of: in alike frames, where up to .39 was seen in real scans, and in others.
_SHARED, _ALIKE, _OTHERS = 1.25, 0.5, 0.2
#: Time of the head as a share of the time of the enhancer.
_HEAD_PASSES = 0.4


def enhance_volume(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Sequence[Volume] | None = None,
    segmenter: SegmentConfig | None = None,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    cache: hqg.VolumeCache | None = None,
    scratch: Path | None = None,
    monitor: Monitor,
) -> Enhanced:
    """Enhance in memory, then segment for a `segmenter`; raises as `hqg.enhance` does.

    Args:
        volume: as in `hqg.enhance`.
        config: the task "slices" restores thin slices; it takes no guide and no `slices`.
        guide: as in `hqg.enhance`.
        segmenter: labels the result, which must have one frame (give `frame`); None: no labels.
            If it refuses the volume, that is a warning; a missing one is an error at once.
        frame: as in `hqg.enhance`.
        slices: (start, stop) along K, stop excluded; None for all.
        rows: the same along J, of these slices.
        columns: the same along I.
        cache: measurements of an earlier run over this volume.
        scratch: a folder for a large result; None: it stays in memory.
        monitor: receives progress, messages and warnings, and can cancel.
    """
    began = time.monotonic()
    if config.task == "slices":
        _refuse_with_thin_slices(config, guide=guide, slices=slices)
    config, taken_as = _check_input(volume, config, monitor)
    single = volume if frame is None else volume.frame(frame)
    if config.task == "slices":
        plan_slices(single, config)  # refuses before PyTorch is loaded
    if segmenter is not None or config.task == "slices":
        load_packages("torch", purpose="Enhancing a volume", monitor=monitor)
    head, refused = None, dict[str, Any]()
    if segmenter is not None:
        single = single.single("Give frame to segment one of them, or leave the segmentation out.")
        with _refusal_as_warning(refused, single, monitor):
            head = gradprom.open_head_for(single, segmenter, monitor)
    share = 1 / (1 + _HEAD_PASSES) if head else 1.0
    part = monitor.part(0.0, share)
    if config.task == "slices":
        from MedEnhanceLib.hqg.slices.thin_slices import enhance_slices

        result = enhance_slices(single, config, part)
    else:
        result = hqg.enhance(
            volume,
            config,
            guide=guide,
            frame=frame,
            slices=slices,
            rows=rows,
            columns=columns,
            cache=cache,
            scratch=scratch,
            monitor=part,
        )
    taken_as["guessed_modality"] = result.volume.modality if volume.modality_is_guess else ""
    if any(taken_as.values()):
        result = replace(result, measured={"taken_as": taken_as, **result.measured})
    if slices is None:
        result = _with_places(result, single)
    _warn_of_change(result, monitor)
    if head is not None:
        with _refusal_as_warning(refused, single, monitor):
            part = monitor.part(share, 1.0)
            labels = gradprom.segment(result.volume, segmenter, head=head, monitor=part)
            result = replace(result, segmentation=labels)
    result = replace(result, measured=result.measured | refused, seconds=time.monotonic() - began)
    return replace(result, record=_record_of(result, config, segmenter))


def _with_places(result: Enhanced, volume: Volume) -> Enhanced:
    """Add where noise that is uncertain can be measured in the volume."""
    noise = result.measured.get("noise", {})
    if noise.get("verdict") != UNCERTAIN:
        return result
    if not (places := even_places_of(volume, noise["interval"][1])):
        return result
    return replace(result, measured=result.measured | {"noise": noise | {"places": places}})


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
        text = "lost detail does not come back, and errors may be taken for noise or anatomy"
        monitor.warn(f"{name}: was compressed with loss: {text}")
    if config.task != "slices" and any(step.startswith(ENHANCED) for step in volume.history):
        monitor.warn(f"{name}: enhanced before; enhancing twice over-smooths: give the original")
    quantity, is_stated = quantity_of(volume)
    is_asked = config.as_intensity or config.task == "slices"
    if quantity == PHASE and not (is_stated or is_asked) and volume.profile.is_known:
        text = f"it looks like {PHASE}, and a filter must not average over its jumps: nothing is "
        monitor.warn(f"{name}: {text}changed. {UNFIT[PHASE]} To filter it all the same: {REQUEST}")
        return replace(config, strength=0.0), {"left_alone": quantity}
    quantity = refuse_unfit(volume, monitor, model=config.model, on_request=config.as_intensity)
    return config, {"quantity": quantity}


def _warn_of_change(result: Enhanced, monitor: Monitor) -> None:
    """Warn if a removal of noise alone changed tissue by clearly more than the noise."""
    noise = result.measured.get("noise")
    if not noise or corrections(result.measured):
        return  # more than noise was to change
    if result.strength * noise.get("changed", 0) > _MORE_THAN_NOISE * noise["sigma"]:
        kind = "stated" if noise.get("is_stated") else "measured"
        text = f"the change is larger than the noise that was {kind}: anatomy may be in it, or the "
        monitor.warn(f"{text}noise is stronger; look at the difference of result and input")
    mean, alone = (noise.get(f"mean_changed{by}", 0) for by in ("", "_by_noise"))
    is_alike = "frames" in noise or noise.get("is_stated")
    least = _ALIKE if is_alike and not result.volume.gradients else _OTHERS
    excess = result.strength * math.sqrt(max(mean**2 - alone**2, 0))
    if mean_change(noise) or (mean > _SHARED * alone and excess > least * noise["sigma"]):
        mean, alone = result.strength * mean, result.strength * alone
        text = f"the mean of all frames changed by ±{mean:.3g} in tissue, by noise alone "
        text += f"±{alone:.3g}: anatomy may have been removed"
        monitor.warn(
            f"{text}; compare their averages over frames; a mean of "
            "frames, or a fit over them, is better made of the input"
        )


def _record_of(
    result: Enhanced, config: EnhanceConfig, segmenter: SegmentConfig | None
) -> dict[str, Any]:
    """Collect configuration and results of an enhancement, for its manifest."""
    noise = result.measured.get("noise", {})
    is_changed = noise.get("changed", config.task != "slices")
    has_limit = result.volume.profile.is_projected and is_changed
    limit = CT_LIMIT if noise.get("share_given_back", 0) else SMOOTH_CT_LIMIT
    facts = {
        "uncertainty": result.uncertainty_facts,
        "measured": result.measured,
        "limits": [limit] if has_limit else [],
    }
    options = config.to_json()
    if isinstance(config.noise, str):  # names of files may hold those of patients
        options["noise"] = "map"
    if segmenter is not None:
        options["segmenter"] = segmenter.to_json()
    results = {
        **segmentation_figures(result.segmentation),
        "warnings": as_json(result.warnings),
        **{name: figures for name, figures in facts.items() if figures},
        # "auto" and "full" are in the configuration, what they removed is in `measured`.
        **({} if isinstance(config.strength, str) else {"strength": result.strength}),
    }
    return {"config": options, "results": results}


def manifest_of(
    result: Enhanced, volume: Volume, guides: Sequence[Volume], warnings: Sequence[str]
) -> dict[str, Any]:
    """Make the manifest of an enhancement in memory.

    Args:
        result: with its record.
        volume: the input.
        guides: of the run.
        warnings: of the run.
    """
    roles = ["input", "guide", *(f"guide {number}" for number in range(2, len(guides) + 1))]
    files = {role: each.path for role, each in zip(roles, [volume, *guides], strict=False)}
    return make_manifest(
        "enhanced",
        inputs=files,
        device=result.device,
        seconds=result.seconds,
        model=result.model,
        dicom=volume.dicom_origin.facts() if volume.dicom_origin else None,
        warnings=warnings,
        **result.record,
    )


def _refuse_with_thin_slices(config: EnhanceConfig, **besides: object) -> None:
    """Raise ConfigError for options that the task slices lacks: its result has another grid."""
    asked = {name: name for name, value in besides.items() if value is not None}
    for option in options_of(type(config)):
        value = getattr(config, option.name)
        is_known = option.name in _OF_THIN_SLICES or option.name.startswith("slice_")
        if not is_known and value != option.default:
            asked[option.name] = option.name if value is True else f"{option.name} {value}"
    if asked:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise ConfigError(
            f"thin slices (the task slices) take no {' and no '.join(asked.values())}",
            f"Leave out {flags} ({', '.join(asked)} in Python), or choose the task noise.",
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
    measured = result.measured
    options = [f"strength {result.strength:g}"] if result.strength != 1 else []
    options += [corrections_in_words(measured, result.strength).removeprefix(", ")]
    if grid := measured.get("slices"):
        options.append(
            f"slices restored: {grid['before']} of {grid['spacing_before_mm']:.3g} mm to "
            f"{grid['after']} of {grid['spacing_after_mm']:.3g} mm, taken as "
            f"{grid['thickness_mm']:.3g} mm thick with a {grid['profile']} profile"
        )
    options += [warning.message for warning in result.warnings]
    return Objects(
        source,
        "enhanced",
        options=", ".join(filter(None, options)),
        volume=result.volume,
        segmentation=result.segmentation,
        uncertainty=result.uncertainty,
        model=result.model,
    )


def segmenter_config(
    choice: SegmenterChoice, device: str, *, requested: bool
) -> SegmentConfig | None:
    """Configure the segmentation of an enhanced volume; None if none is requested.

    Args:
        choice: the model, and whether it is forced.
        device: that of the enhancement.
        requested: whether labels are requested.
    Raises ConfigError if a model is named or forced without a segmentation.
    """
    if (choice.segmenter != "auto" or choice.force_segmenter) and not requested:
        raise ConfigError(
            f"segmenter {choice.segmenter} is named or forced, but no segmentation is requested",
            "Add segment (--segment), or leave out segmenter and force_segmenter.",
        )
    if not requested:
        return None
    return SegmentConfig(**shared(ForceSegmenter, choice), model=choice.segmenter, device=device)


def segmentation_figures(segmentation: Segmentation | None) -> dict[str, Any]:
    """Return the fields of a manifest for a segmentation; {} for None."""
    if segmentation is None:
        return {}
    return {
        "labels": as_json(segmentation.labels),
        "table": as_json(segmentation.table),
        "head": dict(segmentation.model),
        "segmentation_limits": list(segmentation.limits),
        **({"segmentation_warning": segmentation.warning} if segmentation.warning else {}),
    }
