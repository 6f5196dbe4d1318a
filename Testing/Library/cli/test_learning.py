"""train and evaluate: options, configuration files, tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.cli import console, train
from MedEnhanceLib.jobs.training import METHODS


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """The jobs that commands ask for; trainings are tested where they live."""
    jobs: list[tuple[str, Mapping[str, Any]]] = []

    def run(_: Any, kind: str, params: Mapping[str, Any], *, isolated: bool) -> dict[str, Any]:
        from MedEnhanceLib.jobs import JobSpec

        given = {name: value for name, value in params.items() if value is not None}
        jobs.append((kind, JobSpec(kind, given).params))
        rows = {"composite": {"input_psnr_db": 21.4, "enhanced_psnr_db": 24.5678}}
        return {"outputs": {"model": "runs/a/model"}, "seconds": 1.0, "means": rows, "rows": []}

    monkeypatch.setattr(console.Console, "run", run)
    return jobs


def test_methods_are_those_of_the_job() -> None:
    assert set(train.METHODS) == set(METHODS)


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
    ((kind, params),) = asked
    assert kind == "train"
    assert params["config"] == {"steps": 12, "preset": "smoke"}
    assert (params["method"], params["data"], params["out"]) == ("hqg", "volumes", "runs/a")


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot be read"), ("{", "not JSON"), ("[1]", "JSON object")]
)
def test_configuration_file_that_is_none_is_status_two(
    text: str | None, words: str, run: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    ran = run("train", "hqg", "--config", path, "--data", "d", "--out", "o")
    assert ran.status == 2
    assert words in ran.err


def test_unknown_training_option_is_named(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"step": 12}))
    ran = run(
        *("train", "hqg", "--config", tmp_path / "config.json"),
        *("--data", tmp_path, "--out", tmp_path / "out"),
    )
    assert ran.status == 2
    assert "'step'" in ran.err
    assert "steps" in ran.err


def test_means_of_an_evaluation_are_a_table(
    run: Callable, asked: list[tuple[str, Mapping[str, Any]]]
) -> None:
    ran = run("evaluate", "mr-brain", "volumes", "--out", "table.json")
    assert ran.status == 0
    head, _, row = ran.out.splitlines()
    assert head.split("  ")[0] == "mean of"
    assert "enhanced psnr db" in head
    assert row.split() == ["composite", "21.4", "24.568"]
    assert asked[0][1]["bundle"] == "mr-brain"


def test_model_that_is_not_there_is_status_four(run: Callable, scan: Path) -> None:
    ran = run("evaluate", "no-such-model", scan)
    assert ran.status == 4
    assert "no-such-model" in ran.err
