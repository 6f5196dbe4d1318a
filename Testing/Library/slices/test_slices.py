"""Thin slices from thick ones: geometry, consistency with what was measured, refusals, training."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from Library.conftest import MR, Make, WarningRecorder
from pydicom import dcmread

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.export import export_bundle
from MedEnhanceLib.bundles.schema import METADATA, SLICES
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.duration import expected_seconds_of_slices
from MedEnhanceLib.errors import Cancelled, InputError
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.noise.estimate import noise_of
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.slices import steps, thin_slices
from MedEnhanceLib.slices.config import SliceNetConfig, SlicePatchConfig
from MedEnhanceLib.slices.planes import Planes, Sampler, Thickening
from MedEnhanceLib.slices.profile import Shape, SliceStack
from MedEnhanceLib.slices.slice_network import (
    CERTAIN,
    SliceNet,
    StackMaps,
    open_network,
    restore_planes,
)
from MedEnhanceLib.slices.slice_plan import plan_slices

pytestmark = pytest.mark.usefixtures("untuned")
TURNED = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def _scan(shape: tuple[int, int, int] = (8, 20, 24), spacing: float = 4.0) -> Volume:
    """A few blobs in thick slices, in the units of a scanner."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    image = 900 * np.exp(-3 * (k**2 + j**2 + i**2)) + 200 * (np.sin(9 * i + 5 * k) > 0.3)
    geometry = Geometry((1.0, 1.0, spacing), (10.0, -20.0, 30.0), TURNED)
    return Volume(image.astype(np.int16), geometry, modality="MR", source="scan")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with random weights, which changes a lot."""
    torch.manual_seed(3)
    config = SliceNetConfig(widths=(8, 8))
    network = SliceNet(config)
    torch.nn.init.normal_(network.last.weight, std=0.05)
    folder = tmp_path_factory.mktemp("slices") / "any"
    metadata = {
        "name": "any",
        "kind": SLICES,
        "modality": "MR",
        "description": "random",
        "license": "Apache-2.0",
        "network": config.to_json(),
    }
    return str(export_bundle(folder, dict(network.state_dict()), metadata).folder)


def _thin(scan: Volume, model: str, **fields: object) -> Volume:
    config = EnhanceConfig.from_json({"model": model, "device": "cpu", "task": "slices", **fields})
    return thin_slices.enhance_slices(scan, config, Monitor()).volume


def test_the_time_is_said_before_the_work(model: str) -> None:
    news: list[str] = []

    def listen(event: Event) -> None:
        if event.fields.get("is_news"):
            news.append(event.fields["message"])

    config = EnhanceConfig(model=model, device="cpu", task="slices")
    thin_slices.enhance_slices(_scan(), config, Monitor(listen))
    (said,) = news
    assert said.startswith("32 thin slices take about 5 s on a CPU without other work (")
    # On a slow processor.
    assert 45 <= expected_seconds_of_slices(10.5, 240, threads=2) <= 65
    assert 45 <= expected_seconds_of_slices(1.05, 240, threads=1) <= 60


@pytest.mark.parametrize("shape", ["gaussian", "box"])
@pytest.mark.parametrize("width", [2.0, 4.0, 5.5])
def test_every_slice_is_a_mean_and_the_correction_makes_slices_agree(
    shape: Shape, width: float
) -> None:
    stack = SliceStack(10, 4.0, width, 37, shape)
    thicken, correct = stack.thicken(), stack.correct()
    assert np.allclose(thicken.sum(axis=1), 1)
    slices = np.random.default_rng(0).normal(size=(10, 3))
    begun = stack.interpolate() @ slices
    off = slices - thicken @ begun
    left = slices - thicken @ (begun + correct @ off)
    assert np.abs(left).max() < 0.05 * np.abs(off).max()


def test_the_extent_is_kept_and_the_first_center_moves(model: str) -> None:
    scan = _scan()
    thin = _thin(scan, model)
    assert thin.shape == (32, 20, 24)
    assert thin.geometry.spacing == (1.0, 1.0, 1.0)
    assert thin.geometry.direction == scan.geometry.direction
    # The slices run along the third column of the direction: x in TURNED.
    assert thin.geometry.origin == pytest.approx((10.0 - 1.5, -20.0, 30.0))
    assert (thin.dtype, thin.units, thin.modality) == (scan.dtype, scan.units, scan.modality)
    assert "slices restored" in thin.history[-1]
    assert _thin(scan, model, slice_spacing="half").shape[0] == 16
    odd = _thin(scan, model, slice_spacing=1.5)
    assert odd.shape[0] == 21
    assert odd.geometry.spacing[2] == pytest.approx(32 / 21)


def test_any_axis_may_be_the_thick_one_and_frames_are_restored_one_by_one(model: str) -> None:
    scan = _scan()
    thin = _thin(scan, model).voxels
    turned = replace(
        scan, voxels=scan.voxels.transpose(1, 2, 0), geometry=Geometry((4.0, 1.0, 1.0))
    )
    across = _thin(turned, model)
    assert across.geometry.origin == (-1.5, 0.0, 0.0)
    assert np.array_equal(across.voxels, thin.transpose(1, 2, 0))
    both = _thin(replace(scan, voxels=np.stack([scan.voxels, scan.voxels[::-1]])), model)
    assert both.shape == (2, 32, 20, 24)
    assert np.array_equal(both.voxels[0], thin)


@pytest.mark.parametrize(
    ("fields", "width", "shape"),
    [
        ({}, 4.0, "gaussian"),
        ({"slice_profile": "box"}, 4.0, "box"),
        ({"slice_thickness": 3.0}, 3.0, "gaussian"),
    ],
)
def test_thickened_by_its_profile_the_result_is_what_was_measured(
    fields: dict[str, object], width: float, shape: Shape, model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whatever the network says: this one is random."""
    monkeypatch.setattr(thin_slices, "noise_of", lambda scan: noise_of(scan).at_level(0.0))
    voxels = _scan().voxels.astype(np.float32) + 2000
    voxels[:, 0, 0] = 0  # results are not below the lowest value that was measured
    stack = SliceStack(8, 4.0, width, 32, shape)
    spline, thin = (
        np.einsum("mk,kji->mji", stack.interpolate(), voxels),
        _thin(replace(_scan(), voxels=voxels), model, **fields).voxels,
    )
    changed = np.abs(thin - spline).max()
    assert changed > 20
    again = np.einsum("km,mji->kji", stack.thicken(), thin)
    assert np.abs(again - voxels)[:, 1:, 1:].max() < 0.02 * changed


