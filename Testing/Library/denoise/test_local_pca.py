"""Series keep what a tensor does not explain; nothing jumps with the noise that is stated."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from MedEnhanceLib import denoise
from MedEnhanceLib.core.arrays import Doubles, Floats
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig

_SIGMA, _DIRECTIONS, _SHAPE = 150.0, 20, (7, 24, 24)


@cache
def _diffusion() -> tuple[Floats, Floats, Doubles, Volume]:
    """Make two b = 0 and directions of crossing fibers, whose angles differ from place to place.

    Returns the truth, the tissue, the rest that a tensor leaves of directions, and the series.
    """
    up = (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS
    turn = np.pi * (3 - 5**0.5) * np.arange(_DIRECTIONS)
    flat = np.sqrt(1 - up**2)
    ways = np.stack([flat * np.cos(turn), flat * np.sin(turn), up], axis=1)
    _, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in _SHAPE), indexing="ij")
    tissue = np.hypot(j, i) < 0.9
    rng = np.random.default_rng(7)
    cells = rng.normal(0, 1, (2, 3, 6, 6, 3))
    fibers = (cells / np.linalg.norm(cells, axis=-1, keepdims=True)).repeat(3, 1)[:, : _SHAPE[0]]
    fibers = fibers.repeat(4, 2).repeat(4, 3)
    signal = sum(450 * np.exp(-2.5 * np.square(fiber @ ways.T)) for fiber in fibers)
    frames = np.stack([np.full(_SHAPE, 900.0)] * 2 + list(np.moveaxis(signal, -1, 0)))
    truth = (frames * tissue).astype(np.float32)
    first, second = rng.normal(0, _SIGMA, (2, *truth.shape))
    gradients = [Gradient(0.0)] * 2 + [Gradient(2000.0, (x, y, z)) for x, y, z in ways.tolist()]
    voxels = np.hypot(truth + first, second).astype(np.float32)
    x, y, z = ways.T
    design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    rest = np.eye(_DIRECTIONS) - design @ np.linalg.pinv(design)
    series = Volume(voxels, Geometry((2.0, 2.0, 2.0)), modality="MR", gradients=tuple(gradients))
    return truth, tissue, rest, series


def _enhanced(volume: Volume, slices: tuple[int, int] | None = None, **options: object) -> Floats:
    config = EnhanceConfig(device="cpu", **{"noise": _SIGMA, **options})
    return denoise.enhance(volume, config, slices=slices).volume.voxels


def _kept(frames: Floats) -> float:
    """The share of the true rest that is in frames, by its covariance with it."""
    truth, tissue, rest, _ = _diffusion()
    result, true = (rest @ each[2:, tissue] for each in (frames, truth))
    return float((result * true).sum() / np.square(true).sum())


def _left(frames: Floats) -> float:
    truth, tissue, _, noisy = _diffusion()
    errors = [(each - truth)[:, tissue].std() for each in (frames, noisy.voxels)]
    return float(errors[0] / errors[1])


def test_what_a_tensor_leaves_is_kept_and_noise_is_not() -> None:
    series = _diffusion()[-1]
    result = _enhanced(series)
    assert _kept(result) > 0.52  # images of the whole volume alone keep .44
    assert _left(result) < 0.44
    unknown = _enhanced(replace(series, gradients=()), sequence="joint")
    assert 0.46 < _kept(unknown) < _kept(result)  # the mean of both
    assert _left(unknown) < 0.47


def test_some_slices_equal_those_of_the_whole() -> None:
    series = _diffusion()[-1]
    whole = _enhanced(series)
    for slices in ((0, 1), (2, 5), (6, 7)):
        assert np.array_equal(_enhanced(series, slices), whole[:, slice(*slices)])


def test_no_step_of_the_stated_noise_changes_much_and_none_ends_the_joint_filter() -> None:
    _, tissue, _, series = _diffusion()
    results = []
    for factor in (0.6, 0.8, 1.0, 1.2, 1.4):
        result = denoise.enhance(series, EnhanceConfig(device="cpu", noise=factor * _SIGMA))
        assert "reason" not in result.measured["sequence"]
        results.append(result.volume.voxels[:, tissue])
    steps = [float((b - a).std()) / _SIGMA for a, b in pairwise(results)]
    assert max(steps) < 0.32  # frames that are filtered each alone differ by .4


@pytest.mark.parametrize("part", [slice(0, 3), slice(4, 5)])
def test_thin_series_have_windows_too(part: slice) -> None:
    truth, tissue, _, series = _diffusion()
    result = _enhanced(series.crop(k=part))
    pair = (each[:, part][:, tissue[part]] for each in (truth, series.voxels))
    true, noisy = pair
    assert (result[:, tissue[part]] - true).std() < 0.6 * (noisy - true).std()
