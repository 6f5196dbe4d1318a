"""One tiny training for all tests of the implicit network, and its models as if they shipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.allocation import implicit_layers
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.train import ImplicitTraining
from MedEnhanceLib.unicompress.codecs.implicit.trainer import Source, make_source
from MedEnhanceLib.unicompress.models import CodecModel, _load


def waves(shape: tuple[int, int, int], thickness: float = 1.0, modality: str = "MR") -> Volume:
    """A smooth volume with some noise, int16."""
    k, j, i = np.mgrid[tuple(slice(n) for n in shape)]
    rng = np.random.default_rng(sum(shape))
    smooth = 300 * np.sin(j / 9) * np.cos(i / 7) + 8 * k * thickness
    geometry = Geometry(spacing=(1.0, 1.0, thickness), origin=(0, 0, 0), direction=np.eye(3))
    voxels = (smooth + rng.normal(0, 4, shape)).astype(np.int16)
    return Volume(voxels, geometry, modality=modality, units="", source="waves")


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Volumes to learn from: MR of thin and CT of thick slices."""
    return [
        make_source(waves((34, 70, 66)), "thin"),
        make_source(waves((18, 66, 64), 4.0, "CT"), "thick"),
    ]


@pytest.fixture(scope="session")
def smoke() -> ImplicitConfig:
    """A training of seconds, enough for layers to be worth their bytes."""
    return replace(
        ImplicitConfig.preset("smoke"),
        teacher_steps=60,
        student_steps=40,
        learning_rate=1e-3,
        device="cpu",
    )


@pytest.fixture(scope="session")
def trained(
    smoke: ImplicitConfig, sources: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> ImplicitTraining:
    """A finished training, exported into its folder."""
    out = tmp_path_factory.mktemp("smoke")
    training = ImplicitTraining(smoke, sources, out, "cpu", Monitor())
    training.learn(Monitor())
    training.export(Monitor())
    return training


@pytest.fixture(scope="session")
def models(trained: ImplicitTraining) -> dict[str, CodecModel]:
    """What readers and writers need, by role."""
    folder = trained.out / "codec-mr" / "models"
    return {role: _load(folder / f"{role}.safetensors", role) for role in implicit_layers.ROLES}


@pytest.fixture
def shipped(models: dict[str, CodecModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the tiny training ship for every modality."""
    monkeypatch.setattr(implicit_layers, "shipped_model", lambda role, _modality: models[role])
