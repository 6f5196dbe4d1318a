"""The block-matching filter: what it removes and keeps; slabs, threads, engines agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib import native
from MedEnhanceLib.core import arrays
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.filters import block_matching_run
from MedEnhanceLib.filters.block_matching import (
    CT_ROUNDS,
    MR_ROUNDS,
    BlockMatchingFilter,
    Engine,
    Round,
    window_for,
)
from MedEnhanceLib.filters.layers import BlockGroups, Layer, places
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.filters.regions import Air
from MedEnhanceLib.filters.tensor_run import TensorRun
from MedEnhanceLib.filters.torch_engine import COSINES, TorchEngine
from MedEnhanceLib.noise.estimate import measure_noise

SIGMA = np.float32(0.1)
#: Largest difference between C and PyTorch, in σ: float32 rounding of sums of 32 blocks.
AGREE = 1e-4


@pytest.fixture
def library(native_path: Path) -> NativeEngine:
    return NativeEngine(native.Library(native_path))


@pytest.fixture(params=["compiled", "pytorch"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return TorchEngine() if request.param == "pytorch" else request.getfixturevalue("library")


def phantom(*shape: int) -> np.ndarray:
    """Rings around an axis that leans: edges in all directions, and much that repeats."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    radius = np.hypot(j - shape[1] / 2 + 0.3 * k, i - shape[2] / 2)
    return (0.5 + 0.4 * np.sign(np.sin(radius / 3))).astype(np.float32)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, SIGMA, shape).astype(np.float32)


