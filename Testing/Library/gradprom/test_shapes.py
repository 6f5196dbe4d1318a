"""What is made of labels after the network: largest parts, surfaces, tables."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.gradprom import Label, TrainHeadConfig, shapes
from MedEnhanceLib.gradprom.head import export_head, kept_components, make_head
from MedEnhanceLib.gradprom.infer import SegmentConfig, segment, volume_table
from MedEnhanceLib.gradprom.shapes import flicker, keep_largest, surface_areas, voxel_counts
from MedEnhanceLib.volume import Volume

LABEL = {"value": 4, "name": "Bright", "color": "#ff0000"}


def parts() -> np.ndarray:
    """Of label 4 a large, a middle and a small part; of label 2 a single one."""
    labels = np.zeros((6, 30, 30), np.uint8)
    labels[1:5, 2:12, 2:12] = 4
    labels[2:4, 20:24, 20:24] = 4
    labels[0, 28, 2] = 4
    labels[5, 28, 28] = 2
    return labels


@pytest.mark.parametrize(("count", "voxels"), [(1, 400), (2, 432), (3, 433), (9, 433)])
def test_the_largest_parts_of_each_label_stay(count: int, voxels: int) -> None:
    labels = parts()
    keep_largest(labels, [4, 2, 7], count)
    assert np.count_nonzero(labels == 4) == voxels
    assert np.count_nonzero(labels == 2) == 1
    assert (labels[1:5, 2:12, 2:12] == 4).all()


def test_parts_that_touch_at_an_edge_alone_are_two() -> None:
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 0, 0:2] = labels[0, 1, 2] = 1
    keep_largest(labels, [1], 1)
    assert np.argwhere(labels).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_of_parts_of_one_size_the_first_stay() -> None:
    labels = np.zeros((5, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[2, 2, 2] = labels[4, 0, 0] = 1
    keep_largest(labels, [1], 2)
    assert np.argwhere(labels).tolist() == [[0, 0, 0], [2, 2, 2]]


def test_large_volumes_are_counted_in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which changes nothing, also where the last slab is smaller than the others."""
    speckle = np.random.default_rng(0).integers(0, 3, (7, 20, 30)).astype(np.uint8)
    at_once = speckle.copy()
    keep_largest(at_once, [1, 2], 5)
    monkeypatch.setattr(shapes, "_AT_ONCE", 3 * 20 * 30)
    assert voxel_counts(speckle).tolist() == np.bincount(speckle.ravel()).tolist()
    keep_largest(speckle, [1, 2], 5)
    assert np.array_equal(speckle, at_once)
    assert np.count_nonzero(speckle)


def test_a_table_of_a_large_volume_takes_little_memory() -> None:
    labels = np.zeros((96, 512, 512), np.uint8)
    labels[40:50, 200:300, 200:300] = 4
    tracemalloc.start()
    volume_table(labels, (Label(value=4, name="Bright", color=""),), Geometry((1.0, 1.0, 1.0)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * labels.nbytes


def test_another_label_within_a_part_stays() -> None:
    labels = np.full((3, 5, 5), 1, np.uint8)
    labels[1, 2, 2] = 2
    keep_largest(labels, [1, 2], 1)
    assert (labels[1, 2, 2], np.count_nonzero(labels == 1)) == (2, 74)


def test_nothing_labelled_is_no_accident() -> None:
    labels = np.zeros((3, 5, 5), np.uint8)
    keep_largest(labels, [1], 1)
    assert surface_areas(labels, [1], Geometry((1.0, 1.0, 1.0))) == {1: 0.0}
    assert not labels.any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 2.0)])
def test_the_surface_of_a_ball(spacing: tuple[float, float, float]) -> None:
    radius, size = 12.0, [int(40 / step) for step in spacing[::-1]]
    places = np.meshgrid(
        *((np.arange(n) - n / 2 + 0.5) * step for n, step in zip(size, spacing[::-1], strict=True)),
        indexing="ij",
    )
    ball = (sum(place**2 for place in places) < radius**2).astype(np.uint8) * 3
    area = surface_areas(ball, [3, 5], Geometry(spacing))
    assert area[3] == pytest.approx(4 * np.pi * radius**2, rel=0.05)
    assert area[5] == 0


