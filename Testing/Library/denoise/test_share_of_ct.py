"""Faint lesions in CT: the share of the correction that is applied, and what results say of it."""

from __future__ import annotations

import json
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
from MedEnhanceLib.denoise.removal import CT_SHARE
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.jobs import JobSpec, run_job

SHAPE = (11, 64, 64)
SPACING = (0.8, 0.8, 2.0)
#: Radius of the lesions in mm, and their contrast in HU: half of σ.
_RADIUS, _CONTRAST = 3.0, 20.0
_SIGMA = 40.0
_FILTER = {"device": "cpu", "denoiser": "block-matching"}


@cache
def _body() -> tuple[Volume, Volume, npt.NDArray[np.bool_]]:
    """A body with noise, the same with four faint lesions, and where these are."""
    rng = np.random.default_rng(5)
    k, j, i = (
        (np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, SPACING[::-1], strict=True)
    )
    j, i = j[:, None], i[None]
    inside = np.hypot(j / j.max(), i / i.max()) < 0.95
    noise = gaussian_blur(rng.normal(0, 1, SHAPE), 0.6)
    scan = np.where(inside, 50 + 30 * np.sin(i / 9), -1000) + noise * _SIGMA / noise.std()
    lesions = np.zeros(SHAPE, bool)
    far = SHAPE[1] / 4.5
    for row, column in ((-far, -far), (-far, far), (far, -far), (far, far)):
        plane = np.square(j - row * SPACING[1]) + np.square(i - column * SPACING[0])
        lesions |= np.square(k)[:, None, None] + plane < _RADIUS**2
    volumes = [
        Volume(voxels.astype(np.float32), Geometry(SPACING), modality="CT", units="HU")
        for voxels in (scan, scan + _CONTRAST * lesions)
    ]
    return volumes[0], volumes[1], lesions


@cache
def _enhanced(**options: Any) -> Enhanced:
    return me.enhance(_body()[0], **_FILTER, **options)


def _share_of_correction(default: Enhanced, whole: Enhanced) -> float:
    """The share of one change in the other; fails where they differ in more than a factor."""
    before = _body()[0].voxels
    ours, full = default.volume.voxels - before, whole.volume.voxels - before
    share = float((ours * full).sum() / np.square(full).sum())
    assert np.allclose(ours, share * full, atol=0.01)
    return share


@pytest.mark.parametrize(
    "options", [{}, {"strength": "full"}, {"noise": 30.0}, {"strength": 0.5}], ids=str
)
def test_by_default_a_share_of_the_correction_for_viewing_is_applied(
    options: dict[str, Any],
) -> None:
    """Whatever the strength is and the noise that is stated: these come first."""
    default, whole = _enhanced(**options), _enhanced(for_viewing=True, **options)
    assert _share_of_correction(default, whole) == pytest.approx(CT_SHARE, abs=1e-3)
    assert default.measured["noise"]["sigma"] == whole.measured["noise"]["sigma"]


def test_a_strength_is_a_share_of_the_default() -> None:
    half, whole = _enhanced(strength=0.5), _enhanced(for_viewing=True)
    assert _share_of_correction(half, whole) == pytest.approx(CT_SHARE / 2, abs=1e-3)


def test_faint_lesions_keep_more_of_their_contrast_than_for_viewing() -> None:
    without, with_lesions, lesions = _body()
    kept = {}
    for smooth in (False, True):
        results = [
            me.enhance(each, **_FILTER, noise=_SIGMA, for_viewing=smooth).volume.voxels
            for each in (without, with_lesions)
        ]
        kept[smooth] = float((results[1] - results[0])[lesions].mean()) / _CONTRAST
    # What is not corrected keeps all of it.
    assert kept[False] == pytest.approx(1 - CT_SHARE + CT_SHARE * kept[True], abs=0.05)
    assert kept[False] > 0.5 and kept[False] > kept[True] + 0.1


