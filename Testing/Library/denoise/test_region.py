"""A region of slices: the voxels of a whole run, for the work that the region needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.filters.block_matching import CT_ROUNDS, BlockMatchingFilter
from MedEnhanceLib.filters.layers import Layer, LayerArrays, Round
from MedEnhanceLib.filters.native_engine import NativeEngine

SHAPE = (5, 104, 112)


def _scan(modality: str = "MR", shape: tuple[int, ...] = SHAPE) -> Volume:
    """A small head in noisy air, with a border of padding; or a body, in HU."""
    j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape[1:]), indexing="ij")
    plane = np.where(np.hypot(j, i) < 0.5, 500 + 200 * np.sin(9 * j) * np.cos(7 * i), 0)
    noise = np.random.default_rng(0).normal(0, 30, (2, *shape))
    if modality == "MR":
        voxels = np.hypot(plane + noise[0], noise[1])
        voxels[:, 70:80] = 0
    else:
        voxels = np.where(plane > 0, plane - 450, -1000) + noise[0]
    return Volume(voxels.astype(np.float32), Geometry((1, 1, 2)), modality=modality)


def _enhanced(volume: Volume, **fields: Any) -> Any:
    part = {name: fields.pop(name) for name in ("slices", "rows", "columns") if name in fields}
    options = {"strength": "full"} | fields
    return enhance(volume, EnhanceConfig(**options), **part)


def _filtered(engine: NativeEngine, **fields: Any) -> BlockMatchingFilter:
    noisy = np.random.default_rng(0).normal(100, 10, (12, 150, 160)).astype(np.float32)
    level = np.broadcast_to(np.float32(10), noisy.shape)
    return BlockMatchingFilter(noisy, level, engine=engine, threads=1, **fields)


def _region_of(filtered: BlockMatchingFilter, *region: slice) -> Floats:
    with filtered.run(slice(5, 6), region) as run:  # type: ignore[arg-type]
        return np.concatenate([run.finished(slab)[1] for slab in run.slabs()])


@pytest.fixture
def engine() -> CountingEngine:
    library = native.load()
    assert library is not None
    return CountingEngine(library)


class CountingEngine(NativeEngine):
    """Counts the references that get groups, by stage."""

    def __init__(self, library: native.Library) -> None:
        super().__init__(library)
        self.pixels: Counter[str] = Counter()
        self.bands: Counter[str] = Counter()

    def run(self, stage: Any, layer: Layer, rows: range, arrays: LayerArrays) -> None:
        """Filter and count."""
        if rows.start == 0 or not self.pixels[f"{stage} {layer.number}"]:
            self.pixels[f"{stage} {layer.number}"] = int((arrays.level[layer.z + 1] > 0).sum())
        self.bands[stage] += 1
        super().run(stage, layer, rows, arrays)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 3, 1), (3, 1, 1)])
def test_a_region_has_the_bits_of_the_whole_wherever_it_is(
    engine: CountingEngine, spacing: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = {"threshold": 4000, "grouped": 500}
    monkeypatch.setattr("MedEnhanceLib.filters.block_matching_run.REFERENCES_IN_BAND", bands)
    rounds = (Round(step=4, keep=6, apart=4), Round(step=3, keep=6))
    filtered = _filtered(engine, rounds=rounds, spacing=spacing)
    whole = _region_of(filtered, slice(None), slice(None))
    assert whole.shape == (1, 150, 160)
    for rows, columns in [(0, 0), (1, 30), (14, 15), (61, 80), (137, 122), (149, 159)]:
        region = slice(rows, min(150, rows + 11)), slice(columns, min(160, columns + 7))
        assert np.array_equal(_region_of(filtered, *region), whole[:, *region]), (rows, columns)


def test_only_references_that_the_region_depends_on_get_groups(engine: CountingEngine) -> None:
    filtered = _filtered(engine, rounds=CT_ROUNDS[1:])
    _region_of(filtered, slice(70, 80), slice(70, 80))
    pixels = {name: count for name, count in engine.pixels.items() if name.startswith("grouped")}
    # Blocks of 4 voxels, up to 5 rows and 8 columns from their references.
    assert set(pixels.values()) == {(10 + 2 * 7) * (10 + 2 * 10)}
    some = Counter(engine.bands)
    _region_of(filtered, slice(None), slice(None))
    whole = engine.bands - some
    assert some["grouped"] <= whole["grouped"]
    assert max(engine.pixels.values()) == 150 * 160


def test_a_region_lies_in_the_stored_order_of_voxels() -> None:
    volume = _scan(shape=(5, 60, 44))
    turned = replace(
        volume,
        voxels=np.ascontiguousarray(volume.voxels[::-1, :, ::-1].swapaxes(1, 2)),
        geometry=Geometry((1, 1, 2), direction=((0, -1, 0), (1, 0, 0), (0, 0, -1))),
    )
    whole = _enhanced(turned, slices=(1, 3)).volume.voxels
    part = _enhanced(turned, slices=(1, 3), rows=(3, 8), columns=(40, 60)).volume.voxels
    assert turned.geometry.turn.axes == (0, 2, 1)
    assert np.array_equal(part, whole[:, 3:8, 40:60])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rows": (0, 5)}, "previews of slices"),
        ({"slices": (0, 1), "rows": (0, 5), "uncertainty": True}, "without uncertainty"),
        ({"slices": (0, 1), "columns": (5, 113)}, "volume's 112 columns"),
        ({"slices": (0, 1), "rows": (5, 5)}, "rows 5:5"),
    ],
)
def test_what_a_region_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _enhanced(_scan(), **fields)
