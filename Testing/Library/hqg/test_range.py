"""An enhancer warns of inputs unlike its training data, and of no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from MedEnhanceLib.bundles.schema import WEIGHTS
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import gaussian_blur, rician_noise
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer
from MedEnhanceLib.hqg.config import NetworkConfig, TrainConfig
from MedEnhanceLib.hqg.features import WORDS, Features, find_tissue, measure_features, noise_level
from MedEnhanceLib.hqg.network import GuidanceEncoder
from MedEnhanceLib.hqg.range import PREFIX, RangeBank, Sample, judge
from MedEnhanceLib.hqg.train.range_fit import fit_range
from MedEnhanceLib.io import save
from MedEnhanceLib.jobs.enhancing import enhance_volume
from MedEnhanceLib.jobs.files import KeptVolumes
from MedEnhanceLib.jobs.kinds.enhance import EnhanceParams, run_enhance
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.runtime.progress import Event, Monitor

AS_IT_IS = Scaling(0.0, 1.0)
Draw = Callable[..., Features]


@pytest.fixture(scope="module")
def guide() -> GuidanceEncoder:
    torch.manual_seed(0)
    tiny = NetworkConfig(context=1, widths=(8, 8, 12, 16), guide_widths=(4, 4, 8, 8), window=32)
    return GuidanceEncoder(tiny).eval().requires_grad_(False)


def brain(seed: int) -> np.ndarray:
    """Smooth tissue with folds in an ellipsoid, 0 to 1; each seed is another subject."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[-1:1:12j, -1:1:72j, -1:1:64j]
    folds = np.sin(18 * i + rng.uniform(0, 6)) * np.sin(15 * j + 4 * k + rng.uniform(0, 6))
    inside = k**2 + (j / rng.uniform(0.8, 0.95)) ** 2 + (i / rng.uniform(0.75, 0.9)) ** 2 < 1
    tissue = rng.uniform(0.65, 0.75) + 0.2 * folds + 0.08 * np.cos(5 * j)
    return gaussian_blur(np.where(inside, tissue, 0), 0.5)


@pytest.fixture(scope="module")
def draw(guide: GuidanceEncoder) -> Draw:
    def features(voxels: np.ndarray, modality: str = "MR") -> Features:
        return measure_features(voxels.astype(np.float32), AS_IT_IS, guide, modality)

    return features


@pytest.fixture(scope="module")
def bank(draw: Draw) -> RangeBank:
    rng = np.random.default_rng(0)
    samples = []
    for seed in range(5):
        for _ in range(8):
            subject = brain(seed) * rng.uniform(0.9, 1.1)
            clean = rician_noise(subject, 0.01, rng)
            samples += [
                Sample(str(seed), "clean", draw(clean)),
                Sample(str(seed), "blur", draw(gaussian_blur(subject, rng.uniform(0.8, 1.5)))),
                Sample(
                    str(seed), "rician", draw(rician_noise(subject, rng.uniform(0.02, 0.15), rng))
                ),
            ]
    return RangeBank.fit(samples)


def test_a_new_subject_is_in_range_at_every_noise(draw: Draw, bank: RangeBank) -> None:
    rng = np.random.default_rng(1)
    for seed in (20, 21, 22):
        for sigma in (0.01, 0.05, 0.1, 0.14):
            assert bank.distance(draw(rician_noise(brain(seed), sigma, rng))) < 1


@pytest.mark.parametrize("name", ["hu", "bottle", "noise", "rayleigh", "negative"])
def test_what_looks_otherwise_is_out_of_range(name: str, draw: Draw, bank: RangeBank) -> None:
    rng = np.random.default_rng(2)
    shape = brain(0).shape
    bottle = np.zeros(shape)
    bottle[:, 10:-10, 10:-10] = 0.9
    voxels = {
        "hu": brain(20) * 4 - 3,
        "bottle": rician_noise(bottle, 0.03, rng),
        "noise": rng.normal(0.7, 0.1, shape),
        "rayleigh": rician_noise(np.zeros(shape), 0.2, rng),
        "negative": -brain(20),
    }[name]
    assert bank.distance(draw(voxels)) > 1.2


def test_clean_is_what_has_the_noise_and_the_sharpness_of_the_clean_ones(
    draw: Draw, bank: RangeBank
) -> None:
    rng = np.random.default_rng(3)
    subject = brain(30)
    assert bank.is_clean(draw(rician_noise(subject, 0.008, rng)))
    assert not bank.is_clean(draw(rician_noise(subject, 0.05, rng)))
    assert not bank.is_clean(draw(gaussian_blur(subject, 1.2)))


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1])
def test_noise_is_measured_beside_structure(sigma: float) -> None:
    rng = np.random.default_rng(4)
    planes = (brain(0) + rng.normal(0, sigma, brain(0).shape)).astype(np.float32)
    measured = noise_level(planes, find_tissue(planes, "MR"))
    assert 0.9 * sigma < measured < 1.1 * sigma + 0.012  # folds count as a little noise


