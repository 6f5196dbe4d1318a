"""What a head needs to teach an enhancer, and what is kept of its teaching, by a stand-in task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from Library.small_head import write_small_head
from torch import Tensor

from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.groups import GuidedNetwork
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.io import load, save
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.hqg import losses
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.crops import CropMaker
from MedEnhanceLib.training.hqg.enhancer_export import export_enhancer
from MedEnhanceLib.training.hqg.run import train
from MedEnhanceLib.training.hqg.targets import load_data
from MedEnhanceLib.training.jobs.segmenter import teachers
from MedEnhanceLib.training.jobs.train import training_config

SHAPE = (16, 32, 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three balls with a brighter core."""
    folder = tmp_path_factory.mktemp("clean")
    (folder / "hq").mkdir()
    k, j, i = np.mgrid[tuple(map(slice, SHAPE))].astype(np.float32)
    for number in range(3):
        radius = np.hypot(np.hypot(j - 16, i - 16), k - 8) + 2 * np.sin(j / 3 + number)
        image = np.select([radius < 5, radius < 14], [0.9, 0.5], 0.02)
        volume = Volume((1000 * image).astype(np.float32), Geometry(), "MR")
        save(volume, folder / "hq" / f"{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def enhancer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundle of an enhancer that nothing was learned by; it takes guides."""
    torch.manual_seed(0)
    config = TrainConfig.from_json({"preset": "smoke", "name": "plain", "anatomy": "balls"})
    folder = tmp_path_factory.mktemp("enhancer") / "plain"
    network = GuidedNetwork(config.network)
    export_enhancer(folder, config, network, seconds=0.0, is_guided=True, gains={})
    return str(folder)


def new_head(folder: Path, enhancer: str = "", **identity: str) -> str:
    """The bundle of a head that learned from an enhancer; identity: of its weights then."""
    more = {"training": {"summary": "", "config": {"enhancer": enhancer}}}
    more |= {"gradprom": {"enhancer": identity}} if identity else {}
    return str(write_small_head(folder, name=folder.name, **more))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory, enhancer: str) -> str:
    return new_head(tmp_path_factory.mktemp("segmenter") / "core", enhancer)


def config(**task: Any) -> TrainConfig:
    config = training_config("hqg", {"device": "cpu", "task": {"steps": 2, **task}, **SMALL})
    assert isinstance(config, TrainConfig)
    return config


SMALL: dict[str, Any] = {"crops": 2, "validated": 1, "name": "taught"}


def weights(folder: Path | str) -> dict[str, Tensor]:
    return load_tensors(read_bundle(Path(folder)))


def changed(one: Path | str, other: Path | str) -> bool:
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    return any(not torch.equal(after[name], tensor) for name, tensor in before.items())


class Multiple:
    """A task whose loss is a multiple of the enhancer's own, and whose Dice is given.

    air: medians of what it saw of air.
    """

    air: ClassVar[list[float]] = []

    def __init__(
        self, data: Path, factor: float, main: list[Tensor], dice: float, psnr: float
    ) -> None:
        self._data, self._factor, self._main = data, factor, main
        self._gain = {"taught": (0.5 + dice, 30.0 + psnr)}

    def identity(self) -> dict[str, str]:
        return {"name": "stand-in", "sha256": "0"}

    def held_out(self) -> list[Path]:
        return []

    def subjects(self, monitor: Monitor) -> Iterator[tuple[Path, Volume, np.ndarray]]:
        for path in sorted(self._data.glob("hq/*")):
            yield path, load(path, modality="MR"), np.ones(SHAPE, np.uint8)

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        assert image.shape == labels.shape
        self.air.append(float(image.detach()[:, :3, :3].median()))
        return self._factor * self._main[-1]

    def measure(self, enhancers: Mapping[str, Any], monitor: Monitor) -> list[dict[str, Any]]:
        return [
            {"subject": str(number), "image": name, "dice": dice, "psnr_db": psnr}
            for number in range(2)
            for name in ("clean", "noisy", *enhancers)
            for dice, psnr in [self._gain.get(name, (0.5, 30.0))]
        ]


