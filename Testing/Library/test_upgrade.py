"""What the first published state wrote, opens: models, batches, distilled sets, their manifests.

`Testing/Data/first` was written by the program as it was on 2026-11-20, the distilled set a day
later, when there were such. Files of each version of `.ucv` are in unicompress/test_golden.py, a
scene in Testing/Slicer/test_upgrade.py. None of these files is ever written anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.bundles import import_bundle
from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.spg.dataset import is_distilled, load_distilled

FIRST = Path(__file__).resolve().parents[1] / "Data" / "first"
WRITTEN = "da5399fc6a393d5cad0331e4e83ed5cb67ba7bd75b783f0855b3c417501d5208"


def test_nothing_of_it_was_written_anew() -> None:
    digest = hashlib.sha256()
    for path in sorted(path for path in FIRST.rglob("*") if path.is_file()):
        digest.update(path.relative_to(FIRST).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == WRITTEN


def test_a_model_is_imported_and_enhances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path / "models"))
    verify_bundle(read_bundle(FIRST / "model"))
    assert import_bundle(FIRST / "model").name == "first"
    scan = io.load(FIRST / "scans" / "5.nii.gz", modality="MR")
    result = me.enhance(scan, model="first", device="cpu")
    assert result.volume.geometry == scan.geometry
    assert result.report["model"]["name"] == "first"
    assert not np.array_equal(result.volume.voxels, scan.voxels)


def test_a_batch_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ledger is read; what other options made is made again, where that is allowed."""
    for name in ("scans", "ledger"):
        shutil.copytree(FIRST / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    before = {path.name: path.read_bytes() for path in Path("ledger").glob("*.ucv")}
    command = ["batch", "compress", "scans", "--out", "ledger", "--lossless"]
    assert main(command) == 0
    rows = [json.loads(line) for line in Path("ledger/batch.jsonl").read_text().splitlines()]
    assert len(rows) > 4, "the old rows stay"
    assert {row["source"]: row["status"] for row in rows} == {
        "scans/5.nii.gz": "done",
        "scans/6.nii.gz": "done",
    }
    for name, data in before.items():
        old = tmp_path / f"old-{name}"
        old.write_bytes(data)
        assert me.decompress(old).is_equal(me.decompress(Path("ledger") / name))


def test_a_container_and_its_manifest_are_shown(tmp_path: Path) -> None:
    path = FIRST / "ledger" / "5.ucv"
    scan = io.load(FIRST / "scans" / "5.nii.gz")
    assert np.array_equal(me.decompress(path).voxels, scan.voxels)
    card = run_job(JobSpec("inspect", {"input": str(path), "verify": True}))["card"]
    assert card["shape"] == list(scan.shape)
    manifest = json.loads(path.with_name("5.ucv.json").read_text(encoding="utf-8"))
    assert {"action", "config", "inputs", "results"} <= set(manifest)


def test_a_distilled_set_is_read_and_can_be_learned_from(tmp_path: Path) -> None:
    assert is_distilled(FIRST / "distilled")
    found = load_distilled(FIRST / "distilled")
    assert found.images.shape == (4, 32, 32)
    assert (found.licence, found.manifest["patients"]) == ("", 2)
    status = run_job(JobSpec("distill-status", {"out": str(FIRST / "distilled")}))
    assert status["state"] == "finished"
