"""The method gradprom: one configuration for an enhancer and a head that learn together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom import SegmentConfig, TrainHeadConfig, segment
from MedEnhanceLib.hqg import TrainConfig
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds.train import training_config
from MedEnhanceLib.jobs.kinds.train_joint import head_of, joint_config
from MedEnhanceLib.runtime.progress import Event

torch = pytest.importorskip("torch")

HEAD = {
    "labels": ["labels/*"],
    "structures": [{"value": 1, "name": "bright", "color": "#ff0000"}],
}
#: As short as a training can be in which head and gate take part.
TINY = {
    "preset": "smoke",
    "name": "pair",
    "steps": 4,
    "device": "cpu",
    "task": {"start": 0.25, "head_start": 0.3, "weight": 0.5, "gate_ema": 0.9},
    "head": HEAD,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(2):
        labels = np.kron(rng.random((3, 12, 12)) < 0.4, np.ones((3, 4, 4))).astype(np.uint8)
        voxels = np.where(labels == 1, 800, 200) + rng.normal(0, 9, labels.shape)
        image = Volume(voxels.astype(np.int16), modality="MR")
        for part, volume in (("images", image), ("labels", Volume(labels, modality="SEG"))):
            (tmp_path / part).mkdir(exist_ok=True)
            io.save(volume, tmp_path / part / f"{number}.nii.gz")
    return tmp_path


@pytest.mark.slow
def test_enhancer_and_head_come_out_of_one_training(data: Path) -> None:
    events: list[Event] = []
    params = {"method": "gradprom", "config": TINY, "data": str(data), "out": str(data / "out")}
    outputs = run_job(JobSpec("train", params), events.append)["outputs"]
    enhancer, head = (read_bundle(Path(outputs[name])) for name in ("model", "head"))
    for bundle in (enhancer, head):
        verify_bundle(bundle)
    assert [(one.name, one.kind) for one in (enhancer, head)] == [
        ("pair", "enhancer"),
        ("pair-head", "head"),
    ]
    reported = {event.fields["name"] for event in events if event.kind == "metric"}
    assert {"task", "task_lower", "gate_open", "gate_cosine"} <= reported
    image = io.load(data / "images/0.nii.gz", modality="MR")
    found = segment(image, SegmentConfig(model=outputs["head"], device="cpu"))
    assert found.volume.shape == image.shape


@pytest.mark.slow
def test_the_card_of_its_head_states_how_it_learned(data: Path) -> None:
    """Not how heads are trained alone: other steps, other patches."""
    params = {"method": "gradprom", "config": TINY, "data": str(data), "out": str(data / "out")}
    outputs = run_job(JobSpec("train", params))["outputs"]
    card = (Path(outputs["head"]) / "docs/README.md").read_text(encoding="utf-8")
    assert "3 steps of 1 slabs of 32 pixels, as the enhancer pair gave them" in card
    assert "a gate (binary, averages 0.9, weight 0.5)" in card
    assert "Trained for 3 steps only" in card
    assert "propagated from a template" not in card


@pytest.mark.slow
def test_a_patient_that_neither_has_seen_is_measured_on(data: Path) -> None:
    config = {
        **TINY,
        "head": {**HEAD, "held_out": ["images/1*"]},
        "enhancement": {"high_quality": ["images/0*"]},
    }
    params = {"method": "gradprom", "config": config, "data": str(data), "out": str(data / "out")}
    result = run_job(JobSpec("train", params))
    rows = [(row["subject"], row["case"], row["input"]) for row in result["held_out"]]
    assert rows[:3] == [
        ("held-out patient 1", "undamaged", "as it is"),
        ("held-out patient 1", "composite", "as it is"),
        ("held-out patient 1", "composite", "enhanced"),
    ]
    assert read_bundle(Path(result["outputs"]["head"])).metadata["measured"] == result["held_out"]


def test_the_sections_share_what_is_said_once() -> None:
    fields: dict[str, Any] = {
        **TINY,
        "modality": "CT",
        "anatomy": "leg",
        "seed": 4,
        "head": {**HEAD, "images": ["ct/*"], "data": [{"name": "legs"}], "name": "calf"},
        "enhancement": {"steps": 9, "learning_rate": 1e-3},
    }
    config = joint_config(fields)
    head = head_of(config)
    for one in (config, head):
        assert (one.modality, one.anatomy, one.seed, one.device) == ("CT", "leg", 4, "cpu")
    assert config.high_quality == ("ct/*",)
    assert config.low_quality == ()
    assert config.data == ({"name": "legs"},)
    assert (config.name, head.name) == ("pair", "calf")
    assert (config.steps, config.learning_rate) == (9, 1e-3)
    assert config.task is not None
    assert (config.task.weight, config.task.gate_ema) == (0.5, 0.9)
    assert head.steps == 9 - 3
    apart = joint_config({**fields, "enhancement": {"high_quality": ["else/*"]}})
    assert apart.high_quality == ("else/*",)
    published = joint_config({**fields, "preset": "published", "steps": None})
    assert published.task is not None
    assert published.task.head["preset"] == "full"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"preset": "smoke"}, "section head is missing"),
        ({"head": ["labels/*"]}, "head is"),
        ({"head": {"structurs": []}}, "structurs"),
        ({"head": HEAD, "gate": "binary"}, "gate"),
        ({"head": HEAD, "task": {"wieght": 1}}, "wieght"),
        ({"head": HEAD, "task": {"head": HEAD}}, "described twice"),
        ({"head": HEAD, "enhancement": {"task": None}}, "described twice"),
        ({"head": {**HEAD, "name": "x"}, "name": "x"}, "both called 'x'"),
        ({"head": {**HEAD, "modality": "CT"}}, "for MR, its head for CT"),
    ],
)
def test_what_is_wrong_is_reported_before_anything_is_read(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        training_config("gradprom", fields)
    assert caught.value.hint


def test_a_configuration_of_python_needs_a_task() -> None:
    config = joint_config(TINY)
    assert training_config("gradprom", config) is config
    with pytest.raises(ConfigError, match="no task"):
        training_config("gradprom", TrainConfig.preset("smoke"))
    with pytest.raises(ConfigError, match="TrainConfig"):
        training_config("gradprom", TrainHeadConfig.from_json(HEAD))  # type: ignore[arg-type]
