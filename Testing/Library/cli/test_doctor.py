"""doctor: what is here, and what is missing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from MedEnhanceLib.bundles import store
from MedEnhanceLib.runtime import dependencies, device

GOOD = {"name": "mr-slices", "kind": "slices", "modality": "MR", "ok": True, "message": "verified"}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "installed", lambda: [GOOD])
    cpu = {"name": "cpu", "what": "a processor", "total": None, "free": None}
    gpu = {"name": "cuda:0", "what": "a GPU", "total": 16_000_000_000, "free": 12_000_000_000}
    found = {
        "devices": [gpu, cpu],
        "choice": {"name": "cuda", "reason": "it is fastest"},
    }
    monkeypatch.setattr(device, "compute", lambda: found)


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if this package were not installed."""
    version = dependencies.installed_version
    monkeypatch.setattr(
        dependencies,
        "installed_version",
        lambda package: None if package.name == name else version(package),
    )


@pytest.mark.usefixtures("healthy")
def test_healthy_installation_lacks_nothing(run: Callable) -> None:
    ran = run("doctor")
    assert ran.status == 0
    assert ran.out.splitlines()[-1] == "Nothing is missing."
    assert run("doctor", "--json").json["missing"] == []
    for word in ("SimpleITK", "voxels", "memory", "disk", "mr-slices", "12.0 GB free"):
        assert word in ran.out


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
@pytest.mark.parametrize("models", [[], [{**GOOD, "ok": False, "message": "damaged"}]])
def test_missing_or_damaged_model_is_reported(
    models: list[dict[str, Any]], run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "installed", lambda: models)
    reported = run("doctor", "--json")
    assert reported.status == 4
    assert reported.json["error"]["code"] == "model"


@pytest.mark.usefixtures("healthy")
def test_a_package_that_cannot_be_loaded_is_named_with_its_reason(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(module: str) -> object:
        if module == "matplotlib":
            raise OSError("libpng.so.9: cannot open shared object file")
        return importlib.import_module(module)

    monkeypatch.setattr(dependencies, "import_module", load)
    ran = run("doctor")
    assert ran.status == 4
    assert re.search(r"matplotlib +[\d.]+ CANNOT BE LOADED", ran.out)
    assert ran.out.count("CANNOT BE LOADED") == 1
    assert (
        "matplotlib, which is installed, but cannot be loaded: libpng.so.9: cannot open" in ran.err
    )
    assert "pip install" not in ran.err
