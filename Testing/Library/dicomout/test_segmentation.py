"""Label volumes as DICOM SEG: every voxel in its place, every word of the labels, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from Library.dicomout.conftest import MEANINGS, Examine, Study
from Library.dicomout.writing import write_segmentation
from pydicom import Dataset

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import Derivation, new_study
from MedEnhanceLib.io.dicomout.segments import build_segmentation

Decode = Callable[..., np.ndarray]
Options = dict[str, Any]


def numbers_of(labels: Volume) -> np.ndarray:
    """The segments of MEANINGS that the labels belong to."""
    return np.select([labels.voxels == 1, labels.voxels == 7], [1, 2])


def test_every_voxel_comes_back_in_its_place(
    decoded: Decode, tmp_path: Path, examine: Examine, labels: Volume, options: Options
) -> None:
    path = write_segmentation(labels, MEANINGS, tmp_path / "out", **options)
    assert examine(path) == []
    assert np.array_equal(decoded(pydicom.dcmread(path), labels), numbers_of(labels))
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    to_index = np.linalg.inv(labels.geometry.affine_lps) @ volume.affine  # from (k, j, i) of theirs
    read = np.zeros(labels.shape, np.uint8)
    for index in np.ndindex(*volume.shape):
        i, j, k = np.rint(to_index @ [*index, 1])[:3].astype(int)
        read[k, j, i] = volume.array[index]
    assert np.array_equal(read, numbers_of(labels))


def test_segments_carry_the_labels_codes_names_and_colors(built: Dataset) -> None:
    first, second, _ = built.SegmentSequence
    assert (first.SegmentLabel, second.SegmentLabel) == ("Gray matter", "Läsion")
    category = first.SegmentedPropertyCategoryCodeSequence[0]
    assert (category.CodeValue, category.CodingSchemeDesignator) == ("123037004", "SCT")
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodeMeaning) == ("389081007", "Gray Matter")
    lab = highdicom.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue)
    assert np.abs(np.subtract(lab.to_rgb(), (0xC9, 0xA2, 0x27))).max() <= 1
    assert second.SegmentedPropertyTypeCodeSequence[0].CodeValue == "85756007"  # tissue
    assert "RecommendedDisplayCIELabValue" not in second
    assert len({item.TrackingUID for item in built.SegmentSequence}) == 3


def test_the_model_is_named_as_the_algorithm_and_none_where_there_was_none(
    built: Dataset, labels: Volume, options: Options
) -> None:
    for item in built.SegmentSequence:
        assert (item.SegmentAlgorithmType, item.SegmentAlgorithmName) == (
            "AUTOMATIC",
            "brain-tissue",
        )
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert algorithm.AlgorithmVersion == "0.1.0"
        assert "ab" * 32 in algorithm.AlgorithmParameters
    by_hand = build_segmentation(labels, [], **{**options, "derivation": Derivation("exported")})
    assert [item.SegmentLabel for item in by_hand.SegmentSequence] == ["Label 1", "Label 7"]
    for item in by_hand.SegmentSequence:
        assert item.SegmentAlgorithmName == "not recorded"
        assert "SegmentationAlgorithmIdentificationSequence" not in item


def test_nothing_found_is_a_segmentation_too(
    decoded: Decode, labels: Volume, options: Options
) -> None:
    empty = replace(labels, voxels=np.zeros(labels.shape, np.uint8))
    dataset = build_segmentation(empty, MEANINGS, **options)
    assert len(dataset.SegmentSequence) == 3
    assert not decoded(dataset, labels).any()


def test_lossy_steps_and_machines_before_us_are_passed_on(
    study: Study, labels: Volume, options: Options
) -> None:
    header = study.template.headers[0]
    header.LossyImageCompression = "01"
    header.LossyImageCompressionMethod, header.LossyImageCompressionRatio = "ISO_15444_1", "12.5"
    machine = Dataset()
    machine.Manufacturer = "Gateway"
    header.ContributingEquipmentSequence = [machine]
    options["derivation"] = replace(options["derivation"], lossy=(Lossy("UCV", 8.0),))
    dataset = build_segmentation(labels, MEANINGS, **options)
    assert dataset.LossyImageCompression == "01"
    assert list(dataset.LossyImageCompressionMethod) == ["ISO_15444_1", "UCV"]
    assert list(map(float, dataset.LossyImageCompressionRatio)) == [12.5, 8.0]
    makers = [item.Manufacturer for item in dataset.ContributingEquipmentSequence]
    assert (makers[0], makers[-1]) == ("Gateway", "MedEnhance")


@pytest.mark.parametrize(
    ("voxels", "says"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), "frames"),
        (np.full((3, 4, 5), 0.5, np.float32), "no labels"),
        (np.full((3, 4, 5), -1, np.int16), "no labels"),
        (np.full((3, 4, 5), 70_000, np.int32), "no labels"),
        (np.full((3, 4, 5), np.nan, np.float32), "no labels"),
        (np.zeros((3, 4, 5), np.uint8), "no label"),
        (np.arange(60_000, dtype=np.int32).reshape(30_000, 2, 1), "frames of 2 voxels"),
    ],
)
def test_what_is_no_segmentation_is_refused(
    voxels: np.ndarray, says: str, derivation: Derivation
) -> None:
    volume = Volume(voxels, modality="SEG", source="odd")
    with pytest.raises(InputError, match=says) as caught:
        build_segmentation(volume, [], template=new_study(modality="MR"), derivation=derivation)
    assert caught.value.hint


@pytest.mark.parametrize("meanings", [[*MEANINGS, MEANINGS[0]], [{"value": -1}], [{"name": "x"}]])
def test_meanings_of_no_label_or_of_one_twice_are_refused(
    labels: Volume, options: Options, meanings: list[dict[str, Any]]
) -> None:
    with pytest.raises(InputError, match="value"):
        build_segmentation(labels, meanings, **options)


def test_hostile_names_and_codes_become_plain_ones(
    tmp_path: Path, examine: Examine, labels: Volume, options: Options
) -> None:
    meanings = [
        {"value": 1, "name": "a\\b\n" + "x" * 200, "color": "red", "category": {"value": "1"}},
        {"value": 7, "name": "\x00", "type": {"value": "9", "scheme": "S" * 40, "meaning": "m"}},
    ]
    path = write_segmentation(labels, meanings, tmp_path / "out", **options)
    first, second = pydicom.dcmread(path).SegmentSequence
    assert first.SegmentLabel.startswith("a b x")
    assert len(first.SegmentLabel) == 64
    assert second.SegmentLabel == "Label 7"
    assert second.SegmentedPropertyTypeCodeSequence[0].CodeValue == "85756007"
    assert examine(path) == []