def test_features_are_the_same_twice_and_in_another_unit(guide: GuidanceEncoder) -> None:
    voxels = brain(5).astype(np.float32)
    one = measure_features(voxels, AS_IT_IS, guide, "MR")
    again = measure_features(voxels * 500, Scaling(0.0, 500.0), guide, "MR")
    assert np.allclose(one.vector, again.vector, atol=1e-3)
    assert np.array_equal(one.vector, measure_features(voxels, AS_IT_IS, guide, "MR").vector)
    assert set(one.names) <= set(WORDS)


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 33, 57), (5, 7, 9), (3, 1, 1), (4, 2, 3)])
def test_thin_and_small_volumes_are_measured(shape: tuple[int, ...], draw: Draw) -> None:
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    assert np.isfinite(draw(voxels).vector).all()


def test_figures_that_go_together_are_far_when_they_part() -> None:
    rng = np.random.default_rng(9)

    def made(dark: float, bright: float) -> Features:
        return Features(np.zeros(4, np.float32), {"q25": dark, "q75": bright})

    common = rng.normal(0.5, 0.1, 200)
    samples = [Sample("a", "", made(one, one + rng.normal(0, 0.02))) for one in common]
    bank = RangeBank.fit(samples)
    together, apart = bank.distance(made(0.65, 0.65)), bank.distance(made(0.65, 0.35))
    assert apart > 1.5 * together


def test_one_volume_makes_a_bank_too(draw: Draw) -> None:
    rng = np.random.default_rng(5)
    samples = [
        Sample("only", "clean", draw(rician_noise(brain(0), 0.01 + 0.01 * n, rng)))
        for n in range(12)
    ]
    bank = RangeBank.fit(samples)
    assert bank.distance(samples[0].features) < 1
    assert bank.distance(draw(rng.normal(0.7, 0.1, (6, 40, 40)))) > 1


class TestInABundle:
    def test_a_training_exports_its_bank(self, tiny_model: Path) -> None:
        bundle = read_bundle(tiny_model)
        model = open_enhancer(bundle)
        assert model.range is not None
        reported = bundle.metadata["range"]
        assert reported["volumes"] == 3
        assert reported["limits"]["distance"] == pytest.approx(
            float(model.range.limits[0]), abs=1e-4
        )

    def test_half_precision_changes_no_distance(self, bank: RangeBank, draw: Draw) -> None:
        stored = {name: tensor.half().float() for name, tensor in bank.tensors().items()}
        again = RangeBank.read(stored, {"range": bank.to_json()})
        assert again is not None
        features = draw(brain(7))
        assert again.distance(features) == bank.distance(features)

    def test_a_bank_of_other_features_is_not_read(self, bank: RangeBank) -> None:
        reported = bank.to_json() | {"features": ["beauty"]}
        assert RangeBank.read(bank.tensors(), {"range": reported}) is None
        assert RangeBank.read({}, {"range": bank.to_json()}) is None
        assert RangeBank.read(bank.tensors(), {}) is None

    @pytest.mark.parametrize("name", ["limits", "scale", "whiten"])
    def test_a_bank_that_cannot_be_computed_with_is_refused(
        self, bank: RangeBank, name: str
    ) -> None:
        tensor = bank.tensors()[PREFIX + name]
        odd = tensor[1:] if name == "whiten" else torch.zeros_like(tensor)
        with pytest.raises(ValueError, match="the bank"):
            RangeBank.read(bank.tensors() | {PREFIX + name: odd}, {"range": bank.to_json()})

    @pytest.mark.parametrize(
        "fields", [{"widths": [1 << 20] * 4}, {"widths": "x"}, {"colors": 3}, {"widths": [[]]}]
    )
    def test_a_network_that_its_weights_are_not_of_takes_no_memory(
        self, tiny_model: Path, fields: dict[str, object]
    ) -> None:
        bundle = read_bundle(tiny_model)
        odd = replace(bundle, metadata=bundle.metadata | {"network": fields})
        with pytest.raises(ModelError, match="do not fit its description"):
            open_enhancer(odd)

    @pytest.mark.slow
    def test_an_existing_bundle_gets_one_and_keeps_its_weights(
        self, without_bank: Path, smoke: TrainConfig, training_data: Path
    ) -> None:
        before = load_file(without_bank / WEIGHTS)
        bundle = fit_range(without_bank, smoke, training_data)
        after = load_file(without_bank / WEIGHTS)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        first = open_enhancer(bundle).range
        again = open_enhancer(fit_range(without_bank, smoke, training_data)).range
        assert first is not None
        assert again is not None
        assert np.array_equal(first.whiten, again.whiten)  # the same seed draws the same