@pytest.mark.parametrize(
    ("volume", "fields", "message"),
    [
        (_scan(spacing=1.1), {}, "scan: its voxels are already nearly isotropic"),
        (_scan(shape=(3, 20, 24)), {}, "3 slices are too few"),
        (_scan(spacing=9.0), {}, "9.00 slices for each .* 1.12 to 7.5 mm"),
        (_scan(), {"slice_spacing": 3.9}, "1.03 slices for each .* 0.5 to 3.33 mm"),
        (_scan(), {"slice_thickness": 0.4}, "slices of 0.4 mm, 4 mm apart .* 1 to 12 mm"),
    ],
)
def test_what_cannot_be_restored_is_refused_by_name(
    volume: Volume, fields: dict[str, float], message: str, model: str
) -> None:
    with pytest.raises(InputError) as caught:
        _thin(volume, model, **fields)
    text = f"{caught.value.message} {caught.value.hint}"
    assert re.search(message, text), text


def test_a_poor_model_warns_as_an_enhancer_does(
    model: str, tmp_path: Path, recorder: WarningRecorder
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "poor"))
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    validation = {"over_shipped_db": -1.85, "over_shipped_error_db": 0.13}
    metadata |= {"training": {"config": {"steps": 4}, "validation": validation}}
    (folder / METADATA).write_text(json.dumps(metadata))
    config = EnhanceConfig(model=str(folder), device="cpu", task="slices")
    result = thin_slices.enhance_slices(_scan(), config, recorder.monitor)
    assert [warning.code for warning in result.warnings] == [
        "test-model",
        "not-better",
        "slice-thickness",
    ]
    assert recorder.warnings == [str(warning.text) for warning in result.warnings]
    assert "1.85 dB worse than the shipped model" in result.volume.history[-1]


