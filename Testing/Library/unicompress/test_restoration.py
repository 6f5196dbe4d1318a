"""Restored blocks: the same integers however they are computed, and never further away."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.unicompress import compress
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceLib.unicompress.encode import restoration_for
from MedEnhanceLib.unicompress.models import CodecModel, DecodeContext, ModelSet

from .conftest import Write
from .test_video import context_of, smooth

Layers = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def layers_of(widths: tuple[int, ...] = (25, 8, 4), seed: int = 0) -> Layers:
    rng = np.random.default_rng(seed)
    return [
        (
            rng.integers(-127, 128, (after, before, 3, 3)).astype(np.int8),
            rng.integers(-9999, 9999, after).astype(np.int32),
            rng.integers(4, 9, after).astype(np.int8),
        )
        for before, after in itertools.pairwise(widths)
    ]


def model_of(layers: Layers, layout: str = video.LAYOUT) -> CodecModel:
    from safetensors.numpy import save

    tensors = {
        f"{name}{n}": values
        for n, layer in enumerate(layers)
        for name, values in zip(("weight", "bias", "shift"), layer, strict=True)
    }
    data = save(tensors, metadata={"layout": layout})
    return CodecModel("restoration", "test", hashlib.sha256(data).hexdigest(), data)


def by_hand(cells: np.ndarray, layers: Layers) -> np.ndarray:
    """The layers in Python's integers, tap by tap."""
    for number, (weight, bias, shift) in enumerate(layers):
        padded = np.pad(cells.astype(object), ((0, 0), (1, 1), (1, 1)))
        height, width = cells.shape[1:]
        sums = np.zeros((len(weight), height, width), object) + bias[:, None, None].astype(object)
        for y in range(3):
            for x in range(3):
                part = padded[:, y : y + height, x : x + width].reshape(len(padded), -1)
                sums += (weight[:, :, y, x].astype(object) @ part).reshape(sums.shape)
        last = number == len(layers) - 1
        sums = sums * 64**last // (2 ** shift.astype(object))[:, None, None]
        cells = sums if last else np.clip(sums, 0, 255)
    return cells


def test_the_network_is_exact() -> None:
    layers = layers_of()
    network = video.network_of(model_of(layers))
    cells = np.random.default_rng(1).integers(-255, 256, (25, 9, 7)).astype(np.float32)
    fast = video._run(cells, network)
    assert (fast == by_hand(cells.astype(int), layers)).all()


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = video.network_of(model_of(layers_of()))
    frames = np.random.default_rng(2).integers(0, 1100, (3, 31, 45)).astype(np.uint16)
    whole = video.predict(frames, 60, network)
    monkeypatch.setattr(video, "_STRIP_VALUES", 1)
    assert (video.predict(frames, 60, network) == whole).all()
    assert whole.shape == frames.shape


@pytest.mark.parametrize(
    "layers",
    [
        layers_of((25, 4, 3)),
        layers_of((24, 4)),
        [(np.zeros((4, 25, 3, 3), "f4"), np.zeros(4, "i4"), np.zeros(4, "i1"))],
        [(np.zeros((4, 25, 3, 3), "i1"), np.zeros(4, "i4"), np.full(4, 15, "i1"))],
    ],
    ids=["outputs", "inputs", "type", "shift"],
)
def test_a_model_of_another_kind_is_refused(layers: Layers) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        video.network_of(model_of(layers))


def test_sums_that_are_not_exact_are_refused() -> None:
    zeros = np.zeros(4, np.int8)
    wide = [(np.full((4, 25, 3, 3), 127, np.int8), np.full(4, 1 << 24, np.int32), zeros)]
    with pytest.raises(ModelError, match="exactly"):
        video.network_of(model_of(wide))
    with pytest.raises(ModelError, match="layout"):
        video.network_of(model_of(layers_of(), "cells-9"))


def sharpener() -> CodecModel:
    """One layer: gives a tenth of what a voxel is above its surroundings."""
    weight = np.zeros((4, 25, 3, 3), np.int8)
    for cell in range(4):
        weight[cell, 8 + cell, 1, 1] = 13
    return model_of([(weight, np.zeros(4, np.int32), np.full(4, 7, np.int8))])


