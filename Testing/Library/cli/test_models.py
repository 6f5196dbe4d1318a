"""models: list, show, import, remove."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from MedEnhanceLib.bundles.export import export_bundle

pytestmark = pytest.mark.usefixtures("user_models")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with the form of a model; its weights belong to no network."""
    metadata = {
        "name": "my-model",
        "kind": "slices",
        "modality": "MR",
        "version": "1.0.0",
        "description": "A model for tests",
        "license": "Apache-2.0",
        "limits": ["Trained on \x1b[31mnothing."],
        "training": {
            "config": {},
            "validation": {"over_shipped_db": -1.85, "over_shipped_error_db": 0.13},
        },
    }
    return export_bundle(tmp_path / "bundle", {"w": torch.zeros(2)}, metadata).folder


def names(ran: object) -> list[str]:
    return [model["name"] for model in ran.json["models"]]  # type: ignore[attr-defined]


def test_imported_model_is_listed_shown_verified_and_removed(
    run: Callable, bundle: Path, user_models: Path
) -> None:
    assert "imported my-model" in run("models", "import", bundle).out
    assert "my-model" in names(run("models", "list", "--json"))
    listed = run("models").out
    assert "A model for tests" in listed
    assert "imported" in listed
    assert f"my-model (slices MR, imported from {bundle.name}): verified" in run("doctor").out
    shown = run("models", "show", "my-model")
    assert "Apache-2.0" in shown.out
    assert "Trained on \\x1b[31mnothing." in shown.out  # no card commands a terminal
    assert run("models", "show", "my-model", "--json").json["metadata"]["version"] == "1.0.0"
    assert "removed my-model" in run("models", "remove", "my-model").out
    assert not (user_models / "my-model").exists()
    assert "my-model" not in names(run("models", "list", "--json"))


def test_a_model_that_cannot_be_read_is_named_beside_the_others(
    run: Callable, bundle: Path, user_models: Path
) -> None:
    run("models", "import", bundle)
    path = user_models / "my-model" / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"files"', '"network": [[]], "files"'))
    ran = run("models", "list")
    assert ran.status == 0
    assert "mr-slices" in ran.out
    assert "my-model/configs/metadata.json: network is [[]]" in ran.err
    assert "medenhance models remove my-model" in ran.err
    assert run("models", "list", "--json").json["unreadable"][0]["name"] == "my-model"
    assert run("models", "remove", "my-model").status == 0


def test_a_damaged_model_is_listed_as_such(run: Callable, bundle: Path, user_models: Path) -> None:
    run("models", "import", bundle)
    (user_models / "my-model" / "models" / "model.safetensors").write_bytes(b"changed")
    listed = run("models")
    assert "is damaged" in listed.err
    assert "medenhance models remove my-model" in listed.err
    (row,) = [row for row in run("models", "--json").json["models"] if row["name"] == "my-model"]
    assert row["ok"] is False


@pytest.mark.parametrize("action", ["show", "import", "remove"])
def test_a_model_that_is_not_named_or_unknown_is_refused(action: str, run: Callable) -> None:
    assert run("models", action).status == 2
    ran = run("models", action, "no-such-model", "--json")
    assert ran.status in (3, 4)
    assert "no-such-model" in ran.json["error"]["message"]


def test_the_default_is_stated_and_goes_back_to_the_one_that_ships(
    run: Callable, bundle: Path
) -> None:
    def default() -> list[str]:
        rows = run("models", "--json").json["models"]
        return [r["name"] for r in rows if r["default"] and r["kind"] == "slices"]

    run("models", "import", bundle)
    assert default() == ["ct-slices", "mr-slices"]
    said = run("models", "default", "my-model")
    assert said.out == "my-model is now the default slices for MR (--model auto)\n"
    assert "my-model is 1.85 dB worse than the shipped model" in said.err
    assert default() == ["my-model", "ct-slices"]
    run("models", "default", "mr-slices")
    assert default() == ["mr-slices", "ct-slices"]
    run("models", "default", "my-model")
    says = "my-model was the default slices MR: the one that ships is it again"
    assert says in run("models", "remove", "my-model").err
    assert default() == ["ct-slices", "mr-slices"]


def test_a_model_with_the_name_of_a_shipped_one_comes_in_under_another(
    run: Callable, bundle: Path, user_models: Path
) -> None:
    metadata = bundle / "configs" / "metadata.json"
    metadata.write_text(metadata.read_text().replace('"my-model"', '"mr-slices"'))
    refused = run("models", "import", bundle)
    assert refused.status == 1
    command = refused.err.partition("medenhance ")[2].strip()
    assert command == f"models import {bundle} --name NAME"
    assert "imported knee" in run(*command.replace("NAME", "knee").split()).out
    assert run("models", "show", "knee", "--json").json["model"]["ok"]
    assert json.loads((user_models / "knee/configs/metadata.json").read_text())["name"] == "knee"
    assert '"mr-slices"' in metadata.read_text()  # the source stays as it is
    again = run("models", "import", bundle, "--name", "knee")
    assert "--name NAME" in again.err and "models remove knee" in again.err
    assert again.status == run("models", "remove", "mr-slices").status == 1
    assert run("models", "import", bundle, "--name", "../evil").status == 1
    assert run("models", "remove", "knee", "--name", "x").status == 2
