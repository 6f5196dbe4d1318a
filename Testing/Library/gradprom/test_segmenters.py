"""Every kind of segmenter stands behind the same doors; stripes with 28 labels stand in."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own short name
from contracts import SegmenterTests
from Library.gradprom import test_monai_bundle as _  # noqa: F401 - has the contract of MONAI's
from Library.label_maps import label_map
from Library.small_head import write_small_head
from Library.storages import SOME, restored, stored
from Library.stripes import KIND, RECIPE, Stripes
from matplotlib.image import imread
from pydicom import dcmread

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib import gradprom
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import INTRACRANIAL
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, EndingError, InputError, ModelError, OutputError
from MedEnhanceLib.gradprom import Label, SegmentConfig
from MedEnhanceLib.gradprom.segmenters import SEGMENTERS
from MedEnhanceLib.gradprom.structures.model import open_structures
from MedEnhanceLib.gradprom.structures.segmenting import place, segment_structures
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor


@pytest.mark.slow
class TestStructures(SegmenterTests):
    kind = "structures"

    @pytest.fixture
    def config(self, tmp_path: Path) -> SegmentConfig:
        return SegmentConfig(model=str(write_small_head(tmp_path)))


@pytest.mark.slow
def test_a_head_looks_at_a_very_noisy_volume_without_its_noise(tmp_path: Path) -> None:
    config = SegmentConfig(model=str(write_small_head(tmp_path)), device="cpu")
    anatomy, rng = 10.0 * label_map(0).voxels, np.random.default_rng(0)
    grid = Geometry((4.0, 4.0, 4.0))
    clean, noisy = (
        Volume(np.abs(anatomy + rng.normal(0, sigma, anatomy.shape)), grid, modality="MR")
        for sigma in (1, 300)
    )
    head = gradprom.open_head_for(noisy, config)

    labels = gradprom.segment(noisy, head=head)

    better = me.enhance(noisy, device="cpu").volume
    assert np.array_equal(labels.volume.voxels, gradprom.segment(better, head=head).volume.voxels)
    assert "its noise was removed before it was segmented" in labels.warning
    assert "noise" not in gradprom.segment(clean, config).warning


@pytest.mark.slow
@pytest.mark.parametrize("thick", [0, 1, 2])
def test_a_head_sees_sagittal_and_coronal_slices_upright(tmp_path: Path, thick: int) -> None:
    """Upright they are [slice, row, column] from foot to head, to the back and to the left."""
    folder = write_small_head(tmp_path)
    tissue = 10.0 * np.roll(label_map(0).voxels, (1, 2, 3), (0, 1, 2))
    part = tuple(slice(None, None, 2 if axis == thick else 1) for axis in range(3))
    spacing = [8.0 if 2 - axis == thick else 4.0 for axis in range(3)]
    upright = Volume(tissue[part], Geometry(tuple(spacing)), modality="MR")  # type: ignore[arg-type]
    model = open_structures(read_bundle(folder))
    placement = place(upright, model)
    same = segment_structures(upright, placement, model, "cpu", Monitor()).labels
    assert same.any()
    storage, config = SOME[thick], SegmentConfig(model=str(folder), device="cpu")
    made = gradprom.segment(stored(upright, storage), replace(config, force_segmenter=True))
    assert np.array_equal(restored(made.volume.voxels, storage), same)


@pytest.mark.parametrize("degrees", [-25, 15])
def test_a_nodding_head_is_placed_as_it_nods(tmp_path: Path, degrees: float) -> None:
    head = Volume(10.0 * label_map(0).voxels, Geometry((4.0, 4.0, 4.0)), modality="MR")
    image, nod = head.to_sitk(), sitk.Euler3DTransform([78.0] * 3, np.radians(degrees), 0.0, 0.0)
    nodding = head.with_voxels(sitk.GetArrayFromImage(sitk.Resample(image, image, nod)))
    location = place(nodding, open_structures(read_bundle(write_small_head(tmp_path)))).location
    assert location is not None
    affine = location.placement.affine.numpy()
    assert np.degrees(np.arctan2(affine[2, 1], affine[1, 1])) == pytest.approx(degrees, abs=8)


def test_every_segmenter_has_its_contract() -> None:
    assert set(SEGMENTERS) <= {each.kind for each in SegmenterTests.__subclasses__()}


@pytest.fixture
def stripes(default_head: Bundle) -> str:
    """The folder of a head for MR, whose class is `Stripes`."""
    return str(default_head.folder)


def test_labels_and_uncertainty_have_the_order_of_the_input(head: Volume, stripes: str) -> None:
    plain = me.segment(head, model=stripes, device="cpu")
    assert plain.uncertainty is not None
    for storage in SOME:
        volume = stored(head, storage)
        result = me.segment(volume, model=stripes, device="cpu")
        assert result.uncertainty is not None
        for made, same in (
            (result.volume, plain.volume),
            (result.uncertainty, plain.uncertainty),
        ):
            assert made.geometry == volume.geometry
            assert np.array_equal(restored(made.voxels, storage), same.voxels)
        assert result.table == plain.table
    assert {volume.geometry.turn.axes for volume in Stripes.seen} == {(0, 1, 2)}
    assert plain.limits == ("Of stripes alone.",)
    assert (plain.uncertainty.units, plain.uncertainty.modality) == ("1", "MR")


def test_the_command_writes_the_map_and_states_the_expected_dice(
    scan: Path, stripes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, spread = tmp_path / "labels.nii.gz", tmp_path / "spread.nii.gz"
    command = ["segment", str(scan), str(labels), "--model", stripes]
    assert main([*command, "--uncertainty-map", str(spread)]) == 0
    printed = capsys.readouterr()
    assert "expected Dice" in printed.out and "0.876" in printed.out
    assert "warning: its border is cut off" in printed.err
    assert np.unique(load(labels).voxels).size == 29
    found = load(spread)
    assert (found.voxels.dtype, found.geometry) == (np.float32, load(labels).geometry)
    assert 0 < found.voxels.max() < 1
    manifest = json.loads(Path(f"{labels}.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row for row in manifest["results"]["table"]}
    assert rows["Left thalamus"]["quality"] == 0.876
    assert "quality" not in rows["Left caudate"]
    assert manifest["results"]["segmentation_warning"].endswith("its border is cut off")


def test_a_table_of_volumes_has_sides_intervals_and_the_total(
    scan: Path, stripes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, volumes = tmp_path / "labels.nii.gz", tmp_path / "volumes.csv"
    command = ["segment", str(scan), str(labels), "--model", stripes, "--volumes", str(volumes)]
    assert main(command) == 0
    rows = [*csv.DictReader(volumes.read_text(encoding="utf-8").splitlines())]
    assert all(row["file"] == str(scan) for row in rows)
    by_name = {(row["side"], row["structure"]): row for row in rows}
    thalamus, caudate = by_name["left", "thalamus"], by_name["left", "caudate"]
    assert float(thalamus["low mL"]) == pytest.approx(float(thalamus["volume mL"]) / 2, abs=0.001)
    assert thalamus["expected Dice"] == "0.876"
    assert (caudate["low mL"], caudate["expected Dice"]) == ("", "")
    *structures, total = rows
    ml = sum(float(row["volume mL"]) for row in structures)
    assert (total["side"], total["structure"]) == ("", INTRACRANIAL)
    assert float(total["high mL"]) == pytest.approx(1.25 * ml, rel=1e-3)
    printed = capsys.readouterr().out
    assert INTRACRANIAL in printed and "if another person drew the structure" in printed
    assert "No from … to for" in printed and "Left caudate" in printed.partition("to for")[2]
    labels.unlink()
    Path(f"{labels}.json").unlink()
    volumes.write_text("mine", encoding="utf-8")
    assert main(command) == OutputError.exit_status
    assert volumes.read_text(encoding="utf-8") == "mine" and not labels.exists()
    assert main([*command, "--force"]) == 0
    wrong = ["segment", str(scan), str(tmp_path / "b.nii.gz"), "--volumes", "volumes.txt"]
    assert main(wrong) == EndingError.exit_status
    result = me.segment(load(scan, modality="MR"), model=stripes)
    assert result.intracranial is not None and "low_ml" in result.table[5]


def test_a_picture_of_the_labels_is_written_on_request(
    scan: Path, stripes: str, tmp_path: Path
) -> None:
    picture, labels = tmp_path / "labels.png", tmp_path / "labels.nii.gz"
    command = ["segment", str(scan), str(labels), "--model", stripes, "--picture", str(picture)]
    assert main(command) == 0
    height, width, colors = imread(picture).shape
    assert min(height, width) > 300 and colors in (3, 4)
    again = tmp_path / "again.nii.gz"
    assert main([*command[:2], str(again), *command[3:]]) == OutputError.exit_status
    other = [*command[:2], str(again), *command[3:-1], str(tmp_path / "labels.jpg")]
    assert main(other) == EndingError.exit_status
    assert not again.exists()  # refused before anything is segmented


def test_a_report_shows_volumes_with_and_without_an_interval(
    scan: Path, stripes: str, tmp_path: Path
) -> None:
    labels, report = str(tmp_path / "labels.nii.gz"), tmp_path / "report"
    command = ["enhance", str(scan), str(tmp_path / "better.nii.gz"), "--segment", labels]
    assert main([*command, "--segmenter", stripes, "--report", str(report)]) == 0
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "From, ml" in page and "caudate" in page.lower()
    assert "if another person drew the structure" in page and "docs/segmenters.md" in page


def test_a_map_that_the_model_cannot_make_is_warned_of(
    scan: Path,
    stripes: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SEGMENTERS, KIND, "Library.stripes:Unsure")
    labels, spread = tmp_path / "labels.nii.gz", tmp_path / "spread.nii.gz"
    command = ["segment", str(scan), str(labels)]
    assert main([*command, "--uncertainty-map", str(spread)]) == 0
    assert "does not estimate uncertainty: no map" in capsys.readouterr().err
    assert labels.exists() and not spread.exists()
    assert me.segment(load(scan, modality="MR")).uncertainty is None
    with_dicom = [*command[:2], str(tmp_path / "dicom"), "--dicom", "--uncertainty-map", "a.nrrd"]
    assert main(with_dicom) == ConfigError.exit_status


def test_where_a_volume_lies_changes_nothing_of_what_its_labels_measure(
    head: Volume, stripes: str
) -> None:
    straight = replace(head, geometry=Geometry(head.geometry.spacing))
    tables = [me.segment(volume, model=stripes).table for volume in (head, straight)]
    assert tables[0] == tables[1]
    voxel_ml = np.prod(head.geometry.spacing) / 1000
    assert all(row["volume_ml"] == round(row["voxels"] * voxel_ml, 3) for row in tables[0])


def test_an_unlike_volume_is_refused_by_every_kind_in_the_same_words(
    head: Volume, stripes: str
) -> None:
    dark = head.with_voxels((head.voxels // 100).astype(np.int16))
    says = "does not look like the images that stripes was trained on, MR of the brain: it is dark"
    with pytest.raises(InputError, match=says) as caught:
        me.segment(dark, model=stripes)
    assert "stripes: It sees stripes" in caught.value.hint
    assert "--force-segmenter" in caught.value.hint
    forced = me.segment(dark, model=stripes, force_segmenter=True)
    assert forced.warning.startswith("the volume does not look like")
    assert "stripes: It sees stripes" in forced.warning


def test_enhance_states_quality_and_warnings_of_the_segmenter(head: Volume, stripes: str) -> None:
    result = me.enhance(head, segment=True, segmenter=stripes, device="cpu")
    assert result.segmentation is not None and result.segmentation.uncertainty is not None
    assert "its border is cut off" in result.report["results"]["segmentation_warning"]
    assert result.report["results"]["table"][5]["quality"] == 0.876


def test_28_labels_become_28_segments_of_dicom(scan: Path, stripes: str, tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    command = ["segment", str(scan), str(folder), "--model", stripes, "--modality", "MR"]
    assert main([*command, "--dicom", "--patient-id", "1"]) == 0
    (path,) = folder.glob("*.dcm")
    segments = {item.SegmentLabel: item for item in dcmread(path).SegmentSequence}
    stated = json.loads(RECIPE.read_text(encoding="utf-8"))["structures"]
    assert [*segments] == [entry["name"] for entry in stated]
    for entry in stated:
        kind = segments[entry["name"]].SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == (
            entry["type"]["value"],
            entry["type"]["scheme"],
        )
    back = load(path)
    assert np.array_equal(
        back.voxels > 0, me.segment(load(scan, modality="MR"), model=stripes).volume.voxels > 0
    )


def test_a_kind_of_another_release_is_named(head: Volume, stripes: str) -> None:
    del SEGMENTERS[KIND]
    with pytest.raises(ModelError, match="unknown kind of network 'stripes'"):
        me.segment(head, model=stripes)


def test_every_label_of_the_brain_has_its_terminology() -> None:
    entries = json.loads(RECIPE.read_text(encoding="utf-8"))["structures"]
    types: dict[str, set[str]] = {}
    for label in (config_from_json(Label, entry) for entry in entries):
        assert label.category is not None
        assert label.type is not None
        assert (label.category.value, label.category.scheme) == ("123037004", "SCT")
        assert label.type.scheme in ("SCT", "DCM")
        name = label.name.removeprefix("Left ").removeprefix("Right ")
        types.setdefault(label.type.value, set()).add(name)
    assert all(len(names) == 1 for names in types.values())
    assert (len(entries), len(types)) == (28, 16)
