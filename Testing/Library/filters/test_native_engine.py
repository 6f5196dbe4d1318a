"""Arrays and layers that do not fit never reach C."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib import native
from MedEnhanceLib.filters.layers import Layer, LayerArrays, Round
from MedEnhanceLib.filters.native_engine import NativeEngine


def _arrays(deep: int = 7) -> LayerArrays:
    slab, block = np.zeros((deep + 3, 16, 24), np.float32), np.ones(64, np.float32)
    total, weight = slab.copy(), slab[:deep].copy()
    return LayerArrays(slab + 1, slab + 1, slab + 1, slab + 0.1, block, total, weight)


LAYER = Layer(number=0, z=3, window=(7, 11, 16), round=Round(step=4, keep=8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noisy": np.ones((10, 16, 24))}, "float64"),
        ({"pilot": np.ones((10, 16, 23), np.float32)}, "pilot is"),
        ({"level": np.ones((10, 16, 48), np.float32)[:, :, ::2]}, "level must be contiguous"),
        ({"spectrum": np.ones(63, np.float32)}, "spectrum"),
        ({"weight": np.zeros((8, 16, 24), np.float32)}, "weight"),
    ],
)
def test_arrays_that_do_not_fit_never_reach_c(
    native_path: Path, change: dict, message: str
) -> None:
    engine, arrays = NativeEngine(native.Library(native_path)), _arrays()
    engine.run("grouped", LAYER, range(2), arrays)
    with pytest.raises(ValueError, match=message):
        engine.run("grouped", LAYER, range(2), replace(arrays, **change))
    arrays.total.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        engine.run("grouped", LAYER, range(2), arrays)


@pytest.mark.parametrize(
    "change",
    [{"z": 7}, {"z": -1}, {"window": (7, 14, 16)}, {"window": (0, 1, 1)}, {"step": 5}, {"step": 0},
     {"keep": 65}, {"keep": 0}, {"apart": -1}, {"damp": 0.0}, {"damp": np.nan}, {"number": -1}],
    ids=str,
)  # fmt: skip
def test_layers_out_of_range_are_refused(native_path: Path, change: dict) -> None:
    of_round = {key: value for key, value in change.items() if hasattr(LAYER.round, key)}
    of_layer = {key: value for key, value in change.items() if key not in of_round}
    layer = replace(LAYER, round=replace(LAYER.round, **of_round), **of_layer)
    arrays = _arrays(deep=layer.window[0])
    with pytest.raises(ValueError, match="refuses its arguments"):
        NativeEngine(native.Library(native_path)).run("grouped", layer, range(2), arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["noisy", "pilot", "level"])
def test_values_that_are_no_numbers_do_not_crash(
    native_path: Path, name: str, value: float
) -> None:
    arrays, threshold = _arrays(), Layer(0, 0, (1, 1, 1), Round(step=2, keep=1, damp=2.7))
    getattr(arrays, name)[...] = value
    for width in native.Library(native_path).widths:
        engine = NativeEngine(native.Library(native_path, width))
        engine.run("grouped", LAYER, range(2), arrays)
        engine.run("threshold", threshold, range(2), _arrays(deep=1))
