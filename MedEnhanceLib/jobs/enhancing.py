"""A volume enhanced in memory, by whichever model is asked for, with all that comes with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib import gradprom, hqg
from MedEnhanceLib.core.manifest import (
    as_json,
    corrections_in_words,
    make_manifest,
    manifest_at_strength,
)
from MedEnhanceLib.core.options import narrowed, options_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.config import ForceSegmenter, SegmentConfig
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.jobs.dicom import LabelMap, Objects
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.strength import Enhancement
    from MedEnhanceLib.report.figures import Picture

#: Options that the task slices takes.
_OF_THIN_SLICES = ("model", "device", "strength", "task", "slice_spacing")
#: Of every enhancer for CT, as measured with planted lesions (docs/results.md).
CT_LIMIT = "small faint lesions disappear in low-dose CT: do not look for them in the result"
#: Passes of the enhancer that take as long as the head does.
_HEAD_PASSES = 0.4


@dataclass(frozen=True, eq=False)
class Enhanced:
    """An enhancement with all that was asked for besides.

    volume: on the grid and in the type of what came in. uncertainty: standard deviation per
    voxel, same units, or None. segmentation: labels found in `volume`, or None.
    report: its manifest, a JSON object. enhancement: what `at_strength` blends.
    """

    volume: Volume
    uncertainty: Volume | None
    segmentation: gradprom.Segmentation | None
    report: dict[str, Any]
    enhancement: Enhancement

    @property
    def noise(self) -> Volume | None:
        """The measured σ at each voxel, in the units of `volume`; None for models without it."""
        return self.enhancement.noise_map()

    @property
    def guide_use(self) -> Volume | None:
        """The change by guides at each voxel, in σ of the noise, at most 1; None without."""
        return self.enhancement.guide_use

    def compare(
        self,
        *,
        point: tuple[int, int, int] | None = None,
        window: tuple[float, float] | None = None,
    ) -> Picture:
        """Draw input, result, difference, and what there is besides, in three planes.

        Args:
            point: (slice, row, column) that the planes go through; None: where much is to be seen.
            window: lowest and highest gray level; None: chosen by the input.
        """
        from MedEnhanceLib.report.figures import Pane, comparison

        before = self.enhancement.original
        panes = [
            Pane("Input", before),
            Pane("Enhanced", self.volume),
            Pane("Enhanced − input", self.volume, minus=before),
        ]
        legend: dict[int, str] = {}
        if self.uncertainty is not None:
            panes.append(Pane("Uncertainty", self.uncertainty, heat=True))
        if self.segmentation is not None:
            legend = {label.value: label.name for label in self.segmentation.labels}
            panes.append(Pane("Segmentation", self.volume, labels=self.segmentation.volume))
        return comparison(panes, legend=legend, point=point, window=window)

    def __repr__(self) -> str:
        there = "" if self.uncertainty is None else ", uncertainty"
        there += "" if self.segmentation is None else ", segmentation"
        model, seconds = self.enhancement.model.get("name", "no model"), self.report["seconds"]
        return f"<Enhanced by {model} in {seconds:.1f} s: {self.volume!r}{there}>"

    def at_strength(self, strength: float) -> Enhanced:
        """Return the same result at another strength (0 to 1), without running the model again.

        The voxels are those of a run with that number as its strength, where this one had "auto".
        Without segmentation and uncertainty, which are of strength 1. Raises ConfigError for
        another strength, or for a result that is not at strength 1 itself.
        """
        done = self.enhancement.at_strength(strength)
        report = manifest_at_strength(self.report, strength)
        return Enhanced(done.volume, done.uncertainty, None, report, done)


def enhance_volume(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | Sequence[Volume] | None = None,
    segmenter: SegmentConfig | None = None,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    cache: hqg.VolumeCache | None = None,
    scratch: Path | None = None,
    monitor: Monitor,
) -> Enhanced:
    """Enhance in memory, then segment for a `segmenter`; other arguments as of `hqg.enhance`."""
    if segmenter is not None or config.task == "slices":
        attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.hqg.strength import ENHANCED

    began = time.monotonic()
    if config.task != "slices" and any(step.startswith(ENHANCED) for step in volume.history):
        name = Path(volume.source).name or "volume"
        monitor.warn(f"{name}: enhanced before; enhancing twice over-smooths: give the original")
    head = None
    if segmenter is not None:  # better missed now than after the long work
        head = gradprom.open_head_for(
            volume if frame is None else volume.frame(frame), segmenter, monitor
        )
    share = 1 / (1 + _HEAD_PASSES) if segmenter else 1.0
    part = monitor.part(0.0, share)
    if config.task == "slices":
        from MedEnhanceLib.hqg.slices.thin_slices import enhance_slices

        _refuse_with_thin_slices(config, guide=guide, slices=slices)
        done = enhance_slices(volume if frame is None else volume.frame(frame), config, part)
    else:
        done = hqg.enhance(
            volume,
            config,
            guide=guide,
            frame=frame,
            slices=slices,
            cache=cache,
            scratch=scratch,
            monitor=part,
        )
    labels = None
    if segmenter is not None:
        part = monitor.part(share, 1.0)
        labels = gradprom.segment(
            done.volume, segmenter, original=done.original, head=head, monitor=part
        )
    limits = [CT_LIMIT] if done.volume.modality == "CT" and config.task != "slices" else []
    facts = {"uncertainty": done.uncertainty_facts, "measured": done.measured, "limits": limits}
    # Names of files may hold those of patients.
    stated_map = {"noise": "map"} if isinstance(config.noise, str) else {}
    manifest = make_manifest(
        "enhanced",
        config=config.to_json()
        | stated_map
        | ({"segmenter": segmenter.to_json()} if segmenter else {}),
        inputs=_names(input=volume, guide=guide),
        device=done.device,
        seconds=time.monotonic() - began,
        model=done.model,
        results={
            **segmentation_figures(labels),
            "warnings": as_json(done.warnings),
            **{name: figures for name, figures in facts.items() if figures},
            # "auto" and "full" are in the configuration, what they removed is in `measured`.
            **({} if isinstance(config.strength, str) else {"strength": done.strength}),
        },
        dicom=volume.origin.facts() if volume.origin else None,
        warnings=monitor.warnings,
    )
    return Enhanced(done.volume, done.uncertainty, labels, manifest, done)


def _names(**inputs: Volume | Sequence[Volume] | None) -> dict[str, str]:
    """Name the inputs as the report does."""
    names = {}
    for role, given in inputs.items():
        if given is not None:
            volumes = [given] if isinstance(given, Volume) else given
            names[role] = ", ".join(Path(each.source).name or "volume" for each in volumes)
    return names


def _refuse_with_thin_slices(config: EnhanceConfig, **besides: object) -> None:
    """Raise ConfigError for what the task slices, whose result has another grid, does not take."""
    asked = [name for name, value in besides.items() if value is not None]
    for option in options_of(type(config)):
        value = getattr(config, option.name)
        if option.name not in _OF_THIN_SLICES and value != option.default:
            asked.append(option.name if value is True else f"{option.name} {value}")
    if asked:
        raise ConfigError(
            f"the task slices has no {' and no '.join(asked)}", f"Leave out {', '.join(asked)}."
        )


def objects_of(
    result: Volume | Enhanced | gradprom.Segmentation, source: Volume | None = None
) -> Objects:
    """Collect what becomes DICOM of a volume or a result.

    source: what was enhanced or segmented; None where it is not at hand any more.
    """
    if isinstance(result, Volume):
        if result.modality == "SEG":
            return Objects(result, "exported", segmentation=LabelMap(result, ()))
        return Objects(result, "exported", volume=result)
    if source is None:
        source = replace(result.volume, history=result.volume.history[:-1])
    if not isinstance(result, Enhanced):
        return Objects(source, "segmented", segmentation=result)
    results = result.report["results"]
    options = [f"strength {results['strength']:g}"] if results.get("strength", 1) != 1 else []
    options += [corrections_in_words(results.get("measured", {})).removeprefix(", ")]
    options += [warning["message"] for warning in results["warnings"]]
    return Objects(
        source,
        "enhanced",
        options=", ".join(filter(None, options)),
        volume=result.volume,
        segmentation=result.segmentation,
        uncertainty=result.uncertainty,
        model=result.report["model"],
    )


def segmenter_config(
    segmenter: str, device: str, options: ForceSegmenter, *, wanted: bool
) -> SegmentConfig | None:
    """Configure how an enhanced volume is segmented, on the same device; None where not.

    segmenter: a model's name or folder, or "auto". Raises ConfigError where a model is named
    without a segmentation.
    """
    if (segmenter != "auto" or options.force_segmenter) and not wanted:
        raise ConfigError(
            f"the segmenter {segmenter} is named or forced, but no segmentation is requested",
            "Add segment (--segment), or leave out segmenter and force_segmenter.",
        )
    if not wanted:
        return None
    return narrowed(SegmentConfig, options, model=segmenter, device=device, segmenter="")


def segmentation_figures(segmentation: gradprom.Segmentation | None) -> dict[str, Any]:
    """Return what a manifest records of a segmentation; nothing where there is none."""
    if segmentation is None:
        return {}
    return {
        "labels": as_json(segmentation.labels),
        "table": as_json(segmentation.table),
        "head": dict(segmentation.model),
        "segmentation_limits": list(segmentation.limits),
        **({"segmentation_warning": segmentation.warning} if segmentation.warning else {}),
    }
