"""Faint lesions in CT: what is given back of what was removed, and what a result states of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from Library.denoise.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib import io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.denoise.removal import LesionBand
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.jobs import JobSpec, run_job

SHAPE = (11, 64, 64)
#: Radius of the lesions in mm, and their contrast in HU: half of σ.
_RADIUS, _CONTRAST = 3.0, 20.0
_SIGMA = 40.0


def _body(spacing: tuple[float, float, float]) -> tuple[Volume, Volume, npt.NDArray[np.bool_]]:
    """A body with noise, the same with four faint lesions, and where these are."""
    rng = np.random.default_rng(5)
    k, j, i = (
        (np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, spacing[::-1], strict=True)
    )
    j, i = j[:, None], i[None]
    inside = np.hypot(j / j.max(), i / i.max()) < 0.95
    noise = gaussian_blur(rng.normal(0, 1, SHAPE), 0.6)
    scan = np.where(inside, 50 + 30 * np.sin(i / 9), -1000) + noise * _SIGMA / noise.std()
    far = [sign * SHAPE[1] / 4.5 for sign in (-1, 1)]
    lesions = np.zeros(SHAPE, bool)
    for row in far:
        for column in far:
            plane = np.square(j - row * spacing[1]) + np.square(i - column * spacing[0])
            lesions |= np.square(k)[:, None, None] + plane < _RADIUS**2
    volumes = [
        Volume(voxels.astype(np.float32), Geometry(spacing), modality="CT", units="HU")
        for voxels in (scan, scan + _CONTRAST * lesions)
    ]
    return volumes[0], volumes[1], lesions


@cache
def _scan() -> Volume:
    return _body((0.8, 0.8, 2.0))[0]


@cache
def _enhanced(**options: Any) -> Enhanced:
    return me.enhance(_scan(), device="cpu", **options)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 2.0), (1.4, 0.7, 5.0), (0.5, 0.5, 0.6)])
def test_faint_lesions_keep_most_of_their_contrast(
    spacing: tuple[float, float, float],
) -> None:
    without, with_lesions, lesions = _body(spacing)
    kept, left = {}, {}
    for smooth in (False, True):
        results = [
            me.enhance(each, device="cpu", noise=_SIGMA, for_viewing=smooth).volume.voxels
            for each in (without, with_lesions)
        ]
        kept[smooth] = (results[1] - results[0])[lesions].mean() / _CONTRAST
        change = results[0] - without.voxels
        left[smooth] = change[:, 20:44, 20:44].std() / _SIGMA
    assert kept[False] > max(0.55, kept[True])
    assert 0.4 < left[False] < left[True]  # about half of the noise is removed all the same


def _given_back(removed: Any, sigma_px: tuple[float, float]) -> Any:
    return 0.4 * removed + 0.6 * gaussian_blur(removed, sigma_px)


def test_what_is_given_back_is_two_fifths_and_all_below_a_gaussian() -> None:
    """A Gaussian of 1.5 mm, whatever the pixels are."""
    scan = _body((1.4, 0.7, 3.0))[0]
    smooth, default = (me.enhance(scan, device="cpu", for_viewing=each) for each in (True, False))
    removed = scan.voxels - smooth.volume.voxels
    expected = smooth.volume.voxels + _given_back(removed, (1.5 / 0.7, 1.5 / 1.4))
    assert np.allclose(default.volume.voxels, expected, atol=0.01)
    assert smooth.measured["noise"]["sigma"] == default.measured["noise"]["sigma"]


def test_noise_that_stays_has_the_texture_of_the_input() -> None:
    """Mean frequency of noise in a slice, of a soft kernel: with low frequencies alone, blobs."""

    def mean_frequency(voxels: Any) -> float:
        noise = (voxels[4:] - voxels[:-4])[:, 16:48, 16:48] * np.hanning(32)[:, None]
        power = np.square(np.abs(np.fft.fft2(noise * np.hanning(32)))).mean(axis=0)
        frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32))
        return float((frequency * power).sum() / power.sum())

    before, after = _scan().voxels, _enhanced().volume.voxels
    smooth = _enhanced(for_viewing=True).volume.voxels
    blobs = smooth + gaussian_blur(before - smooth, (1.5 / 0.8, 1.5 / 0.8))
    assert mean_frequency(after) > 0.65 * mean_frequency(before)
    assert mean_frequency(blobs) < 0.55 * mean_frequency(before)


@pytest.mark.parametrize("part", [(0, 1), (4, 6)])
def test_slices_of_a_preview_are_those_of_a_whole_run_bit_for_bit(part: tuple[int, int]) -> None:
    from MedEnhanceLib.denoise import EnhanceConfig, enhance

    for uncertainty in (False, True):
        config = EnhanceConfig(device="cpu", uncertainty=uncertainty)
        crop, whole = enhance(_scan(), config, slices=part), _enhanced(uncertainty=uncertainty)
        where = slice(*part)
        assert np.array_equal(crop.volume.voxels, whole.volume.voxels[where])
        if crop.uncertainty is not None and whole.uncertainty is not None:
            assert np.array_equal(crop.uncertainty.voxels, whole.uncertainty.voxels[where])


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 3.0), (1.4, 0.7, 3.0), (0.98, 0.98, 0.6)])
def test_the_share_that_is_stated_is_that_of_the_noise_in_the_band(
    spacing: tuple[float, float, float],
) -> None:
    """Of simulated low-dose noise, from the blocks in which spectra are measured."""
    from MedEnhanceLib.noise.tissue_blocks import cosines

    flat = np.zeros((16, 128, 128), np.float32)
    noise = low_dose_noise(flat, spacing, 5e3, 5.0, np.random.default_rng(2))[:, 16:112, 16:112]
    blocks = noise.reshape(4, 4, 24, 4, 24, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 64)
    spectrum = np.square(blocks @ cosines(4).T).mean(0).reshape(4, 4, 4)
    band = LesionBand.on(spacing)
    assert band is not None
    assert band.share_of(spectrum) == pytest.approx(band.of(noise).std() / noise.std(), rel=0.15)
    assert band.share_of(np.zeros((4, 4, 4), np.float32)) == 1


def test_images_of_specimens_have_no_band() -> None:
    fine = replace(_scan(), geometry=Geometry((0.05, 0.05, 0.05)))
    results = [
        me.enhance(fine, device="cpu", noise=_SIGMA, for_viewing=each) for each in (False, True)
    ]
    assert results[0].volume.is_equal(results[1].volume)
    assert "share_given_back" not in results[0].measured["noise"]


def test_the_uncertainty_counts_the_noise_that_is_given_back() -> None:
    default, smooth = _enhanced(uncertainty=True), _enhanced(uncertainty=True, for_viewing=True)
    facts = default.measured["noise"]
    assert default.uncertainty is not None and smooth.uncertainty is not None
    inside = slice(None), slice(20, 44), slice(20, 44)
    added = np.square(default.uncertainty.voxels[inside]).mean()
    added -= np.square(smooth.uncertainty.voxels[inside]).mean()
    assert np.sqrt(added) >= 0.9 * facts["share_given_back"] * facts["sigma"]
    truth = 50 + 30 * np.sin((np.arange(64) - 31.5) * 0.8 / 9)[20:44]
    error = np.abs(default.volume.voxels[inside] - truth)
    assert 0.8 < np.mean(error < 1.645 * default.uncertainty.voxels[inside]) < 0.99


def test_a_result_says_how_much_stays_and_smooth_says_what_is_lost() -> None:
    default, smooth = _enhanced(), _enhanced(for_viewing=True)
    share = default.measured["noise"]["share_given_back"]
    assert 0.4 < share < 0.6 and "share_given_back" not in smooth.measured["noise"]
    because = "because small lesions lie in the low frequencies, which stay, as do 40 % of the rest"
    text = f"filtered: {100 * (1 - share):.0f} %, {because}"
    assert text in default.findings[1] and "filtered: 100 %" in smooth.findings[1]
    assert text in default.volume.history[-1]
    half = default.at_strength(0.5)
    assert f"filtered: {50 * (1 - share):.0f} %" in half.findings[1]
    limits = [each.report["results"]["limits"] for each in (default, smooth)]
    assert limits[0][0].startswith("noise of low frequency stays, as blobs that look like small")
    assert limits[1][0].startswith("small faint lesions disappear")
    stated = [each.report["config"]["for_viewing"] for each in (default, smooth)]
    assert stated == [False, True]


@pytest.mark.parametrize("options", [{"noise": 30.0}, {"strength": 0.5}])
def test_stated_noise_and_other_strengths_give_back_the_same_band(options: dict[str, Any]) -> None:
    default, smooth = _enhanced(**options), _enhanced(for_viewing=True, **options)
    removed = _scan().voxels - smooth.volume.voxels
    expected = smooth.volume.voxels + _given_back(removed, (1.5 / 0.8, 1.5 / 0.8))
    assert np.allclose(default.volume.voxels, expected, atol=0.01)


def test_commands_and_jobs_take_for_viewing_and_mr_says_that_it_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    io.save(_scan(), tmp_path / "ct.nii.gz")
    io.save(brain().crop(k=slice(0, 5)), tmp_path / "mr.nii.gz")
    for name in ("ct", "mr"):
        paths = [str(tmp_path / f"{name}.nii.gz"), str(tmp_path / f"{name}-better.nii.gz")]
        command = ["enhance", *paths, "--device", "cpu", "--modality", name.upper()]
        assert main([*command, "--for-viewing"]) == 0
        said = capsys.readouterr().out
        manifest = json.loads((tmp_path / f"{name}-better.nii.gz.json").read_text())
        assert manifest["config"]["for_viewing"] is True
        warnings = ["for_viewing changes nothing: it is for CT, and this is MR"]
        assert manifest["warnings"] == (warnings if name == "mr" else [])
        assert ("small faint lesions disappear" in said) == (name == "ct")
    smooth = _enhanced(for_viewing=True).volume.voxels
    assert np.array_equal(io.load(tmp_path / "ct-better.nii.gz").voxels, smooth)
    batch = ["batch", "enhance", str(tmp_path), "--out", str(tmp_path / "out"), "--modality", "CT"]
    assert main([*batch, "--for-viewing"]) == 2
    assert "one by one" in capsys.readouterr().err and not (tmp_path / "out").exists()
    fields = {"input": str(tmp_path / "ct.nii.gz"), "output": str(tmp_path / "job.nii.gz")}
    fields |= {"modality": "CT", "config": {"device": "cpu"}}
    result = run_job(JobSpec("enhance", fields))
    assert np.array_equal(io.load(tmp_path / "job.nii.gz").voxels, _enhanced().volume.voxels)
    assert result["limits"] == _enhanced().report["results"]["limits"]
