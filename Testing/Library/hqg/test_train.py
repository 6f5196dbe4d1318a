"""Training: reproducible, resumable, stoppable, honest about what goes wrong."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.torchrun import run_two

from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, ModelError
from MedEnhanceLib.gradprom.task import SegmentationTask
from MedEnhanceLib.hqg.config import LossConfig, TaskConfig, TrainConfig
from MedEnhanceLib.hqg.train import Trainer, train
from MedEnhanceLib.hqg.train import trainer as trainer_module
from MedEnhanceLib.hqg.train.augment import Degradations, degrade_slab
from MedEnhanceLib.hqg.train.losses import Objective
from MedEnhanceLib.hqg.train.pools import Pools
from MedEnhanceLib.hqg.train.run import Validation
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs.kinds.train import cohort, train_method, training_config
from MedEnhanceLib.nets import training as training_module
from MedEnhanceLib.nets.training import DivergenceError, LossWatch
from MedEnhanceLib.runtime.progress import Event, Monitor


def test_training_leaves_a_bundle_that_verifies(tiny_model: Path, smoke: TrainConfig) -> None:
    bundle = read_bundle(tiny_model)
    verify_bundle(bundle)
    assert bundle.kind == "enhancer"
    assert bundle.modality == "MR"
    assert bundle.metadata["training"]["config"]["seed"] == smoke.seed
    card = (tiny_model / "docs/README.md").read_text()
    assert "not a medical device" in card
    assert "Trained for 6 steps only, as a test model" in card
    assert "License of the weights: not stated" in card


@pytest.mark.slow
def test_two_runs_give_the_same_weights(
    tiny_model: Path, training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    again = train(smoke, training_data, tmp_path)
    assert read_bundle(again).sha256 == read_bundle(tiny_model).sha256


@pytest.mark.slow
def test_a_stopped_training_resumes_to_the_same_weights(
    tiny_model: Path, training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    steps = 0

    def listen(event: Event) -> None:
        nonlocal steps
        steps += "step" in str(event.fields.get("stage"))

    with pytest.raises(Cancelled):
        train(smoke, training_data, tmp_path, Monitor(listen, lambda: steps >= 3))
    assert not (tmp_path / smoke.name).exists()
    resumed = train(smoke, training_data, tmp_path)
    assert read_bundle(resumed).sha256 == read_bundle(tiny_model).sha256


def test_resuming_with_another_configuration_is_refused(
    tiny_model: Path, training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    shutil.copy(tiny_model.parent / "checkpoint.safetensors", tmp_path)
    with pytest.raises(ConfigError, match="learning_rate"):
        train(replace(smoke, learning_rate=1e-5), training_data, tmp_path)


def test_a_damaged_checkpoint_is_named(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors"):
        train(smoke, training_data, tmp_path)


def test_divergence_stops_the_training_and_says_where(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="diverged at step"):
        train(replace(smoke, learning_rate=1e30, steps=20), training_data, tmp_path)


def test_missing_data_names_folder_and_pattern(smoke: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hq/\*"):
        train(smoke, tmp_path, tmp_path / "out")


def test_batches_repeat_with_their_seed(training_data: Path, smoke: TrainConfig) -> None:
    pools = Pools.load(smoke, training_data, Monitor())
    first, again, other = (pools.cycle_batch(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first.degraded, again.degraded)
    assert not np.array_equal(first.degraded, other.degraded)
    assert first.degraded.shape == (smoke.batch, smoke.slab, smoke.patch, smoke.patch)


def test_damage_keeps_shading_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random((3, 32, 32), np.float32) + 1
    damaged = degrade_slab(clean, "composite", None, rng)
    assert damaged.image.shape == damaged.sharp.shape == clean.shape
    shade = damaged.sharp / clean
    assert np.abs(np.diff(shade)).max() < 0.05
    assert shade.std() > 0.01
    assert np.abs(damaged.image - damaged.sharp).mean() > 0.005  # noisy and blurred
    untouched = degrade_slab(clean, "clean", None, rng)
    assert all(np.array_equal(part, clean) for part in untouched)


def test_blur_is_undone(smoke: TrainConfig) -> None:
    damages = Degradations(replace(smoke, degradations={"blur": 1.0}))
    rng = np.random.default_rng(0)
    clean = rng.random((3, 32, 32), np.float32)
    lesson = damages.apply(clean, None, clean[:1], rng)
    assert np.array_equal(lesson.target, clean)
    assert not np.array_equal(lesson.degraded, clean)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"modality": "PT"}, "PT"),
        ({"patch": 50}, "patch"),
        ({"degradations": {"motion": 1.0}}, "motion"),
        ({"lerning_rate": 1.0}, "learning_rate"),
        ({"preset": "huge"}, "huge"),
        ({"network": {"widths": [1, 2]}}, "widths"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TrainConfig.from_json({"preset": "smoke", **fields})


def test_losses_are_computed_in_full_precision(
    training_data: Path, smoke: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 the variances inside SSIM cancel and its gradients undo the training."""
    trainer = Trainer(smoke, Pools.load(smoke, training_data, Monitor()), "cpu")
    trainer.objective.autocast = torch.autocast("cpu", torch.bfloat16)
    seen: list[tuple[torch.dtype, bool]] = []

    def structure(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append((output.dtype, torch.is_autocast_enabled("cpu")))
        return output.mean()

    monkeypatch.setattr(trainer.objective, "structure", structure)
    trainer.step(0)
    assert seen == [(torch.float32, False)]


def published(smoke: TrainConfig, **fields: object) -> TrainConfig:
    loss = replace(LossConfig.published(), past_images=3, r1=1.0)
    return replace(smoke, loss=loss, unpaired_every=1, **fields)


def same_state(one: Trainer, other: Trainer) -> bool:
    return all(
        torch.equal(a, b)
        for first, second in ((one.networks, other.networks), (one.average, other.average))
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.slow
def test_everything_that_learns_resumes_to_the_same_state(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    """The critic, its past images and both optimizers too."""
    config = published(smoke)
    pools = Pools.load(config, training_data, Monitor())
    through, stopped = Trainer(config, pools, "cpu"), Trainer(config, pools, "cpu")
    for number in range(6):
        through.step(number)
    for number in range(3):
        stopped.step(number)
    stopped.save(tmp_path / "checkpoint.safetensors", 3)
    torch.manual_seed(99)  # whatever happened to the process meanwhile
    resumed = Trainer(config, pools, "cpu")
    assert resumed.resume(tmp_path / "checkpoint.safetensors") == 3
    assert not same_state(through, resumed)
    for number in range(3, 6):
        resumed.step(number)
    assert same_state(through, resumed)
    assert through.critic is not None
    assert resumed.critic is not None
    pairs = zip(through.critic.past.images, resumed.critic.past.images, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_who_makes_the_batches_does_not_matter(training_data: Path, smoke: TrainConfig) -> None:
    pools = Pools.load(smoke, training_data, Monitor())
    batches = Trainer(smoke, pools, "cpu").batches
    beside = list(batches.starting(2, workers=1, pin=False))
    assert len(beside) == smoke.steps - 2
    for number, batch in enumerate(beside, start=2):
        pairs = zip(batch, batches[number], strict=True)
        assert all(a is b or torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def often_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "_KEEP_EVERY", 2)


def spoil(monkeypatch: pytest.MonkeyPatch, start: int, factor: float) -> None:
    """From a step on, multiply what a training minimizes."""
    terms = Objective.clean_terms

    def spoiled(self: Objective, batch: Any, number: int, **options: Any) -> Any:
        found, output = terms(self, batch, number, **options)
        if number >= start:
            found = {name: factor * term for name, term in found.items()}
        return found, output

    monkeypatch.setattr(Objective, "clean_terms", spoiled)


def check_last_good(folder: Path, config: TrainConfig, data: Path, step: int) -> None:
    """The bundle holds the averaged weights of `step` steps and says so; so does the page."""
    trainer = Trainer(config, Pools.load(config, data, Monitor()), "cpu")
    for number in range(step):
        trainer.step(number)
    enhancer, _ = trainer.averaged()
    bundle = read_bundle(folder)
    verify_bundle(bundle)
    stored = load_tensors(bundle)
    for name, weight in enhancer.state_dict().items():
        assert torch.equal(stored[f"enhancer.{name}"], weight.half().float()), name
    reported = f"averaged weights of step {step}"
    assert reported in (folder / "docs/README.md").read_text()
    assert reported in (folder.parent / "report/index.html").read_text()


@pytest.mark.slow
def test_not_a_number_stops_and_the_last_good_weights_are_kept(
    training_data: Path,
    smoke: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    often_kept: None,
) -> None:
    config = replace(smoke, steps=12, checkpoint_s=0.0)
    with monkeypatch.context() as patch:
        spoil(patch, 5, math.nan)
        with pytest.raises(ModelError, match=r"step 5.*step 4 are kept") as caught:
            train(config, training_data, tmp_path)
    assert "learning_rate" in str(caught.value.hint)
    check_last_good(tmp_path / config.name, config, training_data, 4)
    fresh = Trainer(config, Pools.load(config, training_data, Monitor()), "cpu")
    assert fresh.resume(tmp_path / "checkpoint.safetensors") == 5
    assert fresh.is_finite


@pytest.mark.slow
def test_losses_that_stay_far_off_stop_the_training(
    training_data: Path,
    smoke: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    often_kept: None,
) -> None:
    config = replace(smoke, steps=16, checkpoint_s=0.0, low_quality=())
    monkeypatch.setattr(training_module, "_LEAST_REMEMBERED", 3)
    monkeypatch.setattr(LossWatch.__init__, "__defaults__", (4,))
    with monkeypatch.context() as patch:
        spoil(patch, 6, 1e3)
        with pytest.raises(ModelError, match=r"step 9: for 4 steps.*step 6 are kept"):
            train(config, training_data, tmp_path)
    check_last_good(tmp_path / config.name, config, training_data, 6)
    fresh = Trainer(config, Pools.load(config, training_data, Monitor()), "cpu")
    assert fresh.resume(tmp_path / "checkpoint.safetensors") == 6


@pytest.mark.slow
def test_a_stop_while_losses_are_far_off_is_saved_beside_the_last_calm_one(
    training_data: Path, smoke: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from where it was stopped; a divergence goes back to the calm one."""
    config = replace(smoke, steps=16, checkpoint_s=0.0, low_quality=())
    monkeypatch.setattr(training_module, "_LEAST_REMEMBERED", 3)
    monkeypatch.setattr(LossWatch.__init__, "__defaults__", (4,))
    last, calm = tmp_path / "checkpoint.safetensors", tmp_path / "checkpoint-calm.safetensors"
    stages: list[str] = []
    monitor = Monitor(
        lambda event: stages.append(str(event.fields.get("stage"))),
        lambda: "step 7 of 16" in stages,
    )
    with monkeypatch.context() as patch:
        spoil(patch, 6, 1e3)
        with pytest.raises(Cancelled, match="after step 8 of 16"):
            train(config, training_data, tmp_path, monitor)
        pools = Pools.load(config, training_data, Monitor())
        assert Trainer(config, pools, "cpu").resume(last) == 8
        assert Trainer(config, pools, "cpu").resume(calm) == 6
        with pytest.raises(DivergenceError, match=r"step 9: for 4 steps.*step 6 are kept"):
            train(config, training_data, tmp_path)
    check_last_good(tmp_path / config.name, config, training_data, 6)
    assert Trainer(config, pools, "cpu").resume(last) == 6
    assert not calm.exists()
    # Without what spoilt it, it ends, and its end is saved.
    train(config, training_data, tmp_path)
    assert Trainer(config, pools, "cpu").resume(last) == 16
    assert not calm.exists()


@pytest.mark.slow
def test_a_training_that_ends_far_off_is_saved(
    training_data: Path, smoke: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(smoke, steps=8, low_quality=())
    monkeypatch.setattr(training_module, "_LEAST_REMEMBERED", 3)
    spoil(monkeypatch, 6, 1e3)
    train(config, training_data, tmp_path)
    pools = Pools.load(config, training_data, Monitor())
    assert Trainer(config, pools, "cpu").resume(tmp_path / "checkpoint.safetensors") == 8


@pytest.mark.slow
def test_a_cancel_names_what_is_there(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(Cancelled, match="before the first step; no checkpoint was written"):
        train(smoke, training_data, tmp_path, Monitor(cancel=lambda: True))
    train(smoke, training_data, tmp_path)
    with pytest.raises(Cancelled, match="before it went on; the checkpoint is as it was"):
        train(smoke, training_data, tmp_path, Monitor(cancel=lambda: True))
    stages: list[str] = []
    monitor = Monitor(
        lambda event: stages.append(str(event.fields.get("stage"))),
        lambda: f"step {smoke.steps - 1} of {smoke.steps}" in stages,
    )
    with pytest.raises(Cancelled, match="the checkpoint holds all steps"):
        train(smoke, training_data, tmp_path / "late", monitor)
    assert (tmp_path / "late/checkpoint.safetensors").exists()


def test_a_cancel_is_noticed_while_targets_are_cleaned(
    training_data: Path, smoke: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaning, released = threading.Event(), threading.Event()

    def without_noise(voxels: Any, noise: object) -> Any:
        cleaning.set()
        released.wait(60)
        return voxels

    monkeypatch.setattr("MedEnhanceLib.hqg.train.pools.without_noise", without_noise)
    with pytest.raises(Cancelled, match="before the first step"):
        train(smoke, training_data, tmp_path, Monitor(cancel=cleaning.is_set))
    assert not released.is_set()
    released.set()


@pytest.mark.slow
def test_a_gradient_that_is_no_number_is_left_out_and_counted(
    training_data: Path, smoke: TrainConfig
) -> None:
    config = replace(smoke, steps=40)
    trainer = Trainer(config, Pools.load(config, training_data, Monitor()), "cpu")
    bad = {1}
    trainer.enhancer.head.weight.register_hook(
        lambda gradient: gradient * math.inf if number in bad else gradient
    )
    number = 0
    trainer.step(number)
    before = [weight.clone() for weight in trainer.networks.parameters()]
    number = 1
    trainer.step(number)
    after = list(trainer.networks.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert trainer.skipped == 1
    number = 2
    trainer.step(number)
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    bad |= set(range(3, 40))
    with pytest.raises(ModelError, match="in a row"):
        for number in range(3, 40):
            trainer.step(number)


def test_the_run_leaves_curves_and_pictures(tiny_model: Path, smoke: TrainConfig) -> None:
    out = tiny_model.parent
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = {row["name"] for row in rows}
    assert {"cycle", "kl", "psnr_db"} <= names
    assert max(row["step"] for row in rows) == smoke.steps
    page = (out / "report/index.html").read_text()
    assert "finished" in page
    assert "volumes of the training data" in page
    # In words of the field; the key is for programs.
    assert "PSNR: mean of the fixed slabs" in page and "psnr_db" not in page
    for picture in ("curves.png", "samples.png"):
        assert (out / "report" / picture).stat().st_size > 5000


def test_held_out_volumes_are_validated_on_and_not_learned_from(
    training_data: Path, smoke: TrainConfig
) -> None:
    plain = replace(smoke.network, shrinkage=False)
    config = replace(smoke, held_out=1, network=plain)
    pools = Pools.load(config, training_data, Monitor())
    assert all(volume.name.endswith("0.nii.gz") for volume in pools.high)
    assert all(volume.name.endswith("1.nii.gz") for volume in pools.held_out)
    trainer = Trainer(config, pools, "cpu")
    validation = Validation(pools, config, "cpu")
    assert validation.is_held_out
    first, again = (validation.measure(*trainer.averaged()) for _ in range(2))
    assert first.psnr_db == again.psnr_db
    # As yet the network is the identity.
    assert first.psnr_db == pytest.approx(first.input_psnr_db, abs=1e-4)
    with pytest.raises(InputError, match="held out"):
        Pools.load(replace(config, held_out=2), training_data, Monitor())


@pytest.mark.slow
def test_validation_changes_nothing_of_what_is_learned(
    tiny_model: Path, training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    seldom = replace(smoke, validation_s=1e9, checkpoint_s=0.0)
    assert read_bundle(train(seldom, training_data, tmp_path)).sha256 == (
        read_bundle(tiny_model).sha256
    )


@pytest.fixture
def taught(training_data: Path, smoke: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A training with a task, on what lies in `tmp_path`."""
    (tmp_path / "labels").mkdir()
    for path in sorted((training_data / "hq").glob("*")):
        volume = load(path)
        labels = volume.with_voxels((volume.voxels > 300).astype(np.uint8))
        save(replace(labels, modality="SEG"), tmp_path / "labels" / path.name)
    shutil.copytree(training_data / "hq", tmp_path / "hq")
    head = {
        "preset": "smoke",
        "images": ["hq/*"],
        "labels": ["labels/*"],
        "structures": [{"value": 1, "name": "bright", "color": "#ff0000"}],
        "name": "bright",
    }
    task = TaskConfig(head=head, start=0.25, head_start=0.3)
    return replace(smoke, steps=8, low_quality=(), task=task)


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [4, 5], ids=["lower", "upper"])
def test_a_task_whose_loss_is_no_number_stops_and_the_last_good_weights_are_kept(
    taught: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    often_kept: None,
    spoilt: int,
) -> None:
    """Losses: of the head alone at steps 2 and 3, then a lower and an upper one at each step."""
    loss, seen = SegmentationTask.loss, itertools.count()
    monkeypatch.setattr(
        SegmentationTask,
        "loss",
        lambda *data: loss(*data) * (math.nan if next(seen) == spoilt else 1),
    )
    with pytest.raises(
        DivergenceError, match=r"step 5: the task's loss is nan.*step 4 are kept"
    ) as caught:
        train_method("hqg", taught, tmp_path, tmp_path / "out", Monitor())
    assert "learning_rate" in caught.value.hint
    verify_bundle(read_bundle(tmp_path / "out/tiny"))
    card = (tmp_path / "out/tiny/docs/README.md").read_text()
    assert "the task's loss is nan. These are the averaged weights of step 4" in card


@pytest.mark.slow
def test_a_task_learns_along_and_becomes_a_bundle(taught: TrainConfig, tmp_path: Path) -> None:
    config = taught
    seen: list[Event] = []
    folder = train_method("hqg", config, tmp_path, tmp_path / "out", Monitor(seen.append))
    verify_bundle(read_bundle(folder))
    verify_bundle(read_bundle(tmp_path / "out/bright"))
    names = {event.fields["name"] for event in seen if event.kind == "metric"}
    assert {"task_lower", "task", "gate_open", "gate_cosine", "gate_batch_cosine"} <= names
    page = (tmp_path / "out/report/index.html").read_text()
    assert re.search(r"open in \d+% of 4 steps", page)
    assert "Where the task agrees least" in page
    assert re.search(r"(enhancer|guide)\.[\w.]+</", page)
    assert (tmp_path / "out/report/gate.png").stat().st_size > 5000
    alone = train(replace(config, task=None), tmp_path, tmp_path / "alone")
    assert not (tmp_path / "alone/report/gate.png").exists()
    assert read_bundle(alone).sha256 != read_bundle(folder).sha256
    with pytest.raises(ConfigError, match="structurs"):
        training_config("hqg", {"task": {"head": {"structurs": []}}})


@pytest.mark.slow
def test_two_processes_learn_the_same_from_different_batches(
    training_data: Path, smoke: TrainConfig, tmp_path: Path
) -> None:
    config = published(smoke, steps=4)
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    script = Path(__file__).with_name("two_processes.py")
    run_two(script, tmp_path / "config.json", training_data, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["batch"] != second["batch"]
    assert first["past"] != second["past"]
    assert first["mean"] == second["mean"] == 1.5
    assert first["requests"] == second["requests"] == [True, False]
    assert (first["resumed"], second["resumed"]) == (True, True)
    # Threads of the group that outlive it may abort a process that ends.
    assert first["threads"] == second["threads"] == []


@pytest.mark.slow
def test_torchrun_trains_from_the_command_line(training_data: Path, tmp_path: Path) -> None:
    pools = ("--hq", training_data / "hq", "--lq", training_data / "lq", "--modality", "MR")
    run_two(
        *("-m", "MedEnhanceLib", "train", "hqg", *pools, "--out", tmp_path / "two"),
        *("--preset", "smoke", "--device", "cpu", "--steps", "3"),
    )
    verify_bundle(read_bundle(tmp_path / "two/two"))
    lines = (tmp_path / "two/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)  # one process wrote it


@pytest.mark.parametrize(
    ("files", "patterns"),
    [
        (("a.nii.gz", "b.nrrd", "notes.txt"), ["good/*.nii.gz", "good/*.nrrd"]),
        (("x/a.nii", "y/z/b.nii"), ["good/**/*.nii"]),
        (("one/IM1", "two/IM1", ".hidden"), ["good/*/"]),
        (("IM1", "IM2"), ["good"]),
    ],
)
def test_a_folder_becomes_patterns_that_name_no_file(
    files: tuple[str, ...], patterns: list[str], tmp_path: Path
) -> None:
    for name in files:
        path = tmp_path / "good" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    data, fields = cohort(tmp_path / "good", None)
    assert data == tmp_path
    assert fields["high_quality"] == patterns
    assert fields["low_quality"] == []


def test_a_cohort_counts_and_holds_one_of_many_out(tmp_path: Path) -> None:
    for name in ("a[1]/hq/1.nii", "a[1]/hq/2.nii", "a[1]/hq/3.nii", "a[1]/hq/4.nii", "b/5.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data, fields = cohort(tmp_path / "a[1]/hq", tmp_path / "b")
    assert fields["held_out"] == 1
    assert "4 volumes of high quality, 1 of low" in fields["data"][0]["subjects"]
    assert len(list(data.glob(fields["high_quality"][0]))) == 4
    assert cohort(tmp_path / "b", None)[1]["held_out"] == 0
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "nothing"):
        with pytest.raises(InputError, match=wrong):
            cohort(tmp_path / wrong, None)
