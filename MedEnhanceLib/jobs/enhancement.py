"""Jobs that run a trained model on a volume: enhance, segment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.config import config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import recent
from MedEnhanceLib.jobs.events import as_json
from MedEnhanceLib.jobs.files import (
    VolumeParams,
    beside,
    check_volume_outputs,
    finish,
    known_as,
)
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.manifest import make_manifest
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Volume

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation, SegmentConfig
    from MedEnhanceLib.hqg import EnhanceConfig

#: Passes of the enhancer that take as long as the head does.
_HEAD_PASSES = 0.4


@dataclass(frozen=True, kw_only=True)
class EnhanceParams(VolumeParams):
    """config: fields of hqg.EnhanceConfig. guide: a high-quality volume of the same modality.

    segment: find labels in the enhanced volume too. Where segmentation_output or
    uncertainty_output are left out and there is something to write, they lie beside the output
    as `<output>-segmentation` and `<output>-uncertainty`. report: a folder for a page to look at.
    slices: [first, before which]: a preview of these slices alone, equal to those of the whole
    run; of a sequence it takes frame 0 or `frame`. frame: only this one of a sequence.
    """

    output: str
    guide: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    segment: bool = False
    segmentation_output: str | None = None
    uncertainty_output: str | None = None
    report: str | None = None
    slices: list[int] | None = None
    frame: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.slices is None:
            return
        if len(self.slices) != 2:
            raise ConfigError(f"slices is {self.slices!r}", "Give [first, before which].")
        wishes = {
            "segment": self.segment or self.segmentation_output is not None,
            "report": self.report is not None,
        }
        whole = [name for name, wish in wishes.items() if wish]
        if whole:
            raise ConfigError(
                f"slices cannot be combined with {' and '.join(whole)}",
                "That needs the whole volume: leave one of them out.",
            )

    @property
    def chosen(self) -> tuple[int, int] | None:
        """The slices as `hqg.enhance` takes them."""
        return None if self.slices is None else (self.slices[0], self.slices[1])


@dataclass(frozen=True, kw_only=True)
class SegmentParams(VolumeParams):
    """config: fields of gradprom.SegmentConfig."""

    output: str
    config: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class Enhanced:
    """An enhancement with all that was asked for besides.

    volume: on the grid and in the type of what came in. uncertainty: standard deviation per
    voxel, same units, or None. segmentation: labels found in `volume`, or None.
    report: its manifest, a JSON object.
    """

    volume: Volume
    uncertainty: Volume | None
    segmentation: Segmentation | None
    report: dict[str, Any]


def enhance_volume(
    volume: Volume,
    config: EnhanceConfig,
    *,
    guide: Volume | None = None,
    head: SegmentConfig | None = None,
    slices: tuple[int, int] | None = None,
    monitor: Monitor,
) -> Enhanced:
    """Enhance, then segment the enhanced volume if a `head` is given; in memory."""
    from MedEnhanceLib.hqg import enhance

    began = time.monotonic()
    passes = 1 + config.uncertainty
    share = passes / (passes + _HEAD_PASSES) if head else 1.0
    done = enhance(volume, config, guide=guide, slices=slices, monitor=monitor.part(0.0, share))
    found = _segment(done.volume, head, monitor.part(share, 1.0)) if head else None
    manifest = make_manifest(
        "enhanced",
        config=config_to_json(config) | ({"head": config_to_json(head)} if head else {}),
        inputs=_names(volume, guide),
        device=done.device,
        seconds=time.monotonic() - began,
        model=done.model,
        results=_segmentation_figures(found),
    )
    return Enhanced(done.volume, done.uncertainty, found, manifest)


def run_enhance(params: EnhanceParams, monitor: Monitor) -> Result:
    """Load → enhance → segment → save each output → page → manifest."""
    from MedEnhanceLib.hqg import EnhanceConfig

    began = time.monotonic()
    config = config_from_json(EnhanceConfig, params.config)
    outputs = _enhance_outputs(params, config)
    inputs = {"input": Path(params.input)}
    if params.guide:
        inputs["guide"] = Path(params.guide)
    check_volume_outputs(outputs, inputs=list(inputs.values()), overwrite=params.overwrite)
    _check_report_folder(params)
    volume = recent.INPUT.load(
        params,
        frame=_frame_of(params),
        keep=params.slices is not None,
        monitor=monitor.part(0.0, 0.05),
    )
    inputs["input"] = known_as(inputs["input"], volume)
    guide = None
    if params.guide:
        of_guide = VolumeParams(input=params.guide, modality=params.modality)
        guide = recent.GUIDE.load(of_guide, keep=params.slices is not None, monitor=monitor)
        inputs["guide"] = known_as(inputs["guide"], guide)
    head = head_config(config.device) if "segmentation" in outputs else None
    done = enhance_volume(
        volume,
        config,
        guide=guide,
        head=head,
        slices=params.chosen,
        monitor=monitor.part(0.05, 0.9),
    )
    _save_enhanced(done, outputs, monitor, overwrite=params.overwrite)
    if params.report:
        _write_report(params, volume, done, monitor)
        outputs["report"] = Path(params.report) / "index.html"
    return finish(
        "enhanced",
        outputs,
        began=began,
        config=done.report["config"] | params.told() | _part_told(params),
        inputs=inputs,
        figures=done.report["results"],
        device=done.report["device"],
        model=done.report["model"],
        overwrite=params.overwrite,
    )


def head_config(device: str) -> SegmentConfig:
    """The default head for what comes after an enhancement, on the same device."""
    from MedEnhanceLib.gradprom import SegmentConfig

    return SegmentConfig(device=device)


def run_segment(params: SegmentParams, monitor: Monitor) -> Result:
    """Load → segment → save → manifest with the volume of each label."""
    from MedEnhanceLib.gradprom import SegmentConfig, segment
    from MedEnhanceLib.io import save

    began = time.monotonic()
    config = config_from_json(SegmentConfig, params.config)
    source, output = Path(params.input), Path(params.output)
    check_volume_outputs({"output": output}, inputs=[source], overwrite=params.overwrite)
    volume = params.load(monitor.part(0.0, 0.1))
    found = segment(volume, config, monitor=monitor.part(0.1, 0.95))
    monitor.progress(0.95, "save")
    save(found.volume, output, overwrite=params.overwrite, monitor=monitor)
    return finish(
        "segmented",
        {"output": output},
        began=began,
        config=config_to_json(config) | params.told(),
        inputs={"input": known_as(source, volume)},
        figures=_segmentation_figures(found),
        device=found.device,
        model=found.model,
        overwrite=params.overwrite,
    )


def _frame_of(params: EnhanceParams) -> int | None:
    """Which frame of a sequence; None for all of them."""
    return 0 if params.frame is None and params.slices is not None else params.frame


def _part_told(params: EnhanceParams) -> dict[str, Any]:
    told = {"slices": params.slices, "frame": _frame_of(params)}
    return {name: value for name, value in told.items() if value is not None}


def _enhance_outputs(params: EnhanceParams, config: EnhanceConfig) -> dict[str, Path]:
    output = Path(params.output)
    outputs = {"output": output}
    if params.segment or params.segmentation_output:
        wish = params.segmentation_output
        outputs["segmentation"] = Path(wish) if wish else beside(output, "segmentation")
    if params.uncertainty_output and not config.uncertainty:
        raise ConfigError(
            "uncertainty_output is given, but no uncertainty is asked for",
            "Set the number of samples: uncertainty 8.",
        )
    if config.uncertainty:
        wish = params.uncertainty_output
        outputs["uncertainty"] = Path(wish) if wish else beside(output, "uncertainty")
    return outputs


def _save_enhanced(
    done: Enhanced, outputs: Mapping[str, Path], monitor: Monitor, *, overwrite: bool
) -> None:
    from MedEnhanceLib.io import save

    monitor.progress(0.9, "save")
    save(done.volume, outputs["output"], overwrite=overwrite, monitor=monitor)
    if done.segmentation is not None:
        save(
            done.segmentation.volume, outputs["segmentation"], overwrite=overwrite, monitor=monitor
        )
    if done.uncertainty is not None:
        save(done.uncertainty, outputs["uncertainty"], overwrite=overwrite, monitor=monitor)


def _check_report_folder(params: EnhanceParams) -> None:
    from MedEnhanceLib.io.atomic import refuse_existing

    if params.report:
        refuse_existing(Path(params.report) / "index.html", params.overwrite)


def _write_report(params: EnhanceParams, volume: Volume, done: Enhanced, monitor: Monitor) -> None:
    from MedEnhanceLib.report.enhance import enhancement_report

    monitor.progress(0.95, "report")
    found = done.segmentation
    enhancement_report(
        str(params.report),
        volume=volume,
        enhanced=done.volume,
        manifest=done.report,
        uncertainty=done.uncertainty,
        segmentation=found.volume if found else None,
        labels=found.labels if found else (),
        table=found.table if found else (),
        overwrite=params.overwrite,
    )


def _segment(volume: Volume, head: SegmentConfig, monitor: Monitor) -> Segmentation:
    from MedEnhanceLib.gradprom import segment

    return segment(volume, head, monitor=monitor)


def _names(volume: Volume, guide: Volume | None) -> dict[str, str]:
    names = {"input": Path(volume.source).name or "volume"}
    return names | ({"guide": Path(guide.source).name or "volume"} if guide else {})


def _segmentation_figures(found: Segmentation | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "labels": as_json(found.labels),
        "table": as_json(found.table),
        "head": dict(found.model),
    }
