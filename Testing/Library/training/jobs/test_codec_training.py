"""What a recipe for the codec's models says, and what is said of a wrong one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from Library.jobs.conftest import brain

from MedEnhanceLib import io
from MedEnhanceLib.bundles.importing import import_bundle
from MedEnhanceLib.bundles.schema import METADATA
from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.training.jobs.train import training_config
from MedEnhanceLib.unicompress.codec_models import ModelSet, shipped_model

pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"part": "predictor", "steps": "7000"}, "steps is '7000'"),
        ({"part": "predictor", "files": "ct/*.nii.gz"}, "files is"),
        ({"part": "predictor", "preset": "huge"}, "unknown preset 'huge'"),
        ({"part": "prediction"}, "unknown part 'prediction'"),
        *(
            ({"part": part, **field}, says)
            for part in ("implicit", "predictor")
            for field, says in (
                ({"name": "mine"}, "name is"),  # no file would find it
                ({"name": "codec/../x"}, "name is"),
                ({"data": [{"name": "x"}]}, "without subjects"),
            )
        ),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        training_config("codec", fields)
    assert caught.value.hint


def test_volumes_are_found_by_patterns_but_for_those_held_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.nii.gz").touch()
    part = training_config("codec", {"part": "predictor", "held_out": ["b*"]})
    assert [path.name for path in part.volume_files(tmp_path)] == ["a.nii.gz", "c.nii.gz"]


@pytest.mark.slow
@pytest.mark.usefixtures("user_models")
def test_its_card_says_what_it_learned_from_and_it_is_found_by_its_hash(tmp_path: Path) -> None:
    part, out = "predictor", tmp_path / "out"
    (tmp_path / "data").mkdir()
    io.save(replace(brain(0), modality="CT"), tmp_path / "data" / "a.nii.gz")

    def train(**config: Any) -> Path:
        given = {"preset": "smoke", "modality": "CT", "part": part, **config}
        params = {"method": "codec", "data": str(tmp_path / "data"), "out": str(out)}
        return Path(run_job(JobSpec("train", params | {"config": given}))["outputs"]["model"])

    reported = {"name": "Our phantom", "subjects": "1", "license": "CC0", "source": "us"}
    folder = train(data=[reported])
    assert read_bundle(folder).metadata["license"] == "not stated"
    card = (folder / "docs/README.md").read_text()
    assert "Our phantom: 1. License: CC0. Source: us" in card
    assert "predictor: 20 steps on 1 volume, seed 0" in card
    assert "Trained on few subjects" in card
    assert folder.name == "codec-ct"
    # What the bundle has of another part stays.
    shipped = shipped_model("implicit", "CT")
    (folder / "models" / "implicit.safetensors").write_bytes(shipped.data)
    for checkpoint in out.glob("*checkpoint*"):
        checkpoint.unlink()
    assert train(seed=1, license="CC BY 4.0") == folder
    assert "License of the weights: CC BY 4.0" in (folder / "docs/README.md").read_text()
    names = sorted(path.stem for path in folder.glob("models/*"))
    assert names == ["fast-predictor", "implicit", "predictor"]
    assert "seed 1" in read_bundle(folder).metadata["training"]["summary"]
    verify_bundle(read_bundle(folder))
    data = (folder / "models" / f"{part}.safetensors").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    models = ModelSet({part: {"id": "codec-mine", "sha256": sha256}})
    with pytest.raises(ModelError, match="not on this machine"):
        models.get(part)
    described = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps(described | {"name": "codec-mine"}))
    bundle = import_bundle(folder)
    assert (bundle.kind, bundle.modality) == ("codec", "CT")
    assert models.get(part).data == data
