"""doctor and worker: what is here, and who answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.bundles import store
from MedEnhanceLib.cli import doctor
from MedEnhanceLib.runtime import dependencies, machine

GOOD = {"name": "mr", "kind": "enhancer", "modality": "MR", "ok": True, "message": "verified"}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "installed", lambda: [GOOD])
    monkeypatch.setattr(doctor, "worker", lambda: {"ok": True, "message": "answered in 0.5 s"})
    cpu = {"name": "cpu", "what": "a processor", "total": None, "free": None}
    gpu = {"name": "cuda:0", "what": "a GPU", "total": 16_000_000_000, "free": 12_000_000_000}
    found = {
        "devices": [gpu, cpu],
        "choice": {"name": "cuda", "reason": "it is fastest"},
        "cuda": {"built": "12.8", "available": True, "driver": True},
    }
    monkeypatch.setattr(machine, "compute", lambda: found)


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if this package were not installed."""
    version = dependencies.installed_version
    monkeypatch.setattr(
        dependencies,
        "installed_version",
        lambda package: None if package.name == name else version(package),
    )


@pytest.mark.usefixtures("healthy")
def test_healthy_installation_fits_on_a_screen(run: Callable) -> None:
    ran = run("doctor")
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert lines[-1] == "Everything that is needed is here."
    for word in ("SimpleITK", "voxels", "memory", "disk", "mr", "answered", "12.0 GB free"):
        assert word in ran.out


@pytest.mark.usefixtures("healthy")
def test_doctor_as_json_has_every_part(run: Callable) -> None:
    reported = run("doctor", "--json").json
    assert reported["ok"] is True
    assert reported["missing"] == []
    assert reported["cpu_threads"] >= 1
    assert reported["memory"]["total"] > reported["memory"]["free"] > 0
    assert reported["disk"]["free"] > 0
    assert {row["package"] for row in reported["packages"]} >= {
        "numpy",
        "torch",
        "dask[distributed]",
    }
    assert all(row["purpose"] for row in reported["packages"])


@pytest.mark.usefixtures("healthy")
def test_missing_package_is_named_with_its_remedy(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "imagecodecs")
    ran = run("doctor")
    assert ran.status == 4
    assert "MISSING" in ran.out
    assert "python -m pip install 'imagecodecs>=" in ran.err
    reported = run("doctor", "--json").json
    assert reported["ok"] is False
    assert reported["error"]["code"] == "dependency"
    assert reported["packages"]


@pytest.mark.usefixtures("healthy")
def test_missing_optional_package_is_no_shortcoming(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "dask[distributed]")
    ran = run("doctor")
    assert ran.status == 0
    assert "not installed (optional)" in ran.out


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("models", [[], [{**GOOD, "ok": False, "message": "damaged"}]])
def test_missing_or_damaged_model_is_reported(
    models: list[dict[str, Any]], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "installed", lambda: models)
    reported = run("doctor", "--json")
    assert reported.status == 4
    assert reported.json["error"]["code"] == "model"


@pytest.mark.usefixtures("healthy")
def test_worker_that_does_not_answer_is_reported(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "worker", lambda: {"ok": False, "message": "it died"})
    ran = run("doctor")
    assert ran.status == 1
    assert "it died" in ran.err


def test_real_worker_answers() -> None:
    assert doctor.worker()["ok"]


def test_too_old_a_package_is_a_shortcoming(
    run: Callable, monkeypatch: pytest.MonkeyPatch, healthy: None
) -> None:
    version = dependencies.installed_version
    monkeypatch.setattr(
        dependencies,
        "installed_version",
        lambda package: "0.1" if package.name == "monai" else version(package),
    )
    ran = run("doctor")
    assert ran.status == 4
    assert "0.1 TOO OLD" in ran.out
    assert "'monai>=" in ran.err


def test_memory_of_this_machine_agrees_with_psutil() -> None:
    psutil = pytest.importorskip("psutil")
    total = machine.memory()["total"]
    assert total is None or total <= psutil.virtual_memory().total * 1.01


def test_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "current").write_text("400000\n")
    monkeypatch.setattr(machine, "_CGROUPS", ((tmp_path / "max", tmp_path / "current"),))
    monkeypatch.setattr(sys, "platform", "linux")
    if Path("/proc/meminfo").exists():
        assert machine.memory() == {"total": 1_000_000, "free": 600_000}


def test_worker_command_speaks_json_lines_only() -> None:
    job = '{"v": 1, "id": "a", "kind": "ping", "params": {"count": 2}}\n'
    program = "import sys; from MedEnhanceLib.cli.main import main; sys.exit(main(['worker']))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(job)
    process.stdin.flush()
    events = []
    while not events or events[-1]["event"] not in ("result", "error"):
        events.append(json.loads(process.stdout.readline()))
    assert events[-1]["event"] == "result"
    rest, _ = process.communicate(timeout=60)
    assert rest == ""
    assert process.returncode == 0
