"""A dose is read in its units, its planes where its offsets put them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.dicom.images import packaged, written

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import load_dicom
from MedEnhanceLib.runtime.progress import Monitor


def loaded(tmp_path: Path, dataset: Any) -> Volume:
    (tmp_path / "dose.dcm").write_bytes(written(dataset))
    return load_dicom(tmp_path / "dose.dcm", monitor=Monitor())


def test_dose_is_read_in_gray_by_its_scaling(tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(packaged("rtdose.dcm"))
    dataset.DoseUnits = "GY"
    volume = loaded(tmp_path, dataset)
    expected = dataset.pixel_array * float(dataset.DoseGridScaling)
    assert (volume.modality, volume.units) == ("OT", "Gy")
    assert np.allclose(volume.voxels, expected, rtol=1e-12)
    assert volume.geometry == Geometry((10.0, 10.0, 5.0), (189.43125, 199.43125, -761.87))


@pytest.mark.parametrize(("stated", "units"), [("RELATIVE", "relative"), ("", ""), ("CGY", "CGY")])
def test_dose_states_its_units(stated: str, units: str, tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(packaged("rtdose.dcm"))
    dataset.DoseUnits = stated
    assert loaded(tmp_path, dataset).units == units


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
        ({"DoseType": "ERROR"}, "DoseType is ERROR"),
        ({"ModalityLUTSequence": []}, "which one gives the dose"),
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
