"""One tiny training for all tests of the implicit network, and its models as if they shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from Library.unicompress.conftest import noisy_waves

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.volume_files import save
from MedEnhanceLib.training.unicompress.config import ImplicitConfig
from MedEnhanceLib.training.unicompress.two_stages import train
from MedEnhanceLib.unicompress.codec_models import CodecModel, read_model
from MedEnhanceLib.unicompress.codecs.implicit import codec


def waves(shape: tuple[int, int, int], thickness: float = 1.0, modality: str = "MR") -> Volume:
    """A smooth volume with some noise, int16."""
    voxels = noisy_waves(shape, seed=sum(shape), rise=8 * thickness)
    return Volume(voxels, Geometry((1.0, 1.0, thickness)), modality=modality, source="waves")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Volumes to learn from: MR of thin and CT of thick slices."""
    folder = tmp_path_factory.mktemp("volumes")
    paths = [folder / "thin.nrrd", folder / "thick.nrrd"]
    save(waves((34, 70, 66)), paths[0])
    save(waves((18, 66, 64), 4.0, "CT"), paths[1])
    return paths


@pytest.fixture(scope="session")
def smoke() -> ImplicitConfig:
    """A training of seconds, enough for layers to be worth their bytes."""
    return replace(ImplicitConfig.preset("smoke"), teacher_steps=15, student_steps=10, device="cpu")


@pytest.fixture(scope="session")
def models(
    smoke: ImplicitConfig, files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, CodecModel]:
    """What readers and writers need, by role."""
    trained = train(smoke, files, tmp_path_factory.mktemp("smoke"))
    return {path.stem: read_model(path) for path in trained}


@pytest.fixture
def shipped(models: dict[str, CodecModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the tiny training ship for every modality."""
    monkeypatch.setattr(codec, "shipped_model", lambda role, _modality: models[role])
