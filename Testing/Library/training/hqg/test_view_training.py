"""Training of the network that sees whole slices of CT, and its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.denoise.test_view_network import SIGMA, noisy

from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import open_bundle, read_bundle
from MedEnhanceLib.denoise.denoisers import BlockMatching
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io import save
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.run import train
from MedEnhanceLib.training.hqg.view_slabs import SlabMaker


def _maker() -> SlabMaker:
    return SlabMaker([noisy(1)], BlockMatching(), 0.0, seed=0)


def config(**fields: Any) -> TrainConfig:
    plain: dict[str, Any] = {
        "preset": "smoke", "modality": "CT", "name": "seen",
        "device": "cpu", "validated": 1, "crops": 1, "high_quality": ["*.nii.gz"],
        "view": {"widths": [8, 8]},
    }  # fmt: skip
    return TrainConfig.from_json(plain | fields)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    save(noisy(1), folder / "clean.nii.gz")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a short training."""
    return train(config(), data, tmp_path_factory.mktemp("out"))


def test_a_bundle_keeps_the_set_network_of_its_start(trained: Path) -> None:
    start, bundle = open_bundle("ct", kind="enhancer", modality="CT"), read_bundle(trained)
    kept, old = load_tensors(bundle), load_tensors(start)
    assert all(torch.equal(kept[name], value) for name, value in old.items() if "view." not in name)
    assert bundle.metadata["training"]["validation"]["gain_db"]
    assert "From ct" in bundle.metadata["training"]["summary"]


def test_the_set_network_of_such_a_bundle_can_be_trained_further(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    network = read_bundle(trained).metadata["network"]
    plain = config(start=str(trained), view=None, steps=1, network=network, name="further")
    bundle = read_bundle(train(plain, data, tmp_path))
    assert not any(name.startswith("view.") for name in load_tensors(bundle))
    assert "view" not in bundle.metadata


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"modality": "MR"}, ConfigError),
        ({"examinations": ["*.nii.gz"]}, ConfigError),
    ],
)
def test_what_it_cannot_learn_is_refused(
    data: Path, tmp_path: Path, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="view"):
        train(config(**fields), data, tmp_path)


def test_volumes_that_are_too_small_are_refused(tmp_path: Path) -> None:
    save(noisy().crop(k=slice(0, 4)), tmp_path / "thin.nii.gz")
    with pytest.raises(InputError, match="8 slices of 96"):
        train(config(), tmp_path, tmp_path / "out")


def test_slabs_repeat_with_their_number_and_are_filtered() -> None:
    first, again = (_maker().make(3)[0] for _ in range(2))
    assert np.array_equal(first.noisy, again.noisy)
    noise, left = (
        (image - first.clean.astype(np.float32))[first.is_tissue].std()
        for image in (first.noisy, first.filtered)
    )
    assert left < noise
    assert noise == pytest.approx(float(np.median(first.sigma[first.is_tissue])), rel=0.5)
    assert first.weight.max() > 2 * first.weight.min()  # planted lesions
    # The noise of the real volume is no part of the target.
    even = first.clean.astype(np.float32)[:, 40:56, 40:56] * 1000
    assert np.median(np.abs(np.diff(even, axis=0))) < 0.5 * SIGMA
