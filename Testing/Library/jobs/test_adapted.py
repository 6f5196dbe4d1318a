"""The method gradprom with a segmenter that stays as it is: from the command line to the result."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import Bundle, read_bundle, verify_bundle
from MedEnhanceLib.cli.main import build_parser, main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Rician
from MedEnhanceLib.errors import Cancelled, ConfigError
from MedEnhanceLib.gradprom import AdaptConfig
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import train_adapted
from MedEnhanceLib.nets.checkpoint import save_checkpoint
from MedEnhanceLib.runtime.progress import Event

GEOMETRY = Geometry((0.9, 0.8, 2.0), (3.0, -4.0, 5.0))
UNET = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
}
SPEC = {
    "modality": "MR",
    "labels": ["big", "small"],
    "dimensions": 2,
    "network": {"name": "UNet", "arguments": UNET},
}


def labels_of(number: int) -> np.ndarray:
    labels = np.zeros((10, 64, 60), np.uint8)
    labels[2:8, 14 + number : 30, 14:36] = 1
    labels[3:7, 40:50, 16 : 28 + number] = 2
    return labels


def image_of(labels: np.ndarray) -> Volume:
    """A round object in air, whose structures are brighter and darker than the rest."""
    k, j, i = np.mgrid[-1:1:10j, -1:1:64j, -1:1:60j]
    inside = k**2 / 3 + j**2 + i**2 < 0.9
    voxels = np.where(inside, np.array([500, 700, 350])[labels] + 30 * np.sin(5 * i), 0)
    return Volume(np.round(voxels).astype(np.int16), GEOMETRY, modality="MR")


def write_cohort(folder: Path, count: int = 2) -> Path:
    """Folders hq, lq and labels, and the segmenter's weights with what it expects beside them."""
    for number in range(count):
        labels = labels_of(number)
        image = image_of(labels)
        for name, volume in (
            ("hq", image),
            ("lq", Rician(0.08, seed=number).apply(image)),
            ("labels", Volume(labels, GEOMETRY, modality="SEG")),
        ):
            (folder / name).mkdir(exist_ok=True)
            io.save(volume, folder / name / f"{number}.nii.gz")
    torch.manual_seed(0)
    torch.save(UNet(**UNET).state_dict(), folder / "organs.pt")
    (folder / "organs.pt.json").write_text(json.dumps(SPEC))
    return folder


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return write_cohort(tmp_path)


def arguments(cohort: Path, *more: Any, method: str = "gradprom", hq: str = "hq") -> list[str]:
    fixed = ("train", method, "--hq", cohort / hq, "--out", cohort / "runs" / "mine")
    given = ("--modality", "MR", "--preset", "smoke", "--device", "cpu")
    typed = [str(one) for one in (*fixed, *more)]
    # A later option counts: what a test states replaces what is usual.
    return [*typed[:2], *given, *typed[2:]]


