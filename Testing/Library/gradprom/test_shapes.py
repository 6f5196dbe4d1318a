"""What is made of labels after the network: surfaces and tables."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib.core.geometry import Geometry, Triple
from MedEnhanceLib.core.surfaces import surface_areas
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom import SegmentConfig, head, segment
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

LABEL = {"value": 4, "name": "Bright", "color": "#ff0000"}


SPACINGS = [(1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (0.5, 0.5, 5.0)]
#: Half axes in mm: a ball, something flat, something long along a grid's axes or across them.
BODIES = [(16.0, 16.0, 16.0), (20.0, 20.0, 8.0), (24.0, 9.0, 9.0)]
TURNED = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]


def ellipsoid(half_axes: Triple, spacing: Triple, turn: np.ndarray) -> np.ndarray:
    """Voxels [K, J, I] whose centers are inside."""
    sizes = [int(2 * max(half_axes) / step) + 4 for step in spacing]
    along = [(np.arange(n) - n / 2 + 0.5) * step for n, step in zip(sizes, spacing, strict=True)]
    k, j, i = np.meshgrid(*along[::-1], indexing="ij")
    places = np.stack([i, j, k], axis=-1) @ turn
    return ((places / np.array(half_axes)) ** 2).sum(axis=-1) < 1


@cache
def surface_of_ellipsoid(half_axes: Triple, count: int = 200) -> float:
    """Its integral over both angles."""
    a, b, c = half_axes
    theta, phi = np.meshgrid(
        (np.arange(count) + 0.5) * np.pi / count,
        (np.arange(2 * count) + 0.5) * np.pi / count,
        indexing="ij",
    )
    across = np.sin(theta) * np.hypot(b * c * np.cos(phi), a * c * np.sin(phi))
    element = np.hypot(across, a * b * np.cos(theta)) * np.sin(theta)
    return float(element.sum()) * (np.pi / count) ** 2


@pytest.mark.parametrize("turn", [np.eye(3), TURNED], ids=["straight", "oblique"])
@pytest.mark.parametrize("half_axes", BODIES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_surface_of_an_ellipsoid(spacing: Triple, half_axes: Triple, turn: np.ndarray) -> None:
    body = ellipsoid(half_axes, spacing, turn).astype(np.uint8) * 3
    area = surface_areas(body, [3, 5], Geometry(spacing))
    assert area[3] == pytest.approx(surface_of_ellipsoid(half_axes), rel=0.08)
    assert area[5] == 0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_surface_of_a_box(spacing: Triple) -> None:
    """Flat faces along the grid are the formula's worst case: they come out too small."""
    voxels = (60, 40, 12)
    labels = np.pad(np.ones(voxels[::-1], np.uint8), 2)
    a, b, c = (n * step for n, step in zip(voxels, spacing, strict=True))
    share = surface_areas(labels, [1], Geometry(spacing))[1] / (2 * (a * b + b * c + c * a))
    assert 0.7 < share < 0.95


@pytest.mark.parametrize("slices", [1, 5])
def test_thin_and_oblique_volumes_are_segmented_and_measured(
    slices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a volume lies in the patient changes nothing of what its labels measure."""

    class Bright(torch.nn.Module):
        """Finds what is bright, whatever its weights."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            middle = images[:, images.shape[1] // 2, None]
            return torch.cat([0.5 - middle, middle - 0.5], dim=1)

    monkeypatch.setattr(head, "make_head", lambda *_: Bright())
    config = TrainHeadConfig.from_json(
        {"preset": "smoke", "labels": ["x"], "structures": [LABEL], "name": "bright"}
    )
    folder = head.export_head(tmp_path / "bright", config, Bright(), 1.0).folder
    bright = np.zeros((slices, 40, 40), np.int16)
    bright[:, 8:32, 12:28] = 800
    spacing = (0.7, 0.8, 3.0)
    oblique = tuple(map(tuple, TURNED.tolist()))
    tables = []
    for geometry in (Geometry(spacing), Geometry(spacing, (5.0, -9.0, 70.0), oblique)):
        image = Volume(bright + 10, geometry, modality="MR")
        found = segment(image, SegmentConfig(model=str(folder), device="cpu", force_segmenter=True))
        assert np.array_equal(found.volume.voxels == 4, bright > 0)
        assert found.volume.geometry == geometry
        tables.append(found.table)
    assert tables[0] == tables[1]
    (row,) = tables[0]
    a, b, c = 16 * 0.7, 24 * 0.8, slices * 3.0
    assert (row["voxels"], row["volume_ml"]) == (16 * 24 * slices, round(a * b * c / 1000, 3))
    assert 0.75 < row["surface_mm2"] / (2 * (a * b + b * c + c * a)) < 0.95
