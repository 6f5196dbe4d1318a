"""The job that enhances a volume with a trained model, and finds labels in it on request."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.options import option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.jobs.dicom import DicomParams, check_output, placed
from MedEnhanceLib.jobs.enhancing import Enhanced, enhance_volume, enhanced_objects
from MedEnhanceLib.jobs.files import (
    KeptVolumes,
    Result,
    VolumeParams,
    beside,
    check_volume_outputs,
    finish,
    known_as,
)
from MedEnhanceLib.jobs.guides import AUTO, check_guides, chosen_guide, volumes_in
from MedEnhanceLib.jobs.kinds.segment import check_head, head_config
from MedEnhanceLib.jobs.objects import anonymous_history, write
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor


@dataclass(frozen=True, kw_only=True)
class EnhanceParams(DicomParams, VolumeParams):
    """Enhance a volume, and find labels in the result on request.

    What is made besides lies beside the output as `<output>-segmentation` and
    `<output>-uncertainty` where no other file is named; with `dicom` it goes into the folder.
    """

    config: EnhanceConfig = option(factory=EnhanceConfig, help="how it is enhanced")
    guide: list[str] | None = option(
        None,
        help="other series of the same examination, of any contrast, which help to separate noise "
        "from anatomy; auto: the best one of the volume's study or folder",
        metavar="FILE",
        place="input",
    )
    look: list[str] | None = option(
        None,
        help="volumes of the same contrast, or folders of some, whose sharpness and noise are "
        "taken over: a kernel's or a scanner's",
        metavar="FILE",
        place="input",
    )
    guide_map: str | None = option(
        None,
        help="where a map goes of how much the guides were used, 0 to 1 (default: none)",
        metavar="FILE",
        place="output",
    )
    noise_output: str | None = option(
        None,
        help="where a map of the measured noise goes (default: none)",
        metavar="FILE",
        place="output",
    )
    bias_field_output: str | None = option(
        None,
        help="where the bias field goes that the result was divided by; nothing is written where "
        "none was corrected",
        flag=None,
        place="output",
    )
    uncertainty_output: str | None = option(
        None,
        help="where the uncertainty volume goes (default: beside OUTPUT)",
        flag=None,
        place="output",
    )
    segment: bool = option(False, help="find labels in the enhanced volume too", flag=None)
    segmentation_output: str | None = option(
        None, help="where the labels go (default: beside OUTPUT)", flag=None, place="output"
    )
    head: str = option(
        "auto",
        help="the model that segments with --segment, by name or folder; auto: the one for the "
        "modality",
        metavar="NAME",
    )
    report: str | None = option(
        None, help="write a page with pictures into this folder", metavar="FOLDER", place="output"
    )
    slices: list[int] | None = option(
        None,
        help="[first, before which]: a preview of these slices alone. It equals those of a whole "
        "run, but leaves out blur, bias field and look. Of a sequence it takes frame 0 or `frame`",
        flag=None,
    )
    frame: int | None = option(
        None,
        help="only this one of a sequence, as it is in a run over the whole sequence",
        flag=None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head(self.head, wanted=self.wants_segmentation)
        if self.guide is not None:
            check_guides(self.guide)
        elif self.guide_map is not None:
            raise ConfigError("guide_map is given, but no guide", "Give a guide, or leave it out.")
        named = (
            self.segmentation_output,
            self.uncertainty_output,
            self.noise_output,
            self.bias_field_output,
            self.guide_map,
        )
        if self.dicom and any(named):
            raise ConfigError(
                "with dicom, what is made besides goes into the folder of the series",
                "Name no file for --segment, --uncertainty, --noise-output and --guide-map (in a "
                "job: leave out segmentation_output, uncertainty_output, noise_output, "
                "bias_field_output and guide_map).",
            )
        if self.dicom and self.config.task == "slices":
            raise ConfigError(
                "thin slices are no images of the series that they were made of",
                "Write a volume (NIfTI, NRRD, MetaImage) without dicom.",
            )
        if self.slices is None:
            return
        if len(self.slices) != 2:
            raise ConfigError(f"slices is {self.slices!r}", "Give [first, before which].")
        requested = {"segment": self.wants_segmentation, "report": self.report is not None}
        whole = [name for name, is_requested in requested.items() if is_requested]
        if whole:
            raise ConfigError(
                f"slices cannot be combined with {' and '.join(whole)}",
                "That needs the whole volume: leave one of them out.",
            )

    @property
    def wants_segmentation(self) -> bool:
        """Whether labels are asked for."""
        return self.segment or self.segmentation_output is not None

    @property
    def has_objects(self) -> bool:
        """Whether more than a series of single images is written."""
        return self.wants_segmentation or self.config.uncertainty

    @property
    def results(self) -> dict[str, Path]:
        """Where everything goes but the report; raises ConfigError for what is not asked for."""
        output = Path(self.output)
        outputs = {"output": output}
        if self.dicom:
            return outputs
        if self.wants_segmentation:
            named = self.segmentation_output
            outputs["segmentation"] = Path(named) if named else beside(output, "segmentation")
        if self.noise_output:
            outputs["noise"] = Path(self.noise_output)
        if self.bias_field_output:
            outputs["bias_field"] = Path(self.bias_field_output)
        if self.guide_map:
            outputs["guide_map"] = Path(self.guide_map)
        if self.uncertainty_output and not self.config.uncertainty:
            raise ConfigError(
                "uncertainty_output is given, but no uncertainty is asked for",
                "Ask for it: uncertainty true.",
            )
        if self.config.uncertainty:
            named = self.uncertainty_output
            outputs["uncertainty"] = Path(named) if named else beside(output, "uncertainty")
        return outputs

    @property
    def chosen(self) -> tuple[int, int] | None:
        """The slices as `hqg.enhance` takes them."""
        return None if self.slices is None else (self.slices[0], self.slices[1])


def run_enhance(params: EnhanceParams, monitor: Monitor, kept: KeptVolumes) -> Result:
    """Load → enhance → segment → save each output, or all as DICOM → page → manifest."""
    began = time.monotonic()
    config = params.config
    outputs = params.results
    inputs = {"input": Path(params.input)}
    inputs |= _numbered("guide", [Path(one) for one in params.guide or () if one != AUTO])
    inputs |= _numbered("look", [Path(one) for one in params.look or ()])
    if params.dicom:
        check_output(params, inputs["input"], monitor)
    else:
        check_volume_outputs(outputs, inputs=list(inputs.values()), overwrite=params.overwrite)
    _check_report_folder(params)
    is_preview = params.slices is not None
    # The voxels of large volumes stay on disk.
    scratch = None if is_preview or params.dicom else outputs["output"].parent
    volume = kept.input.load(
        params, keep=is_preview, scratch=scratch, monitor=monitor.part(0.0, 0.05)
    )
    inputs["input"] = known_as(inputs["input"], volume)
    frame = _frame_of(params)
    source = volume if frame is None else volume.frame(frame)
    if params.dicom:
        source = placed(source, params, monitor)
        _refuse_sequence(source, params, config)
    guides = _guides_of(params, volume, kept, monitor)
    places = [Path(one.source.partition(" (series ")[0]) for one in guides]
    inputs |= _numbered("guide", list(map(known_as, places, guides)))
    head = head_config(params.head, config.device, wanted=params.wants_segmentation)
    done = enhance_volume(
        source if frame is None else volume,
        config,
        guide=guides or None,
        look=_look_of(params, volume, monitor),
        head=head,
        frame=frame,
        slices=params.chosen,
        cache=kept.input.cache,
        scratch=scratch,
        monitor=monitor.part(0.05, 0.9),
    )
    written = None
    if params.dicom:
        objects = enhanced_objects(source, done)
        written = write(objects, Path(params.output), params, monitor.part(0.9, 0.98))
    else:
        _save_enhanced(done, outputs, monitor, overwrite=params.overwrite)
    if params.report:
        _write_report(params, source, done, monitor)
        outputs["report"] = Path(params.report) / "index.html"
    return finish(
        "enhanced",
        outputs,
        began=began,
        config=done.report["config"] | params.stated() | _part_of(params),
        inputs=inputs,
        figures=done.report["results"],
        written=written,
        anonymous=params.deidentify,
        source=source,
        device=done.report["device"],
        model=done.report["model"],
        overwrite=params.overwrite,
    )


def _numbered(name: str, places: Sequence[Path]) -> dict[str, Path]:
    """What a manifest calls one of several inputs: guide, guide 2, guide 3."""
    return {name if n == 1 else f"{name} {n}": place for n, place in enumerate(places, 1)}


def _guides_of(
    params: EnhanceParams, volume: Volume, kept: KeptVolumes, monitor: Monitor
) -> list[Volume]:
    """The guides that are named, or the chosen one; a single one is kept for previews."""
    if params.guide == [AUTO]:
        guide = chosen_guide(Path(params.input), volume, monitor)
        return [guide] if guide is not None else []
    named = params.guide or []
    keep = params.slices is not None and len(named) == 1
    return [
        kept.guide.load(
            VolumeParams(input=one, modality=params.modality), keep=keep, monitor=monitor
        )
        for one in named
    ]


def _look_of(
    params: EnhanceParams, volume: Volume, monitor: Monitor
) -> Volume | Iterator[Volume] | None:
    """The look; several volumes are read one after another, and previews leave it out."""
    if not params.look or params.slices is not None:
        return None
    files = volumes_in(params.look)
    loads = (
        VolumeParams(input=str(file), modality=volume.modality).load(monitor) for file in files
    )
    return loads if len(files) > 1 else next(loads)


def _refuse_sequence(volume: Volume, params: EnhanceParams, config: EnhanceConfig) -> None:
    """DICOM's objects beside a series are of one volume; better said before the long work."""
    if volume.is_sequence and (params.wants_segmentation or config.uncertainty):
        raise InputError(
            f"{volume.source}: a sequence of {volume.shape[0]} frames, whose segmentation or "
            "uncertainty is no DICOM object",
            "Leave them out, or take one frame after another (frame).",
        )


