"""The predictor's training writes a model that codes, and goes on where it stopped."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.io.volume_files import save
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.unicompress.codecs.predictor import learned
from MedEnhanceLib.unicompress.codecs.predictor.train import (
    FloatNetwork,
    PredictorConfig,
    learning_rate,
    train_predictor,
    voxel_bits,
)
from MedEnhanceLib.unicompress.codecs.predictor.tuning import ideal_bits, samples_of
from MedEnhanceLib.unicompress.models import CodecModel

SMOKE = PredictorConfig.preset("smoke", steps=12, checkpoint_every=4)


@pytest.fixture
def data(scan: Volume, tmp_path: Path) -> list[Path]:
    path = tmp_path / "scan.nii"
    save(scan, path)
    return [path]


def test_training_writes_a_model_with_its_facts(data: list[Path], tmp_path: Path) -> None:
    path = train_predictor(SMOKE, data, tmp_path / "out")
    model = CodecModel("predictor", "trained", "", path.read_bytes())
    assert learned.network_of(model).layers[0].weights.shape[0] == 8
    assert model.facts["modality"] == "CT"
    assert model.facts["seed"] == "0"
    assert "scan.nii" in model.facts["trained_on"]


def test_training_goes_on_where_it_stopped(data: list[Path], tmp_path: Path) -> None:
    steps: list[int] = []

    def after_six() -> bool:
        return len(steps) > 6

    def listen(event: Event) -> None:
        if event.fields.get("stage") == "train the predictor":
            steps.append(1)

    monitor = Monitor(listen, after_six)
    with pytest.raises(Cancelled):
        train_predictor(SMOKE, data, tmp_path / "out", monitor)
    metrics: list[int] = []
    resumed = Monitor(
        lambda event: metrics.append(event.fields["step"]) if event.kind == "metric" else None
    )
    train_predictor(SMOKE, data, tmp_path / "out", resumed)
    assert metrics == [8, 12]


def test_progress_is_reported_throughout(data: list[Path], tmp_path: Path) -> None:
    events: list[tuple[str, float]] = []

    def listen(event: Event) -> None:
        if event.kind == "progress":
            events.append((event.fields["stage"], event.fields["fraction"]))

    train_predictor(SMOKE, data, tmp_path / "out", Monitor(listen))
    fractions = [fraction for _, fraction in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    stages = Counter(stage for stage, _ in events)
    assert stages["read volumes"] >= 1
    assert stages["draw voxels"] == 4  # parts of the pool
    assert stages["train the predictor"] == SMOKE.steps
    assert max(b - a for a, b in pairwise(fractions)) < 0.2


def test_a_checkpoint_of_another_configuration_is_refused(data: list[Path], tmp_path: Path) -> None:
    train_predictor(SMOKE, data, tmp_path / "out")
    with pytest.raises(ConfigError, match="seed"):
        train_predictor(
            PredictorConfig.preset("smoke", steps=12, checkpoint_every=4, seed=1),
            data,
            tmp_path / "out",
        )


def test_volumes_of_floats_are_none_to_train_on(scan: Volume, tmp_path: Path) -> None:
    path = tmp_path / "float.nii"
    save(Volume(scan.voxels.astype(np.float32) / 3, scan.geometry), path)
    with pytest.raises(InputError, match="whole numbers"):
        train_predictor(SMOKE, [path], tmp_path / "out")


def test_whole_numbers_cost_what_floating_point_does(scan: Volume) -> None:
    network = FloatNetwork((8, 8))
    indices = (scan.voxels.astype(np.int32) - int(scan.voxels.min())).astype(np.uint16)
    samples = samples_of(indices, 5_000, np.random.default_rng(0))
    exact = voxel_bits(network, samples).mean().item()
    assert ideal_bits(network.network(), samples) == pytest.approx(exact, rel=2e-3)


def test_the_learning_rate_rises_then_falls() -> None:
    config = PredictorConfig()
    rates = [learning_rate(config, step) for step in (0, 300, 3_500, 6_999)]
    assert rates[0] < rates[1] > rates[2] > rates[3] > 0


@pytest.mark.parametrize("fields", [{"modality": "PET"}, {"widths": (0, 8)}, {"steps": 0}])
def test_configurations_that_cannot_be_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PredictorConfig(**fields)  # type: ignore[arg-type]
