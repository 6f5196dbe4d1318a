"""Every option of every job, and the doors that offer it: one row for each name.

The drivers are Library/test_doors.py (a job, the command line, batch, Python) and
Slicer/test_doors.py (MedEnhanceLogic, the pages). At each door the value of a row has to arrive in
the parameters of the job, alone and unchanged. That a value which its declaration does not allow is
refused is derived from the declaration; what an option does is tested where the method is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from MedEnhanceLib.core.options import Option, Options, option, options_of
from MedEnhanceLib.jobs.job import JOBS, JobSpec


@dataclass(frozen=True)
class Row:
    """An option of the jobs that have one of its name.

    Attributes:
        value: not the default; JSON.
        also: parameters that it requires; None leaves one out of those that each call has.
        flag: on the command line; "" is its name, None: no command has it.
        words: what is typed after the flag instead of the value.
        python: jobs whose function has it, as "job" or "job:keyword".
        logic: jobs whose method of MedEnhanceLogic has it, likewise.
        panel: widgets of the page, set in this order; empty: no page has it.
        volume: modality of the volume on the page, and its number of frames.
        batch: whether a batch takes it, too.
    """

    value: Any
    also: Mapping[str, Any] = field(default_factory=dict)
    flag: str | None = ""
    words: tuple[str, ...] | None = None
    python: str = ""
    logic: str = ""
    panel: Mapping[str, Any] = field(default_factory=dict)
    volume: tuple[str, int] = ("MR", 1)
    batch: bool = True


@dataclass(frozen=True, kw_only=True)
class Radius(Options):
    """The options of a denoiser."""

    radius: int = option(1, help="of the kernel", low=1, high=9)


class WithRadius:
    """A denoiser that has options, as far as they are checked; registered as "with-radius"."""

    is_joint, options = False, Radius


_ENHANCE = {"python": "enhance", "logic": "enhance"}
_COMPRESS = {"python": "compress", "logic": "compress"}
_DICOM, _NOT_DICOM = {"dicom": True}, {"dicom": None}
_SEGMENT = {"segment": True}
_SLICES = {"task": "slices"}
_BOX = {"slices": [2, 4]}
_STEPS = [{"name": "blur", "sigma_px": 1.0, "seed": 7}]
#: By name of the option, or "job.name" where that of one job is another one.
ROWS: dict[str, Row] = {
    # Volumes, and where results go
    "series": Row("2", python="convert"),
    "modality": Row("CT", python="enhance segment compress noise convert degrade"),
    "resample": Row(True, python="convert"),
    "complete_frames": Row(True, python="convert"),
    "overwrite": Row(True, flag="--force", python="compress distill", logic="compress convert"),
    "dicom": Row(True),
    "dicom_source": Row("series", _DICOM),
    "dicom_source_series": Row("2", _DICOM | {"dicom_source": "series"}),
    "series_description": Row("T1, better", _DICOM, logic="export:seriesDescription"),
    "patient_id": Row("P-17", _DICOM, logic="export:patientId"),
    "patient_name": Row("Doe^Jane", _DICOM | {"patient_id": "P-17"}, logic="export:patientName"),
    "study_description": Row(
        "phantom", _DICOM | {"patient_id": "P-17"}, flag=None, logic="export:studyDescription"
    ),
    # Enhancement
    "model": Row("mine", python="enhance segment", logic="enhance"),
    "uncertainty": Row(True, **_ENHANCE, panel={"uncertaintyCheckBox": True}),
    "device": Row(
        "cpu", python="enhance segment evaluate", logic="enhance", panel={"deviceComboBox": "cpu"}
    ),
    "strength": Row(0.5, **_ENHANCE),
    "noise": Row(12.5, **_ENHANCE, panel={"noiseSpinBox": 12.5}),
    "for_viewing": Row(
        True, **_ENHANCE, panel={"lesionsComboBox": True}, volume=("CT", 1), batch=False
    ),
    "as_intensity": Row(True, **_ENHANCE),
    "denoiser": Row("principal-images", **_ENHANCE),
    "denoiser_options": Row(
        {"radius": 2}, {"denoiser": "with-radius"}, words=("radius=2",), **_ENHANCE
    ),
    "correct_bias_field": Row(True, **_ENHANCE, panel={"biasFieldCheckBox": True}),
    "rician": Row(True, **_ENHANCE),
    "sequence": Row("joint", **_ENHANCE, panel={"framesComboBox": "joint"}, volume=("MR", 3)),
    "scanner": Row("scan.nii.gz", **_ENHANCE, panel={"scannerEdit": "scan.nii.gz"}),
    "scanner_without": Row(
        ["field"],
        {"scanner": "scan.nii.gz"},
        **_ENHANCE,
        panel={"scannerEdit": "scan.nii.gz", "fieldStepCheckBox": False},
    ),
    "task": Row("slices", **_ENHANCE, panel={"taskComboBox": "slices"}),
    "slice_spacing": Row(1.5, _SLICES, **_ENHANCE),
    "slice_thickness": Row(4.5, _SLICES, **_ENHANCE),
    "slice_profile": Row("box", _SLICES, **_ENHANCE),
    "noise_map": Row("sigma.nii.gz", logic="enhance", panel={"noiseMapCheckBox": True}),
    "uncertainty_output": Row("u.nii.gz", {"uncertainty": True}, flag=None),
    "segment": Row(True, flag="--segment", words=(), python="enhance"),
    "segmentation_output": Row(
        "labels.nii.gz",
        _SEGMENT,
        flag="--segment",
        logic="enhance:segment",
        panel={"segmentCheckBox": True},
    ),
    "segmenter": Row(
        "brain",
        _SEGMENT,
        python="enhance",
        logic="enhance",
        panel={"segmentCheckBox": True, "segmenterComboBox": "brain"},
    ),
    "force_segmenter": Row(
        True,
        _SEGMENT,
        python="enhance segment",
        logic="enhance",
        panel={"segmentCheckBox": True, "forceSegmenterCheckBox": True},
    ),
    "against": Row("t2.nii.gz"),
    "report": Row("page"),
    "slices": Row([2, 4], flag=None),
    "rows": Row([0, 4], _BOX, flag=None),
    "columns": Row([0, 4], _BOX, flag=None),
    "draft": Row(True, _BOX, flag=None),
    "frame": Row(1, flag=None),
    "noise.region": Row([[2, 6], None, [0, 9]], words=("2:6,:,0:9",), python="noise"),
    "at": Row([4, 5, 6], words=("4,5,6",), python="noise"),
    "noise.picture": Row("region.png", {"at": [4, 5, 6]}),
    "monai_bundle": Row("brats", {"model": None}, python="segment"),
    "uncertainty_map": Row("u.nii.gz"),
    "segment.volumes": Row("volumes.csv"),
    "segment.picture": Row("labels.png"),
    # Compression
    "lossless": Row(True, **_COMPRESS),
    "max_error": Row(
        3.0,
        {"lossless": None},
        **_COMPRESS,
        panel={"modeSelector": "maxError", "valueSpinBox": 3},
    ),
    "ratio": Row(
        20.0, {"lossless": None}, **_COMPRESS, panel={"modeSelector": "ratio", "valueSpinBox": 20}
    ),
    "psnr": Row(
        50.5, {"lossless": None}, **_COMPRESS, panel={"modeSelector": "psnr", "valueSpinBox": 50.5}
    ),
    "speed": Row("fast", **_COMPRESS),
    "block_type": Row(
        "implicit",
        {"lossless": None, "ratio": 100.0},
        **_COMPRESS,
        panel={"modeSelector": "ratio", "codecSelector": "implicit"},
        volume=("CT", 1),
    ),
    "embed_model": Row(True, **_COMPRESS),
    "threads": Row(1, **_COMPRESS),
    "compress.dicom": Row({"study": "1.2", "series": "1.2.3"}, flag=None),
    "region": Row(
        [[2, 6], None, [0, 9]], words=("2:6,:,0:9",), python="decompress", logic="decompress"
    ),
    "mask_output": Row("lost.nii.gz", flag=None),
    # Other jobs
    "steps": Row(_STEPS, flag="--blur", words=("1", "--seed", "7"), python="degrade:blur"),
    "verify": Row(True, python="inspect"),
    "export.segmentation": Row("t2.nii.gz", _DICOM | {"patient_id": "P-17"}),
    "export.uncertainty": Row("t2.nii.gz", _DICOM | {"patient_id": "P-17"}),
    "labels": Row([{"value": 1, "name": "fat", "color": "#ffee00"}]),
    "export.model": Row({"name": "mine", "sha256": "0" * 64}),
    "head": Row({"name": "brain", "sha256": "0" * 64}),
    "limits": Row(["Of one scanner"]),
    "action": Row("enhanced"),
    "export.dicom": Row(True),
    "bids": Row(True, {"output": None}),
    "batch.output": Row("better", flag="--out"),
    "workers": Row(2),
    "scheduler": Row("tcp://host:8786"),
    "shard": Row("2/3"),
    "only": Row("CT,MR"),
    "retry_failed": Row(True),
    "join": Row(True),
    "batch.task": Row("segment"),
    "params": Row({"modality": "CT"}, flag="--modality", words=("CT",)),
    "out": Row("elsewhere"),
    "models.action": Row("remove", {"name": "mine"}, words=("remove", "mine")),
    "path": Row("bundle.zip", {"action": "import"}, words=("import", "bundle.zip")),
    "name": Row(
        "knee",
        {"action": "import", "path": "bundle.zip"},
        words=("import", "bundle.zip", "--name", "knee"),
    ),
    "loads": Row(True, flag=None),
    "megabytes": Row(4100.0),
    "chooses_build": Row(True),
    "reinstalls": Row(True),
    "count": Row(2),
    "seconds": Row(0.5),
    # Training
    "distilled": Row("set", flag=None),
    "train.config": Row({"steps": 9}, flag="--steps", words=("9",), python="train:config"),
    "method": Row("matching", python="distill"),
    "volumes": Row(8, python="distill"),
    "prior": Row("start.nii.gz", python="distill"),
    "held_out": Row(0.3, python="distill"),
    "seed": Row(3, python="distill"),
    "size": Row({"slices": 16, "side": 64}, flag=None, python="distill"),
    "loop": Row({"outer": 2}, flag=None, python="distill"),
    "checkpoint_s": Row(30.0, flag=None, python="distill"),
    "license": Row("CC-BY-4.0", python="distill"),
    "pattern": Row("*_T1*"),
    "distill.modality": Row("MR"),
}


def options_in(declaration: Any) -> Iterator[tuple[tuple[str, ...], Option]]:
    """Yield the options of a job, with their paths; those of its `config` one by one."""
    for outer in options_of(declaration):
        if outer.name == "config" and outer.is_object:
            yield from (((outer.name, each.name), each) for each in options_of(outer.kind))
        else:
            yield (outer.name,), outer


def row_of(job: str, name: str) -> Row:
    """Return the row of an option."""
    row = ROWS.get(f"{job}.{name}") or ROWS.get(name)
    if row is None:
        raise LookupError(f"the option {name} of the job {job} needs a row in ROWS")
    return row


def rows_in(column: str) -> Iterator[tuple[str, str, str, Row]]:
    """Yield job, option, keyword and row for each entry of a column, "python" or "logic"."""
    for key, row in ROWS.items():
        for entry in getattr(row, column).split():
            job, _, keyword = entry.partition(":")
            name = key.rpartition(".")[2]
            if ROWS.get(f"{job}.{name}", row) is row:
                yield job, name, keyword or name, row


def params_of(job: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON parameters of a job with these values by name; None for its default."""
    params: dict[str, Any] = {}
    for path, each in options_in(JOBS[job].params):
        if given.get(each.name) is not None:
            place = params.setdefault(path[0], {}) if len(path) > 1 else params
            place[each.name] = given[each.name]
    return params


def expected(job: str, given: Mapping[str, Any]) -> Any:
    """Return the parameters of a job as its declaration has them."""
    return JobSpec(job, params_of(job, given)).typed_params()
