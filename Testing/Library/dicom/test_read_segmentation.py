"""A DICOM segmentation becomes a volume of labels, or says why it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.dicom.images import enhanced_mr, written

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom import load_dicom
from MedEnhanceLib.runtime.progress import Monitor

_CLASS = "1.2.840.10008.5.1.4.1.1.66."
Frame = tuple[int, float, np.ndarray]


def mask(*pixels: tuple[int, int]) -> np.ndarray:
    found = np.zeros((5, 7), np.uint8)
    for row, column in pixels:
        found[row, column] = 1
    return found


def segmentation(frames: list[Frame], bits: int = 1, **own: Any) -> Any:
    """frames: of each its segment, its place along z, and its pixels."""
    from pydicom import Dataset

    pixels = np.stack([one for _, _, one in frames])
    dataset = enhanced_mr(pixels.astype(np.uint16), [place for _, place, _ in frames])
    dataset.SOPClassUID = own.pop("SOPClassUID", f"{_CLASS}4")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.Modality, dataset.SegmentationType = "SEG", "BINARY"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    packed = np.packbits(pixels.ravel(), bitorder="little") if bits == 1 else pixels
    dataset.PixelData = packed.tobytes() + b"\0" * (packed.size % 2)
    dataset["PixelData"].VR = "OB"
    dataset.SegmentSequence = []
    for number in sorted({segment for segment, _, _ in frames}):
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel = number, f"segment {number}"
        dataset.SegmentSequence.append(item)
    for (segment, _, _), item in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        identification = Dataset()
        identification.ReferencedSegmentNumber = segment
        item.SegmentIdentificationSequence = [identification]
        del item.PixelValueTransformationSequence
    for name, value in own.items():
        setattr(dataset, name, value)
    return dataset


def loaded(tmp_path: Path, dataset: Any) -> Volume:
    (tmp_path / "seg.dcm").write_bytes(written(dataset))
    return load_dicom(tmp_path / "seg.dcm", monitor=Monitor())


@pytest.mark.parametrize("bits", [1, 8])
def test_number_of_a_segment_is_its_label(bits: int, tmp_path: Path) -> None:
    """35 single bits a frame: the second begins in the middle of a byte."""
    frames = [
        (2, 4.0, mask((0, 0), (4, 6))),
        (1, 0.0, mask((1, 1))),
        (2, 2.0, mask((2, 2), (2, 3))),
        (1, 2.0, mask((3, 3))),
    ]
    volume = loaded(tmp_path, segmentation(frames, bits))
    expected = np.zeros((3, 5, 7), np.uint8)
    for segment, place, pixels in frames:
        expected[int(place / 2)][pixels > 0] = segment
    assert (volume.modality, volume.units, volume.dtype) == ("SEG", "", np.uint8)
    assert np.array_equal(volume.voxels, expected)
    assert volume.geometry == Geometry((0.75, 0.5, 2.0), (-3.0, 4.0, 0.0))


def test_planes_whose_frames_were_left_out_are_empty(tmp_path: Path) -> None:
    dataset = segmentation([(1, 0.0, mask((0, 0))), (1, 2.0, mask((1, 1))), (1, 8.0, mask((2, 2)))])
    volume = loaded(tmp_path, dataset)
    assert volume.shape == (5, 5, 7)
    assert [int(plane.sum()) for plane in volume.voxels] == [1, 1, 0, 0, 1]


def test_distance_of_planes_may_be_stated_where_all_between_are_left_out(tmp_path: Path) -> None:
    dataset = segmentation([(1, 0.0, mask((0, 0))), (1, 8.0, mask((2, 2)))])
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = 2
    assert loaded(tmp_path, dataset).shape == (5, 5, 7)


def test_label_map_is_taken_as_it_is(tmp_path: Path) -> None:
    frames = [(1, 0.0, mask((0, 0)) * 7), (1, 2.0, mask((1, 1)) * 250)]
    dataset = segmentation(frames, 8, SOPClassUID=f"{_CLASS}7", SegmentationType="LABELMAP")
    volume = loaded(tmp_path, dataset)
    assert (volume.voxels[0, 0, 0], volume.voxels[1, 1, 1], volume.voxels.max()) == (7, 250, 250)


def test_segments_that_overlap_are_refused_by_number(tmp_path: Path) -> None:
    dataset = segmentation([(3, 0.0, mask((0, 0), (1, 1))), (5, 0.0, mask((1, 1)))])
    with pytest.raises(InputError, match=r"segments 3 and 5 overlap \(1 voxels") as caught:
        loaded(tmp_path, dataset)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"SegmentationType": "FRACTIONAL"}, "SegmentationType is FRACTIONAL: it holds no labels"),
        (
            {"ConcatenationUID": "1.2", "InConcatenationNumber": 2},
            r"part 2 of several: labels of several files",
        ),
        ({"SegmentSequence": []}, "segment 1, which is unknown"),
        ({"PerFrameFunctionalGroupsSequence": []}, "0 frames are described"),
    ],
)
def test_what_is_no_set_of_labels_is_refused(
    own: dict[str, Any], says: str, tmp_path: Path
) -> None:
    frames = [(1, 0.0, mask((0, 0))), (1, 2.0, mask((1, 1)))]
    with pytest.raises(InputError, match=says):
        loaded(tmp_path, segmentation(frames, **own))


def test_frames_beside_the_grid_are_refused(tmp_path: Path) -> None:
    places = (0.0, 2.0, 5.0)
    dataset = segmentation([(1, place, mask((0, 0))) for place in places])
    with pytest.raises(GeometryError, match="not lie on a grid of 2 mm"):
        loaded(tmp_path, dataset)


@pytest.mark.parametrize(
    ("sequence", "name", "value"),
    [
        ("PlanePositionSequence", "ImagePositionPatient", [-1.5, 4, 0]),  # two pixels aside
        ("PlaneOrientationSequence", "ImageOrientationPatient", [-1, 0, 0, 0, -1, 0]),
        ("PlaneOrientationSequence", "ImageOrientationPatient", [1, 0, 0, 0, -1, 0]),
        ("PixelMeasuresSequence", "PixelSpacing", [0.5, 0.9]),
    ],
)
@pytest.mark.parametrize("frame", [0, 1])
def test_every_frame_is_held_against_the_grid(
    sequence: str, name: str, value: list[float], frame: int, tmp_path: Path
) -> None:
    """Also one that shares its place with another, of which one would do for the grid."""
    from pydicom import Dataset

    dataset = segmentation([(1, 0.0, mask((0, 0))), (2, 0.0, mask((1, 1))), (1, 2.0, mask((0, 0)))])
    own = Dataset()
    setattr(own, name, value)
    setattr(dataset.PerFrameFunctionalGroupsSequence[frame], sequence, [own])
    with pytest.raises(InputError):
        loaded(tmp_path, dataset)


def test_frames_of_one_place_that_differ_by_rounding_are_one_grid(tmp_path: Path) -> None:
    dataset = segmentation([(1, 0.0, mask((0, 0))), (2, 0.0, mask((1, 1)))])
    place = dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    place.ImagePositionPatient = [-3.00001, 3.99999, 0.00001]
    assert loaded(tmp_path, dataset).shape == (1, 5, 7)


def test_bytes_of_a_binary_segmentation_are_0_and_1(tmp_path: Path) -> None:
    dataset = segmentation([(1, 0.0, mask((0, 0)) * 255)], bits=8)
    with pytest.raises(InputError, match="frame 1 of a binary segmentation holds 255") as caught:
        loaded(tmp_path, dataset)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "BitsAllocated is 16, unsigned"),
        ({"PixelRepresentation": 1}, "BitsAllocated is 8, signed"),
    ],
)
def test_pixels_that_are_no_labels_are_refused(
    own: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        loaded(tmp_path, segmentation([(1, 0.0, mask((0, 0)))], bits=8, **own))


def test_pixels_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    dataset = segmentation([(1, 0.0, mask((0, 0))), (1, 2.0, mask((1, 1)))])
    dataset.PixelData = dataset.PixelData[:-2]
    with pytest.raises(InputError, match="cut short"):
        loaded(tmp_path, dataset)


def test_images_come_before_a_segmentation_beside_them(tmp_path: Path) -> None:
    """It is named where it is left out, and loaded where it is asked for."""
    images = enhanced_mr(np.ones((2, 5, 7), np.uint16), [0.0, 2.0])
    labels = segmentation([(1, 0.0, mask((0, 0))), (1, 2.0, mask((1, 1)))])
    labels.SeriesInstanceUID, labels.SOPInstanceUID = "1.2.77", "1.2.78"
    labels.file_meta.MediaStorageSOPInstanceUID = "1.2.78"
    (tmp_path / "images.dcm").write_bytes(written(images))
    (tmp_path / "labels.dcm").write_bytes(written(labels))
    assert load_dicom(tmp_path, monitor=Monitor()).modality == "MR"
    assert load_dicom(tmp_path, series="1.2.77", monitor=Monitor()).modality == "SEG"


def test_the_only_segmentation_is_loaded_beside_what_is_no_image(tmp_path: Path) -> None:
    """As a segmentation of ours lies beside the report on it; it names who made it."""
    from pydicom import Dataset
    from pydicom.uid import Comprehensive3DSRStorage

    labels = segmentation([(1, 0.0, mask((0, 0))), (1, 2.0, mask((1, 1)))])
    ours = Dataset()
    ours.Manufacturer, ours.SoftwareVersions = "MedEnhance", "0.1.0"
    ours.ContributionDescription = "Segmented with a model. Research use only."
    labels.ContributingEquipmentSequence = [ours]
    report = segmentation([(1, 0.0, mask((0, 0)))])
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = Comprehensive3DSRStorage
    report.SeriesInstanceUID, report.SOPInstanceUID, report.Modality = "1.2.77", "1.2.78", "SR"
    del report.PixelData, report.Rows, report.Columns, report.NumberOfFrames
    (tmp_path / "labels.dcm").write_bytes(written(labels))
    (tmp_path / "report.dcm").write_bytes(written(report))
    volume = load_dicom(tmp_path, monitor=Monitor())
    assert volume.modality == "SEG"
    (step,) = volume.history
    assert step.startswith("DERIVED: Segmented with a model by MedEnhance 0.1.0")