def test_a_structure_that_fills_the_image_has_its_faces_as_surface() -> None:
    labels = np.ones((10, 20, 30), np.uint8)
    area = surface_areas(labels, [1], Geometry((1.0, 1.0, 1.0)))[1]
    assert area == pytest.approx(2 * (200 + 300 + 600), rel=0.15)


def test_a_table_tells_volume_and_surface() -> None:
    structures = (Label(value=4, name="Bright", color=""), Label(value=9, name="None", color=""))
    geometry = Geometry((1.0, 2.0, 3.0))
    first, second = volume_table(parts(), structures, geometry)
    assert (first["voxels"], first["volume_ml"]) == (433, 2.598)
    areas = surface_areas(parts(), [4, 9], geometry)
    assert first["surface_mm2"] == round(areas[4], 1) > 0
    assert (second["voxels"], second["volume_ml"], second["surface_mm2"]) == (0, 0.0, 0.0)


@pytest.fixture
def threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose network finds what is bright, whatever its weights."""
    import torch

    from MedEnhanceLib.gradprom import head

    class Bright(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            middle = images[:, images.shape[1] // 2, None]
            return torch.cat([0.5 - middle, middle - 0.5], dim=1)

    monkeypatch.setattr(head, "make_head", lambda *_: Bright())
    config = TrainHeadConfig.from_json(
        {"preset": "smoke", "labels": ["x"], "structures": [LABEL], "name": "bright"}
    )
    export_head(tmp_path / "bright", config, Bright(), 1.0)
    return tmp_path / "bright"


@pytest.mark.parametrize(("kept", "voxels"), [(0, 433), (1, 400), (2, 432)])
def test_parts_are_dropped_only_where_the_card_says_so(
    threshold: Path, kept: int, voxels: int
) -> None:
    image = Volume((parts() == 4).astype(np.int16) * 800 + 10, modality="MR")
    if kept:
        record_fields(threshold, {"keep_components": kept})
    found = segment(image, SegmentConfig(model=str(threshold), device="cpu"))
    assert np.count_nonzero(found.volume.voxels == 4) == voxels
    assert found.table[0]["voxels"] == voxels


def test_the_card_says_that_parts_are_dropped(tmp_path: Path) -> None:
    fields = {"preset": "smoke", "labels": ["x"], "structures": [LABEL]}
    cards = {}
    for kept in (0, 2):
        config = TrainHeadConfig.from_json(fields | {"keep_components": kept})
        export_head(tmp_path / str(kept), config, make_head(config.network, 1), 1.0)
        cards[kept] = (tmp_path / str(kept) / "docs/README.md").read_text(encoding="utf-8")
    assert "largest connected parts are kept (at most 2)" in cards[2]
    assert "largest connected parts" not in cards[0]
    assert kept_components(read_bundle(tmp_path / "2")) == 2
    with pytest.raises(ModelError, match="keep_components is 'all'"):
        kept_components(record_fields(tmp_path / "0", {"keep_components": "all"}))
    with pytest.raises(ConfigError, match="keep_components"):
        TrainHeadConfig.from_json(fields | {"keep_components": -1})


def test_flicker_counts_changes_between_slices() -> None:
    """A label that comes and goes changes more often than a steady one of the same size."""
    steady, restless = np.zeros((8, 6, 6), np.uint8), np.zeros((8, 6, 6), np.uint8)
    steady[2:6, 1:4, 1:4] = restless[::2, 1:4, 1:4] = 3
    assert flicker(steady, steady, 3) == 1
    assert flicker(steady, restless, 3) == pytest.approx(7 * 9 / (2 * 9))
    assert flicker(steady, 0 * steady, 3) == 0
    assert flicker(np.stack([steady, steady]), np.stack([steady, restless]), 3) == 2.25
    grown = steady.copy()
    grown[2:6, 4, 4] = 3  # where it lies does not matter, only that it changes
    assert flicker(steady, grown, 3) == pytest.approx(20 / 18)
    for same in (np.full_like(steady, 3), 0 * steady, steady[3]):
        with pytest.raises(InputError, match="the same in all slices"):
            flicker(same, same, 3)
    with pytest.raises(InputError, match="one grid"):
        flicker(steady, steady[:4], 3)
