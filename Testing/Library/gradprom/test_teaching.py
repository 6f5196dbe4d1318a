"""A task that teaches the enhancer through the gate, by the door of the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.gradprom.gate import GradientGate
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.task import SegmentationTask
from MedEnhanceLib.hqg import TrainConfig
from MedEnhanceLib.hqg.train import losses, train
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs.kinds.train import train_method, training_config
from MedEnhanceLib.runtime.progress import Event, Monitor

SHAPE = (16, 32, 32)
STRUCTURES = ({"value": 1, "name": "core", "color": "#ff0000"},)
FROZEN: dict[str, Any] = {"images": ["hq/*.nii.gz"], "labels": ["labels/*.nii.gz"]}
HEAD = {"preset": "smoke", "structures": STRUCTURES, "name": "core", **FROZEN}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balls with a brighter core, which is labeled."""
    folder = tmp_path_factory.mktemp("labeled")
    for name in ("hq", "labels"):
        (folder / name).mkdir()
    k, j, i = np.mgrid[tuple(map(slice, SHAPE))].astype(np.float32)
    for number in range(2):
        radius = np.hypot(np.hypot(j - 16, i - 16), k - 8) + 2 * np.sin(j / 3 + number)
        image = np.select([radius < 5, radius < 14], [0.9, 0.5], 0.02)
        volume = Volume((1000 * image).astype(np.float32), Geometry(), "MR")
        core = Volume((radius < 5).astype(np.uint8), Geometry(), "SEG")
        save(volume, folder / "hq" / f"{number}.nii.gz")
        save(core, folder / "labels" / f"{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundle of a head that nothing was learned by."""
    torch.manual_seed(0)
    config = TrainHeadConfig.from_json(HEAD)
    folder = tmp_path_factory.mktemp("segmenter") / "core"
    return str(export_head(folder, config, make_head(config.network, 1), 0.0).folder)


def config(**task: Any) -> TrainConfig:
    fields: dict[str, Any] = {"preset": "smoke", "steps": 4, "device": "cpu"}
    task = {"every": 1, "start": 0.0, "weight": 1.0, "gate": "binary"} | task
    config = training_config("hqg", fields | {"task": task})
    assert isinstance(config, TrainConfig)
    return config


def weights(folder: Path) -> dict[str, Tensor]:
    return load_tensors(read_bundle(folder))


def figures(folder: Path) -> dict[str, float]:
    found: dict[str, float] = read_bundle(folder).metadata["training"]["validation"]
    return found


class Multiple:
    """A task whose loss is a multiple of the enhancer's own."""

    head = None

    def __init__(self, data: Path, factor: float, main: list[Tensor]) -> None:
        self._data, self._factor, self._main = data, factor, main

    def subjects(self, monitor: Monitor) -> Iterator[tuple[Path, Volume, np.ndarray]]:
        for path in sorted(self._data.glob("hq/*")):
            yield path, load(path, modality="MR"), np.ones(SHAPE, np.uint8)

    def loss(self, images: Tensor, labels: Tensor, subject: int) -> Tensor:
        assert images.shape == labels.shape
        return self._factor * self._main[-1]

    def export(self, out: Path, seconds: float) -> None:
        pass


@pytest.fixture
def taught(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Tensor], dict[str, float]]]:
    """Trains with a multiple of the enhancer's own loss as the task's; weights and figures."""
    main: list[Tensor] = []

    def recorded(own: Callable[..., Tensor], *args: Any) -> Tensor:
        main.append(own(*args))
        return main[-1]

    monkeypatch.setattr(losses, "squared_error", partial(recorded, losses.squared_error))

    def run(mode: str, factor: float) -> tuple[dict[str, Tensor], dict[str, float]]:
        gate = GradientGate(mode, ema=0.0)
        out, task = tmp_path / f"{mode} {factor}", (Multiple(data, factor, main), gate)
        folder = train(config(segmenter="stand-in", **FROZEN), data, out, make_task=lambda _: task)
        return weights(folder), figures(folder)

    return run


def test_a_task_that_opposes_leaves_the_enhancer_bit_for_bit_and_one_that_agrees_is_let_in(
    taught: Any,
) -> None:
    alone, _ = taught("off", 0.0)
    opposed, seen = taught("binary", -3.0)
    assert all(torch.equal(opposed[name], tensor) for name, tensor in alone.items())
    assert seen["gate_open_fraction"] == 0
    assert seen["gate_mean_cosine"] == pytest.approx(-1, abs=1e-3)

    helped, seen = taught("binary", 3.0)
    assert seen["gate_open_fraction"] == 1
    assert seen["gate_mean_cosine"] == pytest.approx(1, abs=1e-3)
    assert any(not torch.equal(helped[name], tensor) for name, tensor in alone.items())


def learned(data: Path, out: Path, monitor: Monitor | None = None, **task: Any) -> Path:
    return train_method("hqg", config(**task), data, out, monitor or Monitor())


def test_a_head_learns_along_and_both_go_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    task = {"head": HEAD, "gate": "ema"}
    whole = learned(data, tmp_path / "whole", **task)
    bundle = read_bundle(tmp_path / "whole/core")
    assert bundle.metadata["kind"] == "head"
    assert "along with an enhancer" in bundle.metadata["training"]["summary"]
    rows = (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    assert {"task", "gate open", "gate cosine"} <= {json.loads(row)["name"] for row in rows}
    stops = False

    def listen(event: Event) -> None:
        nonlocal stops
        stops = stops or "step 2" in str(event.fields.get("stage", ""))

    with pytest.raises(Cancelled):
        learned(data, tmp_path / "parts", Monitor(listen, cancel=lambda: stops), **task)
    parts = learned(data, tmp_path / "parts", **task)
    for one, other in ((whole, parts), (tmp_path / "whole/core", tmp_path / "parts/core")):
        after = weights(other)
        assert all(torch.equal(after[name], tensor) for name, tensor in weights(one).items())
    assert figures(parts) == figures(whole)


def test_a_frozen_segmenter_teaches_and_stays_as_it_is(
    data: Path, tmp_path: Path, segmenter: str
) -> None:
    before = {name: tensor.clone() for name, tensor in weights(Path(segmenter)).items()}
    task = {"segmenter": segmenter, **FROZEN}
    alone = weights(learned(data, tmp_path / "off", **task, gate="off"))
    taught = weights(learned(data, tmp_path / "joint", **task, gate="joint", weight=100.0))
    assert any(not torch.equal(taught[name], tensor) for name, tensor in alone.items())
    assert all(torch.equal(weights(Path(segmenter))[name], one) for name, one in before.items())
    assert not (tmp_path / "joint" / "core").exists()
    with pytest.raises(InputError, match="0 labels match"):
        learned(data, tmp_path, segmenter=segmenter, images=["hq/*"], labels=["none/*"])


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"segmenter": "any"}, "no labeled images"),
        ({}, "no segmenter"),
        ({"segmenter": "any", **FROZEN, "gate": "ajar"}, "gate"),
    ],
)
def test_a_task_without_what_it_needs_is_refused(task: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**task)


def test_a_head_learns_from_sides_that_its_stages_do_not_divide(data: Path) -> None:
    head = TrainHeadConfig.from_json(HEAD | {"network": {"context": 1, "widths": [4, 4, 4, 4]}})
    task = SegmentationTask(head, data, "cpu")
    labels = torch.zeros(1, 4, 18, 21, dtype=torch.long)
    labels[:, :, 5:9, 5:9] = 1
    loss = task.loss(torch.rand(1, 4, 18, 21), labels, 0)
    loss.backward()
    assert torch.isfinite(loss)
