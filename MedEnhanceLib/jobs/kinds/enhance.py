"""The job that enhances a volume with a trained model, and finds labels in it on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from MedEnhanceLib.core.options import option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.io.atomic import refuse_existing, refuse_unwritable
from MedEnhanceLib.jobs.dicom import DicomParams, check_output, placed, write
from MedEnhanceLib.jobs.enhancing import Enhanced, enhance_volume, enhanced_objects
from MedEnhanceLib.jobs.files import (
    KeptVolumes,
    Result,
    VolumeParams,
    Work,
    beside,
    check_volume_outputs,
    known_as,
    path_of,
    results_of,
)
from MedEnhanceLib.jobs.guides import AUTO, check_guides, chosen_guide
from MedEnhanceLib.jobs.kinds.segment import head_config
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
        help="volumes of the same contrast, whose sharpness and noise are taken over: a kernel's "
        "or a scanner's",
        metavar="FILE",
        place="input",
    )
    guide_map: str | None = option(
        None,
        help="where a map goes of how much the guides were used, 0 to 1 (default: none)",
        metavar="FILE",
        place="output",
    )
    noise_map: str | None = option(
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
        None, help="write a page with pictures into this folder", metavar="FOLDER", place="here"
    )
    slices: list[int] | None = option(
        None,
        help="[start, stop], stop excluded: a preview of these slices alone. It equals those of a "
        "whole run, but leaves out blur, bias field and look. Of a sequence it takes frame 0 or "
        "`frame`",
        flag=None,
    )
    frame: int | None = option(
        None,
        help="only this one of a sequence, as it is in a run over the whole sequence",
        flag=None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        head_config(self.head, "auto", wanted=self.wants_segmentation)
        if self.guide is not None:
            check_guides(self.guide)
        elif self.guide_map is not None:
            raise ConfigError("guide_map is given, but no guide", "Give a guide, or leave it out.")
        if self.uncertainty_output and not self.config.uncertainty:
            raise ConfigError(
                "uncertainty_output is given, but no uncertainty is asked for",
                "Ask for it: uncertainty true.",
            )
        if self.dicom and len(results_of(self)) > 1:
            raise ConfigError(
                "with dicom, what is made besides goes into the folder of the series",
                "Name no file for --segment, --uncertainty, --noise-map and --guide-map (in a "
                "job: leave out all of *_output and *_map).",
            )
        if self.dicom and self.config.task == "slices":
            raise ConfigError(
                "thin slices are no images of the series that they were made of",
                "Write a volume (NIfTI, NRRD, MetaImage) without dicom.",
            )
        if self.slices is not None and len(self.slices) != 2:
            raise ConfigError(f"slices is {self.slices!r}", "Give [start, stop], stop excluded.")
        if self.slices is not None and (self.wants_segmentation or self.report):
            raise ConfigError(
                "slices cannot be combined with segment or report, which need the whole volume",
                "Leave one of them out.",
            )
        if not self.dicom:
            for name, is_made in (
                ("segmentation", self.wants_segmentation),
                ("uncertainty", self.config.uncertainty),
            ):
                if is_made and getattr(self, f"{name}_output") is None:
                    object.__setattr__(self, f"{name}_output", beside(self.output, name))

    @property
    def wants_segmentation(self) -> bool:
        """Whether labels are asked for."""
        return self.segment or self.segmentation_output is not None

    @property
    def has_objects(self) -> bool:
        """Whether more than a series of single images is written."""
        return self.wants_segmentation or self.config.uncertainty


def run_enhance(params: EnhanceParams, monitor: Monitor, kept: KeptVolumes) -> Result:
    """Load → enhance → segment → save each output, or all as DICOM → page → manifest."""
    work = Work("enhanced", params)
    outputs = results_of(params)
    guides = [Path(guide) for guide in params.guide or () if guide != AUTO]
    looks = [Path(look) for look in params.look or ()]
    inputs = [Path(params.input), *guides, *looks]
    if params.dicom:
        check_output(params, inputs[:1])
    else:
        check_volume_outputs(outputs, inputs=inputs, overwrite=params.overwrite)
    if params.report:
        require("matplotlib", purpose="Drawing the report's pictures")
        refuse_unwritable(Path(params.report))
        refuse_existing(Path(params.report) / "index.html", params.overwrite)
    is_preview = params.slices is not None
    # The voxels of large volumes stay on disk.
    scratch = None if is_preview or params.dicom else outputs["output"].parent
    volume = kept.input.load(
        params, keep=is_preview, scratch=scratch, monitor=monitor.part(0.0, 0.05)
    )
    frame = 0 if params.frame is None and is_preview else params.frame
    source = volume if frame is None else volume.frame(frame)
    if params.dicom:
        source = placed(source, params, monitor)
        _refuse_sequence(source, params)
    guide = _guides_of(params, volume, kept, monitor)
    done = enhance_volume(
        source if frame is None else volume,
        params.config,
        guide=guide or None,
        look=_look_of(params, volume, monitor),
        head=head_config(params.head, params.config.device, wanted=params.wants_segmentation),
        frame=frame,
        slices=(params.slices[0], params.slices[1]) if params.slices else None,
        cache=kept.input.cache,
        scratch=scratch,
        monitor=monitor.part(0.05, 0.9),
    )
    written = None
    if params.dicom:
        written = write(enhanced_objects(source, done), params, monitor.part(0.9, 0.98))
    else:
        outputs = _save_enhanced(done, outputs, monitor, overwrite=params.overwrite)
    if params.report:
        monitor.progress(0.95, "report")
        _write_report(params, source, done)
        outputs["report"] = Path(params.report) / "index.html"
    part = {"slices": params.slices, "frame": frame}
    return work.finish(
        outputs,
        config=done.report["config"]
        | params.stated()
        | {name: value for name, value in part.items() if value is not None},
        inputs={
            "input": known_as(inputs[0], volume),
            **_numbered("guide", [known_as(path_of(each), each) for each in guide]),
            **_numbered("look", looks),
        },
        figures=done.report["results"],
        written=written,
        source=source,
        device=done.report["device"],
        model=done.report["model"],
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
    keep = params.slices is not None and len(params.guide or ()) == 1
    return [
        kept.guide.load(
            VolumeParams(input=path, modality=params.modality), keep=keep, monitor=monitor
        )
        for path in params.guide or ()
    ]


def _look_of(
    params: EnhanceParams, volume: Volume, monitor: Monitor
) -> Volume | Iterator[Volume] | None:
    """The look; several volumes are read one after another, and previews leave it out."""
    if not params.look or params.slices is not None:
        return None
    loads = (
        VolumeParams(input=file, modality=volume.modality).load(monitor) for file in params.look
    )
    return loads if len(params.look) > 1 else next(loads)


def _refuse_sequence(volume: Volume, params: EnhanceParams) -> None:
    """DICOM's objects beside a series are of one volume; better said before the long work."""
    if volume.is_sequence and params.has_objects:
        raise InputError(
            f"{volume.source}: a sequence of {volume.shape[0]} frames, whose segmentation or "
            "uncertainty is no DICOM object",
            "Leave them out, or take one frame after another (frame).",
        )


