"""What makes images and labels gives on a pretended card what it gives on the CPU.

In single precision the same kernels compute, so a gray value at most may be rounded differently,
but where rounding decides which of two blocks is the nearer one: a voxel in a thousand.
Half precision (float16 on a card) has a bound of its own.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import threading
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.conftest import WarningRecorder, recorder  # noqa: F401
from Library.denoise.conftest import brain
from Library.scanner.test_scanner import case
from Library.slices.test_slices import _scan
from Library.small_head import write_small_head
from Library.training.hqg.test_unpaired import data, trained  # noqa: F401
from PretendedCuda.device import cards as driver
from PretendedCuda.device import pretended

from MedEnhanceLib import native
from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.bundle import set_weights
from MedEnhanceLib.denoise.denoisers import BlockMatching
from MedEnhanceLib.denoise.groups import network_of
from MedEnhanceLib.denoise.removal import Removal, denoise
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.filters import torch_engine
from MedEnhanceLib.filters.torch_engine import TorchEngine, TorchGroups
from MedEnhanceLib.learning import precision
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.view_network import ViewNet


def _scan_of_ct(slices: int, side: int) -> Volume:
    """A cylinder with texture in air, with noise, and a corner that is padding, HU."""
    k, j, i = np.ogrid[:slices, :side, :side]
    is_body = (j - side / 2) ** 2 + (i - side / 2) ** 2 < (0.4 * side) ** 2
    voxels = np.where(is_body, 60 * np.sin(i / 4) * np.cos(j / 5 + k / 9), -1000)
    voxels = voxels + np.random.default_rng(0).normal(0, 25, voxels.shape)
    voxels[:, :6, :6] = -2000
    return Volume(voxels.astype(np.float32), Geometry((0.8, 0.8, 2.0)), modality="CT")


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision is for neither the cards nor the CPU."""
    monkeypatch.setattr(precision, "computes_in_half", lambda _: False)
    library = native.load()
    if library is not None:
        *_, width = (name for name in library.widths if name not in native.BFLOAT_WIDTHS)
        in_single = native.Library(library.path, width)
        monkeypatch.setattr(native, "load", lambda *_, **__: in_single)


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
    volume = brain().crop(k=slice(6), j=slice(16, 56), i=slice(16, 52))  # 36 needs margins
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
def test_thin_slices_and_a_head_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedEnhanceLib.gradprom import SegmentConfig, segment
    from MedEnhanceLib.slices import thin_slices

    monkeypatch.setattr(thin_slices, "tuned", lambda network, *_, **__: (network, {}))
    small = brain().crop(k=slice(6))

    def labels(card: str) -> Volume:
        # One of its own: heads stay loaded, on the device last used.
        folder = write_small_head(tmp_path / card[:4])
        config = SegmentConfig(model=str(folder), device=card, force_segmenter=True)
        return segment(small, config).volume

    def thin(card: str) -> Volume:
        config = EnhanceConfig(model="mr-slices", device=card)
        return thin_slices.enhance_slices(_scan((6, 20, 24)), config, Monitor()).volume

    for make in (labels, thin):
        wanted = make("cpu")
        with pretended():
            assert far(make("cuda:1"), wanted).max() <= 1