def refused(capsys: pytest.CaptureFixture[str], typed: list[str]) -> str:
    """What is printed for a training that must not begin."""
    assert main(typed) != 0
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A cohort, and the enhancer that the command made of it, with labels and noisy images."""
    cohort = write_cohort(tmp_path_factory.mktemp("cohort"))
    more = ("--lq", cohort / "lq", "--labels", cohort / "labels", "--budget", "0.3")
    assert main(arguments(cohort, "--segmenter", cohort / "organs.pt", *more)) == 0
    return cohort, read_bundle(cohort / "runs/mine/mine")


def enhanced(cohort: Path, bundle: Bundle, image: Volume, *more: str) -> Volume:
    io.save(image, cohort / "scan.nii.gz", overwrite=True)
    paths = [str(cohort / "scan.nii.gz"), str(cohort / "better.nii.gz")]
    model = ("--model", str(bundle.folder), "--modality", "MR", "--device", "cpu", "--force")
    assert main(["enhance", *paths, *model, *more]) == 0
    return io.load(cohort / "better.nii.gz", modality="MR")


@pytest.mark.slow
def test_the_card_says_whom_it_was_made_for_and_how(trained: tuple[Path, Bundle]) -> None:
    _, bundle = trained
    verify_bundle(bundle)
    card = (bundle.folder / "docs/README.md").read_text(encoding="utf-8")
    assert "Made for the segmenter organs" in card
    assert "target: labels; the segmenter teaches within 0.3 dB" in card
    assert "Made for one segmenter" in card
    assert "as a test model" in card
    page = (bundle.folder.parent / "report/index.html").read_text(encoding="utf-8")
    assert "for the segmenter organs; its target: labels" in page
    assert "0.3 dB were allowed" in page
    # What is drawn is explained; PSNR of samples is not, as there is no curve of it.
    assert "fidelity: the error against the undamaged image" in page
    assert "psnr_db" not in page and "PSNR should rise" not in page
    assert bundle.metadata["segmenter"]["kind"] == "state-dict"
    assert len(bundle.metadata["segmenter"]["sha256"]) == 64
    assert bundle.metadata["on_request"] is True


@pytest.mark.slow
def test_nothing_of_the_bundle_says_where_the_segmenter_lies(trained: tuple[Path, Bundle]) -> None:
    cohort, bundle = trained
    texts = [path.read_bytes() for path in bundle.folder.rglob("*") if path.is_file()]
    assert len(texts) > 2
    assert not any(str(cohort).encode() in text for text in texts)


@pytest.mark.slow
def test_the_noise_of_the_noisy_images_is_simulated(trained: tuple[Path, Bundle]) -> None:
    """Measured noise is off by some percent, and the robust maximum is above the tissue."""
    _, bundle = trained
    summary = bundle.metadata["training"]["summary"]
    low, high = (
        float(part.split("%")[0].split()[-1])
        for part in summary.partition("Rician noise of")[2].split(" to ")[:2]
    )
    assert 4 < low < 8 < high < 14, summary


@pytest.mark.slow
def test_a_result_says_that_it_was_made_for_one_segmenter(
    trained: tuple[Path, Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, bundle = trained
    noisy = Rician(0.08, seed=9).apply(image_of(labels_of(1)))
    result = enhanced(cohort, bundle, noisy, "--uncertainty")
    assert "was made for the segmenter organs" in capsys.readouterr().err
    assert any("made for the segmenter organs" in line for line in result.history)
    record = json.loads((cohort / "better.nii.gz.json").read_text(encoding="utf-8"))
    assert "segmenter" in [entry["code"] for entry in record["results"]["doubts"]]
    calibration = record["results"]["uncertainty"]["calibration"]
    assert "for the filter alone" in calibration["fitted_on"]


@pytest.mark.slow
def test_geometry_and_type_of_a_volume_are_kept(trained: tuple[Path, Bundle]) -> None:
    cohort, bundle = trained
    noisy = Rician(0.08, seed=9).apply(image_of(labels_of(1)))
    result = enhanced(cohort, bundle, noisy)
    assert result.geometry.is_close(noisy.geometry)
    assert (result.shape, result.voxels.dtype) == (noisy.shape, noisy.voxels.dtype)
    off = [
        np.abs(one.voxels.astype(float) - image_of(labels_of(1)).voxels).mean()
        for one in (noisy, result)
    ]
    assert off[1] < 0.6 * off[0]


@pytest.mark.slow
def test_an_undamaged_image_changes_little(trained: tuple[Path, Bundle]) -> None:
    cohort, bundle = trained
    image = image_of(labels_of(0))
    result = enhanced(cohort, bundle, image)
    off = result.voxels.astype(float) - image.voxels
    assert np.sqrt(np.mean(off**2)) < 0.01 * image.voxels.max()


@pytest.mark.slow
def test_an_uncertainty_map_can_be_made(trained: tuple[Path, Bundle]) -> None:
    cohort, bundle = trained
    noisy = Rician(0.08, seed=9).apply(image_of(labels_of(1)))
    where = cohort / "uncertainty.nii.gz"
    enhanced(cohort, bundle, noisy, "--uncertainty", "--uncertainty-output", str(where))
    uncertainty = io.load(where)
    assert uncertainty.shape == noisy.shape
    assert uncertainty.voxels.min() >= 0 < uncertainty.voxels.max()


@pytest.mark.slow
def test_without_labels_the_segmenter_itself_is_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four volumes: the last one is held out, and measured as it is, noisy, and enhanced."""
    cohort = write_cohort(tmp_path, 4)
    assert main(arguments(cohort, "--segmenter", cohort / "organs.pt", "--json")) == 0
    rows = json.loads(capsys.readouterr().out)["held_out"]
    kinds = ["undamaged", "noisy", "filtered", "without the segmenter", "for the segmenter"]
    assert [row["images"] for row in rows] == [*kinds, *kinds]
    # The segmenter agrees with itself on the image that its target was made from.
    dice = [row[name] for row in rows[:1] for name in row if name.endswith("(Dice)")]
    assert set(dice) <= {1.0, None} and 1.0 in dice
    bundle = read_bundle(cohort / "runs/mine/mine")
    assert bundle.metadata["measured"] == rows
    assert "target: its own output" in bundle.metadata["training"]["summary"]
    assert "Rician noise of 5.0% to 15.0%" in bundle.metadata["training"]["summary"]


