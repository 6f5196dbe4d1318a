"""Uncertainty as a DICOM Parametric Map: every bit, the right unit, the right place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from Library.dicomout.conftest import Sound, Study, on_grid
from pydicom import dcmread

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import Derivation, new_study, write_objects
from MedEnhanceLib.io.dicomout.parametric_map import build_uncertainty

Options = dict[str, Any]


@pytest.fixture
def derivation() -> Derivation:
    return Derivation("enhanced", model={"name": "ct", "sha256": "cd" * 32})


@pytest.fixture
def spread(study: Study, rng: np.random.Generator) -> Volume:
    """Values of all magnitudes, the smallest and largest of float32 among them."""
    voxels = (10.0 ** rng.uniform(-12, 12, study.volume.shape)).astype(np.float32)
    voxels[0, 0, :3] = (0.0, np.finfo(np.float32).tiny, np.finfo(np.float32).max)
    return replace(study.volume, voxels=voxels)


def test_every_bit_comes_back_in_its_place(
    sound: Sound, out: Path, spread: Volume, options: Options
) -> None:
    sound([build_uncertainty(spread, **options)])
    volume = highdicom.imread(*out.iterdir()).get_volume(dtype=np.float64)
    assert volume.shape == spread.shape
    assert np.array_equal(on_grid(volume, spread), spread.voxels)


@pytest.mark.parametrize(
    ("units", "kind", "code"),
    [
        ("HU", "", "[hnsf'U]"),
        ("SUV", "", "g/ml{SUVbw}"),
        ("SUV", "BSA", "1"),
        ("Bq/ml", "", "Bq/ml"),
        ("bananas", "", "1"),
    ],
)
def test_units_are_stated_in_ucum(
    study: Study, spread: Volume, options: Options, units: str, kind: str, code: str
) -> None:
    study.template.headers[0].SUVType = kind
    dataset = build_uncertainty(replace(spread, units=units), **options)
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == (code, "UCUM")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("386136009", "SCT")


def test_it_says_what_it_is_and_which_images_are_behind(
    study: Study, spread: Volume, options: Options
) -> None:
    dataset = build_uncertainty(spread, **options)
    assert (dataset.ContentLabel, dataset.ContentQualification) == ("UNCERTAINTY", "RESEARCH")
    assert dataset.ImageType[0] == "DERIVED"
    assert "Enhanced" in dataset.DerivationDescription
    assert "Research use only" in dataset.DerivationDescription
    assert dataset.SeriesDescription == "axial MedEnhance uncertainty"
    assert (dataset.StudyInstanceUID, dataset.PatientID) == ("1.2.3", "42")
    assert dataset.FrameOfReferenceUID == "1.2.3.4.5"
    named = {
        str(frame.PlanePositionSequence[0].ImagePositionPatient): (
            frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        )
        for frame in dataset.PerFrameFunctionalGroupsSequence
    }
    assert named == {
        str(header.ImagePositionPatient): header.SOPInstanceUID for header in study.template.headers
    }


@pytest.mark.parametrize(
    ("part", "side", "stated"), [("KNEE", "L", "L"), ("KNEE", None, ""), ("HEAD", "L", None)]
)
def test_a_map_of_zeros_can_be_shown_and_states_the_side_of_paired_parts(
    sound: Sound, study: Study, options: Options, part: str, side: str | None, stated: str | None
) -> None:
    study.template.headers[0].BodyPartExamined = part
    study.template.headers[0].Laterality = side
    (dataset,) = sound([build_uncertainty(study.volume, **options)])
    assert dataset.get("Laterality") == stated
    window = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert (float(window.WindowCenter), float(window.WindowWidth)) == (0.5, 1)


@pytest.mark.parametrize("keyword", ["BurnedInAnnotation", "RecognizableVisualFeatures"])
def test_what_shows_in_one_source_image_may_show_in_the_map(
    study: Study, options: Options, out: Path, keyword: str
) -> None:
    assert build_uncertainty(study.volume, **options)[keyword].value == "NO"
    setattr(study.template.headers[-1], keyword, "YES")
    (path,) = write_objects([build_uncertainty(study.volume, **options)], out)
    assert dcmread(path)[keyword].value == "YES"


@pytest.mark.parametrize(
    ("shape", "value", "says"),
    [
        ((2, 3, 4, 5), 0.0, "2 frames"),
        ((3, 4, 5), np.nan, "no uncertainty map"),
        ((3, 4, 5), -0.5, "no uncertainty map"),
    ],
)
def test_what_is_no_spread_is_refused(
    shape: tuple[int, ...], value: float, says: str, derivation: Derivation
) -> None:
    volume = Volume(np.full(shape, value, np.float32), modality="MR", source="odd")
    with pytest.raises(InputError, match=says) as caught:
        build_uncertainty(volume, template=new_study(modality="MR"), derivation=derivation)
    assert caught.value.hint