def test_thin_slices_of_a_series_become_one_on_their_own_grid(
    model: str, make_series: Make, tmp_path: Path
) -> None:
    places = [(0, 0, 4.0 * k) for k in range(8)]
    series = make_series(_scan().voxels, positions=places, PatientID="P-17", **MR)
    config = {"task": "slices", "slice_spacing": "half", "model": model, "device": "cpu"}
    paths = {"input": str(series), "output": str(tmp_path / "thin")}
    run_job(JobSpec("enhance", {**paths, "dicom": True, "config": config}))
    thin = load(tmp_path / "thin")
    again = me.enhance(load(series), progress=False, **config)
    assert thin.is_equal(again.volume)
    assert "slice-thickness" not in [warning.code for warning in again.warnings]  # DICOM states it
    third = dcmread(sorted((tmp_path / "thin").iterdir())[2])
    assert (third.PatientID, third.StudyInstanceUID, third.SliceThickness) == ("P-17", "1.2.3", 2)
    assert len(third.SourceImageSequence) == 2
    assert "slices restored: 8 of 4 mm became 16 of 2 mm" in third.DerivationDescription
    assert "113085" in [code.CodeValue for code in third.DerivationCodeSequence]
    assert thin.history[0].startswith("DERIVED: slices restored")  # not enhanced before


def test_a_cancel_stops_it(model: str) -> None:
    monitor = Monitor(cancel=lambda: True)
    with pytest.raises(Cancelled):
        thin_slices.enhance_slices(_scan(), EnhanceConfig(model=model, device="cpu"), monitor)


@pytest.mark.slow
@pytest.mark.training
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(_scan((6, 48, 48), spacing=3.0), tmp_path / f"{name}.nii.gz")
    fields = {"preset": "smoke", "files": ["*.nii.gz"], "held_out": ["b.nii.gz"], "synthetic": 0.5}
    whole = read_bundle(me.train("slices", fields, tmp_path, tmp_path / "whole"))
    steps: list[Event] = []

    def note(event: Event) -> None:
        if event.kind == "progress" and "step" in str(event.fields["stage"]):
            steps.append(event)

    stopped = {"progress": note, "cancel": lambda: len(steps) >= 2}
    with pytest.raises(Cancelled):
        me.train("slices", fields, tmp_path, tmp_path / "out", **stopped)
    resumed = read_bundle(me.train("slices", fields, tmp_path, tmp_path / "out"))
    assert resumed.sha256 == whole.sha256
    assert (whole.kind, whole.modality) == ("slices", "MR")
    assert whole.metadata["measured"][0]["volumes"] == "1 held out"
    assert any("as a test model" in text for text in whole.metadata["limits"])
    thin = _thin(_scan(), str(whole.folder))
    assert thin.shape == (32, 20, 24)