def test_noise_that_stays_has_the_texture_of_the_input() -> None:
    """Mean frequency of noise in a slice, of a soft kernel: all of the correction leaves blobs."""

    def mean_frequency(voxels: Any) -> float:
        noise = (voxels[4:] - voxels[:-4])[:, 16:48, 16:48] * np.hanning(32)[:, None]
        power = np.square(np.abs(np.fft.fft2(noise * np.hanning(32)))).mean(axis=0)
        frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32))
        return float((frequency * power).sum() / power.sum())

    before = mean_frequency(_body()[0].voxels)
    assert mean_frequency(_enhanced().volume.voxels) > 0.85 * before
    assert mean_frequency(_enhanced(for_viewing=True).volume.voxels) < 0.7 * before


def test_the_uncertainty_counts_the_noise_that_stays() -> None:
    default, whole = _enhanced(uncertainty=True), _enhanced(uncertainty=True, for_viewing=True)
    assert default.uncertainty is not None and whole.uncertainty is not None
    inside = slice(None), slice(20, 44), slice(20, 44)
    truth = 50 + 30 * np.sin((np.arange(64) - 31.5) * 0.8 / 9)[20:44]
    for result, uncertainty in ((default, default.uncertainty), (whole, whole.uncertainty)):
        error = np.abs(result.volume.voxels[inside] - truth)
        assert 0.8 < np.mean(error < 1.645 * uncertainty.voxels[inside]) < 0.99
    assert default.uncertainty.voxels[inside].mean() > whole.uncertainty.voxels[inside].mean()


def test_a_result_says_what_share_was_applied_and_why() -> None:
    default, whole = _enhanced(), _enhanced(for_viewing=True)
    percent = round(100 * CT_SHARE)
    because = "because faint lesions are to stay visible in CT"
    assert f"filtered: {percent} %, {because}" in default.findings[1]
    assert "filtered: 100 %" in whole.findings[1] and because not in whole.findings[1]
    assert f"filtered: {percent} %, {because}" in default.volume.history[-1]
    half = default.at_strength(0.5)
    assert f"filtered: {round(50 * CT_SHARE)} %, {because}" in half.findings[1]
    expected = [each.measured["noise"]["expected"] for each in (default, whole)]
    assert expected[0] == pytest.approx(CT_SHARE * expected[1], abs=0.011)
    limits = [each.report["results"]["limits"] for each in (default, whole)]
    assert limits[0][0].startswith("small faint lesions lose a part of their contrast")
    assert limits[1][0].startswith("small faint lesions disappear")
    stated = [each.report["config"]["for_viewing"] for each in (default, whole)]
    assert stated == [False, True]


def test_commands_and_jobs_take_for_viewing_and_mr_says_that_it_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    io.save(_body()[0], tmp_path / "ct.nii.gz")
    io.save(brain().crop(k=slice(0, 5)), tmp_path / "mr.nii.gz")
    for name in ("ct", "mr"):
        paths = [str(tmp_path / f"{name}.nii.gz"), str(tmp_path / f"{name}-better.nii.gz")]
        command = ["enhance", *paths, "--modality", name.upper()]
        command += ["--device", "cpu", "--denoiser", "block-matching"]
        assert main([*command, "--for-viewing"]) == 0
        said = capsys.readouterr().out
        manifest = json.loads((tmp_path / f"{name}-better.nii.gz.json").read_text())
        assert manifest["config"]["for_viewing"] is True
        warnings = ["for_viewing changes nothing: it is for CT, and this is MR"]
        assert manifest["warnings"] == (warnings if name == "mr" else [])
        assert ("small faint lesions disappear" in said) == (name == "ct")
    whole = _enhanced(for_viewing=True).volume.voxels
    assert np.array_equal(io.load(tmp_path / "ct-better.nii.gz").voxels, whole)
    batch = ["batch", "enhance", str(tmp_path), "--out", str(tmp_path / "out"), "--modality", "CT"]
    assert main([*batch, "--for-viewing"]) == 2
    assert "one by one" in capsys.readouterr().err and not (tmp_path / "out").exists()
    fields = {"input": str(tmp_path / "ct.nii.gz"), "output": str(tmp_path / "job.nii.gz")}
    result = run_job(JobSpec("enhance", fields | {"modality": "CT", "config": _FILTER}))
    assert np.array_equal(io.load(tmp_path / "job.nii.gz").voxels, _enhanced().volume.voxels)
    assert result["limits"] == _enhanced().report["results"]["limits"]
