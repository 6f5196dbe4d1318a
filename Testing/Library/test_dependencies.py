"""What is missing, and what it takes to get it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from MedEnhanceLib.runtime import dependencies
from MedEnhanceLib.runtime.dependencies import Package, missing, packages

_REPOSITORY = Path(__file__).resolve().parents[2]


def test_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [package.requirement for package in packages() if package.required]
    assert required == project["dependencies"]
    optional = [package.requirement for package in packages() if not package.required]
    extras = project["optional-dependencies"]
    assert optional == extras["batch"] + extras["video"]
    assert all(package.purpose for package in packages())


def test_nothing_is_missing_here() -> None:
    assert missing() == []


def test_what_is_missing_or_too_old_is_told_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": None, "numpy": "1.25.9", "monai": "1.10", "tqdm": "unknown"}
    monkeypatch.setattr(
        dependencies, "installed_version", lambda package: versions.get(package.name, "9999.1rc1")
    )
    told = {package.name: package for package in missing()}
    assert list(told) == ["numpy", "torch"]
    assert (told["numpy"].installed, told["torch"].installed) == ("1.25.9", None)
    assert told["torch"].requirement.startswith("torch>=")
    assert told["torch"].megabytes > 50
    assert all(package.megabytes > 0 for package in told.values())


def test_pytorch_for_the_cpu_alone_is_smaller_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "installed_version", lambda package: None)
    monkeypatch.setattr(sys, "platform", "linux")
    with_gpu, alone = (
        next(package for package in missing(kind) if package.name == "torch")
        for kind in ("auto", "cpu")
    )
    assert with_gpu.megabytes > 10 * alone.megabytes


@pytest.mark.parametrize(
    ("version", "least", "fits"),
    [
        ("2.13.0+cpu", "2.4", True),
        ("2.4", "2.4", True),
        ("2.3.9", "2.4", False),
        ("2026.3.6", "2025.3.30", True),
        ("0.4.5", "0.4.5", True),
        ("0.4", "0.4.5", False),
        ("strange", "1.0", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, least: str, fits: bool) -> None:
    numbers = dependencies._numbers
    assert (numbers(version) >= numbers(least)) is fits


def test_looking_needs_no_package_and_imports_none() -> None:
    code = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in {*sys.stdlib_module_names, "MedEnhanceLib"}:
            return None
sys.path = [entry for entry in sys.path if "site-packages" not in entry]
sys.path.insert(0, sys.argv[1])
from MedEnhanceLib.runtime.dependencies import missing
told = [package.name for package in missing()]
print(json.dumps([told, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    command = [sys.executable, "-I", "-S", "-c", code, str(_REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told, modules = json.loads(done.stdout)
    assert told == [package.name for package in packages() if package.required]
    assert not set(modules) & {"numpy", "torch"}


def test_a_name_is_what_pip_knows() -> None:
    assert Package("dask[distributed]>=2024.8", "distributed", "", 1).name == "dask[distributed]"
    assert dependencies.PIP_NAMES["dicomanonymizer"] == "dicom-anonymizer"
