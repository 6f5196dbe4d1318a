"""Training on distilled sets and cohorts, and using what comes out on volumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.jobs.kinds.train import training_config
from MedEnhanceLib.spg.config import ImageConfig, Network, TrainDenoiserConfig
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.restore import axial_view, open_restorer

from .conftest import PEOPLE, phantom

SMALL = ImageConfig(size=32, spacing_mm=3.0)


@pytest.fixture(scope="module")
def distilled(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training") / "distilled"
    given = {"preset": "smoke", "method": "matching", "held_out": 0.0}
    return me.distill(people, out, "denoise", config=given, device="cpu")


@pytest.fixture(scope="module")
def model(distilled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A restorer that has learned for a second."""
    fields = {"preset": "smoke", "steps": 150, "batch": 4, "device": "cpu"}
    return me.train("denoiser", fields, distilled, tmp_path_factory.mktemp("d") / "runs")


@pytest.fixture
def scan() -> Volume:
    return phantom(9)


def test_a_set_trains_a_bundle_that_says_where_it_came_from(model: Path, distilled: Path) -> None:
    bundle = read_bundle(model)
    verify_bundle(bundle)
    assert (bundle.kind, bundle.modality, bundle.metadata["task"]) == ("restorer", "MR", "denoise")
    card = (model / "docs" / "README.md").read_text(encoding="utf-8")
    assert "8 images distilled from 4 patients" in card
    assert "training signal, not anatomy" in card
    assert "pixels of 3 mm" in card
    metrics = (model.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["value"] for line in metrics]
    assert losses[-1] < losses[0]
    everything = b"".join(path.read_bytes() for path in model.rglob("*") if path.is_file())
    for word in (*PEOPLE, str(distilled.parent)):
        assert word.encode() not in everything


@pytest.mark.parametrize(("task", "modality"), [("denoise", "MR"), ("undersample", "MR")])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    task: str, modality: str, people: Path, tmp_path: Path
) -> None:
    config = TrainDenoiserConfig(steps=70, batch=2, patch=16, task=task, images=SMALL, device="cpu")
    whole = me.train("denoiser", config, people, tmp_path / "whole")
    steps: list[str] = []
    with pytest.raises(Cancelled, match="checkpoint is written"):
        me.train(
            *("denoiser", config, people, tmp_path / "out"),
            progress=lambda event: steps.append(str(event.fields.get("stage"))),
            cancel=lambda: any(step.startswith("step 57 ") for step in steps),
        )
    resumed = me.train("denoiser", config, people, tmp_path / "out")
    assert read_bundle(resumed).sha256 == read_bundle(whole).sha256
    other = replace(config, learning_rate=5e-4)
    with pytest.raises(ConfigError, match="learning_rate"):
        me.train("denoiser", other, people, tmp_path / "out")


def test_a_cohort_holds_patients_out_and_measures_on_them(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"images": {"size": 32, "spacing_mm": 3.0}, "licence": "CC BY 4.0"}
    (tmp_path / "c.json").write_text(json.dumps(said))
    words = ["train", "denoiser", "--data", str(people), "--task", "sr2", "--network", "edsr"]
    words += ["--pattern", "*.nii.gz"]
    words += ["--preset", "smoke", "--config", str(tmp_path / "c.json"), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "r"), "--name", "mine", "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    (row,) = reported["held_out"]
    assert row["patients"] == "1 held out"
    assert row["damaged (dB)"] > 5
    bundle = read_bundle(tmp_path / "r" / "mine")
    assert bundle.metadata["network"] == {"name": "edsr"}
    assert bundle.metadata["licence"] == "CC BY 4.0"
    assert "slices of 3 patients" in bundle.metadata["data"][0]["subjects"]
    table = me.evaluate(bundle, people / PEOPLE[0], device="cpu")["results"]["means"]["sr2"]
    assert table["input_psnr_db"] > 5


@pytest.mark.parametrize(
    ("fields", "on_set", "says"),
    [
        ({}, False, "task is not stated"),
        ({"task": "sr2"}, True, "its task is denoise"),
        ({"images": {"size": 32}}, True, "determines images itself"),
        ({"held_out": 0.5}, True, "determines held_out itself"),
        ({"network": "vgg"}, True, "srcnn"),
        ({"task": "segment"}, False, "segment"),
        ({"preset": "huge"}, True, "huge"),
        ({"stepz": 4}, True, "steps"),
        ({"name": "a b"}, True, "name is"),
    ],
)
def test_what_cannot_be_trained_is_said(
    fields: dict[str, Any], on_set: bool, says: str, distilled: Path, people: Path, tmp_path: Path
) -> None:
    data = distilled if on_set else people
    with pytest.raises(ConfigError) as caught:
        me.train("denoiser", {"preset": "smoke", **fields}, data, tmp_path)
    assert says in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.slow
