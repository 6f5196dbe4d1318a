"""The card of a volume, and guesses of what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.modality import guess_modality
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load, save
from MedEnhanceLib.io.describe import card


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
        "orientation": "LPS",  # as ITK names it
        "dtype": "int16",
        "range": [int(ct.voxels.min()), int(ct.voxels.max())],
        "bytes": 240,
        "file_bytes": (tmp_path / "a.nii.gz").stat().st_size,
        "history": list(ct.history),
        "derived": True,
    }
    assert {key: shown[key] for key in expected} == expected
    assert any("anisotropic" in warning for warning in shown["warnings"])
    assert any("oblique" in warning for warning in shown["warnings"])


_VALUES = np.random.default_rng(20240607)


@pytest.mark.parametrize(
    ("voxels", "spacing", "modality"),
    [
        (_VALUES.integers(-1000, 1500, (5, 6, 7)).astype(np.int16), 1.0, "CT"),
        (_VALUES.uniform(-1024, 3000, (5, 6, 7)).astype(np.float32), 1.0, "CT"),
        (_VALUES.integers(0, 255, (9, 9, 9)).astype(np.uint8), 1.0, "MR"),
        (_VALUES.normal(300, 100, (9, 9, 9)).clip(-20), 1.0, "MR"),
        (_VALUES.integers(0, 4, (9, 9, 9)).astype(np.uint8), 1.0, "OT"),
        (_VALUES.random((9, 9, 9)), 1.0, "OT"),
        (_VALUES.integers(0, 2, (9, 9, 9)).astype(bool), 1.0, "OT"),
        (np.full((9, 9, 9), 100, np.int16), 1.0, "OT"),
        (_VALUES.integers(0, 255, (9, 9, 9)).astype(np.uint8), 1e-5, "EM"),
    ],
)
def test_the_modality_is_guessed_by_values_and_spacing(
    voxels: np.ndarray, spacing: float, modality: str
) -> None:
    assert guess_modality(voxels, (spacing,) * 3) == modality
