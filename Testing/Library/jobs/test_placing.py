"""A volume laid beside the series that it was made from: whole slices, turned back, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from Library.conftest import WarningRecorder

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.jobs.placing import lay_beside
from MedEnhanceLib.runtime.progress import Monitor

SHAPE = (5, 6, 7)
AXIAL = Geometry((0.5, 0.8, 2.5), (-10.0, 20.0, 30.0))


def series_of(shape: tuple[int, ...] = SHAPE) -> Volume:
    frames = shape[0] if len(shape) == 4 else 1
    instances = tuple(
        tuple(Instance(f"{t}-{k}.dcm", "1.2.840", f"1.2.{t}.{k}") for k in range(shape[-3]))
        for t in range(frames)
    )
    origin = DicomOrigin("1.2.1", "1.2.2", instances)
    return Volume(np.zeros(shape, np.uint8), AXIAL, dicom_origin=origin, source="series")


def scan(shape: tuple[int, ...] = SHAPE) -> Volume:
    voxels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return Volume(voxels, AXIAL, modality="CT", source="better.nii.gz")


@settings(max_examples=40, deadline=None)
@given(axes=st.permutations(["RL", "AP", "IS"]), ends=st.tuples(*[st.integers(0, 1)] * 3))
def test_axes_that_another_format_turned_are_turned_back(
    axes: list[str], ends: tuple[int, int, int]
) -> None:
    code = "".join(axis[end] for axis, end in zip(axes, ends, strict=True))
    turned = SimpleITK.DICOMOrient(scan().to_sitk(), code)
    other = replace(Volume.from_sitk(turned, modality="CT"), source="better.nii.gz")
    laid = lay_beside(other, series_of(), Monitor())
    assert np.array_equal(laid.voxels, scan().voxels)
    assert laid.geometry == AXIAL
    assert laid.dicom_origin == series_of().dicom_origin


def test_some_slices_get_their_images_and_no_others(recorder: WarningRecorder) -> None:
    part = replace(scan(), voxels=scan().voxels[2:4], geometry=AXIAL.cropped((2, 0, 0)))
    laid = lay_beside(part, series_of(), recorder.monitor)
    assert laid.is_equal(part)
    assert laid.dicom_origin.instances == (series_of().dicom_origin.instances[0][2:4],)
    assert recorder.warnings == []


def test_digits_that_a_header_rounded_do_not_matter() -> None:
    rough = Geometry((0.50001, 0.79999, 2.5001), (-10.001, 20.001, 30.002))
    laid = lay_beside(replace(scan(), geometry=rough), series_of(), Monitor())
    assert laid.geometry == AXIAL


def test_frames_stay_with_their_images() -> None:
    shape = (2, *SHAPE)
    laid = lay_beside(scan(shape), series_of(shape), Monitor())
    assert laid.is_equal(scan(shape))
    assert laid.dicom_origin.on_grid


@pytest.mark.parametrize(
    "other",
    [
        replace(scan(), geometry=replace(AXIAL, spacing=(0.6, 0.8, 2.5))),
        replace(scan(), geometry=replace(AXIAL, origin=(-9.8, 20.0, 30.0))),
        replace(scan(), voxels=scan().voxels[:, 1:], geometry=AXIAL.cropped((0, 1, 0))),
        replace(scan(), geometry=AXIAL.cropped((-1, 0, 0))),
        scan((2, *SHAPE)),
    ],
    ids=["spacing", "shifted", "cut in the plane", "beyond the first slice", "frames"],
)
def test_another_grid_is_kept_with_a_warning(other: Volume, recorder: WarningRecorder) -> None:
    laid = lay_beside(other, series_of(), recorder.monitor)
    assert laid.is_equal(other)
    assert not laid.dicom_origin.on_grid
    assert laid.dicom_origin.study == "1.2.1"
    (warning,) = recorder.warnings
    assert "better.nii.gz is not on the grid of series" in warning


def test_time_points_that_nothing_states_are_refused() -> None:
    series = series_of((3, *SHAPE))
    for volume in (scan(), scan((2, *SHAPE))):
        with pytest.raises(InputError, match=r"of the 3 time points.*nothing states which"):
            lay_beside(volume, series, Monitor())
    assert lay_beside(replace(scan(), modality="SEG"), series, Monitor()).dicom_origin is not None


def test_a_volume_somewhere_else_is_refused() -> None:
    far = replace(scan(), geometry=replace(AXIAL, origin=(-10.0, 20.0, 500.0)))
    with pytest.raises(GeometryError, match="do not overlap in space"):
        lay_beside(far, series_of(), Monitor())


def test_a_volume_that_remembers_another_series_is_a_warning(recorder: WarningRecorder) -> None:
    remembers = replace(scan(), dicom_origin=DicomOrigin("1.2.1", "1.2.77", (), on_grid=False))
    lay_beside(remembers, series_of(), recorder.monitor)
    (warning,) = recorder.warnings
    assert "1.2.77" in warning
    assert "the same study" in warning
    known = replace(remembers, dicom_origin=DicomOrigin("1.2.1", "1.2.2", ()))
    lay_beside(known, series_of(), recorder.monitor)
    assert len(recorder.warnings) == 1