def test_an_alarm_of_the_audit_goes_with_what_is_trained(distilled: Path, tmp_path: Path) -> None:
    alarmed = _with_manifest(distilled, tmp_path / "alarmed", audit={"alarm": True})
    for method in ("denoiser", "hqg"):
        said: list[str] = []
        fields = {"preset": "smoke", "device": "cpu", "steps": 2}
        folder = me.train(
            *(method, fields, alarmed, tmp_path / method),
            progress=lambda event, said=said: said.append(str(event.fields.get("message"))),
        )
        assert any("raised the alarm" in message for message in said)
        limits = read_bundle(folder).metadata["limits"]
        assert any("raised the alarm" in limit for limit in limits)


def _with_manifest(distilled: Path, folder: Path, **fields: Any) -> Path:
    """A copy of a set whose manifest says something else."""
    shutil.copytree(distilled, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | fields))
    return folder


def test_the_prior_alone_is_a_set_to_train_on(distilled: Path, tmp_path: Path) -> None:
    fields = {"preset": "smoke", "device": "cpu", "steps": 2}
    bundle = read_bundle(me.train("denoiser", fields, distilled / "prior", tmp_path))
    (entry,) = bundle.metadata["data"]
    assert entry["name"] == "the prior of a distillation"
    assert "2 images: ICBM 2009a" in entry["subjects"]
    assert "intensities and textures of 4 patients" in entry["subjects"]


@pytest.mark.parametrize("method", ["denoiser", "hqg"])
def test_what_is_no_finished_set_is_reported(method: str, distilled: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "distilled"
    shutil.copytree(distilled, unfinished)
    (unfinished / "manifest.json").unlink()
    (unfinished / "work").mkdir()
    (unfinished / "work" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not finished"):
        me.train(method, "smoke", unfinished, tmp_path / "out")


def test_presets_are_what_they_say() -> None:
    assert {TrainDenoiserConfig.preset(name).network for name in ("smoke", "cpu", "full")} <= set(
        get_args(Network)
    )
    config = TrainDenoiserConfig.from_json({"preset": "full", "damage": {"rician": [0.1, 0.2]}})
    assert config.damage is not None
    assert config.damage.rician == (0.1, 0.2)
    with pytest.raises(ConfigError, match="TrainDenoiserConfig"):
        training_config("denoiser", 3)  # type: ignore[arg-type]


def directions() -> list[tuple[tuple[float, float, float], ...]]:
    """Axial, axial upside down, sagittal, coronal with a row turned."""
    return [
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
        ((0, 0, 1), (1, 0, 0), (0, -1, 0)),
        ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    ]


@pytest.mark.parametrize("direction", directions())
def test_an_axial_view_is_what_reorienting_gives(direction: Any) -> None:
    import SimpleITK as sitk  # noqa: N813 - its own name

    voxels = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    image = sitk.GetImageFromArray(voxels)
    image.SetDirection(np.ravel(direction).tolist())
    wanted = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))
    assert np.array_equal(axial_view(voxels, Geometry(direction=direction)), wanted)


@pytest.mark.parametrize("direction", directions())
def test_a_volume_is_restored_on_its_own_grid(direction: Any, model: Path, scan: Volume) -> None:
    """However its axes lie, and a part of it as the whole."""
    axial = me.enhance(scan, model=str(model), device="cpu").volume
    geometry = Geometry((3.0, 3.0, 3.0), (5.0, 6.0, 7.0), direction)
    turned = replace(
        scan, voxels=np.ascontiguousarray(_as_stored(scan.voxels, geometry)), geometry=geometry
    )
    done = me.enhance(turned, model=str(model), device="cpu").volume
    assert done.geometry == geometry
    assert done.dtype == scan.dtype
    difference = axial_view(done.voxels, geometry).astype(int) - axial.voxels.astype(int)
    assert np.abs(difference).max() <= 1
    part = me.enhance(turned, model=str(model), device="cpu", slices=(1, 3)).volume
    assert np.array_equal(part.voxels, done.voxels[1:3])
    assert part.geometry == geometry.cropped((1, 0, 0))


def _as_stored(axial: np.ndarray[Any, Any], geometry: Geometry) -> np.ndarray[Any, Any]:
    """The array whose axial view is `axial`."""
    directions = np.abs(np.asarray(geometry.direction)).argmax(axis=0)
    shape = [axial.shape[2 - place] for place in directions][::-1]
    stored = np.empty(shape, axial.dtype)
    axial_view(stored, geometry)[:] = axial
    return stored


def test_it_restores_what_it_learned_to(model: Path, distilled: Path, scan: Volume) -> None:
    found = load_distilled(distilled)
    opened = open_restorer(read_bundle(model))
    assert opened.damaging.task == found.config.task
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 60, (2, *scan.shape))
    noisy = scan.with_voxels(
        np.hypot(scan.voxels + noise[0], noise[1]).astype(np.float32), did="noise"
    )
    better = me.enhance(noisy, model=str(model), device="cpu")
    errors = [np.square(v.voxels - scan.voxels).mean() for v in (noisy, better.volume)]
    assert errors[1] < 0.9 * errors[0]
    half = me.enhance(noisy, model=str(model), device="cpu", strength=0.5)
    assert half.volume.is_equal(better.at_strength(0.5).volume)


