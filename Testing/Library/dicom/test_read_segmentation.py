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
from MedEnhanceLib.io.dicomout.derivation import with_elements
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
    from highdicom.sr import CodedConcept

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
    dataset.SegmentSequence = [
        with_elements(
            SegmentNumber=number,
            SegmentLabel=f"segment {number}",
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=[CodedConcept("123037004", "SCT", "Structure")],
            SegmentedPropertyTypeCodeSequence=[CodedConcept("10200004", "SCT", "Liver")],
        )
        for number in sorted({segment for segment, _, _ in frames})
    ]
    dataset.DimensionIndexSequence = [
        with_elements(DimensionIndexPointer=pointer, FunctionalGroupPointer=within)
        for pointer, within in ((0x0062000B, 0x0062000A), (0x00200032, 0x00209113))
    ]
    places = sorted({place for _, place, _ in frames})
    for (segment, place, _), item in zip(
        frames, dataset.PerFrameFunctionalGroupsSequence, strict=True
    ):
        item.SegmentIdentificationSequence = [with_elements(ReferencedSegmentNumber=segment)]
        indices = [segment, places.index(place) + 1]
        item.FrameContentSequence = [with_elements(DimensionIndexValues=indices)]
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


def test_segments_that_overlap_are_refused_by_number(tmp_path: Path) -> None:
    dataset = segmentation([(3, 0.0, mask((0, 0), (1, 1))), (5, 0.0, mask((1, 1)))])
    with pytest.raises(InputError, match="segments overlap") as caught:
        loaded(tmp_path, dataset)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"SegmentationType": "FRACTIONAL"}, "a fractional segmentation"),
        ({"ConcatenationUID": "1.2", "InConcatenationNumber": 2}, "part of a concatenation"),
        ({"SegmentSequence": []}, "cannot be read"),
        ({"PerFrameFunctionalGroupsSequence": []}, "cannot be read"),
        ({"PixelData": b"\0\0"}, "cannot be read"),
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
    with pytest.raises(GeometryError, match="not lie on one grid"):
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
def test_every_frame_is_held_against_the_grid(
    sequence: str, name: str, value: list[float], tmp_path: Path
) -> None:
    """Also one that shares its place with another, of which one would do for the grid."""
    from pydicom import Dataset

    dataset = segmentation([(1, 0.0, mask((0, 0))), (2, 0.0, mask((1, 1))), (1, 2.0, mask((0, 0)))])
    own = Dataset()
    setattr(own, name, value)
    setattr(dataset.PerFrameFunctionalGroupsSequence[1], sequence, [own])
    with pytest.raises(InputError):
        loaded(tmp_path, dataset)


def test_images_come_before_a_segmentation_beside_them(tmp_path: Path) -> None:
    """It is named where it is left out, and loaded where it is asked for; it names who made it."""
    images = enhanced_mr(np.ones((2, 5, 7), np.uint16), [0.0, 2.0])
    labels = segmentation([(1, 0.0, mask((0, 0))), (1, 2.0, mask((1, 1)))])
    labels.SeriesInstanceUID, labels.SOPInstanceUID = "1.2.77", "1.2.78"
    labels.file_meta.MediaStorageSOPInstanceUID = "1.2.78"
    labels.ContributingEquipmentSequence = [
        with_elements(
            Manufacturer="MedEnhance",
            SoftwareVersions="0.1.0",
            ContributionDescription="Segmented with a model. Research use only.",
        )
    ]
    (tmp_path / "images.dcm").write_bytes(written(images))
    (tmp_path / "labels.dcm").write_bytes(written(labels))
    assert load_dicom(tmp_path, monitor=Monitor()).modality == "MR"
    volume = load_dicom(tmp_path, series="1.2.77", monitor=Monitor())
    assert volume.modality == "SEG"
    (step,) = volume.history
    assert step.startswith("DERIVED: Segmented with a model by MedEnhance 0.1.0")


def test_label_map_is_taken_as_it_is(tmp_path: Path) -> None:
    frames = [(1, 0.0, mask((0, 0)) * 7), (1, 2.0, mask((1, 1)) * 250)]
    dataset = segmentation(frames, 8, SOPClassUID=f"{_CLASS}7", SegmentationType="LABELMAP")
    volume = loaded(tmp_path, dataset)
    assert (volume.voxels[0, 0, 0], volume.voxels[1, 1, 1], volume.voxels.max()) == (7, 250, 250)


def test_bytes_of_a_binary_segmentation_are_0_and_1(tmp_path: Path) -> None:
    dataset = segmentation([(1, 0.0, mask((0, 0)) * 255)], bits=8)
    with pytest.raises(InputError, match="binary segmentation holds 255") as caught:
        loaded(tmp_path, dataset)
    assert caught.value.hint
