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
from MedEnhanceLib.io import load
from MedEnhanceLib.io.dicomout import Derivation, new_study, write_objects
from MedEnhanceLib.io.dicomout.derivation import with_elements
from MedEnhanceLib.io.dicomout.segments import build_segmentation

GEOMETRY = Geometry((0.75, 0.5, 2.0), (-3.0, 4.0, 0.0))
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
BYTES = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def labels_of(*voxels: tuple[int, int, int, int], slices: int = 3) -> np.ndarray:
    """Zeros [K, 5, 7] but for these voxels: (label, k, j, i)."""
    labels = np.zeros((slices, 5, 7), np.uint8)
    for label, k, j, i in voxels:
        labels[k, j, i] = label
    return labels


def segmentation(labels: np.ndarray, **own: Any) -> Any:
    """With a frame for each label in each slice that shows it, and these elements instead."""
    names = [{"value": n, "name": f"segment {n}"} for n in range(1, int(labels.max()) + 1)]
    dataset = build_segmentation(
        Volume(labels, GEOMETRY, "SEG"),
        names,
        template=new_study(modality="MR"),
        derivation=Derivation("segmented with a model"),
    )
    for name, value in own.items():
        setattr(dataset, name, value)
    return dataset


def loaded(tmp_path: Path, dataset: Any) -> Volume:
    (path,) = write_objects([dataset], tmp_path / str(dataset.SOPInstanceUID))
    return load(path)


def move(dataset: Any, frame: int, sequence: str, name: str, value: list[float]) -> None:
    item = with_elements(**{name: value})
    setattr(dataset.PerFrameFunctionalGroupsSequence[frame], sequence, [item])


def test_number_of_a_segment_is_its_label_and_its_history_says_who_made_it(tmp_path: Path) -> None:
    """35 single bits a frame: the second begins in the middle of a byte."""
    labels = labels_of((2, 2, 0, 0), (2, 2, 4, 6), (1, 0, 1, 1), (2, 1, 2, 2), (1, 1, 3, 3))
    volume = loaded(tmp_path, segmentation(labels))
    assert (volume.modality, volume.units, volume.dtype) == ("SEG", "", np.uint8)
    assert np.array_equal(volume.voxels, labels)
    assert volume.geometry == GEOMETRY
    (step,) = volume.history
    assert step.startswith("DERIVED: segmented with a model by MedEnhance ")


def test_planes_whose_frames_were_left_out_are_empty(tmp_path: Path) -> None:
    labels = labels_of((1, 0, 0, 0), (1, 1, 1, 1), (1, 4, 2, 2), slices=5)
    volume = loaded(tmp_path, segmentation(labels))
    assert [int(plane.sum()) for plane in volume.voxels] == [1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"SegmentationType": "FRACTIONAL"}, "a fractional segmentation"),
        ({"ConcatenationUID": "1.2", "InConcatenationNumber": 2}, "part of a concatenation"),
        ({"SegmentSequence": []}, "cannot be read"),
        ({"PerFrameFunctionalGroupsSequence": []}, "cannot be read"),
        ({"PixelData": b"\0\0"}, "cannot be read"),
        (BYTES | {"PixelData": b"\xff" * 106}, "binary segmentation holds 255"),
    ],
)
def test_what_is_no_set_of_labels_is_refused(
    own: dict[str, Any], says: str, tmp_path: Path
) -> None:
    labels = labels_of((1, 0, 0, 0), (1, 1, 0, 0), (1, 2, 0, 0))
    with pytest.raises(InputError, match=says) as caught:
        loaded(tmp_path, segmentation(labels, **own))
    assert caught.value.hint


def test_segments_that_overlap_and_frames_beside_the_grid_are_refused(tmp_path: Path) -> None:
    overlapping = segmentation(labels_of((1, 0, 1, 1), (2, 1, 1, 1), slices=2))
    move(overlapping, 1, "PlanePositionSequence", "ImagePositionPatient", [-3, 4, 0])
    with pytest.raises(InputError, match="segments overlap"):
        loaded(tmp_path, overlapping)
    uneven = segmentation(labels_of((1, 0, 0, 0), (1, 1, 0, 0), (1, 2, 0, 0)))
    move(uneven, 2, "PlanePositionSequence", "ImagePositionPatient", [-3, 4, 5])
    with pytest.raises(GeometryError, match="not lie on one grid"):
        loaded(tmp_path, uneven)


@pytest.mark.parametrize(
    ("sequence", "name", "value"),
    [
        ("PlanePositionSequence", "ImagePositionPatient", [-1.5, 4, 0]),  # two pixels aside
        ("PlaneOrientationSequence", "ImageOrientationPatient", [-1, 0, 0, 0, -1, 0]),
        ("PixelMeasuresSequence", "PixelSpacing", [0.5, 0.9]),
    ],
)
def test_every_frame_is_held_against_the_grid(
    sequence: str, name: str, value: list[float], tmp_path: Path
) -> None:
    """Also one that shares its place with another, of which one would do for the grid."""
    dataset = segmentation(labels_of((1, 0, 0, 0), (1, 1, 0, 0), (2, 0, 1, 1), slices=2))
    move(dataset, -1, sequence, name, value)
    with pytest.raises(InputError):
        loaded(tmp_path, dataset)


def test_images_come_before_a_segmentation_beside_them(tmp_path: Path) -> None:
    """It is named where it is left out, and loaded where it is asked for."""
    labels = segmentation(labels_of((1, 0, 0, 0), (1, 1, 1, 1)), SeriesInstanceUID="1.2.77")
    write_objects([labels], tmp_path / "both")
    images = enhanced_mr(np.ones((2, 5, 7), np.uint16), [0.0, 2.0])
    (tmp_path / "both/images.dcm").write_bytes(written(images))
    assert load(tmp_path / "both").modality == "MR"
    assert load(tmp_path / "both", series="1.2.77").modality == "SEG"


def test_label_map_is_taken_as_it_is(tmp_path: Path) -> None:
    labels = labels_of((7, 0, 0, 0), (250, 1, 1, 1), slices=2)
    dataset = segmentation((labels > 0).astype(np.uint8))
    for name, value in {"SOPClassUID": LABEL_MAP, "SegmentationType": "LABELMAP", **BYTES}.items():
        setattr(dataset, name, value)
    frames = dataset.PerFrameFunctionalGroupsSequence
    order = [int(frame.PlanePositionSequence[0].ImagePositionPatient[2]) // 2 for frame in frames]
    dataset.add_new("PixelData", "OB", labels[order].tobytes())
    assert np.array_equal(loaded(tmp_path, dataset).voxels, labels)