def test_values_outside_the_window_stay(model: Path, scan: Volume) -> None:
    voxels = scan.voxels.astype(np.int16)
    voxels[2, 10, 10], voxels[3, 12, 12] = 20_000, -5
    done = me.enhance(scan.with_voxels(voxels), model=str(model), device="cpu").volume
    assert (done.voxels[2, 10, 10], done.voxels[3, 12, 12]) == (20_000, -5)
    assert not np.array_equal(done.voxels, voxels)


def test_other_pixels_are_warned_of(model: Path, scan: Volume) -> None:
    fine = replace(scan, geometry=Geometry((0.8, 0.8, 5.0)))
    received: list[str] = []
    result = me.enhance(
        *(fine, str(model)),
        device="cpu",
        progress=lambda event: received.append(str(event.fields.get("message"))),
    )
    assert any("was trained on axial pixels of 3 mm" in message for message in received)
    assert [warning["code"] for warning in result.report["results"]["doubts"]] == ["pixel-size"]
    near = me.enhance(replace(scan, geometry=Geometry((2.5, 3.2, 9.0))), str(model), device="cpu")
    assert near.report["results"]["doubts"] == []


@pytest.mark.parametrize(
    "options",
    [
        {"uncertainty": True},
        {"task": "sharpness"},
        {"bias_correction": "n4"},
        {"guide": 1},
        {"look": 1},
    ],
)
def test_what_a_restorer_has_not_is_refused_by_name(
    options: dict[str, Any], model: Path, scan: Volume
) -> None:
    (name,) = options
    if name in ("guide", "look"):
        options = {name: phantom(3)}
    with pytest.raises(ConfigError, match=f"small restorer, which has no {name}"):
        me.enhance(scan, str(model), device="cpu", **options)


def test_a_cancel_is_noticed_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    io.save(phantom(1), tmp_path / "scan.nii.gz")
    from MedEnhanceLib.jobs import JobSpec, run_job

    stages: list[str] = []
    params = {
        "input": str(tmp_path / "scan.nii.gz"),
        "output": str(tmp_path / "better.nii.gz"),
        "config": {"model": str(model), "device": "cpu"},
    }
    run_job(JobSpec("enhance", params))
    manifest = json.loads((tmp_path / "better.nii.gz.json").read_text(encoding="utf-8"))
    assert manifest["model"]["name"] == "denoiser"
    assert manifest["derived"].startswith("DERIVED: enhanced")
    with pytest.raises(Cancelled):
        me.enhance(
            *(phantom(1), str(model)),
            device="cpu",
            progress=lambda event: stages.append(str(event.fields.get("stage"))),
            cancel=lambda: "restore" in stages,
        )


def test_it_is_imported_and_listed_like_other_models(
    model: Path,
    scan: Volume,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path / "models"))
    assert main(["models", "import", str(model)]) == 0
    assert main(["models", "verify", "denoiser"]) == 0
    capsys.readouterr()
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    assert any(entry["name"] == "denoiser" for entry in listed)
    named = me.enhance(scan, "denoiser", device="cpu").volume
    assert named.is_equal(me.enhance(scan, str(model), device="cpu").volume)
    assert me.enhance(scan, "auto", device="cpu").report["model"]["name"] == "mr-brain"


@pytest.mark.slow
def test_an_enhancer_learns_from_a_set(
    distilled: Path, tmp_path: Path, read_metadata: Callable[[Path], dict[str, Any]]
) -> None:
    fields = {"preset": "smoke", "device": "cpu", "steps": 2}
    folder = me.train("hqg", fields, distilled, tmp_path / "h")
    reported = read_metadata(folder)
    assert (reported["name"], reported["kind"]) == ("hqg-mr-distilled", "enhancer")
    assert "training signal, not anatomy" in reported["data"][0]["subjects"]
    assert "distilled images" in reported["limits"][0]
    assert "pixels of 3 mm" in reported["limits"][1]
    assert "task denoise" in reported["description"]
    done = me.enhance(phantom(9), model=str(folder), device="cpu")
    assert not any("pixels of 3 mm" in warning.text for warning in done.enhancement.warnings)
    fine = Volume(phantom(9).voxels, Geometry((1.0, 1.0, 4.0)), modality="MR")
    done = me.enhance(fine, model=str(folder), device="cpu")
    assert any("pixels of 3 mm" in warning.text for warning in done.enhancement.warnings)
    found = load_distilled(distilled)
    high, low = (
        io.load(tmp_path / "h" / "distilled" / pool / "0000.nrrd", modality="MR").voxels / 1000
        for pool in ("high", "low")
    )
    assert np.allclose(high, found.images, atol=1e-5)
    assert 0.02 < np.abs(low - high).mean() < 0.2
    verify_bundle(read_bundle(folder))
    with pytest.raises(ConfigError, match="in random order"):
        me.train("hqg", {**fields, "slab": 4}, distilled, tmp_path / "other")
    with pytest.raises(ConfigError, match="distilled set of MR"):
        me.train("hqg", {**fields, "modality": "CT"}, distilled, tmp_path / "other")


@pytest.fixture
def read_metadata() -> Callable[[Path], dict[str, Any]]:
    return lambda folder: read_bundle(folder).metadata
