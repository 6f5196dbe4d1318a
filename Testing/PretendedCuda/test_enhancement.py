"""What makes images and labels gives on a pretended card what it gives on the CPU.

In single precision the same kernels compute, so a gray value at most may be rounded differently,
but where rounding decides which of two blocks is the nearer one: a voxel in a thousand.
Half precision (float16 on a card) has a bound of its own.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.conftest import WarningRecorder, recorder  # noqa: F401
from Library.gradprom.test_head import phantom
from Library.hqg.conftest import brain
from Library.hqg.test_slices import _scan
from PretendedCuda.device import cards as driver
from PretendedCuda.device import pretended

from MedEnhanceLib.bundles.store import shipped_folder
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters.block_matching import BlockMatchingFilter, Round
from MedEnhanceLib.filters.torch_engine import TorchEngine, TorchGroups
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.strength import Enhanced
from MedEnhanceLib.learning import precision
from MedEnhanceLib.runtime.progress import Monitor


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_in_half", lambda _: False)


def on(card: str, config: EnhanceConfig, volume: Volume) -> Enhanced:
    if card == "cpu":
        return enhance(volume, config)
    with pretended():
        return enhance(volume, replace(config, device=card))


def far(found: Volume, wanted: Volume) -> np.ndarray:
    assert found.geometry == wanted.geometry
    return np.abs(found.voxels.astype(float) - wanted.voxels)


@pytest.mark.slow
@pytest.mark.usefixtures("single")
@pytest.mark.parametrize(("name", "card"), [("ct", "cuda"), ("mr", "cuda:1")])
def test_models_that_ship_agree(name: str, card: str) -> None:
    volume = brain().crop(j=slice(16, 56), i=slice(16, 52))  # a side of 36 needs margins
    noise = np.random.default_rng(0).normal(0, 30, volume.shape)
    voxels = 8 * np.abs(volume.voxels + noise)
    volume = replace(volume, voxels=voxels.astype(np.int16))
    if name == "ct":
        volume = replace(volume, voxels=(voxels - 1000).astype(np.int16), modality="CT", units="HU")
    config = EnhanceConfig(model=name, device="cpu", uncertainty=True)
    found, wanted = on(card, config, volume), on("cpu", config, volume)
    difference, sigma = far(found.volume, wanted.volume), wanted.measured["noise"]["sigma"]
    assert np.quantile(difference, 0.999) <= 1
    assert difference.max() <= 0.02 * sigma
    limit = 1e-3 * wanted.uncertainty.voxels.max()
    assert far(found.uncertainty, wanted.uncertainty).max() <= limit
    assert found.device == card
    assert driver.launches > 300


@pytest.mark.slow
@pytest.mark.usefixtures("single")
def test_thin_slices_and_a_head_agree(tmp_path: Path) -> None:
    from MedEnhanceLib.gradprom import SegmentConfig, segment
    from MedEnhanceLib.hqg.slices.thin_slices import enhance_slices

    image, _ = phantom()
    small = replace(image, voxels=image.voxels[8:14])

    def labels(card: str) -> Volume:
        folder = tmp_path / card[:4]  # one of its own: heads stay loaded, on the device last used
        shutil.copytree(shipped_folder() / "brain-tissue", folder)
        config = SegmentConfig(model=str(folder), device=card, force_segmenter=True)
        return segment(small, config).volume

    def thin(card: str) -> Volume:
        config = EnhanceConfig(model="mr-slices", device=card)
        return enhance_slices(_scan((6, 20, 24)), config, Monitor(), tune=False).volume

    for make in (labels, thin):
        wanted = make("cpu")
        with pretended():
            assert far(make("cuda:1"), wanted).max() <= 1


@pytest.mark.parametrize("after", [0, 3])
def test_where_a_cards_memory_runs_out_the_filter_goes_on_on_the_cpu(
    after: int, cards: object, recorder: WarningRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, add = itertools.count(), TorchGroups.add

    def limited(groups: TorchGroups, *arguments: Any) -> None:
        if groups.arrays.pilot.is_cuda and next(begun) >= after:
            raise torch.OutOfMemoryError("CUDA out of memory")
        add(groups, *arguments)

    monkeypatch.setattr(TorchGroups, "add", limited)
    noisy = np.random.default_rng(0).normal(500, 8, (24, 16, 16)).astype(np.float32)
    level = np.broadcast_to(np.float32(8), noisy.shape)
    run = partial(BlockMatchingFilter, noisy, level, rounds=(Round(step=4, keep=8),), threads=2)
    found = run(engine=TorchEngine("cuda:1", recorder.monitor)).denoised()
    assert np.allclose(found, run().denoised(), atol=1e-2)
    warnings = [text for text in recorder.warnings if "memory ran out on cuda:1" in text]
    steps = ("1024 groups at once", "256 groups at once", "with the CPU")
    assert all(step in text for text, step in zip(warnings, steps, strict=True))
