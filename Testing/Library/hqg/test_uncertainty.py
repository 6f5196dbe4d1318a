"""Uncertainty: one switch, what calibration makes of it, and that it says which it is."""

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
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.bundle import open_enhancer, record_calibration
from MedEnhanceLib.hqg.calibration import Calibration
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.train import train
from MedEnhanceLib.hqg.train.calibrate import (
    calibrate,
    central_slices,
    damaged_pairs,
    kept_reference,
)


@pytest.fixture
def config(model: str) -> EnhanceConfig:
    return EnhanceConfig(model=model, device="cpu", uncertainty=True)


@pytest.fixture
def thin(head: Volume) -> Volume:
    return replace(head, voxels=np.maximum(head.voxels[3:8], 0))


@pytest.fixture(scope="module")
def calibrated(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, calibrated on a ball with texture."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(model, folder)
    calibrate(folder, damaged_pairs([ball(0)], slices=4), fitted_on="a ball")
    return folder


def ball(seed: int) -> Volume:
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[-1:1:6j, -1:1:48j, -1:1:48j]
    inside = k**2 + j**2 + i**2 < 0.9
    voxels = inside * (500 + 150 * np.sin(5 * i + seed) * np.cos(4 * j)) + rng.normal(0, 3, k.shape)
    return Volume(np.abs(voxels).astype(np.float32), modality="MR", source=f"ball {seed}")


@pytest.mark.parametrize("value", [1, 8, "yes", None])
def test_it_is_one_switch(value: object) -> None:
    with pytest.raises(ConfigError, match="uncertainty"):
        EnhanceConfig(uncertainty=value)


def test_one_ratio_makes_ninety_percent_lie_within(rng: np.random.Generator) -> None:
    expected = np.exp(rng.uniform(np.log(0.002), np.log(0.2), 100_000)).astype(np.float32)
    errors = np.abs(rng.laplace(0, 3 * expected)).astype(np.float32)
    deviation = Calibration.fit(expected, errors, fitted_on="synthetic errors")(expected)
    for low, high in ((0.002, 0.01), (0.03, 0.2)):
        some = (expected > low) & (expected < high)
        assert np.mean(errors[some] <= 1.645 * deviation[some]) == pytest.approx(0.9, abs=0.02)


def test_without_calibration_it_is_the_deviation_of_laplace() -> None:
    none = Calibration()
    assert not none.is_fitted
    assert none(np.float32([0.1])) == pytest.approx(0.1 * np.sqrt(2))


def test_a_calibration_survives_its_file() -> None:
    fitted = Calibration(1.25, "here")
    assert Calibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


@pytest.mark.parametrize(
    "damage",
    [
        {"ratio": 0},
        {"ratio": -1},
        {"ratio": "x"},
        {"ratio": [1]},
        {"ratio": 1e999},
        {"ratio": None},
    ],
)
def test_a_damaged_calibration_is_a_damaged_model(damage: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="calibration"):
        Calibration.from_json({"fitted_on": "here"} | damage)


def test_too_little_to_fit_is_refused() -> None:
    few, none = np.ones(50, np.float32), np.zeros(500, np.float32)
    with pytest.raises(InputError, match="too few"):
        Calibration.fit(few, few, fitted_on="")
    with pytest.raises(InputError, match="nothing differs"):
        Calibration.fit(none + 1, none, fitted_on="")


def test_calibrating_makes_the_map_true_on_another_volume(calibrated: Path, model: str) -> None:
    """A network of noise errs by ten times what it expects, and is set right."""
    other = ball(1)
    degraded = Rician(0.07, 5).apply(other)
    tissue = other.voxels > 100
    shares = []
    for folder in (model, str(calibrated)):
        result = enhance(degraded, EnhanceConfig(model=folder, uncertainty=True, device="cpu"))
        assert result.uncertainty is not None
        miss = np.abs(result.volume.voxels - other.voxels)
        shares.append(float((miss <= 1.645 * result.uncertainty.voxels)[tissue].mean()))
    assert abs(shares[1] - 0.9) < 0.08
    assert abs(shares[1] - 0.9) < abs(shares[0] - 0.9)


def test_a_result_reports_whether_it_is_calibrated(
    thin: Volume, config: EnhanceConfig, calibrated: Path
) -> None:
    plain = enhance(thin, config)
    assert plain.uncertainty is not None
    assert plain.uncertainty_facts["calibration"] is None
    assert "not calibrated" in plain.uncertainty.history[-1]
    fitted = enhance(thin, replace(config, model=str(calibrated)))
    assert fitted.uncertainty is not None
    assert fitted.uncertainty_facts["calibration"]["fitted_on"] == "a ball"
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
    metadata["calibration"]["ratio"] = -1
    (copy / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match="calibration"):
        open_enhancer(read_bundle(copy))


def test_a_preview_shows_the_uncertainty_of_the_whole_run(
    thin: Volume, config: EnhanceConfig
) -> None:
    whole, some = enhance(thin, config), enhance(thin, config, slices=(1, 3))
    assert whole.uncertainty is not None
    assert some.uncertainty is not None
    assert np.array_equal(some.uncertainty.voxels, whole.uncertainty.voxels[1:3])


def test_the_map_scales_with_the_units_of_the_input(thin: Volume, config: EnhanceConfig) -> None:
    single = replace(thin, voxels=thin.voxels.astype(np.float32))
    double = replace(thin, voxels=single.voxels * 2)
    one, two = (enhance(volume, config).uncertainty for volume in (single, double))
    assert one is not None
    assert two is not None
    assert one.voxels.min() > 0
    assert np.allclose(two.voxels, 2 * one.voxels, rtol=1e-2)


def test_the_truth_of_a_damaged_volume_keeps_its_shading() -> None:
    volume, shade = ball(0), Bias(0.3, 3)
    damage = Composite((shade, Blur(1.0), Rician(0.1, 4)))
    assert kept_reference(volume, damage).is_equal(shade.apply(volume))
    assert kept_reference(volume, Rician(0.1, 4)) is volume


def test_the_middle_of_a_volume_keeps_its_place() -> None:
    volume = ball(0)
    middle = central_slices(volume, 2)
    assert np.array_equal(middle.voxels, volume.voxels[2:4])
    assert middle.geometry == volume.geometry.cropped((2, 0, 0))


def test_a_new_calibration_counts_at_once(
    thin: Volume, config: EnhanceConfig, model: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    config = replace(config, model=str(copy))
    assert enhance(thin, config).uncertainty_facts["calibration"] is None
    record_calibration(copy, Calibration(2.0, "nothing"))
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


def test_a_training_without_held_out_volumes_is_not_calibrated(tiny_model: Path) -> None:
    assert not open_enhancer(read_bundle(tiny_model)).calibration.is_fitted
