"""A tiny data folder and a model trained on it for seconds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from MedEnhanceLib.bundles.schema import WEIGHTS
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.train import train
from MedEnhanceLib.io import save


def make_head(seed: int, shape: tuple[int, int, int] = (10, 48, 56)) -> Volume:
    """A ball with texture and an edge, int16."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    inside = k**2 + j**2 + i**2 < 0.9
    smooth = 500 + 150 * np.sin(5 * i + seed) * np.cos(4 * j)
    voxels = inside * smooth + rng.normal(0, 3, shape)
    geometry = Geometry((0.8, 0.8, 1.0), (5.0, -7.5, 11.25))
    return Volume(np.abs(voxels).astype(np.int16), geometry, modality="MR", source=f"head {seed}")


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for pool, seeds in (("hq", (0, 1)), ("lq", (2,))):
        (folder / pool).mkdir()
        for seed in seeds:
            save(make_head(seed), folder / pool / f"{seed}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def smoke() -> TrainConfig:
    return replace(TrainConfig.preset("smoke"), name="tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_model(
    training_data: Path, smoke: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a bundle that was trained for a few steps."""
    return train(smoke, training_data, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle whose weights are away from their zero start: it changes what goes in."""
    return str(_shaken_bundle(tiny_model, tmp_path_factory.mktemp("shaken")))


def _shaken_bundle(source: Path, target: Path) -> Path:
    """A copy of a bundle with noise on its weights and with its hash made true again."""
    folder = target / "shaken"
    shutil.copytree(source, folder)
    weights = load_file(folder / WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if "sharpening" not in name:  # random bands of detail would be a multiple of the image
            weights[name] = (tensor.float() + 0.05 * noise).half()
    weights["bank.spread"] = weights["bank.spread"].abs() + 0.5
    save_file(weights, folder / WEIGHTS)
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    metadata["files"][str(WEIGHTS)] = file_sha256(folder / WEIGHTS)
    path.write_text(json.dumps(metadata))
    return folder
