"""Volumes of lesions in restored slices, on slices whose lesions are known."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

TIMES = 4
SHAPE = (48, 64, 64)


@pytest.fixture(scope="module")
def lesions() -> ModuleType:
    return importlib.import_module("_slices_lesions")


@pytest.fixture(scope="module")
def references() -> ModuleType:
    return importlib.import_module("_slices_references")


def repeated(slices: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.repeat(slices, TIMES, axis=0)


def test_volumes_of_planted_lesions_show_what_is_lost(
    lesions: ModuleType, references: ModuleType
) -> None:
    thin = np.full(SHAPE, 0.5, np.float32)
    reference = references.Reference("made", "", "MR", thin, 1.0, (1.0, 1.0))
    arms = {"thick": repeated, "lost": lambda _: thin}
    rows = lesions.lesion_rows(reference, TIMES, arms, 0)
    assert {row["volume_change"] for row in rows if row["arm"] == "lost"} == {-1}
    thick = {row["diameter_mm"]: row for row in rows if row["arm"] == "thick"}
    assert 0 < thick[8]["volume_error"] < thick[3]["volume_error"]


def test_a_gate_compares_volumes_with_thick_slices_and_the_spline(lesions: ModuleType) -> None:
    rows = [
        {"arm": arm, "volume_error": error}
        for arm, error in (("thick", 0.4), ("spline", 0.2), ("ours", 0.3))
    ]
    passed = {gate["bound"]: gate["pass"] for gate in lesions.volume_gates("planted", rows)}
    assert passed == {"< thick's 0.400": True, "< spline's 0.200": False}
