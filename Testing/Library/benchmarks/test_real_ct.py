"""Real CT: truth of slices that no method saw, σ, edges and discs as they were planted."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from MedEnhanceLib.core.volume import Volume

RNG = np.random.default_rng(0)
SLICES, SIDE, SIGMA = 20, 64, 10.0
ABOUT = {"name": "water", "vendor": "none", "slab": [0, 10], "slices": range(SLICES),
         "range_hu": [-90, 90], "erode_mm": 3}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return import_module("_real_ct_data")


@pytest.fixture(scope="module")
def real_ct() -> ModuleType:
    return import_module("real_ct")


@pytest.fixture(scope="module")
def clean() -> Any:
    """A disc of water in air; from slice to slice its level changes a little, as by tilt."""
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    water = np.where(np.hypot(rows, columns) < 0.9, 20 * columns, -1000)
    return (water + np.linspace(0, 8, SLICES)[:, None, None] * rows).astype(np.float32)


@pytest.fixture(scope="module")
def scan(data: ModuleType, clean: Any) -> Any:
    """Its noise is stronger on one side; neighboring slices share a part of it."""
    white = RNG.standard_normal((SLICES + 1, SIDE, SIDE)).astype(np.float32)
    noise = (white[1:] + 0.5 * white[:-1]) / np.sqrt(1.25)
    return data.repeated(Volume(clean + noise * strength(), modality="CT"), ABOUT)


def strength() -> Any:
    return SIGMA * np.linspace(0.8, 1.2, SIDE)


def test_slices_that_no_method_saw_are_the_truth(
    real_ct: ModuleType, scan: Any, clean: Any
) -> None:
    assert len(scan.seen.voxels) == 10
    assert scan.factor == pytest.approx(1.8 / 8, rel=0.1)  # eight slices that are a little alike
    seen, perfect = scan.seen.voxels, clean[:10]
    assert real_ct.errors(scan, seen)["left"] == pytest.approx(1)
    assert real_ct.errors(scan, perfect)["left"] < 0.1
    halved = real_ct.errors(scan, perfect + (seen - perfect) / 2)
    assert halved["left"] == pytest.approx(0.5, abs=0.04)


def test_the_true_noise_is_of_slices_that_share_none(scan: Any) -> None:
    ratio = (scan.sigma / strength())[scan.tissue]
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    sides = np.broadcast_to(strength(), scan.tissue.shape)[scan.tissue]
    assert np.corrcoef(scan.sigma[scan.tissue], sides)[0, 1] > 0.8


@pytest.mark.parametrize("blur", [1.0, 1.5])
def test_the_resolution_of_a_gaussian_edge_is_that_of_the_gaussian(
    real_ct: ModuleType, blur: float
) -> None:
    rows, columns = np.indices((96, 96))
    distance = 30 - np.hypot(rows - 47.3, columns - 48.1)
    sharp = np.clip(np.float32(4) * distance + 0.5, 0, 1)
    edge = 100 * ndimage.gaussian_filter(sharp, blur)
    # A curved edge and the width of a pixel lower it by some percent.
    assert real_ct.mtf50(edge, distance) == pytest.approx(0.1874 / blur, rel=0.06)


def test_discs_that_are_erased_are_not_found(
    real_ct: ModuleType, data: ModuleType, scan: Any
) -> None:
    added, discs = data.discs(scan, real_ct.template_score)
    before = scan.seen.voxels
    assert len(discs) >= 8
    assert all(scan.tissue[disc.where[1:]][disc.share[0] > 0].all() for disc in discs)
    pair = before, before + added
    same = real_ct.observed(discs, pair, pair)
    assert same["auc_gain"] == 0 and same["kept"] == pytest.approx(1, abs=1e-4)
    assert 0.6 < same["auc"] < 0.99
    erased = real_ct.observed(discs, pair, (before, before + added * np.float32(0.1)))
    assert erased["kept"] == pytest.approx(0.1, abs=1e-3)
    assert erased["auc_gain"] < -0.1


def test_planted_cylinders_stand_apart_in_the_tissue(data: ModuleType, scan: Any) -> None:
    added, distances = data.cylinders(scan)
    assert scan.tissue[added > 1].all()
    for contrast, distance in zip(data.EDGES, distances, strict=True):
        assert added[distance > 2] == pytest.approx(contrast, rel=0.02)


def test_every_listed_scan_says_where_it_is_from_and_under_what_license() -> None:
    listed = import_module("_common").listed("real_ct_scans.json")
    assert len({entry["vendor"] for entry in listed}) >= 4
    assert len({entry["name"] for entry in listed}) == len(listed)
    for entry in listed:
        assert all(entry[key] for key in ("repository", "path", "license", "note")), entry["name"]
        assert len(entry["commit"]) == 40 and len(entry["sha256"]) == 64
        first, stop = entry["slab"]
        assert entry["slices"][-1] - entry["slices"][stop - 1] >= 3 or first >= 3


def test_the_worst_phantom_decides_and_one_without_discs_has_no_say(real_ct: ModuleType) -> None:
    row = {"arm": "default", "sigma": 10.0, "sigma_ratio": 0.99,
           "left": 0.4, "mtf_200": 1.0}  # fmt: skip
    rows = [row | {"auc_gain": -0.005, "kept": 0.7}, row | {"sigma_ratio": 0.9}]
    gates = {gate["name"]: gate for gate in real_ct.gates_of(rows)}
    assert gates["σ over the true one: farthest from 1"]["value"] == pytest.approx(0.1)
    (discs,) = (gate for name, gate in gates.items() if name.startswith("faint discs"))
    assert discs["value"] is None  # no smooth row is there
    again = [*rows, row | {"arm": "smooth", "auc_gain": -0.055}]
    (discs,) = (gate for gate in real_ct.gates_of(again) if gate["name"].startswith("faint discs"))
    assert discs["value"] == pytest.approx(-0.005)
