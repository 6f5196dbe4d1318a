"""The network that sees whole slices of CT: its training, its bundle, its use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib import native
from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import open_bundle, read_bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.config import ViewConfig
from MedEnhanceLib.hqg.denoisers import BlockMatching
from MedEnhanceLib.hqg.strength import Enhanced
from MedEnhanceLib.hqg.view_network import ViewNet, inputs_of
from MedEnhanceLib.io import save
from MedEnhanceLib.learning.native_unet import NativeUNet
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.run import train
from MedEnhanceLib.training.hqg.view_slabs import CleanVolume, SlabMaker

_SIGMA = 25.0


def body(slices: int = 8, side: int = 96) -> Floats:
    """An ellipse of tissue with organs in it, in air, HU."""
    j, i = np.meshgrid(*2 * [np.linspace(-1, 1, side)], indexing="ij")
    plane = np.where(j**2 + 1.4 * i**2 < 0.9, 40 * np.sign(np.sin(6 * j) * np.sin(5 * i)), -1000)
    return np.repeat(plane[None], slices, axis=0).astype(np.float32)


def noisy(seed: int = 0) -> Volume:
    noise = np.random.default_rng(seed).normal(0, _SIGMA, body().shape)
    return Volume((body() + noise).astype(np.float32), Geometry((0.8, 0.8, 2.0)), modality="CT")


def _maker() -> SlabMaker:
    return SlabMaker([CleanVolume(noisy(1).voxels, (0.8, 0.8, 2.0))], BlockMatching(), 0.0, seed=0)


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


def _enhanced(model: Path | str, volume: Volume, *, part: Any = None, **fields: Any) -> Enhanced:
    options = EnhanceConfig(model=str(model), device="cpu", **fields)
    return enhance(volume, options, slices=part)


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


def test_auto_uses_it_and_each_method_can_be_chosen(trained: Path) -> None:
    methods = {}
    for name in ("auto", "set-network", "view-network", "block-matching"):
        model = "auto" if name == "block-matching" else trained
        result = _enhanced(model, noisy(), denoiser=name)
        methods[name] = result.measured["denoiser"]
        left = (result.volume.voxels - body())[:, 30:70, 30:70].std()
        assert left < 0.6 * _SIGMA, name
    assert methods["auto"] == methods["view-network"] == "view-network"
    assert methods["set-network"] == "set-network"


def test_a_model_without_it_is_refused_by_name(user_models: Path) -> None:
    with pytest.raises(ModelError, match=r"mr has no network that sees whole slices") as caught:
        _enhanced("mr", replace(noisy(), modality="MR"), denoiser="view-network")
    assert "auto" in caught.value.hint


def test_untrained_it_changes_nothing_and_is_blind_where_there_is_no_noise() -> None:
    network = ViewNet(ViewConfig(widths=(8, 8)))
    images = torch.randn(2, 5, 40, 44), torch.randn(2, 5, 40, 44)
    sigma = torch.full((2, 40, 44), 0.02)
    assert torch.equal(network(*images, sigma), images[1][:, 2])
    torch.nn.init.ones_(network.last.weight)
    sigma[:, :20] = 0
    changed = network(*images, sigma) != images[1][:, 2]
    assert not changed[:, :20].any()
    assert changed[:, 20:].any()


@pytest.mark.parametrize(
    ("widths", "depth", "shape"), [((8, 24, 40), 2, (37, 44)), ((33,), 1, (9, 5))]
)
def test_c_and_pytorch_agree(widths: tuple, depth: int, shape: tuple, native_path: Path) -> None:
    torch.manual_seed(0)
    network = ViewNet(ViewConfig(widths=widths, depth=depth)).eval().requires_grad_(False)
    for weights in network.parameters():  # some begin at 0
        torch.nn.init.normal_(weights, std=0.05)
    noisy, filtered = torch.randn(2, 1, 5, *shape)
    sigma = torch.rand(1, *shape) / 50
    expected = network(noisy, filtered, sigma)[0].numpy()
    top = 1000.0
    scaled = ((each[0] * top).numpy() for each in (noisy, filtered, sigma))
    inputs = inputs_of(*scaled, top)
    changed = np.abs(expected - filtered[0, 2].numpy()).max()
    for width in native.Library(native_path).widths:
        compiled = NativeUNet(network, native.Library(native_path, width))
        for _again in range(2):  # with the memory of the first image
            change = compiled.change(inputs)
            result = filtered[0, 2].numpy() + sigma[0].numpy() * change
            assert np.abs(result - expected).max() < changed * (0.03 if width == "amx" else 1e-4)
        assert compiled.change(inputs[:, :7, :4]).shape == (7, 4)
        with pytest.raises(ValueError, match="11 images"):
            compiled.change(inputs[1:])


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
    assert np.median(np.abs(np.diff(even, axis=0))) < 0.5 * _SIGMA