def _frame_of(params: EnhanceParams) -> int | None:
    """Which frame of a sequence; None for all of them."""
    return 0 if params.frame is None and params.slices is not None else params.frame


def _part_of(params: EnhanceParams) -> dict[str, Any]:
    part = {"slices": params.slices, "frame": _frame_of(params)}
    return {name: value for name, value in part.items() if value is not None}


def _save_enhanced(
    done: Enhanced, outputs: dict[str, Path], monitor: Monitor, *, overwrite: bool
) -> None:
    """Save each; `outputs` loses what was not made."""
    from MedEnhanceLib.io import save

    monitor.progress(0.9, "save")
    save(done.volume, outputs["output"], overwrite=overwrite, monitor=monitor)
    if done.segmentation is not None:
        save(
            done.segmentation.volume, outputs["segmentation"], overwrite=overwrite, monitor=monitor
        )
    if done.uncertainty is not None:
        save(done.uncertainty, outputs["uncertainty"], overwrite=overwrite, monitor=monitor)
    if "noise" in outputs:
        noise = done.noise
        if noise is None:
            monitor.warn("this model does not measure noise: there is no map of it")
            del outputs["noise"]
        else:
            save(noise, outputs["noise"], overwrite=overwrite, monitor=monitor)
    if "guide_map" in outputs:
        use = done.guide_use
        if use is None:
            monitor.warn("no guide was used: there is no map of it")
            del outputs["guide_map"]
        else:
            save(use, outputs["guide_map"], overwrite=overwrite, monitor=monitor)
    if "bias_field" in outputs:
        field = done.enhancement.bias_field_map()
        if field is None:
            del outputs["bias_field"]
        else:
            save(field, outputs["bias_field"], overwrite=overwrite, monitor=monitor)


