"""The jobs that enhance a volume, measure its noise, and segment a volume."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib import denoise, gradprom, io
from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.core.findings import verdict_on
from MedEnhanceLib.core.labels import SIDE, Label, volume_rows
from MedEnhanceLib.core.options import option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.error_left import table_of
from MedEnhanceLib.denoise.noise_verdict import measured_noise, refuse_two_regions
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.io.atomic import refuse_existing, refuse_unwritable
from MedEnhanceLib.io.csv_tables import write_table
from MedEnhanceLib.jobs import enhancing, files
from MedEnhanceLib.jobs.dicom import DicomParams, place_volume
from MedEnhanceLib.jobs.files import KeptVolumes, Result, VolumeParams
from MedEnhanceLib.jobs.placing import name_of
from MedEnhanceLib.jobs.work import Work
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.io.dicomout import Template
    from MedEnhanceLib.report.figures import Picture

#: Ending of a segmentation in BIDS.
_OF_BIDS = "_dseg.nii.gz"
#: What a result is compared with by `against`, as the page says it.
_SECOND = (
    "The second measurement, which the enhancement did not see, is the reference: the error is in "
    "the table below."
)


@dataclass(frozen=True, kw_only=True)
class EnhanceParams(enhancing.SegmenterChoice, DicomParams, VolumeParams):
    """Enhance a volume, and find labels in the result on request.

    What is made besides lies beside the output as `<output>-segmentation` and
    `<output>-uncertainty` where no other file is named; with `dicom` it goes into the folder.
    """

    config: EnhanceConfig = option(factory=EnhanceConfig, help="how it is enhanced")
    noise_map: str | None = option(
        None, help="write a map of the measured noise", metavar="FILE", place="output"
    )
    uncertainty_output: str | None = option(
        None, help="file of the uncertainty (default: beside OUTPUT)", flag=None, place="output"
    )
    segmentation_output: str | None = option(
        None, help="file of the labels (default: beside OUTPUT)", flag=None, place="output"
    )
    against: str | None = option(
        None,
        help="a second measurement of the same, on the same grid, which the enhancement does not "
        "see: by it the error that is left is measured",
        metavar="FILE",
        place="input",
    )
    report: str | None = option(
        None,
        help="write a page, with pictures and the name of INPUT, into this folder",
        metavar="FOLDER",
        place="folder",
    )
    slices: tuple[int, int] | None = option(
        None,
        help="[start, stop], stop excluded: a preview of these slices, equal to those of a whole "
        "run that removes noise alone; of a sequence those of frame 0, or of `frame`",
        low=0,
        high=1_000_000,
        flag=None,
    )
    rows: tuple[int, int] | None = option(
        None, help="rows of the preview, likewise", low=0, high=1_000_000, flag=None
    )
    columns: tuple[int, int] | None = option(
        None, help="columns of the preview, likewise", low=0, high=1_000_000, flag=None
    )
    draft: bool = option(
        False,
        help="send a draft of the preview first, in an event; no file has it",
        flag=None,
    )
    frame: int | None = option(
        None, help="enhance this frame of a sequence alone", low=0, high=1_000_000, flag=None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.uncertainty_output and not self.config.uncertainty:
            raise ConfigError(
                "uncertainty_output requires uncertainty",
                "Set uncertainty (in config), or leave it out.",
            )
        config = self.config
        if self.against and (
            config.task == "slices" or config.scanner is not None or config.correct_bias_field
        ):
            raise ConfigError(
                "against measures noise that is left, and grid or intensities are changed too",
                "Leave out task slices, scanner and correct_bias_field, or against.",
            )
        if self.slices is not None and (self.wants_labels or self.report or self.against):
            raise ConfigError(
                "slices cannot be combined with segment, report or against, which need the whole "
                "volume",
                "Leave one of them out.",
            )
        if self.draft and self.slices is None:
            raise ConfigError("draft is of a preview, and slices is missing", "Give slices too.")
        if (self.rows or self.columns) and self.dicom:
            raise ConfigError(
                "dicom takes whole slices, and rows or columns are given", "Leave one of them out."
            )
        if not self.dicom:
            for name, is_made in (
                ("segmentation_output", self.wants_labels),
                ("uncertainty_output", self.config.uncertainty),
            ):
                if is_made and getattr(self, name) is None:
                    path = files.beside(self.output, name.removesuffix("_output"))
                    object.__setattr__(self, name, path)
        elif len(files.results_of(self)) > 1:
            raise ConfigError(
                "with dicom, further results go into the folder of the series",
                "Name no file for --segment, --uncertainty and --noise-map (in a job: leave out "
                "all of *_output and *_map).",
            )

    @property
    def box(self) -> dict[str, Any]:
        """Slices, rows and columns of a preview; empty for the whole volume."""
        box = {name: getattr(self, name) for name in ("slices", "rows", "columns")}
        return {name: ends for name, ends in box.items() if ends is not None}

    @property
    def wants_labels(self) -> bool:
        """Whether labels are requested, if only by the file for them."""
        return self.segment or self.segmentation_output is not None

    @property
    def has_objects(self) -> bool:
        """Whether more than a series of images is written."""
        return self.wants_labels or self.config.uncertainty


def run_enhance(params: EnhanceParams, monitor: Monitor, kept: KeptVolumes) -> Result:
    """Load the volume, enhance and segment, write files or DICOM, the manifest, the page.

    Args:
        params: with `slices`, a preview.
        monitor: receives progress; may cancel.
        kept: keeps the volume of a preview for the next one.
    Returns the paths, and the fields of the manifest.
    """
    work = Work("enhanced", params, monitor)
    if params.report:
        _check_report(Path(params.report), overwrite=params.overwrite)
    is_preview = params.slices is not None
    # The voxels of large volumes stay on disk.
    scratch = None if is_preview or params.dicom else Path(params.output).parent
    part = monitor.part(0.01, 0.04)
    volume, cache = kept.load(params, keep=is_preview, scratch=scratch, monitor=part)
    frame = 0 if params.frame is None and is_preview else params.frame
    source = volume if frame is None else volume.frame(frame)
    source, template = _placed(source, params, work.series, monitor.part(0.04, 0.05))
    second, config = None, params.config
    if params.against:
        second = io.load(
            params.against, modality=source.modality, monitor=monitor.without_progress()
        )
        work.inputs["against"] = Path(params.against)
    if isinstance(config.noise, str):
        work.inputs["noise"] = Path(config.noise)
    if isinstance(config.scanner, str):
        work.inputs["scanner"] = Path(config.scanner)
    enhanced = enhancing.enhance_volume(
        source if frame is None else volume,
        config,
        segmenter=params.segmentation(config.device),
        frame=frame,
        box=params.box,
        cache=cache or denoise.VolumeCache(),
        scratch=scratch,
        against=second,
        on_draft=partial(_send_draft, monitor) if params.draft else None,
        monitor=monitor.part(0.06, 0.9),
    )
    if params.dicom:
        objects = replace(enhancing.objects_of(enhanced, source), template=template)
        work.write(objects, monitor.part(0.9, 0.98))
    else:
        work.save(_volumes_of(enhanced, params, monitor), monitor.part(0.9, 0.95))
    result = work.finish(
        config=enhanced.record["config"],
        figures=enhanced.record["results"],
        source=source,
        device=enhanced.device,
        model=enhanced.model,
    )
    verdict = verdict_on(enhanced.measured, enhanced.strength)
    fields = {**result.fields, "sentence": str(verdict or "")}
    if params.report:
        monitor.progress(0.95, "drawing the report")
        fields["outputs"]["report"] = _write_report(params, source, enhanced, result["manifest"])
    return Result(fields)


def _send_draft(monitor: Monitor, voxels: Array) -> None:
    """Report a draft, whose voxels lie in the event: it never is in a file."""
    text = b64encode(voxels.tobytes()).decode("ascii")
    monitor.emit("draft", shape=voxels.shape, dtype=voxels.dtype.str, voxels=text)


def _check_report(page: Path, *, overwrite: bool) -> None:
    for package in ("matplotlib", "jinja2"):
        require(package, purpose="Drawing the report")
    refuse_unwritable(page)
    for name in ("index.html", "comparison.png", "frames/mean.png"):
        refuse_existing(page / name, overwrite)


def _placed(
    source: Volume, params: EnhanceParams, series: Volume | None, monitor: Monitor
) -> tuple[Volume, Template | None]:
    """Assign DICOM images to the source; it must have one frame if other objects are written."""
    if not params.dicom:
        return source, None
    source, template = place_volume(source, params, series, monitor)
    if params.has_objects:
        source = source.single(
            "Leave segmentation and uncertainty out, or enhance each frame on its own (frame)."
        )
    return source, template


def _volumes_of(
    enhanced: Enhanced, params: EnhanceParams, monitor: Monitor
) -> dict[str, Volume | None]:
    """Return the volume of each output; warn of a requested map that does not exist."""
    if params.noise_map and enhanced.noise is None:
        monitor.warn("no noise was measured: no noise map is written")
    return {
        "output": enhanced.volume,
        "segmentation": enhanced.segmentation.volume if enhanced.segmentation else None,
        "uncertainty": enhanced.uncertainty,
        "noise_map": enhanced.noise if params.noise_map else None,
    }


def _write_report(params: EnhanceParams, volume: Volume, enhanced: Enhanced, manifest: str) -> str:
    from MedEnhanceLib.report.enhancement_page import enhancement_report

    name = name_of(volume)
    if enhanced.volume.geometry != volume.geometry:  # thin slices: compared with interpolated ones
        volume = enhanced.original
    compared = enhanced.error_left
    page = enhancement_report(
        str(params.report),
        name=name,
        volume=volume,
        enhanced=enhanced.volume,
        picture=enhanced.compare(),
        manifest=json.loads(Path(manifest).read_text(encoding="utf-8")),
        table=enhanced.segmentation.table if enhanced.segmentation else (),
        comparisons=[table_of(compared)] if compared else (),
        reference=_SECOND if compared else "",
        beside_reference=compared.picture() if compared else None,
        overwrite=params.overwrite,
    )
    return str(page)


@dataclass(frozen=True, kw_only=True)
class NoiseParams(VolumeParams):
    """Measure the noise of a volume, or in a region of even tissue."""

    region: list[list[int | None] | None] | None = option(
        None,
        help="[start, stop] or null (all) for each axis K, J, I, of even tissue; the last ones may "
        "be missing",
        low=-1_000_000,
        high=1_000_000,
        flag=None,
    )
    at: tuple[int, int, int] | None = option(
        None,
        help="slice, row and column of a voxel in even tissue, from 0, as Slicer and Python count "
        "(the indices K, J, I): measure in 12 mm around it",
        low=0,
        high=1_000_000,
        flag=None,
    )
    picture: str | None = option(
        None,
        help="write a picture (PNG) of the region that was measured, in three planes",
        metavar="FILE",
        place="output",
    )
    overwrite: bool = option(False, help="replace an existing picture", flag="--force")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_two_regions(files.region_from_json(self.region), self.at)
        if self.picture and self.region is None and self.at is None:
            raise ConfigError(
                "picture shows a region, and none is given", "Give at or region (--at, --region)."
            )


def run_noise(params: NoiseParams, monitor: Monitor, kept: KeptVolumes) -> Result:
    """Load → measure the volume, and keep it for its previews, or a region → picture.

    Args:
        params: of the job.
        monitor: receives progress; may cancel.
        kept: keeps the volume and its measurements.
    Returns the measurement, and the sentence about it.
    """
    if params.picture:
        _check_picture(params.picture, overwrite=params.overwrite)
    volume, cache = kept.load(params, keep=True, monitor=monitor.part(0.0, 0.3))
    verdict = measured_noise(
        volume,
        region=files.region_from_json(params.region),
        at=params.at,
        cache=cache,
        monitor=monitor.part(0.3, 1.0),
    )
    if not verdict.is_measured:
        return Result({"noise": None, "sentence": verdict.sentence})
    fields = {"noise": verdict.to_json(), "sentence": verdict.sentence}
    if params.picture and verdict.region:
        picture = _region_picture(volume, verdict.region)
        picture.save(params.picture, overwrite=params.overwrite)
        fields["outputs"] = {"picture": params.picture}
    return Result(fields)


def _check_picture(path: str, *, overwrite: bool) -> None:
    require("matplotlib", purpose="Drawing the picture")
    files.check_outputs({"picture": Path(path)}, ending=".png", overwrite=overwrite)


def _region_picture(volume: Volume, region: Sequence[tuple[int, int]]) -> Picture:
    """Draw three planes through a region, without and with its outline.

    region: (start, stop) along K, J, I.
    """
    from MedEnhanceLib.report.figures import Pane, comparison

    volume = volume.frame(0)
    voxels = np.zeros(volume.shape, np.uint8)
    voxels[tuple(slice(*ends) for ends in region)] = 1
    outline = replace(volume.with_voxels(voxels), modality="SEG")
    name = "measured region"
    panes = [Pane("Volume", volume), Pane(name.capitalize(), volume, labels=outline)]
    middle = [(start + stop) // 2 for start, stop in region]
    point = middle[0], middle[1], middle[2]
    return comparison(panes, legend={1: name}, point=point, ticks=True)


@dataclass(frozen=True, kw_only=True)
class SegmentParams(DicomParams, VolumeParams):
    """Find labels in a volume."""

    config: SegmentConfig = option(factory=SegmentConfig, help="how it is segmented")
    uncertainty_map: str | None = option(
        None,
        help="write a map of how uncertain the labels are, 0 to 1, if the model estimates it",
        metavar="FILE",
        place="output",
    )
    volumes: str | None = option(
        None,
        help="write a table (.csv): mL of each structure and side, the interval for a second "
        "reader and the expected Dice, then the total intracranial volume",
        metavar="FILE",
        place="table",
    )
    picture: str | None = option(
        None,
        help="write a picture (PNG): the volume without and with its labels, in three planes",
        metavar="FILE",
        place="table",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dicom and self.uncertainty_map:
            raise ConfigError(
                "with dicom, no map of uncertainty is written", "Leave uncertainty_map out."
            )

    @property
    def has_objects(self) -> bool:
        """Whether highdicom is needed: always, for the segmentation."""
        return True

    @property
    def tables(self) -> dict[str, Path]:
        """Tables that are written: of volumes, and of labels beside a segmentation of BIDS."""
        tables = {"volumes": Path(self.volumes)} if self.volumes else {}
        if self.output.endswith(_OF_BIDS):
            tables["labels"] = Path(f"{self.output.removesuffix(_OF_BIDS)}_dseg.tsv")
        return tables


def run_segment(params: SegmentParams, monitor: Monitor) -> Result:
    """Load → segment → save, or as DICOM → manifest with the volume of each label."""
    work = Work("segmented", params, monitor)
    for name, path in params.tables.items():
        ending = ".csv" if name == "volumes" else ".tsv"
        files.check_outputs({name: path}, ending=ending, overwrite=params.overwrite)
    if params.picture:
        _check_picture(params.picture, overwrite=params.overwrite)
    volume = params.load(monitor.part(0.02, 0.1))
    template = None
    if params.dicom:
        volume, template = place_volume(volume, params, work.series, monitor)
    labels = gradprom.segment(volume, params.config, monitor=monitor.part(0.1, 0.9))
    part = monitor.part(0.9, 1.0)
    if params.dicom:
        work.write(replace(enhancing.objects_of(labels, volume), template=template), part)
    else:
        if params.uncertainty_map and labels.uncertainty is None:
            monitor.warn("this model does not estimate uncertainty: no map is written")
        work.save({"output": labels.volume, "uncertainty_map": labels.uncertainty}, part)
    rows = {
        "volumes": volume_rows(params.input, labels.table, labels.intracranial),
        "labels": map(_label_row, labels.labels),
    }
    for name, path in params.tables.items():
        write_table(path, [*rows[name]], overwrite=params.overwrite)
    work.outputs |= params.tables
    if params.picture:
        picture = _labels_picture(volume, labels)
        picture.save(params.picture, overwrite=params.overwrite)
        work.outputs["picture"] = Path(params.picture)
    return work.finish(
        config=params.config.to_json(),
        figures=enhancing.segmentation_figures(labels),
        source=volume,
        device=labels.device,
        model=labels.model,
    )


def _labels_picture(volume: Volume, labels: gradprom.Segmentation) -> Picture:
    """Draw three planes through the middle of the labels, without and with their outlines.

    Both sides of a structure have a color and an entry of the legend.
    """
    from MedEnhanceLib.report.figures import Pane, comparison

    shown = np.argwhere(labels.volume.voxels)
    k, j, i = shown.mean(0).round().astype(int) if len(shown) else np.array(volume.shape) // 2
    first: dict[str, int] = {}
    table = np.arange(256, dtype=np.uint8)
    for label in labels.labels:
        side = SIDE.fullmatch(label.name)
        table[label.value] = first.setdefault(side[2] if side else label.name, label.value)
    merged = labels.volume.with_voxels(table[labels.volume.voxels])
    panes = [Pane("Volume", volume), Pane("Labels", volume, labels=merged)]
    legend = {value: name for name, value in first.items()}
    return comparison(panes, legend=legend, point=(int(k), int(j), int(i)))


def _label_row(label: Label) -> dict[str, Any]:
    """Return the row of a label in BIDS; its abbreviation is the name without spaces."""
    words = re.findall(r"[^\W_]+", label.name)
    short = "".join(word[0].upper() + word[1:] for word in words)
    color = label.color
    return {"index": label.value, "name": label.name, "abbreviation": short, "color": color}
