"""Training of the set network: it learns, resumes bit for bit, and learns when to trust a guide."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import MedEnhanceLib
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.io import save
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.run import train

SHAPE = (16, 32, 32)


def series(contrast: tuple[float, float, float], seed: int) -> Volume:
    """Nested tissues with folded borders, each contrast its own gray values."""
    rng = np.random.default_rng(seed)
    k, j, i = (axis.astype(np.float32) for axis in np.ogrid[tuple(map(slice, SHAPE))])
    phase = rng.uniform(0, 6, 3)
    wave = 2 * np.sin(j / 3 + phase[0]) + 2 * np.sin(i / 4 + phase[1]) + np.sin(k / 2 + phase[2])
    radius = np.sqrt((j - 16) ** 2 + (i - 16) ** 2 + (k - 8) ** 2) + wave
    image = np.select([radius < 6, radius < 10, radius < 15], contrast, 0.02)
    return Volume((1000 * image).astype(np.float32), Geometry(), "MR")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for patient, seed in (("hq", 3), ("other", 7)):
        (folder / patient).mkdir()
        for name, contrast in (("T1", (0.9, 0.6, 0.3)), ("T2", (0.4, 0.6, 0.95))):
            save(series(contrast, seed), folder / patient / f"{name}.nii.gz")
    return folder


def config(**fields: Any) -> TrainConfig:
    return TrainConfig.from_json(
        {"preset": "smoke", "lesion_steps": 4, "examinations": ["hq/*.nii.gz"], "device": "cpu"}
        | fields
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from MedEnhanceLib.bundles.export import load_tensors

    return load_tensors(read_bundle(folder))


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """The events of `trained`."""
    return []


@pytest.fixture(scope="module")
def trained(data: Path, events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a training of all three stages."""
    return train(config(), data, tmp_path_factory.mktemp("whole"), Monitor(events.append))


def test_the_progress_says_why_the_first_step_waits_and_never_goes_back(
    trained: Path, events: list[Event]
) -> None:
    shown = [event.fields for event in events if event.kind == "progress"]
    fractions, stages = ([fields[name] for fields in shown] for name in ("fraction", "stage"))
    assert fractions == sorted(fractions)
    assert stages.index("preparing crop 1 of 2") < stages.index("step 1 of 10")


def test_the_bundle_of_a_training_enhances_with_and_without_a_guide(trained: Path) -> None:
    folder = trained
    bundle = read_bundle(folder)
    assert bundle.uses_guides
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 1_000_000
    clean = series((0.9, 0.6, 0.3), seed=3)
    noise = np.random.default_rng(0).normal(0, 80, SHAPE).astype(np.float32)
    volume = clean.with_voxels(clean.voxels + noise)
    options = EnhanceConfig(model=str(folder), device="cpu")
    alone = enhance(volume, options)
    guided = enhance(volume, options, guide=series((0.4, 0.6, 0.95), seed=3))
    assert alone.guide_use is None
    assert guided.guide_use is not None
    assert guided.guide_use.geometry == volume.geometry
    assert set(guided.measured["guide"]) >= {"used", "series"}


@pytest.mark.slow
def test_without_examinations_an_enhancer_takes_no_guide(data: Path, tmp_path: Path) -> None:
    folder = train(config(examinations=[], guide_steps=0, lesion_steps=0), data, tmp_path / "a")
    before = weights(folder)
    assert not any(name.startswith("correction") for name in before)
    fields = {"start": str(folder), "steps": 0, "lesion_steps": 0}
    second = train(config(**fields), data, tmp_path / "b")
    metadata = (second / "configs" / "metadata.json").read_text()
    assert str(tmp_path) not in metadata, "a folder can be named after a patient"
    training = json.loads(metadata)["training"]
    first = read_bundle(folder)
    assert (training["config"]["start"], training["start_sha256"]) == (first.name, first.sha256)
    after = weights(second)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert any(name.startswith("correction") for name in after)
    warned: list[Event] = []
    enhance(
        series((0.9, 0.6, 0.3), seed=3),
        EnhanceConfig(model=str(folder), device="cpu", strength="full"),
        guide=series((0.4, 0.6, 0.95), seed=3),
        monitor=Monitor(warned.append),
    )
    texts = [event.fields["message"] for event in warned if event.kind == "warning"]
    assert f"{first.name} takes no guide" in texts


@pytest.mark.slow
def test_a_training_stopped_in_its_first_and_last_stage_goes_on(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    shown: list[int] = []

    def listen(event: Event) -> None:
        step = re.match(r"step (\d+) of 10", str(event.fields.get("stage", "")))
        shown.extend([int(step[1])] if step else [])

    for last in (3, 8):
        with pytest.raises(Cancelled):
            monitor = Monitor(listen, cancel=lambda last=last: bool(shown) and shown[-1] >= last)
            train(config(), data, tmp_path, monitor)
        assert (tmp_path / "checkpoint.safetensors").exists()
        assert last <= shown[-1] < 10
    parts = weights(train(config(), data, tmp_path))
    assert all(torch.equal(parts[name], tensor) for name, tensor in weights(trained).items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", {"unpaired": 0.0}),
        ("network", {"modulation": "variational"}),
    ],
)
def test_parts_of_the_publication_that_are_left_out_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field if field != "network" else "modulation"):
        config(**{field: value})
    assert config(network={"modulation": "addition"}).network == config().network, "as in bundles"


def test_patterns_that_name_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing-here"):
        train(config(high_quality=["nothing-here/*"]), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["hqg", "slices", "codec"])
def test_volumes_in_a_folder_teach_and_those_unlike_the_modality_are_named(
    method: str, data: Path, tmp_path: Path
) -> None:
    """Training as in help(me.train), whose files have the mode of any new file."""
    folder = tmp_path / "data"
    folder.mkdir()
    scaled = series((0.9, 0.6, 0.3), seed=3).voxels.astype(np.int16)
    air = scaled.copy()
    air[0, 0] = -1000
    for name, voxels in (("a", scaled), ("b", air), ("c", air)):
        # The headers state no modality.
        nib.save(nib.Nifti1Image(voxels.T, np.eye(4)), folder / f"{name}.nii.gz")
    fields: dict[str, Any] = {
        "hqg": {"high_quality": ["*.nii.gz"]},
        "codec": {"part": "predictor"},
    }.get(method, {})
    fields |= {"device": "cpu"} if method != "codec" else {}
    events: list[Event] = []
    stated = {"preset": "smoke", "modality": "MR", **fields}
    MedEnhanceLib.train(method, stated, folder, out=tmp_path / "run", progress=events.append)
    warned = [event.fields["message"] for event in events if event.kind == "warning"]
    assert [text.partition(": its values look like CT")[0] for text in warned] == [
        "b.nii.gz",
        "c.nii.gz",
    ]
    shown = [event.fields["fraction"] for event in events if event.kind == "progress"]
    assert shown == sorted(shown)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {path.stat().st_mode for path in files} == {(folder / "a.nii.gz").stat().st_mode}


@pytest.mark.slow
def test_a_short_training_beats_the_filter_and_separates_guides(data: Path, tmp_path: Path) -> None:
    fields = {"steps": 30, "guide_steps": 120, "lesion_steps": 10, "crops": 12, "validated": 12}
    fields |= {"examinations": ["hq/*", "other/*"], "seed": 1}
    folder = train(config(**fields, renewed_every=4), data, tmp_path)
    gains = json.loads((folder / "configs" / "metadata.json").read_text())["training"]["validation"]
    assert gains["gain_db"] > 0.02
    assert gains["right_guide_db"] > 0.1
    assert gains["wrong_guide_db"] > -0.1
