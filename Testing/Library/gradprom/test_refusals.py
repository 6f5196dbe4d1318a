"""A segmentation model refuses a volume unlike those that it learned from, at every door."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from Library.stripes import NAME, WARNING
from pydicom import dcmread

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.schema import CARD
from MedEnhanceLib.bundles.store import find_bundle
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import DeviceMemoryError, InputError, ModelError
from MedEnhanceLib.gradprom import SegmentConfig, open_head_for
from MedEnhanceLib.gradprom.structures.locating import Location
from MedEnhanceLib.gradprom.structures.segmenting import find_unlike
from MedEnhanceLib.gradprom.structures.space import Placement
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Event, Monitor

_DECLARED = f"{NAME}: {WARNING.rstrip('.')}"
pytestmark = pytest.mark.usefixtures("default_head")


@pytest.fixture
def dark(head: Volume) -> Volume:
    """A volume that the model refuses."""
    return replace(head.with_voxels((head.voxels / 100).astype(np.float32)), source="dark")


def warnings_of(volume: Volume, config: SegmentConfig) -> list[str]:
    events: list[Event] = []
    open_head_for(volume, config, Monitor(events.append))
    return [event.fields["message"] for event in events if event.kind == "warning"]


def test_another_volume_is_refused_at_every_door(dark: Volume, tmp_path: Path) -> None:
    source, labels = tmp_path / "dark.nii.gz", tmp_path / "labels.nii.gz"
    save(dark, source)
    assert main(["segment", str(source), str(labels), "--modality", "MR"]) == InputError.exit_status
    assert not labels.exists()
    batch = ["batch", "segment", str(source), "--out", str(tmp_path / "out"), "--force-segmenter"]
    assert main(["segment", str(source), str(labels), "--force-segmenter"]) == 0
    assert main(batch) == 0
    results = json.loads(Path(f"{labels}.json").read_text(encoding="utf-8"))["results"]
    assert "does not look like" in results["segmentation_warning"]
    assert not [step for step in load(labels).history if "dark.nii" in step]  # names no file


def test_a_refused_segmentation_does_not_refuse_the_enhancement(
    dark: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, better = tmp_path / "Doe.nii.gz", tmp_path / "better.nii.gz"
    save(dark, source)
    command = ["enhance", str(source), str(better), "--segment", "--force"]
    assert main(command) == 0
    printed = capsys.readouterr()
    says = "not segmented: the volume does not look like the images that stripes was trained"
    assert says in printed.out
    assert f"warning: {says}" in printed.err
    assert "--force-segmenter" in printed.err
    labels = tmp_path / "better-segmentation.nii.gz"
    assert better.exists() and not labels.exists()
    results = json.loads(Path(f"{better}.json").read_text(encoding="utf-8"))["results"]
    assert results["measured"]["segmentation"]["refused"].startswith(
        "the volume does not look like"
    )
    assert "Doe" not in Path(f"{better}.json").read_text(encoding="utf-8")
    labels.write_bytes(b"of an earlier run")
    assert main([*command, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert [*fields["outputs"]] == ["output"]
    assert fields["measured"] == results["measured"]
    assert any("segmentation is of an earlier run" in text for text in fields["warnings"])
    enhanced = me.enhance(dark, segment=True)
    assert enhanced.segmentation is None
    assert enhanced.volume.is_equal(load(better).with_voxels(enhanced.volume.voxels))
    assert any(text.startswith(says[:40]) for text in enhanced.findings)


def test_a_batch_enhances_what_its_segmentation_refuses(dark: Volume, tmp_path: Path) -> None:
    save(dark, tmp_path / "dark.nii.gz")
    params = {"segment": True, "modality": "MR"}
    batch = {"task": "enhance", "inputs": [str(tmp_path)], "output": str(tmp_path / "out")}
    row = run_job(JobSpec("batch", batch | {"params": params}))["rows"][0]
    assert (row["status"], [*row["outputs"]]) == ("done", ["output"])
    assert "does not look like" in row["measured"]["segmentation"]["refused"]


@pytest.mark.parametrize("name", ["no-such-model", "mr-slices"])
def test_a_segmenter_that_does_not_exist_is_an_error_before_the_long_work(
    head: Volume, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("MedEnhanceLib.denoise.enhance", _must_not_run)
    with pytest.raises(ModelError, match=name):
        me.enhance(head, segment=True, segmenter=name)
    sequence = replace(head, voxels=np.stack([head.voxels] * 2))
    with pytest.raises(InputError, match="a sequence of 2 frames"):
        me.enhance(sequence, segment=True)


def _must_not_run(*_: object, **__: object) -> None:
    raise AssertionError("the volume was enhanced")


def test_a_segmentation_without_memory_leaves_the_enhanced_volume(
    head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceMemoryError("memory ran out", "Close other programs.")

    monkeypatch.setattr("MedEnhanceLib.gradprom.infer.segment", fail)
    enhanced = me.enhance(head, segment=True)
    assert enhanced.segmentation is None
    assert enhanced.measured["segmentation"] == {"refused": "memory ran out"}
    assert "not segmented: memory ran out. Close other programs." in enhanced.report["warnings"]


def test_what_a_model_declares_is_stated_with_every_result(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, folder = tmp_path / "labels.nii.gz", tmp_path / "dicom"
    assert main(["segment", str(scan), str(labels)]) == 0
    assert main(["segment", str(scan), str(folder), "--dicom", "--patient-id", "1"]) == 0
    results = json.loads(Path(f"{labels}.json").read_text(encoding="utf-8"))["results"]
    places = {
        "terminal": capsys.readouterr().err,
        "manifest": results["segmentation_warning"],
        "file": load(labels).history[-1],
        "DICOM": dcmread(next(folder.glob("*.dcm"))).DerivationDescription,
        "card": (find_bundle(NAME).folder / CARD).read_text(encoding="utf-8"),
    }
    assert [place for place, said in places.items() if WARNING.rstrip(".") not in said] == []


def test_a_forced_segmentation_says_what_differs(head: Volume, dark: Volume) -> None:
    assert warnings_of(head, SegmentConfig()) == [_DECLARED]
    forced = me.segment(dark, force_segmenter=True)
    assert "does not look like" in forced.warning and _DECLARED in forced.warning
    assert "does not look like" in forced.volume.history[-1]
    labels = head.with_voxels((head.voxels > head.voxels.mean()).astype(np.int16))
    for volume, is_label_map in ((head, False), (labels, True)):
        warnings = warnings_of(volume, SegmentConfig(force_segmenter=True))
        assert any("looks like a label map" in text for text in warnings) == is_label_map
    with pytest.raises(me.ConfigError, match="no segmentation is requested"):
        me.enhance(head, force_segmenter=True)


@pytest.mark.parametrize(
    ("information", "scales", "says"),
    [
        (0.5, (1.1, 1.0, 0.9), ""),
        (0.3, (1.1, 1.0, 0.9), "mutual information 0.30; at least 0.40"),
        (0.5, (2.0, 1.0, 0.9), "its size is 0.50 to 1.11 times the usual"),
        (0.5, (0.5, 0.4, 0.2), "its size is 2.00 to 5.00 times the usual"),
    ],
)
def test_a_head_of_structures_refuses_by_priors_and_size(
    information: float, scales: tuple[float, float, float], says: str
) -> None:
    import torch

    limits = {"information": 0.4, "scale_low": 0.8, "scale_high": 1.5}
    place = Placement.linear(torch.eye(3, 4))
    location = Location(place, ((0, 8),) * 3, information, scales, 500.0)
    found = find_unlike(location, limits)
    assert says in found and bool(says) == bool(found)
    assert find_unlike(None, limits) == "no such structures were recognized"
