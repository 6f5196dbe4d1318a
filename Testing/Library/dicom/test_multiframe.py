"""Frames in one file are the planes that they say they are, in 3D and in 4D; clips are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.dicom.images import enhanced_mr, mr, packaged, written

from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.io.dicom import load_dicom
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Volume

FRAMES = np.arange(6 * 5 * 7, dtype=np.uint16).reshape(6, 5, 7)
_CLASS = "1.2.840.10008.5.1.4.1.1."


def loaded(tmp_path: Path, dataset: Any, **options: Any) -> Volume:
    (tmp_path / "image.dcm").write_bytes(written(dataset))
    return load_dicom(tmp_path / "image.dcm", monitor=Monitor(), **options)


def content_of(dataset: Any, index: int) -> Any:
    return dataset.PerFrameFunctionalGroupsSequence[index].FrameContentSequence[0]


def group(**values: Any) -> Any:
    from pydicom import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


# ------------------------------------------------------------ enhanced


def test_frames_are_ordered_by_place_and_rescaled_each_by_its_own_group(tmp_path: Path) -> None:
    places = [4.0, 0.0, 2.0, 6.0, 10.0, 8.0]
    volume = loaded(tmp_path, enhanced_mr(FRAMES, places))
    order = np.argsort(places)
    expected = FRAMES[order].astype(int) + np.arange(6)[order][:, None, None]
    assert np.array_equal(volume.voxels, expected)
    assert volume.modality == "MR"
    assert volume.geometry == Geometry((0.75, 0.5, 2.0), (-3.0, 4.0, 0.0))
    assert volume.origin is not None
    assert [one.frame for one in volume.origin.instances[0]] == (order + 1).tolist()


def test_one_enhanced_frame_is_one_slice(tmp_path: Path) -> None:
    volume = loaded(tmp_path, enhanced_mr(FRAMES[:1], [3.0]))
    assert np.array_equal(volume.voxels, FRAMES[:1])
    assert volume.geometry.spacing[2] == 2.0


def test_missing_frame_is_a_gap(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="missing"):
        loaded(tmp_path, enhanced_mr(FRAMES, [0.0, 2.0, 4.0, 6.0, 10.0, 12.0]))


@pytest.mark.parametrize(
    ("group_name", "field", "values"),
    [
        ("FrameContentSequence", "TemporalPositionIndex", (1, 2)),
        ("MREchoSequence", "EffectiveEchoTime", (10.0, 80.0)),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 1000.0)),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", (0.0, 350.0)),
    ],
)
def test_frames_at_the_same_places_become_a_sequence(
    group_name: str, field: str, values: tuple[float, float], tmp_path: Path
) -> None:
    """Stored slice by slice, both values of one place beside each other."""
    dataset = enhanced_mr(FRAMES, [0.0, 0.0, 2.0, 2.0, 4.0, 4.0])
    for index, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        if group_name not in item:
            setattr(item, group_name, [group()])
        setattr(getattr(item, group_name)[0], field, values[index % 2])
    volume = loaded(tmp_path, dataset)
    expected = FRAMES.astype(int) + np.arange(6)[:, None, None]
    assert volume.shape == (2, 3, 5, 7)
    assert np.array_equal(volume.voxels[0], expected[0::2])
    assert np.array_equal(volume.voxels[1], expected[1::2])


def test_directions_of_diffusion_become_a_sequence_by_their_dimension(tmp_path: Path) -> None:
    """Three volumes: one without weighting, two directions of one b-value."""
    dataset = enhanced_mr(FRAMES, [0.0, 0.0, 0.0, 2.0, 2.0, 2.0])
    dataset.DimensionIndexSequence = [
        group(DimensionIndexPointer=pointer) for pointer in (0x00209057, 0x00189087, 0x00189089)
    ]
    for index, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        direction = index % 3
        item.MRDiffusionSequence = [group(DiffusionBValue=1000.0 if direction else 0.0)]
        content_of(dataset, index).DimensionIndexValues = [
            index // 3 + 1, 2 if direction else 1, max(direction, 1)
        ]  # fmt: skip
    volume = loaded(tmp_path, dataset)
    expected = FRAMES.astype(int) + np.arange(6)[:, None, None]
    assert volume.shape == (3, 2, 5, 7)
    for direction in range(3):
        assert np.array_equal(volume.voxels[direction], expected[direction::3])


@pytest.mark.parametrize("second", [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]])
def test_parallel_stacks_beside_each_other_are_not_piled_up(
    second: list[float], tmp_path: Path
) -> None:
    dataset = enhanced_mr(FRAMES, [0.0, 2.0, 4.0, *second])
    for index, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content_of(dataset, index).StackID = "1" if index < 3 else "2"
        if index >= 3:
            item.PlanePositionSequence[0].ImagePositionPatient[0] = 300
    with pytest.raises(GeometryError):
        loaded(tmp_path, dataset)


def test_stacks_behind_each_other_are_loaded_one_by_one(tmp_path: Path) -> None:
    """Left and right in one file, each even in itself."""
    dataset = enhanced_mr(FRAMES, [0.0, 2.0, 4.0, 50.0, 52.0, 54.0])
    for index in range(6):
        content_of(dataset, index).StackID = "left" if index < 3 else "right"
    with pytest.raises(InputError, match=r"holds 2 .*\n.*stack left.*\n.*stack right"):
        loaded(tmp_path, dataset)
    right = loaded(tmp_path, dataset, series="2")
    assert right.geometry.origin == (-3.0, 4.0, 50.0)
    assert np.array_equal(right.voxels, FRAMES[3:].astype(int) + np.arange(3, 6)[:, None, None])


def test_groups_that_are_fewer_than_the_frames_are_refused(tmp_path: Path) -> None:
    dataset = enhanced_mr(FRAMES, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(InputError, match="NumberOfFrames is 6, but 5 frames are described"):
        loaded(tmp_path, dataset)


def test_frames_without_a_place_are_refused_by_element(tmp_path: Path) -> None:
    dataset = enhanced_mr(FRAMES[:2], [0.0, 2.0])
    del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    with pytest.raises(GeometryError, match="ImagePositionPatient"):
        loaded(tmp_path, dataset)


def test_more_frames_than_pixels_are_refused(tmp_path: Path) -> None:
    dataset = enhanced_mr(FRAMES[:2], [0.0, 2.0])
    dataset.PixelData = dataset.PixelData[:-2]
    with pytest.raises(InputError, match="7×5 × 2 frames"):
        loaded(tmp_path, dataset)


def test_a_pet_says_its_units_in_the_group_of_its_values(tmp_path: Path) -> None:
    dataset = enhanced_mr(FRAMES[:2], [0.0, 2.0], SOPClassUID=f"{_CLASS}130", Modality="PT")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    for item in dataset.PerFrameFunctionalGroupsSequence:
        values = item.PixelValueTransformationSequence[0]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 0.5, 0, "BQML"
    volume = loaded(tmp_path, dataset)
    assert (volume.modality, volume.units) == ("PT", "Bq/ml")
    assert np.array_equal(volume.voxels, FRAMES[:2] * 0.5)


def test_real_enhanced_ct_is_what_pydicom_reads() -> None:
    store = pytest.importorskip("data_store", reason="the package pydicom-data is missing")
    import pydicom

    path = Path(store.__file__).parent / "data" / "eCT_Supplemental.dcm"
    volume = load_dicom(path, monitor=Monitor())
    dataset = pydicom.dcmread(path)
    planes = []
    for pixels, item in zip(
        dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True
    ):
        place = item.PlanePositionSequence[0].ImagePositionPatient
        shared = dataset.SharedFunctionalGroupsSequence[0]
        values = item if "PixelValueTransformationSequence" in item else shared
        values = values.PixelValueTransformationSequence[0]
        planes.append((place[2], pixels * values.RescaleSlope + values.RescaleIntercept))
    planes.sort(key=lambda one: -one[0])  # rows run to the right: the normal points down
    assert np.array_equal(volume.voxels, np.stack([pixels for _, pixels in planes]))
    assert volume.geometry.origin[2] == planes[0][0]


# ------------------------------------------------------------ dose


def test_dose_is_read_in_gray_by_its_scaling(tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(packaged("rtdose.dcm"))
    dataset.DoseUnits = "GY"
    volume = loaded(tmp_path, dataset)
    expected = dataset.pixel_array * float(dataset.DoseGridScaling)
    assert (volume.modality, volume.units) == ("OT", "Gy")
    assert np.allclose(volume.voxels, expected, rtol=1e-12)
    assert volume.geometry == Geometry((10.0, 10.0, 5.0), (189.43125, 199.43125, -761.87))


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, -1, 0]])
def test_dose_offsets_may_be_places(orientation: list[int], tmp_path: Path) -> None:
    """Relative offsets go along the normal, absolute ones along z: here to the same planes."""
    import pydicom

    dataset = pydicom.dcmread(packaged("rtdose.dcm"))
    dataset.ImageOrientationPatient = orientation
    relative = loaded(tmp_path, dataset)
    z = float(dataset.ImagePositionPatient[2])
    up = orientation[0] * orientation[4]
    offsets = [round(z + up * float(step), 6) for step in dataset.GridFrameOffsetVector]
    dataset.GridFrameOffsetVector = offsets
    absolute = loaded(tmp_path, dataset)
    assert np.array_equal(relative.voxels, absolute.voxels)
    assert relative.geometry.is_close(absolute.geometry, 1e-6)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"DoseGridScaling": None}, "DoseGridScaling is missing"),
        ({"DoseGridScaling": 0}, "DoseGridScaling is 0"),
        ({"GridFrameOffsetVector": None}, "GridFrameOffsetVector is missing"),
        ({"GridFrameOffsetVector": [0.0, 5.0]}, "GridFrameOffsetVector"),
        ({"GridFrameOffsetVector": [float(10 + k) for k in range(15)]}, "begins with 10"),
    ],
)
def test_dose_whose_planes_or_values_are_unclear_is_refused(
    own: dict[str, Any], says: str, tmp_path: Path
) -> None:
    import pydicom

    dataset = pydicom.dcmread(packaged("rtdose.dcm"))
    for name, value in own.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    with pytest.raises(InputError, match=says):
        loaded(tmp_path, dataset)


# ------------------------------------------------------------ clips


@pytest.mark.parametrize(
    ("sop_class", "says"),
    [
        ("20", "nuclear medicine"),
        ("3.1", "ultrasound clip"),
        ("12.1", "X-ray angiography"),
        ("7.3", "secondary capture"),
        ("77.1.5.4", "optical tomography"),
    ],
)
def test_clips_are_refused_with_what_they_are(sop_class: str, says: str, tmp_path: Path) -> None:
    dataset = mr(FRAMES[0], NumberOfFrames=6, SOPClassUID=_CLASS + sop_class)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.PixelData = FRAMES.tobytes()
    with pytest.raises(InputError, match=says) as caught:
        loaded(tmp_path, dataset)
    assert caught.value.hint