class TestWarnings:
    def test_a_model_without_a_bank_says_that_it_did_not_look(
        self, without_bank: Path, head: Volume, received: list[Event]
    ) -> None:
        config = EnhanceConfig(model=str(without_bank), device="cpu")
        done = enhance_volume(head, config, monitor=Monitor(received.append))
        assert done.report["results"]["range"] == "not checked"
        # Trained for a few steps only, which is all that is said.
        assert [warning["code"] for warning in done.report["results"]["doubts"]] == ["test-model"]
        (warning,) = [event for event in received if event.kind == "warning"]
        assert "trained for 6 steps only" in warning.fields["message"]

    @pytest.mark.slow
    def test_noise_is_a_warning_everywhere(
        self, tiny_model: Path, noise: Volume, received: list[Event], tmp_path: Path
    ) -> None:
        save(noise, tmp_path / "noise.nii.gz")
        params = EnhanceParams(
            input=str(tmp_path / "noise.nii.gz"),
            modality="MR",
            output=str(tmp_path / "out.nii.gz"),
            config={"model": str(tiny_model), "device": "cpu"},
            report=str(tmp_path / "page"),
        )
        run_enhance(params, Monitor(received.append), KeptVolumes())
        warnings = [event.fields["message"] for event in received if event.kind == "warning"]
        assert any("no structure" in message for message in warnings)
        manifest = json.loads((tmp_path / "out.nii.gz.json").read_text())
        _, warning = manifest["results"]["doubts"]
        assert warning["code"] == "no-structure"
        assert manifest["results"]["range"]["distance"] == pytest.approx(
            warning["distance"], abs=1e-3
        )
        assert "no structure" in (tmp_path / "page" / "index.html").read_text()

    def test_slices_are_judged_as_the_whole_volume_is(
        self, tiny_model: Path, noise: Volume
    ) -> None:
        config = EnhanceConfig(model=str(tiny_model), device="cpu")
        part = enhance(noise, config, slices=(2, 4))
        assert part.warnings == enhance(noise, config).warnings
        assert "no structure" in part.volume.history[-1]

    def test_words_name_the_figure_that_departs_and_what_to_do(
        self, draw: Draw, bank: RangeBank, tiny_model: Path
    ) -> None:
        model = replace(open_enhancer(read_bundle(tiny_model)), range=bank)
        (warning,) = self._warnings(draw(brain(20) * 4 - 3), model)
        assert warning.code == "out-of-range"
        assert warning.distance is not None
        assert warning.distance > 1
        assert "below zero are more frequent" in warning.message or "are lower" in warning.message
        assert "modality" in warning.hint

    def test_a_crop_within_the_body_is_named_as_a_reason(
        self, draw: Draw, bank: RangeBank, tiny_model: Path
    ) -> None:
        model = replace(open_enhancer(read_bundle(tiny_model)), range=bank)
        whole = rician_noise(brain(20), 0.05, np.random.default_rng(0))
        (warning,) = self._warnings(draw(whole[:, 14:58, 14:50]), model)
        assert warning.code == "out-of-range"
        assert "cropped within the body" in warning.hint
        (warning,) = self._warnings(draw(whole * 4 - 3), model)
        assert "cropped" not in warning.hint

    def test_a_clean_volume_gets_the_warning_that_there_is_little_to_gain(
        self, draw: Draw, bank: RangeBank, tiny_model: Path
    ) -> None:
        model = replace(open_enhancer(read_bundle(tiny_model)), range=bank)
        rng = np.random.default_rng(6)
        (warning,) = self._warnings(draw(rician_noise(brain(30), 0.008, rng)), model)
        assert warning.code == "already-clean"
        assert "% of the range" in warning.message
        assert "little to gain" in warning.hint

    @staticmethod
    def _warnings(features: Features, model: EnhancerModel) -> tuple:
        assert model.range is not None
        return judge(features, model.range, model.bundle).warnings

    def test_of_a_sequence_the_first_frame_is_judged(self, tiny_model: Path, noise: Volume) -> None:
        model = open_enhancer(read_bundle(tiny_model))
        sequence = replace(noise, voxels=np.stack([noise.voxels, noise.voxels // 2]))
        one, several = model.compare(noise), model.compare(sequence)
        assert one is not None
        assert one == several


@pytest.fixture
def received() -> list[Event]:
    return []


@pytest.fixture
def noise() -> Volume:
    voxels = np.random.default_rng(8).rayleigh(100, (8, 48, 56)).astype(np.float32)
    return Volume(voxels, modality="MR", source="noise")


@pytest.fixture
def without_bank(tiny_model: Path, tmp_path: Path) -> Path:
    """A bundle as an earlier version exported it."""
    from MedEnhanceLib.bundles.export import export_bundle, load_tensors

    bundle = read_bundle(tiny_model)
    tensors = {k: t for k, t in load_tensors(bundle).items() if not k.startswith("range.")}
    metadata = {
        k: reported for k, reported in bundle.metadata.items() if k not in ("files", "range")
    }
    return export_bundle(tmp_path / "earlier", tensors, metadata).folder
