"""The card of a volume, and guesses of what it shows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.modality import guess_modality
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load, save
from MedEnhanceLib.io.describe import card, orientation_code

if TYPE_CHECKING:
    from Testing.Library.conftest import WarningRecorder


def test_card_holds_what_a_person_asks(tmp_path: Path, ct: Volume) -> None:
    save(ct, tmp_path / "a.nii.gz")
    shown = card(load(tmp_path / "a.nii.gz"), tmp_path / "a.nii.gz")
    assert json.loads(json.dumps(shown)) == shown
    expected = {
        "modality": "CT",
        "units": "HU",
        "shape": [4, 6, 5],
        "frames": 1,
        "spacing": [0.7, 0.9, 3.3],
        "orientation": "LPS",
        "dtype": "int16",
        "range": [int(ct.voxels.min()), int(ct.voxels.max())],
        "bytes": 240,
        "file_bytes": (tmp_path / "a.nii.gz").stat().st_size,
        "history": list(ct.history),
        "derived": True,
    }
    assert {key: shown[key] for key in expected} == expected
    assert shown["size_mm"] == pytest.approx([3.5, 5.4, 13.2])
    assert any("anisotropic" in warning for warning in shown["warnings"])
    assert any("oblique" in warning for warning in shown["warnings"])


def test_card_of_a_sequence_counts_its_frames() -> None:
    shown = card(Volume(np.zeros((7, 2, 3, 4)), frame_interval_s=0.5))
    assert (shown["frames"], shown["frame_interval_s"]) == (7, 0.5)
    assert "all voxels are equal" in shown["warnings"]


def test_card_of_a_folder_counts_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 5)
    assert card(Volume(np.zeros((1, 2, 2))), tmp_path)["file_bytes"] == 15


def test_plain_volume_has_no_warnings() -> None:
    assert card(Volume(np.arange(8.0).reshape(2, 2, 2)))["warnings"] == []


@pytest.mark.parametrize(
    ("direction", "code"),
    [
        (((1, 0, 0), (0, 1, 0), (0, 0, 1)), "LPS"),
        (((-1, 0, 0), (0, -1, 0), (0, 0, 1)), "RAS"),
        (((0, 0, -1), (1, 0, 0), (0, -1, 0)), "PIR"),
        (((1, 0, 0), (0, 0, 1), (0, -1, 0)), "LIP"),
        (((0.6, 0.8, 0), (-0.8, 0.6, 0), (0, 0, 1)), "ALS"),
    ],
)
def test_orientation_is_where_the_axes_point(
    direction: tuple[tuple[float, ...], ...], code: str
) -> None:
    assert orientation_code(Geometry(direction=direction)) == code


def test_orientation_is_what_itk_says(oblique_geometry: Geometry) -> None:
    sitk = pytest.importorskip("SimpleITK")
    flat = np.ravel(oblique_geometry.direction).tolist()
    itk = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(flat)
    assert orientation_code(oblique_geometry) == itk


def guess(voxels: np.ndarray, spacing: float = 1.0) -> str:
    return guess_modality(Volume(voxels, Geometry((spacing,) * 3)))


def test_hounsfield_units_are_ct(rng: np.random.Generator) -> None:
    assert guess(rng.integers(-1000, 1500, (5, 6, 7)).astype(np.int16)) == "CT"
    assert guess(rng.uniform(-1024, 3000, (5, 6, 7)).astype(np.float32)) == "CT"


def test_many_levels_from_zero_are_mr(rng: np.random.Generator) -> None:
    assert guess(rng.integers(0, 255, (9, 9, 9)).astype(np.uint8)) == "MR"
    assert guess(rng.normal(300, 100, (9, 9, 9)).clip(-20)) == "MR"


def test_labels_and_small_ranges_are_other(rng: np.random.Generator) -> None:
    assert guess(rng.integers(0, 4, (9, 9, 9)).astype(np.uint8)) == "OT"
    assert guess(rng.random((9, 9, 9))) == "OT"
    assert guess(rng.integers(0, 2, (9, 9, 9)).astype(bool)) == "OT"
    assert guess(np.full((9, 9, 9), 100, np.int16)) == "OT"


def test_spacing_below_a_micrometre_is_microscopy(rng: np.random.Generator) -> None:
    assert guess(rng.integers(0, 255, (9, 9, 9)).astype(np.uint8), spacing=1e-5) == "EM"


def test_guess_is_said(tmp_path: Path, rng: np.random.Generator, recorder: WarningRecorder) -> None:
    """A header of ours names the modality; without one, the guess is a warning."""
    volume = Volume(rng.integers(-1000, 1500, (5, 6, 7)).astype(np.int16), modality="CT")
    save(dataclasses.replace(volume, units="HU"), tmp_path / "a.mha")
    load(tmp_path / "a.mha", monitor=recorder.monitor)
    assert recorder.warnings == []
    data = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "b.mha").write_bytes(data.replace(b"MedEnhance = ", b"Something = "))
    back = load(tmp_path / "b.mha", monitor=recorder.monitor)
    assert (back.modality, back.units) == ("CT", "HU")
    assert any("looks like CT" in warning for warning in recorder.warnings)
