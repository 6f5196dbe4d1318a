"""Sequences whose frames differ in contrast: their noise, and the bias that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError

SIGMA = 20.0
_Z, _Y, _X = np.meshgrid(*(np.linspace(-1, 1, n) for n in (8, 48, 48)), indexing="ij")
_RADIUS = np.sqrt((_X / 0.8) ** 2 + (_Y / 0.85) ** 2 + (_Z / 1.2) ** 2)
_FIRST = (900, 600, 200)


def _truth(tissues: Sequence[float]) -> Floats:
    """Three tissues with detail, in air."""
    waves = 1 + np.sin(7 * _X) * np.cos(5 * _Y) / 15
    inner, middle, outer = tissues
    shells = np.select([_RADIUS < 0.6, _RADIUS < 0.85, _RADIUS < 1], [inner, middle, outer], 0)
    return np.float32(shells * waves)


def _series(frames: Sequence[Floats], kind: str = "") -> Volume:
    """Magnitudes of frames with noise."""
    rng = np.random.default_rng(2)
    real, imaginary = SIGMA * rng.standard_normal((2, len(frames), *_X.shape), np.float32)
    voxels = np.hypot(np.stack(frames) + real, imaginary)
    return replace(Volume.from_array(voxels, spacing=(2, 2, 3), modality="MR"), sequence_kind=kind)


def _echoes(count: int) -> list[Floats]:
    decay = [[a * np.exp(-6 * n / t2) for a, t2 in zip(_FIRST, (45, 70, 20), strict=True)]
             for n in range(count)]  # fmt: skip
    return [*map(_truth, decay)]


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        ([_truth(_FIRST), _truth((405, 300, 30))], "diffusion"),
        ([_truth(_FIRST), _truth((405, 300, 30))], ""),
        (_echoes(2), "echoes"),
        (_echoes(3), ""),
        (_echoes(5), "echoes"),
        ([np.roll(_truth(_FIRST), n, axis=2) for n in range(3)], ""),
        ([_truth(_FIRST), _truth((450, 300, 100))], ""),
    ],
    ids=["b-values", "no kind", "2 echoes", "3 echoes", "5 echoes", "movement", "gain"],
)
def test_contrast_is_not_taken_for_noise(frames: list[Floats], kind: str) -> None:
    noise = me.measure_noise(_series(frames, kind))
    low, high = noise.interval
    assert low * 0.95 <= SIGMA <= high * 1.05
    assert noise.sigma < 1.1 * SIGMA


@pytest.mark.parametrize("drift", [0.0, 0.01])
@pytest.mark.parametrize("contrasts", [1, 2, 3])
def test_frames_whose_contrasts_take_turns_are_compared_with_those_alike(
    contrasts: int, drift: float
) -> None:
    tissues = (_FIRST, (675, 480, 160), (700, 300, 190))
    frames = [_truth(tissues[n % contrasts]) * (1 + drift * n) for n in range(9)]
    noise = me.measure_noise(_series(frames))
    assert noise.sigma == pytest.approx(SIGMA, rel=0.04)
    assert noise.interval[1] < 1.1 * noise.interval[0]


def test_frames_of_falling_signal_are_corrected_for_the_bias_of_their_noise_alike() -> None:
    levels = np.linspace(4.5, 2, 8) * SIGMA  # about three times the noise is where it was lost
    frames = [_truth((level, 0.8 * level, 0.9 * level)) for level in levels]
    result = me.enhance(_series(frames, "echoes"), progress=False)
    assert result.measured["sequence"]["images"] > 0  # filtered together
    inside = _RADIUS < 0.8
    errors = [
        float((after - truth)[inside].mean()) / SIGMA
        for after, truth in zip(result.volume.voxels, frames, strict=True)
    ]
    assert max(map(abs, np.diff(errors))) < 0.06
    assert max(map(abs, errors)) < 0.1


@pytest.mark.parametrize(("snr", "way"), [(1.5, "joint"), (2.5, "each")])
def test_alike_frames_are_corrected_for_the_bias_however_weak(snr: float, way: str) -> None:
    level = snr * SIGMA
    truth = _truth((level, 0.8 * level, 0.9 * level))
    result = me.enhance(_series([truth] * 8, "functional"), sequence=way, progress=False)
    error = float((result.volume.voxels - truth)[:, _RADIUS < 0.8].mean()) / SIGMA
    assert abs(error) < 0.1  # without a correction .43 and .25


def test_bias_that_stays_is_stated_and_goes_on_request() -> None:
    weak = [_truth((level, level, level)) for level in (8 * SIGMA, *[2.5 * SIGMA] * 7)]
    noisy = _series(weak, "diffusion")
    masked = noisy.with_voxels(noisy.voxels * (_RADIUS < 1))  # the background shows no noise
    inside, errors = _RADIUS < 0.8, []
    for is_requested, said in ((False, "it is at most 0.2"), (True, "on request, by 0.2")):
        result = me.enhance(masked, rician=is_requested, progress=False)
        errors.append((result.volume.voxels - np.stack(weak))[1:, inside].mean() / SIGMA)
        assert sum(said in line for line in result.findings) == 1
    assert errors[0] > 0.18 and abs(errors[1]) < 0.06
    with pytest.raises(InputError, match="magnitudes"):
        me.enhance(replace(masked, modality="CT", units="HU"), rician=True, progress=False)