def flat(values: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    return np.full_like(values, sigma)


def error(image: np.ndarray, clean: np.ndarray) -> float:
    return float(np.sqrt(np.mean((image - clean) ** 2)))


@pytest.mark.parametrize(
    ("rounds", "spacing"),
    [
        (MR_ROUNDS[:1], (1, 1, 1)),
        (CT_ROUNDS, (1, 1, 1)),
        ((Round(step=3, keep=60),), (1, 1, 1)),
        ((Round(step=3, keep=7),), (1, 1, 4)),
        (MR_ROUNDS[:1], (1, 4, 1)),
        (MR_ROUNDS[:1], (4, 1, 1)),
    ],
    ids=str,
)
def test_c_and_pytorch_agree(library, rounds: tuple, spacing: tuple) -> None:
    clean = phantom(9, 22, 27)
    noisy, level = clean + noise(*clean.shape), flat(clean)
    level[:, :11] *= 0.5
    spectrum = np.linspace(0.2, 1.8, 64)
    ours, other = (
        BlockMatchingFilter(
            noisy, level, spectrum, rounds=rounds, spacing=spacing, engine=engine, threads=1
        ).denoised()
        for engine in (library, TorchEngine())
    )
    assert np.abs(ours - other).max() < AGREE * SIGMA


def test_every_width_with_fused_sums_gives_the_same_bits(library, native_path: Path) -> None:
    noisy = phantom(8, 24, 30) + noise(8, 24, 30)
    plain, *fused = (
        BlockMatchingFilter(
            noisy, flat(noisy), engine=NativeEngine(native.Library(native_path, width)), threads=1
        ).denoised()
        for width in library.library.widths
    )
    for result in fused:
        assert np.array_equal(result, fused[0])
        assert np.abs(result - plain).max() < AGREE * SIGMA


def test_threads_and_slabs_change_no_bit(engine, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = phantom(15, 16, 20) + noise(15, 16, 20)
    rounds = (Round(step=4, keep=8), Round(step=3, keep=8))
    monkeypatch.setattr(block_matching_run, "REFERENCES_IN_BAND", {"threshold": 30, "grouped": 7})
    one = BlockMatchingFilter(
        noisy, flat(noisy), rounds=rounds, engine=engine, threads=1
    ).denoised()
    monkeypatch.setattr(arrays, "SLICES_AT_ONCE", 3)
    three = BlockMatchingFilter(
        noisy, flat(noisy), rounds=rounds, engine=engine, threads=3
    ).denoised()
    assert np.array_equal(one, three)


@pytest.mark.parametrize("shape", [(1, 24, 24), (2, 24, 24), (3, 24, 24), (12, 3, 24), (12, 24, 2),
                                   (4, 4, 4), (1, 1, 1), (5, 6, 70)])  # fmt: skip
def test_small_and_thin_volumes(engine, shape: tuple[int, ...]) -> None:
    noisy = 1 + noise(*shape)
    rounds = (Round(step=4),)
    result = BlockMatchingFilter(
        noisy, flat(noisy), rounds=rounds, engine=engine, threads=1
    ).denoised()
    assert result.shape == shape and np.isfinite(result).all()
    if noisy.size > 500:
        assert (result - 1).std() < 0.5 * SIGMA


def test_without_noise_nothing_changes(engine) -> None:
    noisy = phantom(6, 20, 20) + noise(6, 20, 20)
    level = flat(noisy)
    level[:, :, :9] = 0
    assert np.array_equal(
        BlockMatchingFilter(noisy, flat(noisy, 0), engine=engine, threads=1).denoised(), noisy
    )
    mixed = BlockMatchingFilter(
        noisy, level, rounds=MR_ROUNDS[:1], engine=engine, threads=1
    ).denoised()
    assert np.array_equal(mixed[:, :, :9], noisy[:, :, :9])
    assert not np.array_equal(mixed[:, :, 9:], noisy[:, :, 9:])


def test_pytorch_prepares_each_slice_of_the_input_once(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, prepared = 1 + noise(150, 8, 12), Counter[int]()
    whole = TensorRun._input_of

    def counted(run: TensorRun, z: int) -> object:
        prepared[z] += 1
        return whole(run, z)

    monkeypatch.setattr(TensorRun, "_input_of", counted)
    BlockMatchingFilter(noisy, flat(noisy), engine=TorchEngine()).denoised()
    assert prepared == Counter(range(150))


@pytest.mark.parametrize("part", [slice(0, 1), slice(6, 8), slice(14, 15)])
def test_some_slices_equal_those_of_the_whole(engine: Engine, part: slice) -> None:
    noisy = phantom(15, 16, 20) + noise(15, 16, 20)
    air = Air(noisy, mean=0.4, largest=2.0)
    part_of = BlockMatchingFilter(noisy, flat(noisy), rounds=CT_ROUNDS, engine=engine, air=air)
    whole = part_of.denoised()
    with part_of.run(part) as run:
        some = [run.finished(slab)[1].voxels for slab in run.ahead(run.slabs())]
    assert np.array_equal(np.concatenate(some), whole[part])


def test_pytorch_has_the_same_map_of_noise() -> None:
    noisy = noise(20, 44, 40)
    cells = 1 + np.random.default_rng(0).random((3, 4, 1), np.float32)
    estimate = replace(measure_noise(noisy, modality="MR"), sigma=cells, cell=(7.5, 11, 40))
    with BlockMatchingFilter(noisy, estimate, engine=TorchEngine()).run() as run:
        np.testing.assert_allclose(run.level(slice(3, 9)), estimate[3:9], rtol=1e-6)


def test_a_known_spectrum_removes_more_than_white(library) -> None:
    clean = phantom(8, 32, 32)
    smooth = noise(8, 33, 33)
    smooth = (smooth[:, 1:, 1:] + smooth[:, :-1, 1:] + smooth[:, 1:, :-1] + smooth[:, :-1, :-1]) / 2
    blocks = np.lib.stride_tricks.sliding_window_view(smooth, (4, 4, 4)).reshape(-1, 64)
    atoms = COSINES.numpy()
    spectrum = ((blocks @ atoms.T) ** 2).mean(axis=0) / SIGMA**2
    known, white = (
        BlockMatchingFilter(
            clean + smooth, flat(clean), s, rounds=CT_ROUNDS, engine=library, threads=1
        ).denoised()
        for s in (spectrum, None)
    )
    assert error(known, clean) < 0.9 * error(white, clean)


def test_less_is_searched_along_thick_slices() -> None:
    assert window_for((1, 1, 1)) == native.MOST_WINDOW
    assert window_for((1, 1, 3.3)) == (3, 11, 16)
    assert window_for((0.5, 0.5, 5)) == (3, 11, 16)
    assert window_for((4, 1, 1)) == (7, 11, 6)


WINDOW = (7, 11, 16)


def match(engine: Engine, layer: Layer, pilot: Floats) -> BlockGroups:
    """The groups of a whole layer."""
    return engine.match(layer, range(layer.rows(pilot.shape[1])), pilot=pilot, level=flat(pilot))


def references(layer: Layer, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(row, column) of each: every second layer, and every second row in it, is shifted."""
    return [
        (y, x)
        for row, y in enumerate(
            places(shape[1], layer.round.step, is_shifted=layer.number % 2 == 1)
        )
        for x in places(shape[2], layer.round.step, is_shifted=(row + layer.number // 2) % 2 == 1)
    ]


def brute_force(layer: Layer, pilot: Floats, y: int, x: int) -> tuple[list[int], list[float]]:
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
    pilot = noise(window[0] + 3, 21, 30)
    layer = Layer(3, window[0] // 2, window, Round(step=step, keep=keep, apart=apart))
    groups = match(engine, layer, pilot)
    expected = [brute_force(layer, pilot, *at) for at in references(layer, pilot.shape)]
    assert groups.index.dtype == np.int32 and groups.distance.dtype == np.float32
    assert groups.index.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(groups.distance, [d for _, d in expected], rtol=1e-5)
    assert not groups.distance[:, 0].any()


def test_of_equally_near_blocks_the_first_are_in_the_group(library: NativeEngine) -> None:
    pilot = np.sign(noise(10, 15, 24))
    pilot[:, :, :15] = 0  # hundreds of equal blocks
    layer = Layer(3, 3, WINDOW, Round(step=4, keep=48))
    expected = [brute_force(layer, pilot, *at)[0] for at in references(layer, pilot.shape)]
    assert match(library, layer, pilot).index.tolist() == expected


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("step", [1, 3, 4])
def test_rows_and_columns_of_all_sizes_are_complete(engine: Engine, number: int, step: int) -> None:
    for side in range(4, 13):
        layer = Layer(number, 0, (1, 1, 1), Round(step=step, keep=2))
        for shape in ((4, 9, side), (4, side, 9)):
            groups = match(engine, layer, noise(*shape))
            _, y, x = np.unravel_index(groups.index[:, 0], shape)
            assert list(zip(y.tolist(), x.tolist(), strict=True)) == references(layer, shape)
