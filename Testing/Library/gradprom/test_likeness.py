"""A segmentation model refuses a volume that is unlike those that it learned from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from Library.tissue_head import NAME, WARNING, sample
from pydicom import dcmread

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.bundles.schema import CARD, METADATA
from MedEnhanceLib.bundles.store import find_bundle
from MedEnhanceLib.bundles.suitability import compare_likeness, fit_likeness
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import DeviceMemoryError, InputError, ModelError
from MedEnhanceLib.gradprom import SegmentConfig, open_head_for
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Event, Monitor

_DECLARED = [f"{NAME}: {WARNING.rstrip('.')}"]
pytestmark = pytest.mark.usefixtures("default_head")


@pytest.fixture(scope="module")
def brain() -> Volume:
    return sample(2)


@pytest.fixture(scope="module")
def leg() -> Volume:
    """Muscle in fat, with a bone."""
    _, j, i = np.mgrid[-1:1:40j, -1:1:70j, -1:1:70j]
    radius = np.hypot(j, i)
    tissue = np.select([radius < 0.15, radius < 0.7, radius < 0.85], [900.0, 300.0, 950.0], 5.0)
    noise = np.random.default_rng(0).normal(0, 15, tissue.shape)
    return Volume((tissue + noise).astype(np.float32), Geometry((2, 2, 3)), modality="MR")


def warnings_of(volume: Volume, config: SegmentConfig) -> list[str]:
    events: list[Event] = []
    open_head_for(volume, config, Monitor(events.append))
    return [event.fields["message"] for event in events if event.kind == "warning"]


def test_of_a_brain_only_what_the_model_declares_is_a_warning(brain: Volume) -> None:
    assert warnings_of(brain, SegmentConfig()) == _DECLARED
    noisy = brain.voxels + np.random.default_rng(1).normal(0, 20, brain.shape)
    for variant in (
        replace(brain, voxels=brain.voxels[:, :, ::-1].transpose(1, 0, 2)),
        replace(brain, voxels=np.abs(noisy).astype(np.float32)),
        replace(brain, voxels=brain.voxels.astype(np.float32) * np.linspace(0.6, 1.4, 99)),
        brain.crop(i=slice(None, 45)),
    ):
        assert warnings_of(variant, SegmentConfig()) == _DECLARED


def test_a_leg_is_refused_at_every_door(leg: Volume, tmp_path: Path) -> None:
    """By a model that is named, too."""
    says = r"images that tissue was trained on, MR of the brain: the body is thinner"
    with pytest.raises(InputError, match=says) as caught:
        me.segment(leg)
    assert "--force-segmenter" in caught.value.hint
    with pytest.raises(InputError, match="does not look like"):
        me.segment(leg, model=NAME)
    source, labels = tmp_path / "leg.nii.gz", tmp_path / "labels.nii.gz"
    save(leg, source)
    assert main(["segment", str(source), str(labels), "--modality", "MR"]) == InputError.exit_status
    assert not labels.exists()
    batch = ["batch", "segment", str(source), "--out", str(tmp_path / "out"), "--force-segmenter"]
    assert main(["segment", str(source), str(labels), "--force-segmenter"]) == 0
    assert main(batch) == 0
    results = json.loads(Path(f"{labels}.json").read_text(encoding="utf-8"))["results"]
    assert "does not look like" in results["segmentation_warning"]
    assert not [step for step in load(labels).history if "leg" in step]  # names no file


def test_a_refused_segmentation_does_not_refuse_the_enhancement(
    leg: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leg, source, better = leg.crop(k=slice(8)), tmp_path / "leg.nii.gz", tmp_path / "better.nii.gz"
    save(leg, source)
    command = ["enhance", str(source), str(better), "--segment", "--force"]
    assert main(command) == 0
    printed = capsys.readouterr()
    says = "not segmented: the volume does not look like the images that tissue was trained"
    assert says in printed.out
    assert f"warning: {says}" in printed.err
    assert "--force-segmenter" in printed.err
    labels = tmp_path / "better-segmentation.nii.gz"
    assert better.exists() and not labels.exists()
    results = json.loads(Path(f"{better}.json").read_text(encoding="utf-8"))["results"]
    assert results["measured"]["segmentation"]["refused"].startswith(
        "the volume does not look like"
    )
    assert "leg" not in Path(f"{better}.json").read_text(encoding="utf-8")
    labels.write_bytes(b"of an earlier run")
    assert main([*command, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert [*fields["outputs"]] == ["output"]
    assert fields["measured"] == results["measured"]
    assert any("segmentation is of an earlier run" in text for text in fields["warnings"])
    enhanced = me.enhance(leg, segment=True)
    assert enhanced.segmentation is None
    assert enhanced.volume.is_equal(load(better).with_voxels(enhanced.volume.voxels))
    assert any(text.startswith(says[:40]) for text in enhanced.findings)


def test_a_batch_enhances_what_its_segmentation_refuses(leg: Volume, tmp_path: Path) -> None:
    save(leg.crop(k=slice(8)), tmp_path / "leg.nii.gz")
    params = {"segment": True, "modality": "MR"}
    batch = {"task": "enhance", "inputs": [str(tmp_path)], "output": str(tmp_path / "out")}
    row = run_job(JobSpec("batch", batch | {"params": params}))["rows"][0]
    assert (row["status"], [*row["outputs"]]) == ("done", ["output"])
    assert "does not look like" in row["measured"]["segmentation"]["refused"]


@pytest.mark.parametrize("name", ["no-such-model", "mr"])
def test_a_segmenter_that_does_not_exist_is_an_error_before_the_long_work(
    leg: Volume, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("MedEnhanceLib.hqg.enhance", _must_not_run)
    with pytest.raises(ModelError, match=name):
        me.enhance(leg, segment=True, segmenter=name)
    sequence = replace(leg, voxels=np.stack([leg.voxels] * 2))
    with pytest.raises(InputError, match="a sequence of 2 frames"):
        me.enhance(sequence, segment=True)


def _must_not_run(*_: object, **__: object) -> None:
    raise AssertionError("the volume was enhanced")


def test_a_segmentation_without_memory_leaves_the_enhanced_volume(
    brain: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceMemoryError("memory ran out", "Close other programs.")

    monkeypatch.setattr("MedEnhanceLib.gradprom.infer.segment", fail)
    enhanced = me.enhance(brain.crop(k=slice(40, 60)), segment=True, force_segmenter=True)
    assert enhanced.segmentation is None
    assert enhanced.measured["segmentation"] == {"refused": "memory ran out"}
    assert "not segmented: memory ran out. Close other programs." in enhanced.report["warnings"]


def test_what_a_model_declares_is_stated_with_every_result(
    brain: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, labels = tmp_path / "brain.nii.gz", tmp_path / "labels.nii.gz"
    save(brain.crop(i=slice(None, 45)), source)
    assert main(["segment", str(source), str(labels)]) == 0
    folder = tmp_path / "dicom"
    assert main(["segment", str(source), str(folder), "--dicom", "--patient-id", "1"]) == 0
    results = json.loads(Path(f"{labels}.json").read_text(encoding="utf-8"))["results"]
    places = {
        "terminal": capsys.readouterr().err,
        "manifest": results["segmentation_warning"],
        "file": load(labels).history[-1],
        "DICOM": dcmread(next(folder.glob("*.dcm"))).DerivationDescription,
        "card": (find_bundle(NAME).folder / CARD).read_text(encoding="utf-8"),
    }
    assert [place for place, said in places.items() if WARNING.rstrip(".") not in said] == []
    assert "labels tumor where there is none" in find_bundle("sarcoma-ct").warnings[0]


def test_a_forced_segmentation_says_what_differs(leg: Volume) -> None:
    forced = me.segment(leg, force_segmenter=True)
    assert "does not look like" in forced.warning and _DECLARED[0] in forced.warning
    assert "does not look like" in forced.volume.history[-1]
    labels = leg.with_voxels((leg.voxels > leg.voxels.mean()).astype(np.int16))
    for volume, is_label_map in ((leg, False), (labels, True)):
        warnings = warnings_of(volume, SegmentConfig(force_segmenter=True))
        assert any("looks like a label map" in text for text in warnings) == is_label_map
    with pytest.raises(me.ConfigError, match="no segmentation is requested"):
        me.enhance(leg, force_segmenter=True)


def test_ct_named_mr_and_mr_named_ct_are_refused(brain: Volume) -> None:
    noise = np.random.default_rng(0).normal(0, 8, brain.shape)
    hounsfield = np.where(brain.voxels > 20, 35 + noise, -1000).astype(np.float32)
    with pytest.raises(InputError, match="does not look like"):
        open_head_for(replace(brain, voxels=hounsfield), SegmentConfig())
    with pytest.raises(InputError, match="does not look like"):
        open_head_for(replace(brain, modality="CT"), SegmentConfig(model="sarcoma-ct"))


def test_a_model_without_a_description_warns_and_a_damaged_one_is_refused(
    brain: Volume, leg: Volume, tissue_head: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tissue_head, folder)
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    likeness = metadata.pop("likeness")
    (folder / METADATA).write_text(json.dumps(metadata))
    *declared, warning = warnings_of(leg, SegmentConfig(model=str(folder)))
    assert "not checked" in warning
    assert declared == _DECLARED
    damaged = metadata | {"likeness": likeness | {"mean": likeness["mean"][:-1]}}
    (folder / METADATA).write_text(json.dumps(damaged))
    with pytest.raises(ModelError, match="description of the training images is damaged"):
        open_head_for(brain, SegmentConfig(model=str(folder)))


def test_the_distance_leaves_out_what_a_volume_does_not_show() -> None:
    rng = np.random.default_rng(0)
    rows = [{"volume of a": rng.normal(7, 0.1), "level of b": rng.normal()} for _ in range(50)]
    likeness = fit_likeness([*rows, {}], 50)
    assert likeness["volumes"] == 50
    assert compare_likeness(likeness, {"volume of a": 7.0, "level of b": np.nan})[0] < 0.5
    distance, clause = compare_likeness(likeness, {"volume of a": 9.0, "level of b": 0.0})
    assert distance > likeness["limit"]
    assert clause.startswith("the body in it has 8,103 mL; about 1,0")
    assert compare_likeness(likeness, {})[0] == np.inf
    assert fit_likeness([{}], 1) == {}
