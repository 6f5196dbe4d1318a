"""The jobs that other front ends list series and write DICOM with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import Make
from pydicom import Dataset, dcmread

from MedEnhanceLib import io
from MedEnhanceLib.errors import ConfigError, DependencyError, InputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.dicom import DicomParams, LabelMap, Objects, write
from MedEnhanceLib.runtime.progress import Monitor


def export(output: Path, **params: object) -> dict[str, object]:
    return dict(run_job(JobSpec("export", {"output": str(output), **params})).fields)


def test_export_of_a_volume_beside_its_series_states_its_step(
    make_series: Callable, tmp_path: Path
) -> None:
    series = make_series((4, 10, 12), PatientID="P-17", FrameOfReferenceUID="1.2.3.99")
    volume = io.load(series)
    step = (
        f"DERIVED: enhanced with x {'0' * 12}, 62% of the noise correction, "
        "bias field corrected (N4)"
    )
    better = volume.with_voxels(
        volume.voxels + np.int16(1), did=f"{step} by MedEnhance 1.0; research use only"
    )
    io.save(better, tmp_path / "a.nrrd")
    reported = export(
        tmp_path / "out",
        input=str(tmp_path / "a.nrrd"),
        dicom_source=str(series),
        action="enhanced",
        model={"name": "x", "sha256": "0" * 64},
    )
    images = [dcmread(path) for path in reported["files"]]
    assert {image.StudyInstanceUID for image in images} == {reported["study_uid"]} == {"1.2.3"}
    assert {image.SeriesInstanceUID for image in images} == {reported["series_uid"]}
    text = images[0].DerivationDescription
    done = "62% of the noise correction, bias field corrected (N4). "
    assert f"model x sha256 {'0' * 64}; {done}" in text
    assert text.count("nhanced") == 1
    assert np.array_equal(io.load(tmp_path / "out").voxels, better.voxels)


def test_headers_of_the_source_are_read_once(
    make_series: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    # What every header of a source passes through.
    name = "remove_private_tags"
    monkeypatch.setattr(Dataset, name, lambda header: made.append(header.SOPInstanceUID))
    params = {"input": str(make_series((4, 10, 12))), "output": str(tmp_path / "out")}
    run_job(JobSpec("convert", {**params, "dicom": True}))
    assert len(made) == len(set(made)) == 4


@pytest.mark.parametrize("name", ["leak/Doe, Jane (1950)", "Doe (Jane), T1", "Jane"])
@pytest.mark.parametrize("written", ["{path}", "{name}", "'{path}'"])
def test_names_of_the_source_stay_out_of_all_that_objects_say(
    make_series: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str
) -> None:
    make_series((4, 10, 12), folder=tmp_path / name)
    monkeypatch.chdir(tmp_path)
    volume = io.load(name)
    says = written.format(path=name, name=Path(name).name)
    step = f"DERIVED: resampled, as {says} (series 1.2.3.1) is tilted by MedEnhance 1.0; research"
    labels = LabelMap(
        volume.with_voxels(np.ones(volume.shape, np.uint8)), (), warning=f"{says} is odd"
    )
    objects = Objects(
        replace(volume, history=(step,)), "enhanced", f"as {says}, 3 tiles", volume, labels
    )
    paths, _ = write(objects, DicomParams(output="out", dicom=True), Monitor())
    for text in (str(dcmread(path)) for path in paths):
        assert "the source" in text and "series 1.2.3.1) is tilted" in text
        assert not any(part in text for part in ("Jane", "Doe", "leak"))


@pytest.mark.slow
def test_export_puts_a_whole_result_into_one_study_of_its_own(scan: Path, tmp_path: Path) -> None:
    volume = io.load(scan, modality="MR")
    labels = volume.with_voxels((volume.voxels % 3).astype(np.uint8))
    files = {name: str(tmp_path / f"{name}.nrrd") for name in ("segmentation", "uncertainty")}
    io.save(replace(labels, modality="SEG", units=""), files["segmentation"])
    io.save(volume.with_voxels(np.ones(volume.shape, np.float32)), files["uncertainty"])
    names = {1: "gray matter", 2: "white matter"}
    reported = export(
        tmp_path / "out",
        input=str(scan),
        modality="MR",
        patient_id="X1",
        study_description="phantom",
        labels=[{"value": v, "name": name, "color": "#ffb703"} for v, name in names.items()],
        **files,
    )
    objects = [dcmread(path) for path in reported["files"]]
    assert [row["role"] for row in reported["objects"]] == [
        "volume", "uncertainty", "segmentation",
    ]  # fmt: skip
    assert len({one.StudyInstanceUID for one in objects}) == 1
    assert {one.PatientID for one in objects} == {"X1"}
    assert objects[0].StudyDescription == "phantom"
    segments = next(one.SegmentSequence for one in objects if one.Modality == "SEG")
    assert [segment.SegmentLabel for segment in segments] == [*names.values()]


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"dicom_source": 3}, ConfigError),
        ({"dicom_source_series": "2"}, ConfigError),
        ({"dicom": False}, ConfigError),
        ({}, InputError),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    scan: Path, tmp_path: Path, params: dict, error: type[Exception]
) -> None:
    with pytest.raises(error):
        export(tmp_path / "out", input=str(scan), **params)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "params", "package"),
    [
        ("segment", {"dicom": True}, "highdicom"),
        ("enhance", {"dicom": True, "segment": True}, "highdicom"),
        ("enhance", {"dicom": True, "config": {"uncertainty": True}}, "highdicom"),
        ("demo", {}, "matplotlib"),
    ],
)
def test_what_results_are_written_with_is_missed_before_the_work(
    kind: str,
    params: dict[str, object],
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    files = {"input": str(tmp_path / "there_is_none"), "output": str(tmp_path / "out")}
    if kind == "demo":
        files = {"out": str(tmp_path / "out")}
    with pytest.raises(DependencyError, match=package):
        run_job(JobSpec(kind, files | params))
    assert not (tmp_path / "out").exists()
