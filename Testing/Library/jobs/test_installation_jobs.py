"""The jobs about the installation: what is asked of a worker before anything is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from MedEnhanceLib.jobs import JobSpec, run_job

_FIELDS = {
    "name", "kind", "modality", "version", "description", "license", "sha256", "shipped", "bytes",
    "folder", "card", "training", "ok", "message", "anatomy",
    "default", "default_warning", "origin", "imported_from",
}  # fmt: skip


@pytest.mark.usefixtures("user_models")
def test_models_are_listed_with_all_that_a_page_shows() -> None:
    rows = run_job(JobSpec("models", {"action": "list"}))["models"]
    assert {"brain", "mr-slices", "codec-mr"} <= {row["name"] for row in rows}
    assert "enhancer" not in {row["kind"] for row in rows}  # nothing learned removes noise
    for row in rows:
        assert set(row) == _FIELDS
        assert row["ok"] is True
        assert row["shipped"] is True
        assert row["card"].startswith("# ")
        assert row["training"]
        assert row["bytes"] > 100_000


@pytest.mark.slow
def test_a_worker_answers_these_without_torch(scan: Path, tmp_path: Path) -> None:
    code = """
import sys
from MedEnhanceLib.runtime import device
device.find_spec = lambda name: None  # as where it is not installed
from MedEnhanceLib.jobs import JobSpec, run_job
import MedEnhanceLib.jobs.worker.worker
source, target = sys.argv[1:]
assert run_job(JobSpec("doctor"))["choice"]["name"] == "none"
assert run_job(JobSpec("models", {"action": "list"}))["models"]
assert run_job(JobSpec("inspect", {"input": source}))["card"]
assert run_job(JobSpec("convert", {"input": source, "output": target}))["outputs"]
assert run_job(JobSpec("estimate", {"input": source, "config": {"lossless": True}}))["ratio"]
assert not {"torch", "monai"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code, str(scan), str(tmp_path / "b.nii")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
