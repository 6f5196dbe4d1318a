"""train and evaluate: options, configuration files, tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.cli import console
from MedEnhanceLib.core.manifest import RESEARCH_ONLY

pytestmark = pytest.mark.training


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """The jobs that commands ask for; trainings are tested where they live."""
    jobs: list[tuple[str, Mapping[str, Any]]] = []

    def run(_: Any, kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
        from MedEnhanceLib.jobs import JobSpec

        given = {name: value for name, value in params.items() if value is not None}
        jobs.append((kind, JobSpec(kind, given).params))
        figures = {"input_psnr_db": 21.4, "enhanced_psnr_db": 24.5678, "input_ssim": 0.9}
        filtered = {"inversion_psnr_db": 24.4, "gain_over_inversion_db": 0.1678}
        rows = {"scanner": figures | filtered}
        written = {"outputs": {"model": "runs/a/model"}, "notice": RESEARCH_ONLY, "seconds": 12.34}
        return {**written, "means": rows, "rows": []}

    monkeypatch.setattr(console.Console, "run", run)
    return jobs


def test_preset_and_configuration_file_go_together(
    run: Callable, asked: list[tuple[str, Mapping[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"steps": 12, "preset": "full"}')
    ran = run(
        *("train", "hqg", "--preset", "smoke", "--config", tmp_path / "config.json"),
        *("--data", "volumes", "--out", "runs/a"),
    )
    assert ran.status == 0
    assert "wrote runs/a/model" in ran.out
    assert ran.out.splitlines()[-1] == "To install model: medenhance models import runs/a/model"
    ((kind, params),) = asked
    assert kind == "train"
    assert params["config"] == {"steps": 12, "preset": "smoke"}
    assert (params["method"], params["data"], params["out"]) == ("hqg", "volumes", "runs/a")


def test_a_folder_and_a_modality_are_enough(
    run: Callable, asked: list[tuple[str, Mapping[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "Jane Doe.nii.gz").touch()
    (tmp_path / "config.json").write_text('{"high_quality": ["else/*"], "anatomy": "knee"}')
    ran = run(
        *("train", "hqg", "--high-quality", tmp_path / "good"),
        *("--modality", "MR", "--out", tmp_path / "my run", "--steps", "9"),
        *("--config", tmp_path / "config.json"),
    )
    assert ran.status == 0
    ((_, params),) = asked
    config = params["config"]
    assert Path(params["data"]) == tmp_path
    assert config["high_quality"] == ["good/**/*.nii.gz"]
    assert (config["modality"], config["steps"], config["name"]) == ("MR", 9, "my-run")
    assert config["anatomy"] == "knee"
    assert "Jane" not in json.dumps(params["config"])
    from MedEnhanceLib.training.hqg.config import TrainConfig

    TrainConfig.from_json(config)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hqg", "--high-quality", "good"), "modality"),
        (
            ("hqg", "--high-quality", "good", "--modality", "MR", "--data", "d"),
            "beside a distilled set",
        ),
        (("head", "--high-quality", "good", "--modality", "MR"), "trained on label maps"),
        (("codec", "--high-quality", "good", "--modality", "MR"), "for hqg and slices"),
        (("hqg",), "no training data"),
        (("hqg", "--high-quality", "no-such-folder", "--modality", "MR"), "no-such-folder"),
    ],
)
def test_what_is_missing_is_named(arguments: tuple[str, ...], words: str, run: Callable) -> None:
    ran = run("train", *arguments, "--out", "o")
    assert ran.status in (2, 3)
    assert words in ran.err


def test_means_of_an_evaluation_are_a_table(
    run: Callable, asked: list[tuple[str, Mapping[str, Any]]]
) -> None:
    ran = run("evaluate", "old", "volumes")
    assert ran.status == 0
    head, _, row, _, seconds, notice = ran.out.splitlines()
    heads = ["mean of", "PSNR, dB: degraded", "inversion alone", "model", "model − inversion"]
    assert re.split(" {2,}", head) == [*heads, "SSIM: degraded"]
    assert row.split() == ["scanner", "21.40", "24.40", "24.57", "0.17", "0.900"]
    assert seconds == "12.3 s" and notice == RESEARCH_ONLY
    assert asked[0][1]["bundle"] == "old"


def test_a_head_that_teaches_is_named(
    run: Callable, asked: list[tuple[str, Mapping[str, Any]]]
) -> None:
    words = ("--segmenter", "organs", "--gate", "binary", "--scanner", "scanner.json")
    assert run("train", "hqg", *words, "--data", "volumes", "--out", "runs/a").status == 0
    config = asked[0][1]["config"]
    assert config["task"] == {"segmenter": "organs", "gate": "binary"}
    assert config["scanner"] == "scanner.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        ('{"modalty": "CT"}', "Did you mean modality?"),
    ],
)
@pytest.mark.parametrize("method", ["hqg", "codec"])
def test_a_wrong_configuration_file_is_named(
    method: str, text: str | None, words: str, run: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    ran = run("train", method, "--config", path, "--data", tmp_path, "--out", tmp_path / "out")
    assert ran.status == 2
    assert str(path) in ran.err
    assert words in ran.err
