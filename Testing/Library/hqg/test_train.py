"""Training: reproducible, resumable, stoppable, honest about what goes wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, ModelError
from MedEnhanceLib.hqg.augment import degrade_slab
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.pools import Pools
from MedEnhanceLib.hqg.train import Trainer, train
from MedEnhanceLib.progress import Event, Monitor


def test_training_leaves_a_bundle_that_verifies(tiny_model: Path, smoke: TrainConfig) -> None:
    bundle = read_bundle(tiny_model)
    verify_bundle(bundle)
    assert bundle.kind == "enhancer"
    assert bundle.modality == "MR"
    assert bundle.metadata["training"]["config"]["seed"] == smoke.seed
    assert "not a medical device" in (tiny_model / "docs/README.md").read_text()


def test_two_runs_give_the_same_weights(
    tiny_model: Path, training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    again = train(smoke, training_data, tmp_path)
    assert read_bundle(again).sha256 == read_bundle(tiny_model).sha256


def test_a_stopped_training_resumes_to_the_same_weights(
    tiny_model: Path, training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    steps = 0

    def listen(event: Event) -> None:
        nonlocal steps
        steps += "step" in str(event.fields.get("stage"))

    with pytest.raises(Cancelled):
        train(smoke, training_data, tmp_path, Monitor(listen, lambda: steps >= 3))
    assert not (tmp_path / smoke.name).exists()
    resumed = train(smoke, training_data, tmp_path)
    assert read_bundle(resumed).sha256 == read_bundle(tiny_model).sha256


def test_resuming_with_another_configuration_is_refused(
    tiny_model: Path, training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    shutil.copy(tiny_model.parent / "checkpoint.safetensors", tmp_path)
    with pytest.raises(ConfigError, match="learning_rate"):
        train(replace(smoke, learning_rate=1e-5), training_data, tmp_path)


def test_a_damaged_checkpoint_is_named(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors"):
        train(smoke, training_data, tmp_path)


def test_divergence_stops_the_training_and_says_where(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="diverged at step"):
        train(replace(smoke, learning_rate=1e30, steps=20), training_data, tmp_path)


def test_missing_data_names_folder_and_pattern(smoke: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hq/\*"):
        train(smoke, tmp_path, tmp_path / "out")


def test_batches_repeat_with_their_seed(training_data: Path, smoke: TrainConfig) -> None:
    pools = Pools.load(smoke, training_data, Monitor())
    first, again, other = (pools.cycle_batch(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first.degraded, again.degraded)
    assert not np.array_equal(first.degraded, other.degraded)
    assert first.degraded.shape == (smoke.batch, smoke.slab, smoke.patch, smoke.patch)


def test_damage_keeps_shading_in_the_target() -> None:
    clean = np.ones((3, 32, 32), np.float32)
    rng = np.random.default_rng(0)
    damaged, field = degrade_slab(clean, "composite", None, rng)
    assert damaged.shape == clean.shape
    assert field.shape == clean.shape
    untouched, flat = degrade_slab(clean, "clean", None, rng)
    assert np.array_equal(untouched, clean)
    assert (flat == 1).all()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"modality": "PT"}, "PT"),
        ({"patch": 50}, "patch"),
        ({"degradations": {"motion": 1.0}}, "motion"),
        ({"lerning_rate": 1.0}, "learning_rate"),
        ({"preset": "huge"}, "huge"),
        ({"network": {"widths": [1, 2]}}, "widths"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TrainConfig.from_json({"preset": "smoke", **fields})


def test_losses_are_computed_in_full_precision(
    training_data: Path, smoke: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 the variances inside SSIM cancel and its gradients undo the training."""
    trainer = Trainer(smoke, Pools.load(smoke, training_data, Monitor()), "cpu")
    trainer.objective.autocast = torch.autocast("cpu", torch.bfloat16)
    seen: list[tuple[torch.dtype, bool]] = []

    def structure(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append((output.dtype, torch.is_autocast_enabled("cpu")))
        return output.mean()

    monkeypatch.setattr(trainer.objective, "structure", structure)
    trainer.step(0)
    assert seen == [(torch.float32, False)]
