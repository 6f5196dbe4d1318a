"""Groups of similar blocks: both engines find what a search over all candidates finds."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib import native
from MedEnhanceLib.native import Array, Layer, Round, places
from MedEnhanceLib.nets.grouped import Engine

WINDOW = (7, 11, 16)
SHAPE = (10, 21, 30)
LAYER = Layer(1, 2, WINDOW, Round(step=4, keep=16))


def volume(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def match(engine: Engine, layer: Layer, pilot: Array, level: Array | None = None) -> native.Groups:
    """The groups of a whole layer."""
    level = np.full_like(pilot, 0.1) if level is None else level
    return engine.match(layer, range(layer.rows(pilot.shape[1])), pilot=pilot, level=level)


def references(layer: Layer, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(row, column) of each: every second layer, and every second row in it, is shifted."""
    return [
        (y, x)
        for row, y in enumerate(
            places(shape[1], layer.round.step, is_shifted=layer.number % 2 == 1)
        )
        for x in places(shape[2], layer.round.step, is_shifted=(row + layer.number // 2) % 2 == 1)
    ]


def brute_force(layer: Layer, pilot: Array, y: int, x: int) -> tuple[list[int], list[float]]:
    """Index and distance of one group, from all candidates in float64."""

    def block(at: tuple[int, int, int]) -> np.ndarray:
        return pilot[tuple(slice(a, a + 4) for a in at)].astype(np.float64)

    def flat(at: tuple[int, int, int]) -> int:
        return int(np.ravel_multi_index(at, pilot.shape))

    _, ny, nx = pilot.shape
    deep, wide, long = layer.window
    first_y = min(max(y - (wide - 1) // 2, 0), ny - 3 - wide)
    first_x = min(max(x - (long - 1) // 2, 0), nx - 3 - long)
    own = (layer.z, y, x)
    others = [
        (float(((block(at) - block(own)) ** 2).sum()), flat(at))
        for at in ((k, first_y + j, first_x + i) for k, j, i in np.ndindex(deep, wide, long))
        if at != own and max(abs(a - b) for a, b in zip(at, own, strict=True)) >= layer.round.apart
    ]
    group = [(0.0, flat(own)), *sorted(others)][: layer.round.keep]
    group += [(0.0, flat(own))] * (layer.round.keep - len(group))
    return [index for _, index in group], [distance for distance, _ in group]


@pytest.mark.parametrize(
    ("window", "keep", "apart", "step"),
    [(WINDOW, 16, 0, 4), (WINDOW, 33, 4, 4), ((3, 5, 6), 64, 3, 3), ((1, 11, 16), 1, 0, 4)],
)
def test_a_group_has_the_nearest_of_all_candidates(
    engine: Engine, window: tuple[int, int, int], keep: int, apart: int, step: int
) -> None:
    pilot = volume((window[0] + 3, *SHAPE[1:]))
    layer = Layer(3, window[0] // 2, window, Round(step=step, keep=keep, apart=apart))
    groups = match(engine, layer, pilot)
    expected = [brute_force(layer, pilot, *at) for at in references(layer, pilot.shape)]
    assert groups.index.dtype == np.int32 and groups.distance.dtype == np.float32
    assert groups.index.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(groups.distance, [d for _, d in expected], rtol=1e-5)
    assert not groups.distance[:, 0].any()


def test_references_without_noise_have_no_group(engine: Engine) -> None:
    level = np.linspace(0.1, 0.2, np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    level[:, :, :15] = 0
    groups = match(engine, LAYER, volume(), level)
    z, y, x = np.unravel_index(groups.index[:, 0], SHAPE)
    noisy = [at for at in references(LAYER, SHAPE) if at[1] + 1 >= 15]
    assert list(zip(y.tolist(), x.tolist(), strict=True)) == noisy
    assert set(z.tolist()) == {LAYER.z}
    assert np.array_equal(groups.level, level[z + 1, y + 1, x + 1])
    assert match(engine, LAYER, volume(), np.zeros(SHAPE, np.float32)).index.shape == (0, 16)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("step", [1, 3, 4])
def test_rows_and_columns_of_all_sizes_are_complete(
    library: native.Library, number: int, step: int
) -> None:
    for side in range(4, 20):
        layer = Layer(number, 0, (1, 1, 1), Round(step=step, keep=2))
        for shape in ((4, 9, side), (4, side, 9)):
            groups = match(library, layer, volume(shape))
            _, y, x = np.unravel_index(groups.index[:, 0], shape)
            assert list(zip(y.tolist(), x.tolist(), strict=True)) == references(layer, shape)
