"""models: MONAI bundles of others are imported as data, listed, run by name and removed."""

from __future__ import annotations

import io as streams
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.gradprom.test_monai_bundle import (
    _CLIP,
    INFERENCE,
    METADATA,
    Fields,
    changed,
    ct,
    of,
    restoration,
)
from monai.networks.nets import UNet

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import find_bundle

Run = Callable[..., Any]
_ABOUT = METADATA | {"version": "0.3", "authors": ["A. Author"], "license": "Apache-2.0"}


@pytest.fixture(autouse=True)
def user_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Imported models go to a folder of the test's own; plain words are no folders here."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def make(folder: Path, inference: Fields = INFERENCE, metadata: Fields = _ABOUT) -> Path:
    """A bundle with weights, and with a script that nobody needs."""
    for part in ("configs", "models", "scripts"):
        (folder / part).mkdir(parents=True)
    (folder / "configs/inference.json").write_text(json.dumps(inference))
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    (folder / "scripts/__init__.py").write_text("raise SystemExit")
    arguments = {k: v for k, v in inference["network_def"].items() if k != "_target_"}
    torch.manual_seed(5)
    torch.save(UNet(**arguments).state_dict(), folder / "models/model.pt")
    return folder


def zipped(folder: Path, below: str = "") -> Path:
    archive = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(archive, "w") as target:
        for file in folder.rglob("*"):
            target.write(file, below + str(file.relative_to(folder)))
    return archive


def test_a_segmenter_is_imported_listed_shown_run_by_name_and_removed(
    run: Run, tmp_path: Path, user_models: Path
) -> None:
    folder, scan = make(tmp_path / "organs"), tmp_path / "ct.nii.gz"
    io.save(ct(), scan)
    assert "imported organs" in run("models", "import", folder).out
    assert run("models", "import", zipped(folder, "v1/organs/")).status == 0  # it is the same
    assert [path.name for path in user_models.iterdir()] == ["organs"]
    assert not list(user_models.rglob("*.py"))  # no program comes in
    listed = run("models", "list").out
    assert "imported, MONAI" in listed
    assert "organs: Two organs (license: Apache-2.0)" in listed
    (row,) = [one for one in run("models", "list", "--json").json["models"] if not one["shipped"]]
    assert (row["kind"], row["modality"], row["licence"]) == ("segmenter", "CT", "Apache-2.0")
    shown = run("models", "show", "organs").out
    for said in ("version: 0.3", "authors: A. Author", row["sha256"], "Nothing is known here"):
        assert said in shown
    assert run("models", "verify", "organs").status == 0
    by_name = run("segment", scan, "named.nii.gz", "--segmenter", "organs")
    assert "organs: its license: Apache-2.0" in by_name.err
    labels = me.segment(io.load(scan), segmenter=str(folder)).volume.voxels
    assert np.array_equal(io.load("named.nii.gz").voxels, labels)
    assert "--segmenter organs" in run("segment", scan, "l.nii.gz", "--model", "organs").err
    # The bundle itself may lie here too.
    os.chdir(tmp_path)
    assert run("models", "show", "organs").out == shown
    assert run("models", "remove", "organs").status == 0
    assert not list(user_models.iterdir())
    assert "import it first" in run("models", "show", "organs").err.lower()


def test_a_restoration_runs_by_name_as_by_path(run: Run, tmp_path: Path) -> None:
    fields, about = restoration(of("ScaleIntensityRanged", keys="image", **_CLIP))
    del about["license"]
    archive = zipped(make(tmp_path / "denoiser_v0.1", fields, about))
    assert "no license stated" in run("models", "import", archive).out
    one, other = (me.enhance(ct(), model=name) for name in ("denoiser_v0-1", str(archive)))
    assert np.array_equal(one.volume.voxels, other.volume.voxels)
    assert one.report["model"]["sha256"] == find_bundle("denoiser_v0-1").sha256


def test_a_description_beside_the_bundle_comes_along(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "organs", changed(INFERENCE, "preprocessing", None))
    assert "preprocessing is missing" in run("models", "import", folder).err
    spec = {"modality": "MR", "labels": ["a", "b"], "multiple": 4}
    folder.with_name("organs.json").write_text(json.dumps(spec))
    assert run("models", "import", folder, "--json").json["model"]["modality"] == "MR"
    assert run("models", "import", find_bundle("organs").folder).status == 0  # as it was kept


class _Runs:
    """A pickle that would make a folder where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("hostile", ["python", "pickle", "link", "zip", "junk", "shadow"])
def test_what_is_hostile_is_refused_and_leaves_nothing(
    hostile: str, run: Run, tmp_path: Path, user_models: Path
) -> None:
    folder = make(tmp_path / ("mr" if hostile == "shadow" else "organs"))
    if hostile == "python":
        code = changed(INFERENCE, "network_def.act", "$__import__('os').mkdir('ran')")
        (folder / "configs/inference.json").write_text(json.dumps(code))
    elif hostile == "pickle":
        content = streams.BytesIO()
        torch.save({"w": _Runs()}, content, pickle_module=pickle)
        (folder / "models/model.pt").write_bytes(content.getvalue())
    elif hostile == "link":
        (folder / "LICENSE").symlink_to("/etc/hostname")
    elif hostile == "junk":
        (folder / "configs/metadata.json").write_text("[]")
    source = folder if hostile == "link" else zipped(folder)
    if hostile == "zip":
        with zipfile.ZipFile(source, "a") as archive:
            archive.writestr("../../escaped.txt", "x")
    says = {
        "python": "is Python code",
        "pickle": "could run code",
        "link": "LICENSE is a link",
        "zip": "outside its folder",
        "junk": "organs.zip/configs/metadata.json: not the metadata",
        "shadow": "came with MedEnhance",
    }
    ran = run("models", "import", source)
    assert ran.status == 4
    assert says[hostile] in ran.err
    assert ".medenhance-" not in ran.err  # no temporary path
    assert not list(user_models.iterdir())
    assert not list(tmp_path.rglob("escaped.txt")) + list(tmp_path.rglob("ran"))


def test_another_bundle_of_the_name_and_damage_are_refused(
    run: Run, tmp_path: Path, user_models: Path
) -> None:
    run("models", "import", make(tmp_path / "organs"))
    other = make(tmp_path / "other" / "organs", metadata=_ABOUT | {"version": "0.4"})
    assert "models remove organs" in run("models", "import", other).err
    record = user_models / "organs/configs/metadata.json"
    weights = user_models / "organs/monai/organs/models/model.pt"
    weights.write_bytes(weights.read_bytes() + b"x")
    io.save(ct(), tmp_path / "ct.nii.gz")
    for ran in (
        run("models", "verify", "organs"),
        run("segment", tmp_path / "ct.nii.gz", "l.nii.gz", "--segmenter", "organs"),
    ):
        assert (ran.status, "damaged" in ran.err) == (4, True)
    record.write_text(record.read_text().replace('"weights"', '"wights"'))
    assert "files lacks monai/*/models/*" in run("models", "list").err
