"""Thin slices, and what makes scans alike, learn from a set, from a cohort or from both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from Library.conftest import WarningRecorder
from Library.scanner.test_scanner import measured

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.training.jobs.train import set_of, training_config, volumes_in
from MedEnhanceLib.training.spg.dataset import NOT_ANATOMY
from MedEnhanceLib.training.spg.folder import MANIFEST

SMALL = {"preset": "smoke", "device": "cpu"}


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scanner") / "scanner.json"
    path.write_text(json.dumps(measured().to_json()))
    return str(path)


@pytest.mark.slow
def test_a_set_teaches_and_the_result_is_measured_beside_the_shipped_model(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of the run that made it stands for the set."""
    shutil.copytree(whole, tmp_path / "run/out")
    words = ["--preset", "smoke", "--device", "cpu", "--out", str(tmp_path), "--name", "own"]
    assert main(["train", "slices", "--data", str(tmp_path / "run"), *words]) == 0
    said = capsys.readouterr().out
    assert "dB worse than the shipped mr-slices." in said
    assert "It is worse: use mr-slices." in said
    metadata = read_bundle(tmp_path / "own").metadata
    assert metadata["modality"] == "MR"
    assert training_config("slices", {}, set_of(whole, None)).name == "own-mr-slices"
    assert NOT_ANATOMY in metadata["limits"]
    assert metadata["data"][0]["name"] == "a distilled set"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hqg", "slices"])
def test_a_set_and_a_cohort_teach_together_and_an_alarm_of_the_audit_is_repeated(
    method: str,
    whole: Path,
    people: Path,
    scanner: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    leaking = Path(shutil.copytree(whole, tmp_path / "set"))
    manifest = json.loads((leaking / MANIFEST).read_text(encoding="utf-8"))
    manifest["audit"] = {"alarm": True, "verdict": "ALARM"}
    (leaking / MANIFEST).write_text(json.dumps(manifest))
    words = ["--high-quality", str(people), "--preset", "smoke", "--device", "cpu", "--name", "own"]
    words += ["--scanner", scanner] if method == "hqg" else []
    assert main(["train", method, "--data", str(leaking), *words, "--out", str(tmp_path)]) == 0
    assert "raised the alarm" in capsys.readouterr().err
    metadata = read_bundle(tmp_path / "own").metadata
    config = metadata["training"]["config"]
    patterns = [*config.get("noiseless", ()), *config.get("high_quality", config.get("files", ()))]
    assert any("volumes/*.nii.gz" in pattern for pattern in patterns)
    assert any("cohort-of-2019" in pattern for pattern in patterns)
    assert [entry["name"] for entry in metadata["data"]] == [
        "a distilled set",
        "the user's own cohort",
    ]
    assert any("raised the alarm" in limit for limit in metadata["limits"])


def test_the_folder_of_a_run_is_no_images_of_ones_own(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run/out")
    for data, distilled in ((tmp_path / "run", None), (tmp_path, str(tmp_path / "run"))):
        source = set_of(data, distilled)
        assert source is not None and source.folder == tmp_path / "run/out"
    with pytest.raises(InputError, match="holds a distilled set"):
        volumes_in(str(tmp_path / "run"), "hqg")


def test_the_name_of_an_installed_model_is_reported_before_the_training(
    tmp_path: Path, recorder: WarningRecorder
) -> None:
    params = {"method": "slices", "data": str(tmp_path), "out": str(tmp_path / "out")}
    for name in ("new", "mr-slices"):
        with pytest.raises(InputError):
            run_job(JobSpec("train", params | {"config": {**SMALL, "name": name}}), recorder.listen)
    (said,) = recorder.warnings
    assert "a model 'mr-slices' is installed already" in said


def test_what_a_set_cannot_teach_is_said(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a distilled set of MR, not of CT"):
        me.train("hqg", {**SMALL, "modality": "CT"}, whole, tmp_path / "a")
    with pytest.raises(ConfigError, match="does not learn from a distilled set"):
        me.train("codec", {}, whole, tmp_path / "b")


def test_one_patient_is_too_few(people: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "ann").symlink_to(next(people.iterdir()))
    params = {"cohort": str(tmp_path / "cohort"), "out": str(tmp_path / "out")}
    with pytest.raises(InputError, match="needs 2 patients or more; the cohort has 1"):
        run_job(JobSpec("distill", params))
    assert not (tmp_path / "out").exists()
