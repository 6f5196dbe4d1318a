"""Label volumes as DICOM SEG: every voxel in its place, every word of the labels, each source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from Library.dicom.images import enhanced_mr, written
from Library.dicomout.conftest import MEANINGS, Sound, Study, decoded, on_grid
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import Derivation, build_series, new_study, read_template
from MedEnhanceLib.io.dicomout.segments import build_segmentation

Options = dict[str, Any]


def test_every_voxel_comes_back_in_its_place(
    sound: Sound, out: Path, labels: Volume, built: Dataset
) -> None:
    (dataset,) = sound([built])
    numbers = np.select([labels.voxels == 1, labels.voxels == 7], [1, 2])  # of MEANINGS
    assert np.array_equal(decoded(dataset, labels), numbers)
    volume = highdicom.seg.segread(*out.iterdir()).get_volume(combine_segments=True)
    assert np.array_equal(on_grid(volume, labels), numbers)


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
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert item.SegmentAlgorithmName == "brain"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert algorithm.AlgorithmVersion == "0.1.0"
        assert "ab" * 32 in algorithm.AlgorithmParameters
    by_hand = build_segmentation(labels, [], **{**options, "derivation": Derivation("exported")})
    assert [item.SegmentLabel for item in by_hand.SegmentSequence] == ["Label 1", "Label 7"]
    for item in by_hand.SegmentSequence:
        assert item.SegmentAlgorithmName == "not recorded"
        assert "SegmentationAlgorithmIdentificationSequence" not in item


def test_nothing_found_is_a_segmentation_too(labels: Volume, options: Options) -> None:
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
        (np.full((3, 4, 5), 0.5, np.float32), "not labels"),
        (np.full((3, 4, 5), -1, np.int16), "not labels"),
        (np.full((3, 4, 5), 70_000, np.int32), "not labels"),
        (np.full((3, 4, 5), np.nan, np.float32), "not labels"),
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
    sound: Sound, labels: Volume, options: Options
) -> None:
    meanings = [
        {"value": 1, "name": "a\\b\n" + "x" * 200, "color": "red", "category": {"value": "1"}},
        {"value": 7, "name": "\x00", "type": {"value": "9", "scheme": "S" * 40, "meaning": "m"}},
    ]
    (dataset,) = sound([build_segmentation(labels, meanings, **options)])
    first, second = dataset.SegmentSequence
    assert first.SegmentLabel.startswith("a b x")
    assert len(first.SegmentLabel) == 64
    assert second.SegmentLabel == "Label 7"
    assert second.SegmentedPropertyTypeCodeSequence[0].CodeValue == "85756007"


def source_of(frame: Dataset) -> Dataset:
    """The one image that a frame names."""
    (source,) = frame.DerivationImageSequence[0].SourceImageSequence
    return source


def test_frames_lie_where_the_images_lie_digit_by_digit_and_name_them(
    study: Study, built: Dataset
) -> None:
    headers = study.template.headers
    frames = built.PerFrameFunctionalGroupsSequence
    by_position = {str(header.ImagePositionPatient): header.SOPInstanceUID for header in headers}
    places = [str(frame.PlanePositionSequence[0].ImagePositionPatient) for frame in frames]
    assert set(places) == {str(header.ImagePositionPatient) for header in headers[1:5]}
    for frame, place in zip(frames, places, strict=True):
        assert source_of(frame).ReferencedSOPInstanceUID == by_position[place]
        assert "ReferencedFrameNumber" not in source_of(frame)
    shared = built.SharedFunctionalGroupsSequence[0]
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert str(cosines) == str(headers[1].ImageOrientationPatient)
    measures = shared.PixelMeasuresSequence[0]
    assert str(measures.PixelSpacing) == str(headers[1].PixelSpacing)
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (2.5, 2.5)
    assert built.FrameOfReferenceUID == "1.2.3.4.5"
    (series,) = built.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.1"
    named = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert named == set(by_position.values())


def test_resampled_labels_lie_where_they_are_and_name_the_series_alone(
    sound: Sound, labels: Volume, options: Options
) -> None:
    finer = Geometry((0.5, 0.8, 1.9), (1.0, 2.0, 3.3), labels.geometry.direction)
    moved = replace(
        labels, geometry=finer, dicom_origin=replace(labels.dicom_origin, on_grid=False)
    )
    (dataset,) = sound([build_segmentation(moved, MEANINGS, **options)])
    assert np.count_nonzero(decoded(dataset, moved)) == np.count_nonzero(labels.voxels)
    assert all("DerivationImageSequence" not in f for f in dataset.PerFrameFunctionalGroupsSequence)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == [0.8, 0.5]  # between rows, then between columns
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (1.9, 1.9)
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert list(cosines) == [1, 0, 0, 0, 0.8, 0.6]
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6


def test_frames_of_a_multi_frame_image_are_named_by_their_number(
    sound: Sound, tmp_path: Path, derivation: Derivation
) -> None:
    file = tmp_path / "enhanced.dcm"
    file.write_bytes(written(enhanced_mr(np.ones((3, 8, 6), np.uint16), [0.0, 2.0, 4.0])))
    volume = io.load(file)
    voxels = np.zeros(volume.shape, np.uint8)
    voxels[1, 2:5, 2:5] = 1
    labels = replace(volume, voxels=voxels, modality="SEG", units="")
    template = read_template(volume.dicom_origin)
    built = build_segmentation(labels, [], template=template, derivation=derivation)
    (dataset,) = sound([built])
    (frame,) = dataset.PerFrameFunctionalGroupsSequence
    assert source_of(frame).ReferencedFrameNumber == 2
    (series,) = dataset.ReferencedSeriesSequence
    (whole,) = series.ReferencedInstanceSequence
    assert "ReferencedFrameNumber" not in whole


def test_labels_that_never_were_dicom_stand_alone(
    sound: Sound, labels: Volume, derivation: Derivation
) -> None:
    plain = replace(labels, dicom_origin=None)
    template = new_study(modality="CT", patient_id="phantom")
    built = build_segmentation(plain, MEANINGS, template=template, derivation=derivation)
    (alone,) = sound([built])
    assert "ReferencedSeriesSequence" not in alone
    assert alone.FrameOfReferenceUID == template.frame_of_reference
    assert alone.PatientID == "phantom"
    assert np.count_nonzero(decoded(alone, labels)) == np.count_nonzero(labels.voxels)


def test_labels_refer_to_the_derived_images_they_were_found_in(
    sound: Sound, study: Study, labels: Volume, options: Options
) -> None:
    images = build_series(study.volume, **options)
    (dataset,) = sound([build_segmentation(labels, MEANINGS, source_images=images, **options)])
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == len(images)
    places = {image.SOPInstanceUID: image.ImagePositionPatient for image in images}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert place == places[source_of(frame).ReferencedSOPInstanceUID]
    assert np.count_nonzero(decoded(dataset, labels)) == np.count_nonzero(labels.voxels)
