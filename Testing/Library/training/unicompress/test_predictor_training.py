"""The predictor's training writes a model that codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, InputError
from MedEnhanceLib.io.volume_files import save
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.unicompress.pretraining import PredictorConfig, train
from MedEnhanceLib.unicompress.codec_models import CodecModel
from MedEnhanceLib.unicompress.codecs.predictor import learned
from MedEnhanceLib.unicompress.codecs.predictor.tuning import ideal_bits, samples_of

SMOKE = PredictorConfig.preset("smoke")


@pytest.fixture
def data(scan: Volume, tmp_path: Path) -> list[Path]:
    path = tmp_path / "scan.nii"
    save(scan, path)
    return [path]


def test_training_writes_a_model_that_learned_and_says_from_what(
    data: list[Path], scan: Volume, tmp_path: Path
) -> None:
    indices = (scan.voxels.astype(np.int32) - int(scan.voxels.min())).astype(np.uint16)
    samples = samples_of(indices, 5_000, np.random.default_rng(0))
    bits: dict[str, list[float]] = {"predictor": [], "fast-predictor": []}
    for steps in (1, 250):
        config = PredictorConfig.preset("smoke", steps=steps)
        paths = train(config, data, tmp_path / "out")
        assert [path.stem for path in paths] == [*bits]
        for path in paths:
            model = CodecModel("predictor", path.stem, f"{path.stem} {steps}", path.read_bytes())
            facts = json.loads(model.facts["facts"])
            assert (facts["modality"], facts["seed"]) == ("CT", 0)
            assert facts["volumes"] == 1
            assert b"scan" not in model.data, "compressed files may carry it: no names of files"
            bits[path.stem].append(ideal_bits(learned.network_of(model), samples))
    assert bits["predictor"][1] < bits["predictor"][0] - 0.3
    assert bits["fast-predictor"][1] < bits["fast-predictor"][0] - 0.3


def test_it_can_be_cancelled(data: list[Path], tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        train(SMOKE, data, tmp_path / "out", Monitor(cancel=lambda: True))
    assert not (tmp_path / "out").exists()


def test_volumes_of_floats_are_none_to_train_on(scan: Volume, tmp_path: Path) -> None:
    path = tmp_path / "float.nii"
    save(Volume(scan.voxels.astype(np.float32) / 3, scan.geometry), path)
    with pytest.raises(InputError, match="no integer volumes"):
        train(SMOKE, [path], tmp_path / "out")


def test_values_too_far_apart_to_be_coded_end_the_training(scan: Volume, tmp_path: Path) -> None:
    voxels, path = np.random.default_rng(0).integers(0, 2**31, (4, 8, 8)), tmp_path / "wide.nii"
    save(Volume(voxels.astype(np.int32), scan.geometry), path)
    with pytest.raises(InputError, match="differ by more than it codes"):
        train(SMOKE, [path], tmp_path / "out")