@pytest.fixture
def taught(
    data: Path, tmp_path: Path, segmenter: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Trains with a multiple of the enhancer's own loss as the task's."""
    main: list[Tensor] = []

    def recorded(own: Callable[..., Tensor], *args: Any) -> Tensor:
        main.append(own(*args))
        return main[-1]

    monkeypatch.setattr(losses, "squared_error", partial(recorded, losses.squared_error))

    def run(factor: float, dice: float = 0.1, psnr: float = 0.0) -> Path:
        gate = GradientGate(ema=0.0, relative=True)
        task = (Multiple(data, factor, main, dice, psnr), gate)
        out = tmp_path / f"{factor} {dice} {psnr}"
        return train(config(segmenter=segmenter), data, out, make_task=lambda _: task)

    return run


def record(folder: Path) -> dict[str, Any]:
    stated: dict[str, Any] = read_bundle(folder).metadata["gradprom"]
    return stated


@pytest.mark.slow
def test_a_task_that_opposes_changes_no_bit_and_one_that_agrees_is_let_in(taught: Any) -> None:
    Multiple.air.clear()
    alone = taught(0.0)
    assert max(Multiple.air) < 0.08  # without the bias of magnitudes
    opposed, helped = taught(-3.0), taught(3.0)
    assert not changed(alone, opposed)
    assert (record(opposed)["open_fraction"], record(opposed)["mean_cosine"]) == (0, -1)
    assert changed(alone, helped)
    assert (record(helped)["open_fraction"], record(helped)["mean_cosine"]) == (1, 1)


@pytest.mark.parametrize(
    ("dice", "psnr", "accepted"),
    [(0.001, -0.05, True), (0.0, 0.0, False), (-0.1, 1.0, False), (0.1, -0.06, False)],
)
def test_taught_weights_are_kept_only_if_the_head_gains(
    dice: float, psnr: float, accepted: bool, taught: Any, enhancer: str
) -> None:
    folder = taught(1.0, dice, psnr)
    assert changed(enhancer, folder) == accepted
    assert record(folder)["accepted"] == accepted
    assert record(folder)["dice"]["taught"] == pytest.approx(0.5 + dice)
    card = (folder / "docs/README.md").read_text(encoding="utf-8")
    assert ("not accepted" in card) != accepted
    assert f"{30 + psnr:.2f} dB" in card
    assert not (folder.parent / "candidates").exists()


def test_the_head_states_what_it_learned_from_and_the_enhancer_goes_on(
    segmenter: str, enhancer: str, tmp_path: Path
) -> None:
    complete = config(segmenter=segmenter)
    assert (complete.start, complete.anatomy, complete.steps) == (enhancer, "balls", 0)
    assert complete.network == TrainConfig.from_json({"preset": "smoke"}).network
    assert config(segmenter=new_head(tmp_path / "alone")).start == "mr", "the one that ships"


def test_a_task_without_what_it_needs_is_refused(
    tmp_path: Path, segmenter: str, enhancer: str, default_head: Bundle
) -> None:
    stale = new_head(tmp_path / "stale", enhancer, name="plain", sha256="of before")
    for task, said in (
        ({}, "no segmenter"),
        ({"segmenter": stale}, "learned from other weights than those of plain now"),
        ({"segmenter": segmenter, "gate": "ajar"}, "gate"),
        ({"segmenter": segmenter, "images": ["hq/*"]}, "no option 'images'"),
    ):
        with pytest.raises(ConfigError, match=said):
            config(**task)
    with pytest.raises(ModelError, match="segments"):
        training_config("hqg", {"start": segmenter, "task": {"segmenter": segmenter}})
    with pytest.raises(ModelError, match="stripes cannot teach"):
        config(segmenter=default_head.name)


def test_only_heads_that_can_teach_are_listed_and_the_others_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enhancer: str
) -> None:
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path))
    new_head(tmp_path / "able", enhancer)
    new_head(tmp_path / "gone", "a")
    able, faults = teachers("MR")
    assert {"able", "brain"} <= {head.name for head in able}
    assert "gone" not in [head.name for head in able]
    said = "\n".join(str(fault) for fault in faults)
    assert "head gone learned from the enhancer a: there is no model 'a'" in said
    with pytest.raises(ModelError) as refused:
        config(segmenter="gone")
    assert "Import that enhancer" in refused.value.hint


@pytest.mark.slow
def test_what_the_noise_adds_to_magnitudes_is_known_of_labeled_crops(
    data: Path, segmenter: str
) -> None:
    """Else the head would see gray air, which it never learned from."""
    subjects = Multiple(data, 1.0, [], 0.0, 0.0).subjects(Monitor())
    targets = load_data(config(segmenter=segmenter), data, Monitor(), subjects=subjects)["labeled"]
    crops = [CropMaker(targets, "MR", 8, 0, "labeled").make(number)[0] for number in range(12)]
    biased = [crop for crop in crops if crop.bias is not None]
    assert 0 < len(biased) < len(crops)
    for crop in biased:
        assert crop.bias is not None
        before, after = crop.plain.target, crop.plain.target - crop.bias
        assert float(after[:, :4, :4].median()) < 0.06
        assert float(before[:, :4, :4].median()) > float(after[:, :4, :4].median())