def _save_enhanced(
    done: Enhanced, outputs: Mapping[str, Path], monitor: Monitor, *, overwrite: bool
) -> dict[str, Path]:
    """Save each output that was made; which those are. A warning says why there is no map."""
    from MedEnhanceLib.io import save

    monitor.progress(0.9, "save")
    volumes: dict[str, Callable[[], Volume | None]] = {
        "output": lambda: done.volume,
        "segmentation": lambda: done.segmentation.volume if done.segmentation else None,
        "uncertainty": lambda: done.uncertainty,
        "noise_map": lambda: done.noise,
        "bias_field": lambda: done.enhancement.bias_field_map(),
        "guide_map": lambda: done.guide_use,
    }
    lacking = {
        "noise_map": "this model does not measure noise: there is no map of it",
        "guide_map": "no guide was used: there is no map of it",
    }
    saved = {}
    for name, path in outputs.items():
        volume = volumes[name]()
        if volume is not None:
            save(volume, path, overwrite=overwrite, monitor=monitor)
            saved[name] = path
        elif name in lacking:
            monitor.warn(lacking[name])
    return saved


def _write_report(params: EnhanceParams, volume: Volume, done: Enhanced) -> None:
    from MedEnhanceLib.bundles.suitability import recorded_warnings
    from MedEnhanceLib.report.enhance import enhancement_report

    if done.volume.geometry != volume.geometry:  # thin slices: compared with interpolated ones
        volume = done.enhancement.original
    enhancement_report(
        str(params.report),
        volume=replace(volume, source=""),  # files are often called as patients are
        enhanced=replace(done.volume, source=""),
        picture=done.compare(),
        manifest=done.report | {"inputs": {"input": "a volume"}},
        table=done.segmentation.table if done.segmentation else (),
        warnings=[f"{warning}." for warning in recorded_warnings(done.report["results"])],
        overwrite=params.overwrite,
    )