def _check_report_folder(params: EnhanceParams) -> None:
    from MedEnhanceLib.io.atomic import refuse_existing, refuse_unwritable

    if params.report:
        require("matplotlib", purpose="Drawing the report's pictures")
        refuse_unwritable(Path(params.report))
        refuse_existing(Path(params.report) / "index.html", params.overwrite)


def _write_report(params: EnhanceParams, volume: Volume, done: Enhanced, monitor: Monitor) -> None:
    from MedEnhanceLib.bundles.suitability import recorded_warnings
    from MedEnhanceLib.report.enhance import enhancement_report

    monitor.progress(0.95, "report")
    found = done.segmentation
    enhanced, manifest = done.volume, done.report
    if enhanced.geometry != volume.geometry:  # thin slices are compared with interpolated ones
        volume = done.enhancement.original
    # Files are often called as patients are.
    volume, enhanced = (replace(one, source="") for one in (volume, enhanced))
    manifest = dict(manifest) | {"inputs": dict.fromkeys(manifest["inputs"], "a volume")}
    if params.deidentify:
        volume = replace(volume, source="", history=())
        enhanced = replace(enhanced, source="", history=anonymous_history(enhanced.history))
        manifest = {name: entry for name, entry in manifest.items() if name != "dicom"} | {
            "inputs": {}
        }
    enhancement_report(
        str(params.report),
        volume=volume,
        enhanced=enhanced,
        manifest=manifest,
        uncertainty=done.uncertainty,
        segmentation=found.volume if found else None,
        labels=found.labels if found else (),
        table=found.table if found else (),
        warnings=[f"{warning}." for warning in recorded_warnings(manifest["results"])],
        overwrite=params.overwrite,
    )
