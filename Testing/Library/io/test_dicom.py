"""Plain series come in right; everything else is refused by name, never a wrong volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.reading import edited

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


def test_series_is_sorted_by_position_and_rescaled_once(make_series: Make) -> None:
    folder = make_series(STORED)  # the names of the files run against the positions
    volume = load(folder)
    assert np.array_equal(volume.voxels, STORED.astype(np.int16) - 1024)
    assert volume.dtype == np.int16
    assert (volume.modality, volume.units) == ("CT", "HU")
    assert volume.history == ()
    assert "1.2.3.1" in volume.source
    assert volume.geometry == Geometry((0.5, 0.8, 2.5), (-10.0, 20.0, 0.0))


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no file") as caught:
        load(tmp_path)
    assert caught.value.hint
    (tmp_path / "scan.nii.gz").write_bytes(b"x" * 500)
    with pytest.raises(InputError, match=r"holds no DICOM file \(1 files were read, scan\.nii"):
        load(tmp_path)


def test_text_in_the_pixels_is_a_warning_once_a_series(
    make_series: Make, recorder: WarningRecorder
) -> None:
    folder = make_series(STORED, BurnedInAnnotation="NO")
    load(folder, monitor=recorder.monitor)
    assert recorder.warnings == []
    for dataset in edited(folder):
        dataset.BurnedInAnnotation = "YES"
    load(folder, monitor=recorder.monitor)
    (warning,) = recorder.warnings
    assert "may show the patient's name" in warning


@pytest.mark.parametrize(
    ("stated", "modality", "says"),
    [
        *(("CT", "MR", True), ("PT", "MR", True), ("CT", "OT", True), ("XA", "CT", True)),
        *(("MR", "MR", False), ("XA", None, False), (None, "MR", False), ("MR", "SEG", False)),
    ],
)
def test_another_modality_than_the_header_states_is_one_warning(
    make_series: Make, recorder: WarningRecorder, stated: str, modality: str, says: bool
) -> None:
    folder = make_series(STORED, Modality=stated, Units="GML")
    assert load(folder, modality=modality, monitor=recorder.monitor).modality == (modality or "OT")
    expected = f"its header states {stated}, but it is taken as {modality}"
    assert sum(expected in text for text in recorder.warnings) == says
    assert sum("taken as" in text for text in recorder.warnings) <= 1
