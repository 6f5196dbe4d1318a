"""What the tests of written DICOM share: an examiner that knows the standard, and a study."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import Derivation, Template, read_template, write_objects
from MedEnhanceLib.io.dicomout.segments import build_segmentation

Examine = Callable[[Path], list[str]]
Sound = Callable[..., list[Dataset]]


@pytest.fixture(scope="session")
def examine() -> Examine:
    """Give the errors that dciodvfy finds in a file; skips where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (package dicom3tools in Debian) is not installed")

    def errors(path: Path) -> list[str]:
        done = subprocess.run(
            [program, "-new", str(path)], capture_output=True, text=True, check=False
        )
        said = (done.stdout + done.stderr).splitlines()
        assert said, "dciodvfy said nothing: it names at least the class of the object"
        if done.returncode < 0:
            return [f"dciodvfy died of signal {-done.returncode}", *said[-1:]]
        return [line for line in said if line.startswith("Error")]

    return errors


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def sound(out: Path, examine: Examine) -> Sound:
    """Write objects into a folder, hold each against the standard, and read them."""

    def written(objects: Sequence[Dataset], folder: Path = out) -> list[Dataset]:
        paths = write_objects(objects, folder)
        assert [error for path in paths for error in examine(path)] == []
        return [dcmread(path) for path in paths]

    return written


class Study(NamedTuple):
    """A CT series on the disk: its volume of zeros, and what a derived object takes over."""

    volume: Volume
    template: Template


@pytest.fixture
def study(make_series: Callable[..., Path]) -> Study:
    """Six oblique slices of a patient whose header is as odd as hospitals' are."""
    cosine, sine = 0.8, 0.6
    folder = make_series(
        np.zeros((6, 5, 4), np.int16),
        positions=[(0.1, 0.2 - 2.5 * sine * k, -7.3 + 2.5 * cosine * k) for k in range(6)],
        orientation=(1, 0, 0, 0, cosine, sine),
        FrameOfReferenceUID="1.2.3.4.5",
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jörg",
        PatientID="42",
        PatientBirthDate="",
        PatientSex="O",
        StudyDate="20200131",
        StudyTime="120000",
        StudyID="7",
        BodyPartExamined="HEAD",
    )
    volume = io.load(folder)
    assert volume.dicom_origin is not None
    blank = volume.with_voxels(np.zeros(volume.shape, np.float32))
    return Study(blank, read_template(volume.dicom_origin))


#: Of a label with codes, of one without, and of one that no voxel has.
MEANINGS: list[dict[str, Any]] = [
    {
        "value": 1,
        "name": "Gray matter",
        "color": "#c9a227",
        "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
        "type": {"value": "389081007", "scheme": "SCT", "meaning": "Gray Matter"},
    },
    {"value": 7, "name": "Läsion", "color": "", "category": None, "type": None},
    {"value": 3, "name": "Absent", "color": "#0000ff"},
]


@pytest.fixture
def labels(study: Study) -> Volume:
    """Labels 1 and 7 on some slices of `study`."""
    voxels = np.zeros(study.volume.shape, np.uint8)
    voxels[1:4, 1:3, 0:2] = 1
    voxels[3:5, 2:5, 2:4] = 7
    return replace(study.volume, voxels=voxels, modality="SEG", units="")


@pytest.fixture
def derivation() -> Derivation:
    return Derivation("segmented", model={"name": "brain", "version": "0.1.0", "sha256": "ab" * 32})


def decoded(dataset: Dataset, labels: Volume, tolerance: float = 1e-6) -> np.ndarray:
    """The segments on the grid of `labels`, read as DICOM says: bit by bit, frame by frame."""
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    size = dataset.Rows * dataset.Columns
    to_index = np.linalg.inv(labels.geometry.affine_lps)
    numbers = np.zeros(labels.shape, np.uint8)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        position = [*map(float, frame.PlanePositionSequence[0].ImagePositionPatient), 1]
        i, j, k = (to_index @ position)[:3]
        assert np.allclose([i, j, k], np.rint([i, j, k]), atol=tolerance)
        shape = (dataset.Rows, dataset.Columns)
        mask = bits[number * size : (number + 1) * size].reshape(shape) > 0
        identity = frame.get("SegmentIdentificationSequence")
        groups = dataset.SharedFunctionalGroupsSequence[0]
        item = (identity or groups.SegmentIdentificationSequence)[0]
        numbers[round(k)][mask] = item.ReferencedSegmentNumber
    return numbers


def on_grid(theirs: Any, ours: Volume) -> np.ndarray:
    """Voxels that highdicom reads, by their places, on the grid of a volume."""
    to_index = np.linalg.inv(ours.geometry.affine_lps) @ theirs.affine  # from their (k, j, i)
    voxels = np.zeros(ours.shape)
    for index in np.ndindex(*theirs.shape):
        i, j, k = np.rint(to_index @ [*index, 1])[:3].astype(int)
        voxels[k, j, i] = theirs.array[index]
    return voxels


@pytest.fixture
def options(study: Study, derivation: Derivation) -> dict[str, Any]:
    """What every object is built with."""
    return {"template": study.template, "derivation": derivation}


@pytest.fixture
def built(labels: Volume, options: dict[str, Any]) -> Dataset:
    return build_segmentation(labels, MEANINGS, **options)