def test_restoring_never_takes_a_block_further_away() -> None:
    for step in (4.0, 40.0, 200.0):
        block = smooth((4, 40, 44))
        coded = video.encode(block, step, speed="fast")
        for model in (sharpener(), model_of(layers_of())):
            context = DecodeContext(block.dtype, context_of(block).voxel_range, ModelSet.of(model))
            restored, _ = video.filtered(coded.data, block, context, 900)
            assert len(restored) <= len(coded.data) + 900
            before, after = (
                video.error_of(block, video.decode(data, block.shape, context))
                for data in (coded.data, restored)
            )
            # Intensities are rounded to whole ones without a restoration, to 16ths with one.
            assert after <= before * 1.01


def test_the_network_is_for_those_who_have_time_to_read() -> None:
    configs = {s: CompressConfig(ratio=64, speed=s) for s in ("normal", "fast", "slow")}
    found = {speed: restoration_for("CT", config) for speed, config in configs.items()}
    assert found["normal"] is None
    assert found["fast"] is None
    assert found["slow"] is not None


def test_a_restored_file_names_its_model_and_can_carry_it(
    scan: Volume, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from MedEnhanceLib.unicompress import encode, inspect_container

    large = Volume(np.tile(scan.voxels, (2, 4, 4)), modality="CT")
    monkeypatch.setattr(
        __import__("importlib").import_module("MedEnhanceLib.unicompress.encode"),
        "shipped_model",
        lambda role, modality: None,
    )
    assert inspect_container(write(large, ratio=20, speed="fast"))["models"] == {}
    assert encode is not None
    done = compress(
        large, tmp_path / "b.ucv", CompressConfig(ratio=20, speed="fast", embed_model=True)
    )
    assert done.ratio >= 20


def test_training_writes_a_model_that_can_be_used_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from MedEnhanceLib import io
    from MedEnhanceLib.unicompress.codecs.video.train import RestorationConfig, train_restoration

    source = tmp_path / "a.nii.gz"
    io.save(Volume(smooth((6, 48, 52)), modality="CT"), source)
    config = RestorationConfig.preset("smoke", modality="CT")
    fractions: list[float] = []

    def listen(event: Event) -> None:
        if event.kind == "progress":
            fractions.append(event.fields["fraction"])

    first = train_restoration(config, [source], tmp_path / "out", Monitor(listen)).read_bytes()
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > config.steps
    assert train_restoration(config, [source], tmp_path / "out").read_bytes() == first
    model = CodecModel("restoration", "a", hashlib.sha256(first).hexdigest(), first)
    assert video.network_of(model).weights[0].shape == (8, 25 * 9)
    assert model.facts["trained_on"] == "a.nii.gz"
    with pytest.raises(InputError, match="no volumes"):
        train_restoration(config, [], tmp_path / "other")
    with pytest.raises(ConfigError, match="preset"):
        RestorationConfig.preset("huge", modality="CT")


def test_training_sees_what_a_reader_sees() -> None:
    """Inputs in floats are those in integers, rounded down; a folded network gives the same."""
    torch = pytest.importorskip("torch")
    from MedEnhanceLib.unicompress.codecs.video import train as training

    stack = np.random.default_rng(3).integers(0, 1000, (5, 40, 44)).astype(np.int32)
    noise = 88
    sigma = torch.tensor([2.0 ** ((noise - 32) / 8)])
    floats = training.inputs_of(torch.from_numpy(stack[None].astype(np.float32)), sigma)
    whole = video.inputs_of(stack, noise)
    assert np.abs(whole / 32 - floats[0].numpy()).max() <= 1 / 32 + 1e-2
    assert 10 < np.abs(whole).mean() < 250

    network = training._Network(8, 3)
    network.norms[0].running_mean.uniform_(-1, 1)
    network.norms[0].running_var.uniform_(0.3, 3)
    for layer in network.layers:
        layer.bias.data.uniform_(-1, 1)
    network.eval()
    layers = [tuple(part.numpy() for part in layer) for layer in network.integers()]
    outputs = video._run(whole, video.network_of(model_of(layers))) / 2048
    with torch.no_grad():
        wanted = network(floats)[0].numpy()
    off = outputs - wanted
    assert np.abs(off).max() < 0.05 * np.abs(wanted).max()
    assert abs(off.mean()) < 0.01
