"""Siemens mosaics: tiles become slices with places of their own; what is unknown is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.conftest import write_series
from Library.dicom.images import MR
from Library.dicom.reading import edited, refused
from Library.dicom.test_csa import csa
from Library.dicomout.writing import write_series as write_derived

from MedEnhanceLib import list_series
from MedEnhanceLib.io import load
from MedEnhanceLib.io.dicomout.derivation import with_elements

#: Frames [T, K, J, I]; 5 slices need 3 × 3 tiles.
STORED = np.arange(3 * 5 * 4 * 6, dtype=np.uint16).reshape(3, 5, 4, 6)
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([-0.6, 0.8, 0.0])
NORMAL = np.cross(ROW, COLUMN)
ORIGIN, STEP_MM = np.array([-7.0, 11.0, 40.0]), 3.5
EPI = MR | {
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
    "SpacingBetweenSlices": STEP_MM,
    "RepetitionTime": 2000,
    "MRAcquisitionType": "2D",
}


def picture(slices: np.ndarray) -> np.ndarray:
    tiles = np.zeros((9, 4, 6), np.uint16)
    tiles[: len(slices)] = slices
    return tiles.reshape(3, 3, 4, 6).swapaxes(1, 2).reshape(12, 18)


def protocol(sign: int, *, offset_mm: float = 0.0) -> dict[str, tuple[str, ...]]:
    """Centers of the slices, which begin at the lowest; coordinates of 0 are left out."""
    first = ORIGIN + 3 * 0.5 * ROW + 2 * 0.8 * COLUMN + offset_mm * NORMAL
    lowest = first if sign > 0 else first - 4 * STEP_MM * NORMAL
    lines = [
        f"sSliceArray.asSlice[{k}].sPosition.d{axis}\t = \t{mm:.10g}"
        for k in range(5)
        for axis, mm in zip(("Sag", "Cor", "Tra"), lowest + k * STEP_MM * NORMAL, strict=True)
    ]
    return {"MrPhoenixProtocol": ("\n".join([*lines, "sSliceArray.lSize\t = \t5"]),)}


def make(
    folder: Path,
    *,
    sign: int = 1,
    count: bool = True,
    image: dict[str, tuple[str, ...]] | None = None,
    series: dict[str, tuple[str, ...]] | None = None,
    **more: Any,
) -> Path:
    """Three mosaics whose tile k lies at ORIGIN + sign * k * STEP_MM * NORMAL."""
    # The picture's center lies where the first slice has its own.
    corner = ORIGIN - ROW * 0.5 * (18 - 6) / 2 - COLUMN * 0.8 * (12 - 4) / 2
    write_series(
        folder,
        np.stack([picture(slices) for slices in STORED]),
        positions=[tuple(corner.tolist())] * 3,
        orientation=(*ROW, *COLUMN),
        slice_elements=lambda index: {
            "AcquisitionNumber": index + 1,
            "InstanceNumber": index + 1,
            "AcquisitionTime": f"1200{2 * index:02d}.5",
        },
        **{**EPI, **more},
    )
    if image is None:
        image = {"SliceNormalVector": tuple(f"{sign * cosine:.8f}" for cosine in NORMAL)}
    for dataset in edited(folder):
        if count:
            block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
            block.add_new(0x0A, "US", 5)
        for tag, header in ((0x00291010, image), (0x00291020, series)):
            if header:
                dataset.add_new(tag, "OB", csa(header))
    return folder


def check(folder: Path, sign: int) -> Any:
    volume = load(folder)
    lowest = ORIGIN if sign > 0 else ORIGIN - 4 * STEP_MM * NORMAL
    assert np.array_equal(volume.voxels, STORED[:, ::sign])
    assert np.allclose(volume.geometry.origin, lowest, atol=1e-5)
    assert np.allclose(volume.geometry.spacing, (0.5, 0.8, STEP_MM))
    assert np.allclose(np.array(volume.geometry.direction).T, [ROW, COLUMN, NORMAL])
    return volume


@pytest.mark.parametrize("sign", [1, -1])
def test_tiles_are_slices_in_the_direction_that_the_image_states(tmp_path: Path, sign: int) -> None:
    folder = make(tmp_path / "in", sign=sign)
    (row,) = list_series(folder)
    assert (row.size, row.files, row.readable) == ("6×4×5×3 frames", 3, True)
    assert check(folder, sign).frame_interval_s == 2.0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_protocol_states_what_was_removed_from_the_image(tmp_path: Path, sign: int) -> None:
    removed: dict[str, Any] = {"count": False, "image": {}, "SpacingBetweenSlices": None}
    check(make(tmp_path / "in", sign=sign, series=protocol(sign), **removed), sign)


def test_the_repetition_time_is_the_interval_where_times_were_removed(tmp_path: Path) -> None:
    folder = make(tmp_path / "in")
    for dataset in edited(folder):
        del dataset.AcquisitionTime
    assert check(folder, 1).frame_interval_s == 2.0


def test_a_mosaic_is_known_by_the_number_of_its_slices_too(tmp_path: Path) -> None:
    check(make(tmp_path / "in", ImageType=["DERIVED", "SECONDARY"]), 1)


def test_one_mosaic_is_a_volume(tmp_path: Path) -> None:
    folder = make(tmp_path / "in")
    volume = load(folder / "003.dcm")
    assert np.array_equal(volume.voxels, STORED[0])


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ({"count": False}, "number of its slices"),
        ({"image": {}}, "direction from slice to slice"),
        ({"image": {}, "series": protocol(1, offset_mm=1.0)}, "direction from slice to slice"),
        ({"image": {"SliceNormalVector": ("0.8", "0.6", "0")}}, "direction from slice to slice"),
        ({"SpacingBetweenSlices": None}, "distance of its slices"),
        ({"count": False, "image": {"NumberOfImagesInMosaic": ("17",)}}, "5×5 tiles"),
    ],
)
def test_what_no_header_states_is_refused(tmp_path: Path, lacks: Any, says: str) -> None:
    refused(make(tmp_path / "in", **lacks), says)


def test_a_derived_series_of_a_mosaic_has_ordinary_slices(tmp_path: Path) -> None:
    volume = check(make(tmp_path / "in", sign=-1, uid="1.2.3.4"), -1)
    files = write_derived(volume, tmp_path / "out")
    assert len(files) == 15
    image = pydicom.dcmread(files[1])
    assert (image.Rows, image.Columns) == (4, 6)
    assert "MOSAIC" not in image.ImageType
    (source,) = image.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == volume.dicom_origin.instances[0][1].sop_instance
    check(tmp_path / "out", -1)
    # Slices that were cut out keep their places.
    cut = replace(
        volume,
        voxels=volume.voxels[:, 2:],
        geometry=volume.geometry.cropped((2, 0, 0)),
        dicom_origin=volume.dicom_origin.cropped(2, 5),
    )
    half = write_derived(cut, tmp_path / "half")
    lowest = ORIGIN - 2 * STEP_MM * NORMAL
    assert np.allclose(pydicom.dcmread(half[0]).ImagePositionPatient, lowest, atol=1e-5)


def test_united_imaging_states_the_place_and_the_time_of_each_tile(tmp_path: Path) -> None:
    """Pictures of 3 × 2 tiles, whose slices come in the order in which they were acquired."""
    order = np.array([0, 2, 4, 1, 3])
    tiles = np.concatenate([STORED[:, order], np.zeros((3, 1, 4, 6), np.uint16)], 1)
    pictures = tiles.reshape(3, 2, 3, 4, 6).swapaxes(2, 3).reshape(3, 8, 18)
    more = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"], "ImagePositionPatient": None}
    more["NumberOfSlices"] = 3  # of files
    folder = write_series(tmp_path / "in", pictures, orientation=(*ROW, *COLUMN), **{**EPI, **more})
    for number, dataset in zip((2, 1, 0), edited(folder), strict=True):
        block = dataset.private_block(0x0065, "Image Private Header", create=True)
        items = [
            with_elements(
                ImagePositionPatient=(ORIGIN + k * STEP_MM * NORMAL).tolist(),
                AcquisitionTime=f"12000{2 * number}.{place}",
            )
            for place, k in enumerate(order)
        ]
        block.add_new(0x51, "SQ", items)
    volume = check(folder, 1)
    assert volume.frame_interval_s == 2.0
    files = write_derived(volume, tmp_path / "out")
    check(tmp_path / "out", 1)
    assert {pydicom.dcmread(file).NumberOfSlices for file in files} == {5}
    for dataset in edited(folder):
        del dataset[0x00651051]
    refused(folder, "number of its slices")
