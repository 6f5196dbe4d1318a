"""Uncertainty: what it is made of, what calibration makes of it, and that it says which it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.bundles.schema import METADATA
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Bias, Blur, Composite, Rician
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.hqg import EnhanceConfig, enhance, uncertainty
from MedEnhanceLib.hqg.bundle import open_enhancer, record_calibration
from MedEnhanceLib.hqg.calibration import Calibration, Curve, fit_calibration
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.train import train
from MedEnhanceLib.hqg.uncertainty import (
    calibrate,
    central_slices,
    damaged_pairs,
    kept_reference,
    raw_deviation,
)


@pytest.fixture
def config(model: str) -> EnhanceConfig:
    return EnhanceConfig(model=model, device="cpu")


@pytest.fixture
def thin(head: Volume) -> Volume:
    return replace(head, voxels=np.maximum(head.voxels[3:8], 0))


@pytest.fixture(scope="module")
def calibrated(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, calibrated on a ball with texture."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(model, folder)
    calibrate(
        folder, damaged_pairs([ball(0)], slices=4, with_blur=True), fitted_on="a ball", samples=2
    )
    return folder


def ball(seed: int) -> Volume:
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[-1:1:6j, -1:1:48j, -1:1:48j]
    inside = k**2 + j**2 + i**2 < 0.9
    voxels = inside * (500 + 150 * np.sin(5 * i + seed) * np.cos(4 * j)) + rng.normal(0, 3, k.shape)
    return Volume(np.abs(voxels).astype(np.float32), modality="MR", source=f"ball {seed}")


def laplace(rng: np.random.Generator, raw: np.ndarray) -> np.ndarray:
    """Errors with more deviation than `raw` says, most where that is small."""
    scale = (raw + 0.02) / np.sqrt(2)
    return np.abs(rng.laplace(0, scale)).astype(np.float32)


def test_the_spread_counts_where_there_are_samples_and_never_claims_certainty() -> None:
    error, spread = np.float32([[3.0, 3.0]]), np.float32([[4.0, 0.0]])
    assert raw_deviation(error, None)[0, 0] == pytest.approx(np.sqrt(2) * 3)
    sampled = raw_deviation(error, spread)[0]
    assert sampled[0] == pytest.approx(4, rel=0.01)
    assert 0 < sampled[1] < 0.1 * np.sqrt(2) * 3


def test_one_ratio_makes_ninety_percent_lie_within(rng: np.random.Generator) -> None:
    raw = np.exp(rng.uniform(np.log(0.002), np.log(0.2), 100_000)).astype(np.float32)
    errors = np.abs(rng.laplace(0, 3 * raw)).astype(np.float32)
    curve = Curve.fit(raw, errors)
    assert len(curve.raw) == 1
    for low, high in ((0.002, 0.01), (0.03, 0.2)):
        some = (raw > low) & (raw < high)
        assert np.mean(errors[some] <= 1.645 * curve(raw[some])) == pytest.approx(0.9, abs=0.02)


def test_a_fitted_curve_covers_ninety_percent_everywhere(rng: np.random.Generator) -> None:
    raw = np.exp(rng.uniform(np.log(0.002), np.log(0.2), 100_000)).astype(np.float32)
    curve = Curve.fit(raw, laplace(rng, raw), bins=16)
    for low, high in ((0.002, 0.01), (0.01, 0.015), (0.03, 0.1), (0.1, 0.2)):
        some = raw[(raw > low) & (raw < high)]
        assert np.mean(laplace(rng, some) <= 1.645 * curve(some)) == pytest.approx(0.9, abs=0.02)


def test_a_curve_never_falls_and_goes_on_at_both_ends(rng: np.random.Generator) -> None:
    raw = rng.uniform(0.01, 0.1, 20_000).astype(np.float32)
    curve = Curve.fit(raw, laplace(rng, raw), bins=16)
    values = curve(np.geomspace(1e-5, 10, 500, dtype=np.float32))
    assert (np.diff(values) >= 0).all()
    assert values[0] < 1e-4
    assert values[-1] > 5


def test_other_levels_hold_what_they_say(rng: np.random.Generator) -> None:
    raw = np.exp(rng.uniform(np.log(0.002), np.log(0.2), 50_000)).astype(np.float32)
    fitted = fit_calibration(
        {"samples": raw}, laplace(rng, raw), fitted_on="synthetic errors", samples=8
    )
    deviation, error = fitted(raw, sampled=True), laplace(rng, raw)
    for level in (0.1, 0.5, 0.8, 0.95):
        inside = error <= fitted.interval(level, sampled=True) * deviation
        assert inside.mean() == pytest.approx(level, abs=0.02)


def test_without_calibration_values_stay_and_intervals_are_those_of_laplace() -> None:
    none = Calibration()
    raw = np.float32([0.1, 0.2])
    assert not none.is_fitted
    assert np.array_equal(none(raw, sampled=True), raw)
    assert none.interval(0.9, sampled=True) == pytest.approx(1.628, abs=0.001)


def test_a_calibration_survives_its_file(rng: np.random.Generator) -> None:
    raw = rng.uniform(0.01, 0.1, 5_000).astype(np.float32)
    fitted = fit_calibration({"error": raw}, laplace(rng, raw), fitted_on="here", samples=4)
    back = Calibration.from_json(json.loads(json.dumps(fitted.to_json())))
    assert np.allclose(back(raw, sampled=False), fitted(raw, sampled=False), rtol=1e-4)
    assert back.identity() == fitted.identity()
    assert (back.fitted_on, back.samples) == ("here", 4)


@pytest.mark.parametrize(
    "damage",
    [
        {"curves": {"error": {"raw": [0.2, 0.1], "measured": [1, 2]}}},
        {"curves": {"error": {"raw": [0.1], "measured": []}}},
        {"curves": {"error": {"raw": ["x"], "measured": [1]}}},
        {"curves": 3},
    ],
)
def test_a_damaged_calibration_is_a_damaged_model(damage: dict[str, object]) -> None:
    whole = {"fitted_on": "", "samples": 8, "intervals": {}}
    with pytest.raises(ModelError, match="calibration"):
        Calibration.from_json(whole | damage)


def test_too_little_to_fit_is_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        Curve.fit(np.ones(50, np.float32), np.ones(50, np.float32))


def test_calibrating_makes_the_map_true_on_another_volume(calibrated: Path, model: str) -> None:
    """A network of noise errs by ten times what it expects, and is set right."""
    other = ball(1)
    degraded = Rician(0.07, 5).apply(other)
    tissue = other.voxels > 100
    shares = []
    for folder in (model, str(calibrated)):
        result = enhance(degraded, EnhanceConfig(model=folder, uncertainty=2, device="cpu"))
        assert result.uncertainty is not None
        miss = np.abs(result.volume.voxels - other.voxels)
        shares.append(float((miss <= 1.645 * result.uncertainty.voxels)[tissue].mean()))
    assert abs(shares[1] - 0.9) < 0.08
    assert abs(shares[1] - 0.9) < abs(shares[0] - 0.9)


def test_a_result_reports_whether_it_is_calibrated(
    thin: Volume, config: EnhanceConfig, calibrated: Path
) -> None:
    plain = enhance(thin, replace(config, uncertainty=2))
    assert plain.uncertainty is not None
    assert plain.uncertainty_facts["calibration"] is None
    assert "not calibrated" in plain.uncertainty.history[-1]
    fitted = enhance(thin, replace(config, uncertainty=2, model=str(calibrated)))
    assert fitted.uncertainty is not None
    assert fitted.uncertainty_facts["calibration"]["fitted_on"] == "a ball"
    assert fitted.uncertainty_facts["samples"] == 2
    assert "not calibrated" not in fitted.uncertainty.history[-1]
    assert fitted.volume.is_equal(plain.volume)


def test_a_card_states_what_the_map_was_fitted_on(calibrated: Path, model: str) -> None:
    assert "not calibrated" in (Path(model) / "docs/README.md").read_text()
    card = (calibrated / "docs/README.md").read_text()
    assert "calibrated on a ball" in card
    assert "not calibrated" not in card
    assert read_bundle(calibrated).sha256 == read_bundle(Path(model)).sha256


def test_a_bundle_with_a_damaged_calibration_is_refused(calibrated: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(calibrated, copy)
    metadata = json.loads((copy / METADATA).read_text())
    metadata["calibration"]["curves"]["samples"]["raw"][0] = -1
    (copy / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match="calibration"):
        open_enhancer(read_bundle(copy))


def test_the_expected_error_alone_costs_no_further_run(
    thin: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    real = uncertainty.predict_slices
    monkeypatch.setattr(
        uncertainty, "predict_slices", lambda *a, **k: runs.append(1) or real(*a, **k)
    )
    alone = enhance(thin, replace(config, uncertainty=1))
    assert not runs
    sampled = enhance(thin, replace(config, uncertainty=3))
    assert len(runs) == 3
    assert alone.uncertainty is not None
    assert sampled.uncertainty is not None
    assert alone.uncertainty.voxels.min() > 0
    assert sampled.uncertainty.voxels.min() > 0
    assert not np.array_equal(sampled.uncertainty.voxels, alone.uncertainty.voxels)


def test_a_preview_shows_the_uncertainty_of_the_whole_run(
    thin: Volume, config: EnhanceConfig
) -> None:
    config = replace(config, uncertainty=2)
    whole, some = enhance(thin, config), enhance(thin, config, slices=(1, 3))
    assert whole.uncertainty is not None
    assert some.uncertainty is not None
    assert np.array_equal(some.uncertainty.voxels, whole.uncertainty.voxels[1:3])


def test_the_map_scales_with_the_units_of_the_input(thin: Volume, config: EnhanceConfig) -> None:
    single = replace(thin, voxels=thin.voxels.astype(np.float32))
    double = replace(thin, voxels=single.voxels * 2)
    config = replace(config, uncertainty=1)
    one, two = (enhance(volume, config).uncertainty for volume in (single, double))
    assert one is not None
    assert two is not None
    assert np.allclose(two.voxels, 2 * one.voxels, rtol=1e-2)


def test_the_truth_of_a_damaged_volume_keeps_what_is_not_undone() -> None:
    volume, shade, blur = ball(0), Bias(0.3, 3), Blur(1.0)
    damage = Composite((shade, blur, Rician(0.1, 4)))
    shaded = shade.apply(volume)
    assert kept_reference(volume, damage, with_blur=False).is_equal(shaded)
    assert kept_reference(volume, damage, with_blur=True).is_equal(blur.apply(shaded))
    assert kept_reference(volume, Rician(0.1, 4), with_blur=True) is volume


def test_the_middle_of_a_volume_keeps_its_place() -> None:
    volume = ball(0)
    middle = central_slices(volume, 2)
    assert np.array_equal(middle.voxels, volume.voxels[2:4])
    assert middle.geometry == volume.geometry.cropped((2, 0, 0))


def test_a_new_calibration_counts_at_once(thin: Volume, model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    config = EnhanceConfig(model=str(copy), uncertainty=1, device="cpu")
    assert enhance(thin, config).uncertainty_facts["calibration"] is None
    curve = Curve((0.1,), (0.2,))
    record_calibration(copy, Calibration({"error": curve}, fitted_on="nothing", samples=2))
    assert enhance(thin, config).uncertainty_facts["calibration"]["fitted_on"] == "nothing"


def test_nothing_to_calibrate_with_is_refused(calibrated: Path) -> None:
    with pytest.raises(InputError, match="nothing to calibrate"):
        calibrate(calibrated, [], fitted_on="")


@pytest.mark.slow
def test_a_training_calibrates_on_what_it_held_out(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    folder = train(replace(smoke, held_out=1, steps=2), training_data, tmp_path)
    calibration = open_enhancer(read_bundle(folder)).calibration
    assert calibration.is_fitted
    assert "1 volume" in calibration.fitted_on
    assert set(calibration.curves) == {"error", "samples"}


def test_a_training_without_held_out_volumes_is_not_calibrated(tiny_model: Path) -> None:
    assert not open_enhancer(read_bundle(tiny_model)).calibration.is_fitted
