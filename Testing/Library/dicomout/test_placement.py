"""Which stored images a derived slice names, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from Library.dicomout.writing import write_series
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import Derivation, build_series, read_template
from MedEnhanceLib.io.dicomout.attributes import MR_IMAGE

Examine = Callable[[Path], list[str]]
Make = Callable[..., Path]
DERIVED = Derivation("converted")


@pytest.fixture
def axial(make_series: Make) -> Volume:
    """Five slices at 0, 3, … 12 mm, each taken at a time of its own."""
    return io.load(
        make_series(
            np.zeros((5, 8, 6), np.int16),
            positions=[(0, 0, 3.0 * k) for k in range(5)],
            SOPClassUID=MR_IMAGE,
            Modality="MR",
            RescaleSlope=None,
            RescaleIntercept=None,
            PatientName="Doe^Jane",
            RepetitionTime="500",
            slice_elements=lambda k: {"AcquisitionTime": f"10000{k}"},
        )
    )


def sources(volume: Volume, series: Volume) -> tuple[list[Dataset], list[list[int]]]:
    """The images of a volume beside a series, and which of its images each of them names."""
    assert series.origin is not None
    beside = replace(volume, origin=replace(series.origin, on_grid=False))
    images = build_series(beside, template=read_template(series.origin), derivation=DERIVED)
    number = {one.sop_instance: k for k, one in enumerate(series.origin.instances[0])}
    return images, [
        [number[str(item.ReferencedSOPInstanceUID)] for item in image.SourceImageSequence]
        for image in images
    ]


def resliced(axial: Volume, spacing: float, first: float = 0.0, count: int = 13) -> Volume:
    (x, y, z), (across, down, _) = axial.geometry.origin, axial.geometry.spacing
    geometry = Geometry((across, down, spacing), (x, y, z + first), axial.geometry.direction)
    return Volume(np.zeros((count, 8, 6), np.int16), geometry, "MR")


def test_a_slice_between_two_images_names_both(axial: Volume) -> None:
    images, named = sources(resliced(axial, 1.0), axial)
    assert {float(image.SliceThickness) for image in images} == {1.0}
    assert named[:5] == [[0], [0, 1], [0, 1], [1], [1, 2]]
    assert named[12] == [4]


def test_a_slice_made_up_in_a_gap_names_the_images_on_both_sides(make_series: Make) -> None:
    series = io.load(
        make_series(
            np.zeros((5, 8, 6), np.int16),
            positions=[(0, 0, place) for place in (0.0, 3.0, 6.0, 12.0, 15.0)],
        ),
        resample=True,
    )
    assert series.shape[0] == 6
    images, named = sources(series, series)
    assert named == [[0], [1], [2], [2, 3], [3], [4]]
    assert ".dcm" not in images[0].DerivationDescription


def test_a_thick_slice_names_all_that_it_reaches(axial: Volume) -> None:
    _, named = sources(resliced(axial, 9.0, first=4.5, count=1), axial)
    assert named == [[0, 1, 2, 3]]


def test_a_slice_across_the_images_names_all_and_states_what_all_of_them_state(
    axial: Volume, tmp_path: Path, examine: Examine
) -> None:
    sagittal = Volume(
        np.zeros((4, 5, 8), np.int16),
        Geometry((1.0, 3.0, 1.0), (1.0, 0.0, 12.0), ((0, 0, 1), (1, 0, 0), (0, -1, 0))),
        "MR",
    )
    images, named = sources(sagittal, axial)
    assert named == [[0, 1, 2, 3, 4]] * 4
    for image in images:
        assert image.PatientName == "Doe^Jane"
        assert image.RepetitionTime == 500
        assert "AcquisitionTime" not in image
    (path, *_) = write_series(
        replace(sagittal, origin=replace(axial.origin, on_grid=False)),  # type: ignore[type-var]
        tmp_path / "out",
    )
    assert examine(path) == []
