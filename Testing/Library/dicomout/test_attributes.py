"""What derived images record beside their voxels: times, texts in any script, codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.dicomout.writing import MADE, write_series
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import new_study, read_template
from MedEnhanceLib.io.dicomout.attributes import PET_IMAGE

Examine = Callable[[Path], list[str]]
Make = Callable[..., Path]
FOREIGN = "Łódź 头"


@pytest.mark.parametrize("modality", ["CT", "MR", "OT"])
def test_the_time_between_frames_comes_back(
    tmp_path: Path, examine: Examine, modality: str
) -> None:
    voxels = np.arange(3 * 2 * 4 * 5, dtype=np.int16).reshape(3, 2, 4, 5)
    volume = Volume(voxels, Geometry((1.0, 1.0, 2.0)), modality, frame_interval_s=2.5)
    (path, *_) = write_series(volume, tmp_path / "out", template=new_study(modality=modality))
    assert examine(path) == []
    back = io.load(tmp_path / "out")
    assert np.array_equal(back.voxels, voxels)
    assert back.frame_interval_s == pytest.approx(2.5)


@pytest.fixture
def dynamic_pet(make_series: Make) -> Volume:
    agent = Dataset()
    agent.RadionuclideTotalDose, agent.RadionuclideHalfLife = "3e8", "6586"
    return io.load(
        make_series(
            np.arange(6 * 12, dtype=np.int16).reshape(6, 3, 4),
            positions=[(0, 0, 3.0 * (k % 3)) for k in range(6)],
            SOPClassUID=PET_IMAGE,
            Modality="PT",
            Units="BQML",
            CountsSource="EMISSION",
            DecayCorrection="START",
            SeriesType=["DYNAMIC", "IMAGE"],
            NumberOfSlices=3,
            NumberOfTimeSlices=2,
            DecayFactor="1.02",
            RescaleIntercept=0,
            SeriesDate="20200131",
            SeriesTime="120000",
            AcquisitionDate="20200131",
            ActualFrameDuration="60000",
            RadiopharmaceuticalInformationSequence=[agent],
            slice_elements=lambda k: {
                "FrameReferenceTime": str(60000 * (k // 3)),
                "AcquisitionTime": f"120{k // 3}00",
            },
        )
    )


def test_a_time_point_of_dynamic_pet_is_static(
    tmp_path: Path, dynamic_pet: Volume, examine: Examine
) -> None:
    one = dynamic_pet.frame(1)
    paths = write_series(one, tmp_path / "out")
    image = pydicom.dcmread(paths[0])
    assert list(image.SeriesType) == ["STATIC", "IMAGE"]
    assert "NumberOfTimeSlices" not in image
    assert float(image.FrameReferenceTime) == 60000
    assert examine(paths[0]) == []


def test_dynamic_pet_stays_dynamic(tmp_path: Path, dynamic_pet: Volume, examine: Examine) -> None:
    paths = write_series(dynamic_pet, tmp_path / "out")
    image = pydicom.dcmread(paths[5])
    assert (list(image.SeriesType), image.NumberOfTimeSlices) == (["DYNAMIC", "IMAGE"], 2)
    assert examine(paths[5]) == []
    assert io.load(tmp_path / "out").frame_interval_s == pytest.approx(60)


def test_a_description_in_another_script_than_the_sources_is_kept(
    tmp_path: Path, make_series: Make, examine: Examine
) -> None:
    volume = io.load(
        make_series(
            np.ones((2, 3, 4), np.int16),
            SpecificCharacterSet="ISO_IR 100",
            PatientName="Müller^Jörg",
            BodyPartExamined="HEAD",
        )
    )
    (path, *_) = write_series(
        volume, tmp_path / "out", derivation=replace(MADE, series_description=FOREIGN)
    )
    image = pydicom.dcmread(path)
    assert (image.SeriesDescription, image.PatientName) == (FOREIGN, "Müller^Jörg")
    assert examine(path) == []


def test_letters_of_no_named_character_set_are_taken_for_western(
    tmp_path: Path, make_series: Make, examine: Examine, recorder: Any
) -> None:
    folder = make_series(np.ones((2, 3, 4), np.int16), BodyPartExamined="HEAD")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.pop("SpecificCharacterSet", None)
        dataset.add_new(0x00104000, "LT", b"M\xfcller")
        dataset.save_as(file)
    volume = io.load(folder)
    template = read_template(volume.origin, recorder.monitor)  # type: ignore[arg-type]
    assert any("SpecificCharacterSet" in said for said in recorder.warnings)
    (path, *_) = write_series(volume, tmp_path / "out", template=template)
    assert pydicom.dcmread(path).PatientComments == "Müller"
    assert examine(path) == []
