"""The card of a volume, and guesses of what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.modality import guess_modality
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load, save
from MedEnhanceLib.io.describe import card, orientation_code


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


def test_plain_volume_has_no_warnings() -> None:
    assert card(Volume(np.arange(8.0).reshape(2, 2, 2)))["warnings"] == []


def test_orientation_is_what_itk_says(oblique_geometry: Geometry) -> None:
    sitk = pytest.importorskip("SimpleITK")
    flat = np.ravel(oblique_geometry.direction).tolist()
    itk = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(flat)
    assert orientation_code(oblique_geometry) == itk


def guess(voxels: np.ndarray, spacing: float = 1.0) -> str:
    return guess_modality(voxels, (spacing,) * 3)


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
