"""What a loaded volume knows of its images; copies are said, contradictions refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom import list_series, load_dicom
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pydicom = pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


# ------------------------------------------------------------ where it came from


def test_origin_names_the_images_in_the_order_of_the_slices(make_series: Make) -> None:
    folder = make_series(STORED)
    origin = load_dicom(folder, monitor=Monitor()).origin
    assert origin is not None
    assert (origin.study, origin.series, origin.on_grid) == ("1.2.3", "1.2.3.1", True)
    (slices,) = origin.instances
    assert [one.sop_instance for one in slices] == [f"1.2.3.1.{k}" for k in range(1, 6)]
    assert [one.file for one in slices] == [str(folder / f"00{k}.dcm") for k in (5, 4, 3, 2, 1)]
    assert {one.sop_class for one in slices} == {"1.2.840.10008.5.1.4.1.1.2"}
    assert {one.frame for one in slices} == {None}


def test_origin_of_a_repaired_series_is_off_its_grid(make_series: Make) -> None:
    folder = make_series(STORED)
    (folder / "003.dcm").unlink()
    with pytest.raises(GeometryError):
        load_dicom(folder, monitor=Monitor())
    volume = load_dicom(folder, resample=True, monitor=Monitor())
    assert volume.shape == (5, 4, 6)
    assert volume.dtype == np.int16
    assert np.array_equal(volume.voxels[[0, 1, 3, 4]], STORED[[0, 1, 3, 4]].astype(np.int16) - 1024)
    assert volume.origin is not None
    assert not volume.origin.on_grid
    assert len(volume.origin.instances[0]) == 4
    assert volume.history


def test_lossy_steps_are_remembered_with_the_worst_ratio(make_series: Make) -> None:
    folder = make_series(
        STORED,
        LossyImageCompression="01",
        LossyImageCompressionMethod=["ISO_10918_1"],
        slice_elements=lambda k: {"LossyImageCompressionRatio": [5.0 + k]},
    )
    assert load_dicom(folder, monitor=Monitor()).lossy == (Lossy("ISO_10918_1", 9.0),)
    assert load_dicom(make_series(STORED, folder=folder / "b"), monitor=Monitor()).lossy == ()


# ------------------------------------------------------------ copies


def test_copies_below_are_left_out_and_counted(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder
) -> None:
    folder = make_series(STORED)
    truth = load_dicom(folder, monitor=Monitor())
    shutil.copytree(folder, tmp_path / "copy")
    assert load_dicom(tmp_path, monitor=recorder.monitor).is_equal(truth)
    (warning,) = recorder.warnings
    assert "5 files are copies" in warning
    assert "001.dcm" in warning
    (row,) = list_series(tmp_path, Monitor())
    assert row.files == 5


@pytest.mark.parametrize(
    ("element", "value"), [("PixelData", bytes(48)), ("ImagePositionPatient", [0, 0, 99])]
)
def test_a_copy_that_differs_is_refused_by_name(
    make_series: Make, element: str, value: object
) -> None:
    folder = make_series(STORED)
    dataset = pydicom.dcmread(folder / "002.dcm")
    setattr(dataset, element, value)
    dataset.save_as(folder / "z.dcm")
    says = r"002\.dcm.*z\.dcm.*have the same SOPInstanceUID, but differ"
    with pytest.raises(InputError, match=says):
        load_dicom(folder, monitor=Monitor())


def test_every_frame_of_a_sequence_is_repaired(make_series: Make) -> None:
    places = [0.0, 2.0, 6.0, 8.0] * 2
    stored = np.repeat(np.arange(8, dtype=np.uint16), 6).reshape(8, 2, 3)
    folder = make_series(
        stored,
        positions=[(0.0, 0.0, z) for z in places],
        slice_elements=lambda index: {"EchoNumbers": index // 4},
        RescaleIntercept=0,
    )
    volume = load_dicom(folder, resample=True, monitor=Monitor())
    assert volume.shape == (2, 5, 2, 3)
    assert volume.voxels[:, [0, 1, 3, 4], 0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
