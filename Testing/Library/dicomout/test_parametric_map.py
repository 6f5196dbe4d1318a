"""Uncertainty as a DICOM Parametric Map: every bit, the right unit, the right place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.dicomout.writing import write_uncertainty
from pydicom import Dataset

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import Derivation, new_study
from MedEnhanceLib.io.dicomout.parametric_map import build_uncertainty
from MedEnhanceLib.runtime.progress import Monitor

Examine = Callable[[Path], list[str]]


@pytest.fixture
def spread(study: Any, rng: np.random.Generator) -> Volume:
    """Values of all magnitudes, the smallest and largest of float32 among them."""
    voxels = 10.0 ** rng.uniform(-12, 12, study.volume.shape)
    voxels = voxels.astype(np.float32)
    voxels[0, 0, :3] = (0.0, np.finfo(np.float32).tiny, np.finfo(np.float32).max)
    return replace(study.volume, voxels=voxels)


@pytest.fixture
def enhanced() -> Derivation:
    return Derivation("enhanced", model={"name": "ct", "sha256": "cd" * 32})


def decoded(dataset: Dataset, volume: Volume) -> np.ndarray:
    """The map on the grid of `volume`, read frame by frame as DICOM says."""
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    frames = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(shape)
    to_index = np.linalg.inv(volume.geometry.affine_lps)
    found = np.full(volume.shape, np.nan, np.float32)
    for pixels, frame in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = [*map(float, frame.PlanePositionSequence[0].ImagePositionPatient), 1]
        i, j, k = (to_index @ position)[:3]
        assert np.allclose([i, j], 0, atol=1e-6)
        found[round(k)] = pixels
    return found


def written(tmp_path: Path, volume: Volume, study: Any, derivation: Derivation) -> Path:
    return write_uncertainty(
        volume,
        tmp_path / "out",
        template=study.template,
        derivation=derivation,
        monitor=Monitor(),
    )


def test_every_bit_comes_back_in_its_place(
    tmp_path: Path, study: Any, spread: Volume, enhanced: Derivation
) -> None:
    dataset = pydicom.dcmread(written(tmp_path, spread, study, enhanced))
    assert decoded(dataset, spread).tobytes() == spread.voxels.tobytes()


def test_highdicom_reads_the_same_map(
    tmp_path: Path, study: Any, spread: Volume, enhanced: Derivation
) -> None:
    import highdicom

    volume = highdicom.imread(written(tmp_path, spread, study, enhanced)).get_volume(
        dtype=np.float64
    )
    to_index = np.linalg.inv(spread.geometry.affine_lps) @ volume.affine
    for index in np.ndindex(*volume.shape):
        i, j, k = np.rint(to_index @ [*index, 1])[:3].astype(int)
        assert np.float32(volume.array[index]) == spread.voxels[k, j, i]


def test_the_standard_is_met(
    tmp_path: Path, examine: Examine, study: Any, spread: Volume, enhanced: Derivation
) -> None:
    errors = examine(written(tmp_path, spread, study, enhanced))
    assert [line for line in errors if "PatientSex" not in line] == []


@pytest.mark.parametrize(
    ("units", "code"),
    [
        ("HU", "[hnsf'U]"),
        ("SUV", "g/ml{SUVbw}"),
        ("Bq/ml", "Bq/ml"),
        ("counts", "{counts}"),
        ("Gy", "Gy"),
        ("", "1"),
        ("bananas", "1"),
    ],
)
def test_units_are_stated_in_ucum(
    study: Any, spread: Volume, enhanced: Derivation, units: str, code: str
) -> None:
    dataset = build_uncertainty(
        replace(spread, units=units),
        template=study.template,
        derivation=enhanced,
        monitor=Monitor(),
    )
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == (code, "UCUM")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)


@pytest.mark.parametrize(("kind", "code"), [("BW", "g/ml{SUVbw}"), ("BSA", "1")])
def test_the_kind_of_suv_is_the_sources(
    study: Any, spread: Volume, enhanced: Derivation, kind: str, code: str
) -> None:
    study.template.headers[0].SUVType = kind
    dataset = build_uncertainty(
        replace(spread, units="SUV"),
        template=study.template,
        derivation=enhanced,
        monitor=Monitor(),
    )
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == code


def test_it_says_what_it_is(study: Any, spread: Volume, enhanced: Derivation) -> None:
    dataset = build_uncertainty(
        spread, template=study.template, derivation=enhanced, monitor=Monitor()
    )
    shared = dataset.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("386136009", "SCT")
    assert dataset.ContentLabel == "UNCERTAINTY"
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.ImageType[0] == "DERIVED"
    assert "ct" in dataset.DerivationDescription
    assert "Research use only" in dataset.DerivationDescription
    assert dataset.SeriesDescription == "axial MedEnhance uncertainty"
    assert (dataset.StudyInstanceUID, dataset.PatientID) == ("1.2.3", "42")
    assert dataset.FrameOfReferenceUID == "1.2.3.4.5"


@pytest.mark.parametrize(
    ("part", "side", "stated"), [("KNEE", "L", "L"), ("KNEE", None, ""), ("HEAD", None, None)]
)
def test_the_side_is_stated_of_paired_parts(
    tmp_path: Path,
    examine: Examine,
    study: Any,
    spread: Volume,
    enhanced: Derivation,
    part: str,
    side: str | None,
    stated: str | None,
) -> None:
    study.template.headers[0].BodyPartExamined = part
    if side:
        study.template.headers[0].Laterality = side
    path = written(tmp_path, spread, study, enhanced)
    assert pydicom.dcmread(path).get("Laterality") == stated
    assert [line for line in examine(path) if "PatientSex" not in line] == []


def test_each_frame_names_its_image(study: Any, spread: Volume, enhanced: Derivation) -> None:
    dataset = build_uncertainty(
        spread, template=study.template, derivation=enhanced, monitor=Monitor()
    )
    by_position = {
        str(header.ImagePositionPatient): header.SOPInstanceUID for header in study.template.headers
    }
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = str(frame.PlanePositionSequence[0].ImagePositionPatient)
        assert source.ReferencedSOPInstanceUID == by_position.pop(place)
    assert not by_position


def test_no_uncertainty_anywhere_is_a_map_that_can_be_shown(
    tmp_path: Path, examine: Examine, study: Any, enhanced: Derivation
) -> None:
    path = written(tmp_path, study.volume, study, enhanced)
    dataset = pydicom.dcmread(path)
    assert len(dataset.PerFrameFunctionalGroupsSequence) == 6
    window = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert (float(window.WindowCenter), float(window.WindowWidth)) == (0.5, 1)
    assert [line for line in examine(path) if "PatientSex" not in line] == []


def test_the_window_shows_what_most_voxels_are(study: Any, enhanced: Derivation) -> None:
    voxels = np.linspace(0, 40, 6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4)
    voxels[0, 0, 0] = 1e6
    dataset = build_uncertainty(
        replace(study.volume, voxels=voxels),
        template=study.template,
        derivation=enhanced,
        monitor=Monitor(),
    )
    window = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert 35 < float(window.WindowWidth) < 100
    assert float(window.WindowCenter) == pytest.approx(float(window.WindowWidth) / 2, rel=1e-4)


def test_a_map_that_never_was_dicom_stands_alone(
    tmp_path: Path, examine: Examine, spread: Volume, enhanced: Derivation
) -> None:
    path = write_uncertainty(
        replace(spread, origin=None),
        tmp_path / "out",
        template=new_study(modality="MR", patient_id="phantom"),
        derivation=enhanced,
        monitor=Monitor(),
    )
    dataset = pydicom.dcmread(path)
    assert "ReferencedSeriesSequence" not in dataset
    assert decoded(dataset, spread).tobytes() == spread.voxels.tobytes()
    assert examine(path) == []


@pytest.mark.parametrize(
    ("voxels", "says"),
    [
        (np.zeros((2, 3, 4, 5), np.float32), "2 frames"),
        (np.full((3, 4, 5), np.nan, np.float32), "no standard deviation"),
        (np.full((3, 4, 5), np.inf, np.float32), "no standard deviation"),
        (np.full((3, 4, 5), -0.5, np.float32), "no standard deviation"),
        (np.full((3, 4, 5), 1 / 3, np.float64), "float32 cannot"),
    ],
)
def test_what_is_no_spread_is_refused(voxels: np.ndarray, says: str, enhanced: Derivation) -> None:
    volume = Volume(voxels, modality="MR", source="odd")
    with pytest.raises(InputError, match=says) as caught:
        build_uncertainty(
            volume, template=new_study(modality="MR"), derivation=enhanced, monitor=Monitor()
        )
    assert caught.value.hint
