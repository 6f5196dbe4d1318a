"""What is measured in a volume decides what is done to it, and what users are warned of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from Library.denoise.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.findings import describe
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Blur, Rician
from MedEnhanceLib.denoise import enhance
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.decide import VolumeCache, noise_warning
from MedEnhanceLib.denoise.removal import Removal, denoise, expected_deviation
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.runtime.progress import Event, Monitor


def _noisy(level: float) -> Volume:
    return Rician(level, 3).apply(brain())


def _error(voxels: np.ndarray, truth: Volume) -> float:
    inside = truth.voxels > 0.1 * robust_max(truth.voxels)
    return float(np.sqrt(np.square(voxels - truth.voxels.astype(np.float32))[inside].mean()))


class TestNoise:
    def test_most_of_it_goes_and_the_deviation_covers_the_errors_that_stay(self) -> None:
        noisy = _noisy(0.1)
        noise = measure_noise(noisy.voxels, modality="MR")
        result = denoise(noisy, Removal(noise))
        assert _error(result, brain()) < 0.3 * _error(noisy.voxels.astype(np.float32), brain())
        air = brain().voxels == 0
        assert result[air].mean() < 0.05 * noisy.voxels[air].mean()
        expected = expected_deviation(result, noisy, noise)
        found = np.abs(result - brain().voxels)
        inside = brain().voxels > 0
        assert np.mean(found[inside] <= 1.645 * expected[inside]) > 0.85
        low, high = np.quantile(expected[inside], (0.25, 0.75))
        sure, unsure = found[inside & (expected < low)], found[inside & (expected > high)]
        assert unsure.mean() > 1.5 * sure.mean()

    def test_dark_tissue_in_strong_noise_is_not_taken_for_air(self) -> None:
        voxels = brain().voxels.astype(np.float32)[:, 16:80, 16:80]
        voxels[:, :32] = 0.25 * robust_max(voxels)  # no air, and tissue of 1.7 σ
        dark = Volume(voxels, Geometry((1.0, 1.0, 1.0)), modality="MR")
        noisy = Rician(0.15, 3).apply(dark)
        result = denoise(noisy, Removal(measure_noise(noisy.voxels, modality="MR")))
        assert 0.8 < result[:, 4:28].mean() / voxels[:, 4:28].mean() < 1.1


def _enhanced(frame: Volume, monitor: Monitor | None = None, **options: object) -> Enhanced:
    config = EnhanceConfig(**options)
    return enhance(frame, config, monitor=monitor)


class TestDecision:
    def test_strength_auto_leaves_a_clean_volume_as_it_is(self) -> None:
        result = _enhanced(brain())
        assert np.array_equal(result.volume.voxels, brain().voxels)
        assert result.measured["noise"]["share_removed"] == result.share < 0.5
        assert result.measured["noise"]["reason"]
        assert _enhanced(_noisy(0.1)).share == 1

    def test_of_uncertain_noise_the_lower_end_is_removed_in_full(self) -> None:
        noisy = _noisy(0.006)
        noise = measure_noise(noisy.voxels, modality="MR")
        assert noise.confidence < 0.5
        assert noise.low < 0.006 * robust_max(brain().voxels) < noise.high
        result = _enhanced(noisy)
        facts = result.measured["noise"]
        assert facts["sigma_used"] == facts["interval"][0] < facts["sigma"]
        assert facts["reason"]["sentence"] == "noise and anatomy look alike"
        verdict, line, remedy = map(str, describe(result.measured))
        assert verdict.startswith("uncertain, removed ±")  # the upper limit would not be clean
        assert remedy.startswith("to measure σ, find even tissue in a viewer, as none was found")
        low, high = facts["interval"]
        assert f"(1 SD; likely ±{low:.3g} to ±{high:.3g})" in line
        assert f" % of ±{low:.3g}, because noise and anatomy look alike" in line
        unlikely = _enhanced(noisy, noise=1.2 * noise.high)  # all that is likely lies between
        assert "stated-noise" in [warning.code for warning in unlikely.warnings]
        change = result.volume.voxels.astype(float) - noisy.voxels
        rms = np.sqrt(np.square(change[noisy.voxels > noisy.voxels.mean()]).mean())
        assert facts["changed"] == pytest.approx(rms, rel=0.1)
        assert _error(result.volume.voxels, brain()) <= _error(noisy.voxels, brain())

    def test_stated_noise_takes_the_place_of_the_measurement(self, tmp_path: Path) -> None:
        noisy = _noisy(0.1)
        sigma = 0.1 * robust_max(brain().voxels)
        stated = _enhanced(noisy, noise=sigma)
        assert stated.measured["noise"]["sigma"] == pytest.approx(sigma, rel=1e-3)
        assert describe(stated.measured)[1].numbers["noise"].key == "noise_stated"
        assert stated.measured["noise"]["interval"] == [stated.measured["noise"]["sigma"]] * 2
        assert _error(stated.volume.voxels, brain()) < 0.4 * _error(noisy.voxels, brain())
        assert not stated.warnings
        assert f" of the stated ±{sigma:.3g}, noise stated: " in stated.volume.history[-1]
        far = _enhanced(noisy.crop(k=slice(0, 4)), noise=5 * sigma)
        assert [warning.code for warning in far.warnings] == ["stated-noise"]
        path = tmp_path / "sigma.nii.gz"
        me.save(noisy.with_voxels(np.full(noisy.shape, sigma, np.float32)), path)
        by_map = _enhanced(noisy, noise=str(path))
        assert np.allclose(by_map.volume.voxels, stated.volume.voxels, atol=1e-3)
        me.save(noisy.with_voxels(np.full(noisy.shape, -sigma, np.float32)), path, overwrite=True)
        with pytest.raises(InputError, match="below 0"):
            _enhanced(noisy, noise=str(path))
        me.save(noisy.crop(k=slice(0, 4)), path, overwrite=True)
        with pytest.raises(InputError, match="not on the grid"):
            _enhanced(noisy, noise=str(path))
        with pytest.raises(ConfigError, match="noise is 0"):
            _enhanced(noisy, noise=0)
        with pytest.raises(ConfigError, match="10% is neither a number nor a file"):
            _enhanced(noisy, noise="10%")


class TestEnhancement:
    def test_a_preview_has_the_voxels_of_the_whole_run(self) -> None:
        blurred = Rician(0.03, 1).apply(Blur(1.5).apply(brain()))
        some, whole = enhance(blurred, slices=(1, 3)), enhance(blurred)
        assert np.array_equal(some.volume.voxels, whole.volume.voxels[1:3])

    def test_a_preview_shows_the_uncertainty_of_the_whole_run(self) -> None:
        noisy, config = _noisy(0.1), EnhanceConfig(uncertainty=True)
        whole, some = enhance(noisy, config), enhance(noisy, config, slices=(1, 3))
        assert whole.uncertainty is not None and some.uncertainty is not None
        assert np.array_equal(some.uncertainty.voxels, whole.uncertainty.voxels[1:3])
        assert "calibrated" in whole.uncertainty.history[-1]
        assert "persons from four sites" in whole.uncertainty_facts["calibration"]["fitted_on"]

    def test_a_noise_map_is_written_where_it_is_requested(self, tmp_path: Path) -> None:
        from MedEnhanceLib.cli.main import main

        me.save(_noisy(0.1), tmp_path / "in.nii.gz")
        names = [str(tmp_path / name) for name in ("in.nii.gz", "out.nii.gz", "noise.nii.gz")]
        arguments = ["enhance", *names[:2], "--noise-map", names[2]]
        arguments += ["--uncertainty", "--device", "cpu", "--json"]
        assert main(arguments) == 0
        assert me.load(names[2]).voxels.mean() > 0
        for name, what in (
            (names[2], "noise"),
            (tmp_path / "out-uncertainty.nii.gz", "uncertainty"),
        ):
            card = run_job(JobSpec("inspect", {"input": str(name)}))["card"]
            assert any(f"no image, but a map of the {what}" in each for each in card["warnings"])
            assert card["noise"] is None
        assert run_job(JobSpec("inspect", {"input": names[1]}))["card"]["noise"]


def volume(voxels: npt.NDArray[np.generic], modality: str = "MR") -> Volume:
    return Volume(np.ascontiguousarray(voxels), Geometry((1.0, 1.0, 1.0)), modality=modality)


def code_of(data: Volume, *, is_full: bool = False) -> str:
    noise = measure_noise(data.voxels, modality=data.modality)
    warning = noise_warning(data, noise, is_full=is_full)
    return warning.code if warning else ""


@pytest.mark.parametrize("kind", ["rayleigh", "grained CT", "one slice"])
def test_nothing_but_noise_is_a_serious_warning(kind: str, rng: np.random.Generator) -> None:
    white = rng.normal(0, 30, (12, 64, 64))
    # Pixels like their neighbors, as after a smooth kernel.
    grained = sum(np.roll(white, (j, i), (1, 2)) for j in (-1, 0, 1) for i in (-1, 0, 1)) / 3
    data = {
        "rayleigh": volume(rng.rayleigh(100, white.shape).astype(np.float32)),
        "grained CT": volume(grained.astype(np.int16), "CT"),
        "one slice": volume((200 + rng.normal(0, 30, (1, 128, 128))).astype(np.float32)),
    }[kind]
    assert code_of(data) == "no-structure"


def test_noise_that_is_not_the_filters_is_named(rng: np.random.Generator) -> None:
    labels = (brain().voxels // 60).astype(np.uint8)
    mask = (brain().voxels > 50).astype(np.uint8)
    small = Rician(0.05, 1).apply(volume(brain().voxels[:, ::2, ::2])).voxels
    spectrum = np.fft.fftshift(np.fft.fft2(small), axes=(1, 2))
    padded = np.pad(spectrum, ((0, 0), (24, 24), (24, 24)))
    enlarged = np.abs(np.fft.ifft2(np.fft.ifftshift(padded, axes=(1, 2))))
    for data in (labels, mask, enlarged.astype(np.float32)):
        assert code_of(volume(data)).startswith("noise-")


@pytest.mark.parametrize("level", [0.0, 0.02, 0.05, 0.15, 0.3])
def test_a_scan_is_no_reason_to_warn(level: float) -> None:
    data = Rician(level, 3).apply(brain()) if level else brain()
    assert code_of(data) == ""


def test_all_of_an_uncertain_correction_is_named() -> None:
    assert code_of(brain(), is_full=True) == "noise-uncertain"
    assert code_of(Rician(0.1, 3).apply(brain()), is_full=True) == ""


def test_it_is_said_everywhere(tmp_path: Path) -> None:
    noise = np.random.default_rng(8).rayleigh(100, (8, 48, 56)).astype(np.float32)
    me.save(volume(noise), tmp_path / "noise.nii.gz")
    params = {
        "input": str(tmp_path / "noise.nii.gz"),
        "modality": "MR",
        "output": str(tmp_path / "out.nii.gz"),
        "config": {"device": "cpu"},
    }
    events: list[Event] = []
    run_job(JobSpec("enhance", params), events.append)
    said = [event.fields["message"] for event in events if event.kind == "warning"]
    assert any("no structure, only noise" in message for message in said)
    manifest = json.loads((tmp_path / "out.nii.gz.json").read_text())
    assert [row["code"] for row in manifest["results"]["warnings"]] == ["no-structure"]
    assert "no structure" in me.load(tmp_path / "out.nii.gz", modality="MR").history[-1]


def test_noise_may_be_stated_of_a_range_that_its_type_cannot_subtract() -> None:
    voxels = np.random.default_rng(0).normal(0, 5000, (6, 32, 32)).astype(np.int16)
    voxels[0, 0, :2] = -20_655, 21_078
    stated = EnhanceConfig(noise=500, device="cpu")
    result = enhance(Volume(voxels, modality="CT"), stated)
    assert result.measured["noise"]["sigma"] == 500


def test_measurements_for_another_noise_take_the_place_of_earlier_ones() -> None:
    volume, cache = brain(), VolumeCache()
    kept = [cache.regions_of(0, volume, sigma) for sigma in (5.0, 6.0, 6.0)]
    assert kept[1] is kept[2] is not kept[0]
    assert len(cache.regions) == 1