@pytest.mark.parametrize("after", [0, 3])
def test_where_a_cards_memory_runs_out_the_filter_goes_on_on_the_cpu(
    after: int, cards: object, recorder: WarningRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, estimates = itertools.count(), TorchGroups.estimates

    def limited(groups: TorchGroups, *arguments: Any) -> Any:
        if groups.noisy.is_cuda and next(begun) >= after:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return estimates(groups, *arguments)

    monkeypatch.setattr(TorchGroups, "estimates", limited)
    volume = _scan_of_ct(24, 16)
    noise = measure_noise(volume.voxels, modality="CT")
    run = partial(denoise, volume, Removal(noise), monitor=recorder.monitor)
    found = run(BlockMatching(TorchEngine("cuda:1")))
    assert np.allclose(found.voxels, run(BlockMatching()).voxels, atol=1e-3 * noise.level)
    assert len(recorder.warnings) == 4
    steps = (*(f"{count} groups at once" for count in (8192, 2048, 512)), "with the CPU")
    for text, step in zip(recorder.warnings, steps, strict=True):
        assert "memory ran out on cuda:1" in text and step in text


@pytest.mark.usefixtures("cards")
def test_a_cancel_ends_the_threads_that_work_ahead() -> None:
    volume = _scan_of_ct(16, 16)
    removal, before = Removal(measure_noise(volume.voxels, modality="CT")), threading.active_count()
    checks = itertools.count()
    monitor = Monitor(cancel=lambda: next(checks) > 20)
    with pytest.raises(Cancelled):
        denoise(volume, removal, BlockMatching(TorchEngine("cuda")), monitor=monitor)
    assert threading.active_count() == before


@pytest.mark.slow
@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("is_after_inversion", [False, True])
def test_where_memory_runs_out_in_a_network_the_cpu_computes_the_rest(
    is_after_inversion: bool,
    recorder: WarningRecorder,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    volume, model = _scan_of_ct(10, 40), "ct"
    if is_after_inversion:
        scan, model = case()[1], str(request.getfixturevalue("trained"))
        volume = scan.with_voxels(scan.voxels.astype(np.float32))
    begun, forward = itertools.count(), ViewNet.forward
    config = EnhanceConfig(model=model, device="cpu", strength="full")
    expected = enhance(volume, config).volume

    def limited(network: ViewNet, noisy: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        if noisy.is_cuda and next(begun) >= 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(network, noisy, *others)

    monkeypatch.setattr(ViewNet, "forward", limited)
    with pretended():
        card = replace(config, device="cuda")
        assert (
            far(enhance(volume, card, monitor=recorder.monitor).volume, expected).max() < 0.02 * 25
        )
    assert any("goes on with the CPU" in each for each in recorder.warnings)


@pytest.mark.slow
@pytest.mark.usefixtures("single")
def test_the_volume_crosses_to_the_card_and_back_once() -> None:
    """Input and σ go there, the result and few numbers come back: not once for each stage."""
    volume = _scan_of_ct(16, 40)
    config = EnhanceConfig(model="ct", device="cuda", strength="full")
    bundle = open_bundle("ct", kind="enhancer", modality="CT")
    network = network_of(set_weights(bundle))
    weights = sum(each.nbytes for each in network.state_dict().values())
    with pretended():
        enhance(volume, config)  # tables and weights that stay there
        driver.__init__()  # type: ignore[misc]
        enhance(volume, config)
    one = 4 * volume.voxels.size
    assert one < driver.fetched < 1.01 * one
    assert one < driver.sent - weights < 2.2 * one


@pytest.mark.slow
@pytest.mark.usefixtures("single")
@pytest.mark.parametrize(("at_once", "most"), [(4096, 220), (128, 390)])
def test_a_slice_is_few_operations_and_no_wait(
    at_once: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers in one part, or in as many as those of 512 × 512 voxels where memory is short."""
    monkeypatch.setattr(torch_engine, "_AT_ONCE_ON_A_DEVICE", at_once)
    scan = _scan_of_ct(16, 64)
    voxels = scan.voxels.astype(np.int16)
    voxels[:, :6, :6] = voxels[:, 6:12, :6]  # no padding
    scan = replace(scan, voxels=voxels)
    config, counts = EnhanceConfig(model="ct", device="cuda", strength="full"), []
    with pretended():
        for count in (16, 8, 16, 8):  # tables stay there
            driver.__init__()  # type: ignore[misc]
            enhance(scan.crop(k=slice(0, count)), config)
            counts.append([driver.launches, driver.sent, driver.fetched, driver.waits])
    launches, sent, fetched, waits = (np.array(counts[2]) - counts[3]) / 8
    assert launches <= most
    assert sent < 2.1 * 64 * 64  # bytes: int16, and the cells of σ
    assert fetched < 4.01 * 64 * 64
    assert waits == 0


@pytest.mark.slow
def test_the_script_for_a_card_runs(cards: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "Benchmarks")
    monkeypatch.setattr(sys, "argv", ["card.py", "--quick"])
    script = importlib.import_module("card")
    rows = [row for _, made in script.parts(Namespace(device="cuda")) for row in made()]
    assert [row for row in rows if "error" in row] == []
    assert {row["row"] for row in rows} == {*script.ROWS} - {*script.LEARNS}
    assert [gate["name"] for gate in script.gates_of(rows)]
