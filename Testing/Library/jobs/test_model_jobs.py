"""Jobs that enhance and segment: what matters is what is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.jobs.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import Bundle, set_default
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.errors import ConfigError, InputError, ModelError, OutputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Event

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "hq").mkdir()
    for seed in (0, 1):
        io.save(brain(seed), folder / "hq" / f"{seed}.nii.gz")
    return folder


def _enhance(scan: Path, **params: Any) -> JobSpec:
    config = {"device": "cpu", **params.pop("config", {})}
    output = str(scan.with_name("better.nii.gz"))
    return JobSpec("enhance", {"input": str(scan), "output": output, "config": config, **params})


def test_enhance_writes_volume_uncertainty_report_and_manifest(scan: Path) -> None:
    events: list[Event] = []
    report = scan.with_name("report")
    spec = _enhance(scan, config={"uncertainty": True}, report=str(report))
    result = run_job(spec, events.append)
    better = io.load(scan.with_name("better.nii.gz"))
    assert better.geometry == io.load(scan).geometry
    assert "DERIVED" in better.history[-1]
    assert result["outputs"] == {
        "output": str(scan.with_name("better.nii.gz")),
        "uncertainty": str(scan.with_name("better-uncertainty.nii.gz")),
        "report": str(report / "index.html"),
    }
    assert io.load(result["outputs"]["uncertainty"]).dtype == np.float32
    assert "<html" in (report / "index.html").read_text(encoding="utf-8")
    manifest = json.loads(Path(result["manifest"]).read_text(encoding="utf-8"))
    assert manifest["model"] == {"name": "block-matching", "sha256": ""}
    assert manifest["device"] == result["device"] == "cpu"
    _assert_in_order(
        events, "loading the volume", "measuring the noise", "removing noise",
        "saving the result", "drawing the report",
    )  # fmt: skip


def _assert_in_order(events: list[Event], *expected: str) -> None:
    """Progress never goes back, and each stage says what is done in it."""
    progress = [event.fields for event in events if event.kind == "progress"]
    fractions = [fields["fraction"] for fields in progress]
    assert fractions == sorted(fractions)
    stages = dict.fromkeys(fields["stage"] for fields in progress)
    assert [stage for stage in stages if not stage.startswith("loading torch")] == [*expected]


def test_roles_stand_for_names_of_files_in_manifests(scan: Path, data: Path) -> None:
    folder = scan.with_name("Ünal")
    patient = shutil.copytree(data / "hq", folder) / "Ünal Öz FLAIR ü.nii.gz"
    volume = io.load(scan)
    io.save(volume.with_voxels(volume.voxels, did="DERIVED: enhanced with x"), patient)
    again = str(shutil.copy(folder / "0.nii.gz", folder / "Ünal Öz FLAIR ü.nii.gz 2.nii.gz"))
    result = run_job(_enhance(patient, against=again, overwrite=True))
    manifest = json.loads(Path(result["manifest"]).read_text(encoding="utf-8"))
    in_python = me.enhance(patient).report
    in_memory = me.enhance(replace(io.load(patient), source="")).report
    assert [*in_memory["inputs"].values()] == ["a volume"]
    for record in (manifest, in_python, in_memory):
        text = json.dumps(record, ensure_ascii=False)
        assert "Ünal" not in text and "Öz" not in text
        assert any("was enhanced before" in text for text in record["warnings"])
    assert any(text.startswith("it was enhanced before") for text in manifest["warnings"])
    assert in_python["inputs"].items() <= manifest["inputs"].items()
    for role, path in (("input", patient), ("against", Path(again))):
        assert file_sha256(path) in manifest["inputs"][role]


def test_dicom_keeps_that_a_volume_was_enhanced_before(scan: Path) -> None:
    """Both a series that the enhancement wrote, and one converted from its NIfTI file."""
    folder = scan.parent
    as_dicom = {"dicom": True, "patient_id": "P-17"}
    derived = {"output": str(folder / "derived")} | as_dicom
    run_job(JobSpec("enhance", _enhance(scan).params | derived))
    run_job(_enhance(scan))
    converted = {"input": str(folder / "better.nii.gz"), "output": str(folder / "converted")}
    run_job(JobSpec("convert", converted | as_dicom))
    for name in ("derived", "converted"):
        report = me.enhance(folder / name, device="cpu").report
        assert any("enhanced before" in text for text in report["warnings"])


def test_segment_writes_labels_and_their_volumes(scan: Path, default_head: Bundle) -> None:
    output = scan.with_name("labels.nrrd")
    config = {"model": default_head.name, "device": "cpu"}
    params = {"input": str(scan), "output": str(output), "config": config}
    result = run_job(JobSpec("segment", params))
    labels = io.load(output)
    assert (labels.modality, labels.dtype) == ("SEG", np.uint8)
    assert labels.geometry.is_close(io.load(scan).geometry)
    for label, stated in zip(result["labels"], default_head.metadata["labels"], strict=True):
        assert stated.items() <= label.items()
    first = result["table"][0]
    assert first["voxels"] == int((labels.voxels == first["value"]).sum()) > 0
    assert (result["device"], result["head"]["name"]) == ("cpu", default_head.name)
    assert result["segmentation_limits"] == default_head.metadata["limits"] != []


def test_a_head_that_is_named_takes_the_place_of_the_recommended_one(
    scan: Path, default_head: Bundle
) -> None:
    set_default("brain")
    head_model = str(default_head.folder)
    result = run_job(_enhance(scan, segment=True, segmenter=head_model))
    manifest = json.loads(Path(result["manifest"]).read_text(encoding="utf-8"))
    assert manifest["config"]["segmenter"]["model"] == default_head.name
    named = default_head
    assert manifest["results"]["head"]["sha256"] == named.sha256
    found = io.load(scan.with_name("better-segmentation.nii.gz"))
    both = me.enhance(io.load(scan), segment=True, segmenter=head_model, device="cpu")
    assert np.array_equal(both.segmentation.volume.voxels, found.voxels)
    assert both.segmentation.model["sha256"] == named.sha256


@pytest.mark.training
def test_a_head_is_measured_against_labels(
    data: Path, default_head: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "labeled"
    folder.mkdir()
    shutil.copy(data / "hq/0.nii.gz", folder)
    image = io.load(folder / "0.nii.gz")
    labels = me.segment(image, model=default_head.name).volume
    half = labels.voxels * (np.arange(labels.shape[0]) % 2 == 0)[:, None, None]
    io.save(labels.with_voxels(half.astype(np.uint8)), folder / "0-labels.nii.gz")
    rows = me.evaluate(default_head.name, folder, device="cpu")["results"]["rows"]
    assert [row["label"] for row in rows] == [
        each["name"] for each in default_head.metadata["labels"]
    ]
    assert rows[0]["volume"] == "0.nii.gz" and rows[0]["dice"] == pytest.approx(2 / 3, abs=0.05)
    (folder / "0-labels.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no labels beside it") as caught:
        me.evaluate(default_head.name, folder, device="cpu")
    assert "0-labels.nii.gz" in caught.value.hint
    with pytest.raises(ModelError, match="neither a head nor a model of a scanner"):
        me.evaluate("mr-slices", folder)


def test_every_output_of_an_enhancement_is_checked_before_it_begins(
    scan: Path, unread: Callable[[], None]
) -> None:
    unread()
    taken = scan.with_name("taken.nii.gz")
    taken.write_bytes(b"precious")
    page = scan.with_name("report")
    page.mkdir()
    (page / "index.html").write_bytes(b"precious")
    for params in (
        {"segmentation_output": str(taken)},
        {"uncertainty_output": str(taken), "config": {"uncertainty": True}},
        {"report": str(page)},
    ):
        with pytest.raises(OutputError, match="exists already"):
            run_job(_enhance(scan, **params))
    with pytest.raises(ConfigError, match="requires uncertainty"):
        run_job(_enhance(scan, uncertainty_output="u.nii"))
    with pytest.raises(ConfigError, match="strenght"):
        run_job(_enhance(scan, config={"strenght": 1}))