def test_slices_held_out_are_not_shown_and_end_the_learning(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = np.arange(10, dtype=np.float16)
    stack = SliceStack(8, 4.0, 4.0, 32)
    planes = Planes(np.broadcast_to(numbers[:, None, None], (10, 96, 96)), (4.0, 1.0, 1.0))
    how = Thickening.like(stack, 0.0, 1.0)
    seen = Sampler([replace(planes, shown=[3, 5])], SlicePatchConfig(batch=40), how).batch(0)
    assert set(seen.thin.unique().tolist()) == {3.0, 5.0}
    # Nothing can be learned from noise alone.
    noise = np.random.default_rng(0).normal(0.5, 0.2, (10, 96, 96)).astype(np.float16)
    monkeypatch.setattr(steps, "_LOOK", 2)
    network = open_network(read_bundle(Path(model)))
    torch.nn.init.zeros_(network.last.weight)
    monitor, options = Monitor(), {"modality": "MR", "device": "cpu"}
    _, facts = steps.tuned(
        network, replace(planes, pixels=noise), stack, 0.2, monitor=monitor, **options
    )
    assert facts.get("tuning_steps", 0) < 40


@pytest.mark.slow
def test_learning_from_the_slices_themselves_is_reproducible_and_helps(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    scan = _scan(shape=(10, 72, 72))
    stack = plan_slices(scan, EnhanceConfig(task="slices")).stack
    plain = _thin(scan, model).voxels
    monkeypatch.setattr(thin_slices, "tuned", steps.tuned)
    monkeypatch.setattr(steps, "TUNING_STEPS", 60)
    tuned = _thin(scan, model).voxels
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(tuned, _thin(scan, model).voxels)
    spline = np.einsum("mk,kji->mji", stack.interpolate(), scan.voxels)
    # The model has random weights: learning brings it back to what the slices imply.
    assert np.abs(tuned - spline).mean() < 0.5 * np.abs(plain - spline).mean()


def _flat_planes(folder: Path) -> tuple[Planes, float]:
    """Planes of noise alone, as they are read, and its standard deviation on their scale."""
    from MedEnhanceLib.training.slices.slice_training import read_planes

    voxels = 1000 + 60 * np.random.default_rng(0).standard_normal((12, 96, 96))
    flat = Volume(voxels.astype(np.float32), Geometry((1.0, 1.0, 3.0)), modality="MR")
    save(flat, folder / "flat.nii.gz")
    [planes] = read_planes([folder / "flat.nii.gz"], "MR", Monitor())
    return planes, float(planes.pixels.astype(np.float32).std())


@pytest.mark.training
@pytest.mark.parametrize("bins", [(1, 1), (2, 2)])
@pytest.mark.parametrize("added", [0.0, 0.03])
def test_the_network_is_given_all_noise_of_the_slices_and_learns_none(
    bins: tuple[int, int], added: float, tmp_path: Path
) -> None:
    """The noise of a reference itself, as far as averaging leaves it, and what is added to it."""
    from MedEnhanceLib.training.slices.config import TrainSlicesConfig

    planes, noise = _flat_planes(tmp_path)
    config = TrainSlicesConfig(rows=32, columns=32, batch=6)
    stack = SliceStack(8, 4.0, 4.0, 32, "box")
    how = Thickening(stack, added, added, bins=[bins], varies=False)
    patches = Sampler([planes], config, how).batch(0)
    expected = math.hypot(added, noise / math.sqrt(4 * bins[0] * bins[1]))
    given = CERTAIN * patches.maps.rows[:, 4, 0].numpy()
    assert given.mean() == pytest.approx(expected, rel=0.15)
    assert patches.slices.std().item() == pytest.approx(expected, rel=0.1)
    assert patches.thin.std().item() < 0.5 * noise / math.sqrt(bins[0] * bins[1])


@pytest.mark.training
@pytest.mark.parametrize("pixel_mm", [1.0, 0.5])
def test_patches_of_slices_to_restore_are_as_noisy_as_these(
    pixel_mm: float, tmp_path: Path
) -> None:
    from MedEnhanceLib.training.slices.config import TrainSlicesConfig

    planes, noise = _flat_planes(tmp_path)
    how = Thickening.like(SliceStack(32, 2.0, 2.0, 64), noise, pixel_mm)
    config = TrainSlicesConfig(columns=32)
    patches = Sampler([replace(planes, clean=None)], config, how).batch(0)
    assert CERTAIN * patches.maps.rows[:, 4, 0].numpy() == pytest.approx(noise, rel=1e-3)
    assert patches.slices.std().item() == pytest.approx(noise, rel=0.05)


def test_planes_of_different_noise_are_restored_as_each_would_be_alone(model: str) -> None:
    network, stack = open_network(read_bundle(Path(model))), SliceStack(8, 4.0, 4.0, 32)
    slices = torch.from_numpy(np.random.default_rng(0).random((2, 3, 8, 12), np.float32))
    sizes, noises = [(1.0, 1.0), (1.0, 2.0)], [0.0, 0.08]
    both = restore_planes(network, slices, StackMaps.of(stack, noises, sizes))
    for n in range(2):
        maps = StackMaps.of(stack, noises[n], sizes[n : n + 1])
        alone = restore_planes(network, slices[n : n + 1], maps)
        assert torch.allclose(both[n], alone[0], atol=1e-5)


@pytest.mark.training
def test_a_share_of_the_patches_shows_synthetic_volumes() -> None:
    from MedEnhanceLib.training.slices.config import TrainSlicesConfig

    black = Planes(np.zeros((3, 32, 32), np.float16), (1.0, 1.0, 1.0))
    fields = {"rows": 32, "columns": 32, "batch": 40, "synthetic": 0.25}
    patches = Sampler([black], TrainSlicesConfig.from_json(fields)).batch(0)
    assert 4 <= (patches.thin.std(dim=(1, 2)) > 0).sum() <= 16


@pytest.mark.training
def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training data"):
        me.train("slices", {"preset": "smoke", "files": ["none*"]}, tmp_path, tmp_path / "out")