@pytest.mark.slow
def test_the_line_at_the_end_uses_the_model(
    cohort: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments(cohort, "--segmenter", cohort / "organs.pt")) == 0
    said = capsys.readouterr().out
    (line,) = re.findall(r"^next: medenhance (.*)$", said, re.M)
    assert "to organs in place of" in said
    monkeypatch.chdir(cohort)
    io.save(Rician(0.08, seed=9).apply(image_of(labels_of(1))), cohort / "SCAN.nii.gz")
    assert main(shlex.split(line)) == 0
    assert "made for the segmenter organs" in " ".join(io.load("BETTER.nii.gz").history)


@pytest.mark.slow
def test_a_module_of_ones_own_is_taken_in_python(cohort: Path) -> None:
    from MedEnhanceLib import train
    from MedEnhanceLib.gradprom.segmenters import open_segmenter

    segmenter = open_segmenter(UNet(**UNET), spec={k: SPEC[k] for k in SPEC if k != "network"})
    config = {"preset": "smoke", "name": "own", "device": "cpu"}
    folder = train("gradprom", config, cohort, cohort / "out", segmenter=segmenter)
    assert read_bundle(folder).metadata["segmenter"]["kind"] == "module"


def test_another_modality_is_refused(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = arguments(cohort, "--segmenter", cohort / "organs.pt", "--modality", "CT")
    said = refused(capsys, typed)
    assert "the training is for CT, segmenter 'organs' is for MR" in said


def test_a_checkpoint_of_another_training_is_refused_before_volumes_are_prepared(
    cohort: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparing takes minutes with real volumes."""
    monkeypatch.setattr(train_adapted._Preparation, "example", lambda *_: pytest.fail("prepared"))
    out = cohort / "runs/mine"
    out.mkdir(parents=True)
    typed = arguments(cohort, "--segmenter", cohort / "organs.pt", "--budget", "0.2")
    config = AdaptConfig.from_json({"preset": "smoke", "budget": 0.3})
    stored = {"config": config.to_json(), "modules": {}, "optimizers": {}}
    save_checkpoint(out / "checkpoint.safetensors", step=3, **stored)
    assert re.search(r"made with another configuration \(.*budget", refused(capsys, typed))
    (out / "checkpoint.safetensors").write_bytes(b"cut off")
    assert "the checkpoint is damaged" in refused(capsys, typed)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_cancel_after_the_last_step_loses_nothing(tmp_path: Path, count: int) -> None:
    """With four volumes it comes before the one that is held out has been measured."""
    cohort = write_cohort(tmp_path, count)
    stages: list[str] = []
    fields = {"segmenter": str(cohort / "organs.pt"), "device": "cpu", "name": "mine"}
    config = {"preset": "smoke", **fields, "held_out": int(count == 4)}
    job = JobSpec(
        "train",
        {"method": "gradprom", "config": config, "data": str(cohort), "out": str(cohort / "out")},
    )
    cancel = threading.Event()

    def stop_late(event: Event) -> None:
        stages.append(str(event.fields.get("stage")))
        if stages[-1] == "step 5 of 6":
            cancel.set()

    if count == 2:  # the model is there: too late
        assert read_bundle(Path(run_job(job, stop_late, cancel)["outputs"]["model"]))
        return
    with pytest.raises(Cancelled, match="the checkpoint is kept") as caught:
        run_job(job, stop_late, cancel)
    assert "to continue" in caught.value.hint
    assert run_job(job)["held_out"]


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_same_weights(cohort: Path) -> None:
    """Killed after the segmenter has begun to teach, at step 20 of 40."""
    often = cohort / "often.json"
    often.write_text(json.dumps({"checkpoint_s": 0.0, "steps": 40, "name": "mine"}))
    typed = arguments(cohort, "--segmenter", cohort / "organs.pt", "--config", often)

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "MedEnhanceLib", *typed, "--out", str(cohort / out)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def weights(out: str) -> bytes:
        assert start(out).wait(120) == 0
        return (cohort / out / "mine" / "models" / "model.safetensors").read_bytes()

    run, journal = start("killed"), cohort / "killed" / "metrics.jsonl"
    while not (journal.exists() and '"step": 30}' in journal.read_text()):
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    assert run.wait() != 0
    assert weights("killed") == weights("whole")


def _coarse(cohort: Path) -> None:
    (cohort / "organs.pt.json").write_text(json.dumps({**SPEC, "spacing": [0.2, 0.2, 0.2]}))


def _lost(cohort: Path) -> None:
    (cohort / "labels/1.nii.gz").unlink()


def _renumbered(cohort: Path) -> None:
    labels = Volume(np.full((10, 64, 60), 7, np.uint8), GEOMETRY, modality="SEG")
    io.save(labels, cohort / "labels/1.nii.gz", overwrite=True)


def _elsewhere(cohort: Path) -> None:
    labels = Volume(labels_of(1), Geometry((1.0, 1.0, 1.0)), modality="SEG")
    io.save(labels, cohort / "labels/1.nii.gz", overwrite=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_coarse, "0.2 mm"),
        (_lost, "2 images and 1 labels"),
        (_renumbered, "values from 7 to 7"),
        (_elsewhere, "1.nii.gz"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    cohort: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], words: str
) -> None:
    spoil(cohort)
    more = ("--segmenter", cohort / "organs.pt", "--labels", cohort / "labels")
    assert words in refused(capsys, arguments(cohort, *more))
    assert not (cohort / "runs/mine/checkpoint.safetensors").exists()


def test_noise_that_cannot_be_measured_is_not_simulated(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (cohort / "lq").iterdir():
        empty = Volume(np.zeros((10, 64, 60), np.int16), GEOMETRY, modality="MR")
        io.save(empty, path, overwrite=True)
    more = ("--segmenter", cohort / "organs.pt", "--lq", cohort / "lq")
    assert "the noise can be measured" in refused(capsys, arguments(cohort, *more))


@pytest.mark.parametrize(
    ("method", "more", "words"),
    [
        ("hqg", ["--segmenter", "organs.pt"], "--segmenter is for an enhancer that is made for"),
        ("hqg", ["--budget", "0.2"], "--budget is for an enhancer that is made for a segmenter"),
        ("hqg", ["--labels", "labels"], "--labels is for an enhancer that is made for"),
        ("gradprom", [], "no segmenter is named"),
        ("gradprom", ["--labels", "labels"], "no segmenter is named"),
        ("gradprom", ["--labels", "labels"], "trains an enhancer and a segmentation head together"),
        ("gradprom", ["--segmenter", "gone.pt"], "gone.pt: there is no such file"),
        ("gradprom", ["--segmenter", "organs.pt", "--budget", "0"], "budget is 0.0"),
    ],
)
def test_options_of_something_else_are_refused(
    cohort: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    more: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(cohort)
    assert words in refused(capsys, arguments(cohort, *more, method=method))


def test_labels_of_a_data_folder_are_not_left_out_silently(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--labels", cohort / "labels")
    typed = ["train", "gradprom", "--data", cohort, "--out", cohort / "out", *labels]
    # Without a segmenter these would be labels of a head, which are named elsewhere.
    assert "the labels that --config names" in refused(capsys, [str(one) for one in typed])
    typed += ["--segmenter", cohort / "organs.pt"]
    assert "--labels are those of --hq" in refused(capsys, [str(one) for one in typed])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rician": [0.3, 0.1]}, "rician goes from 0.3 to 0.1"),
        ({"photons": [0, 1e4]}, "photons goes from 0"),
        ({"gate": "sometimes"}, "gate"),
        ({"preset": "published"}, "published"),
    ],
)
def test_a_configuration_is_checked_before_anything_is_read(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        AdaptConfig.from_json({"segmenter": "organs.pt", **fields})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"segmenter": ""}, "no segmenter"), ({"network": {"widths": 3}}, "widths")],
)
def test_what_the_training_needs_is_checked_before_volumes_are_prepared(
    cohort: Path, fields: dict[str, Any], words: str
) -> None:
    config = {"preset": "smoke", "segmenter": str(cohort / "organs.pt"), **fields}
    params = {"method": "gradprom", "config": config, "data": "gone", "out": str(cohort / "out")}
    with pytest.raises(ConfigError, match=words):
        run_job(JobSpec("train", params))


def test_the_modes_are_those_of_the_gate() -> None:
    from MedEnhanceLib.gradprom.gate import MODES

    assert get_args(get_type_hints(AdaptConfig)["gate"]) == MODES


PAGE = Path(__file__).resolve().parents[3] / "docs" / "segmenters.md"


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the preset of seconds in place of that of minutes."""
    data = tmp_path / "data"
    data.mkdir()
    write_cohort(data)
    for name, shown in (("hq", "good"), ("lq", "noisy"), ("labels", "drawn")):
        (data / name).rename(data / shown)
    io.save(Rician(0.08, seed=9).apply(image_of(labels_of(1))), tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks_of("python")
    assert code.count('"preset": "cpu"') == 1
    names: dict[str, Any] = {}
    code = code.replace('"preset": "cpu"', '"preset": "smoke", "device": "cpu"')
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["found"].shape == names["scan"].shape
    assert names["folder"] == Path("runs/organs/organs")


def test_the_descriptions_of_the_page_are_valid() -> None:
    from MedEnhanceLib.gradprom.segmenter_files import build
    from MedEnhanceLib.gradprom.segmenter_spec import SegmenterSpec

    specs = [SegmenterSpec.from_json(json.loads(block)) for block in blocks_of("json")]
    assert [spec.network is not None for spec in specs] == [False, True, False, False]
    network = specs[1].network
    assert network is not None
    weights = UNet(**network.arguments).state_dict()
    built, _ = build(network, weights, "page")
    assert built(torch.rand(1, specs[1].channels, 32, 32)).shape[1] == specs[1].outputs


def test_the_commands_of_the_page_are_understood() -> None:
    shown = "".join(blocks_of("sh"))
    lines = shown.replace("\\\n", " ").splitlines()
    assert len(lines) == 4
    for line in lines:
        build_parser().parse_args(shlex.split(line)[1:])
