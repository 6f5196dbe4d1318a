"""What is missing, and what it takes to get it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from MedEnhanceLib.runtime import dependencies
from MedEnhanceLib.runtime.dependencies import missing, packages

_REPOSITORY = Path(__file__).resolve().parents[2]


def test_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [each.requirement for each in dependencies.PACKAGES if not each.extra]
    assert required == project["dependencies"]
    optional = {package.requirement: package.extra for package in packages() if package.extra}
    names = ("reports", "dicom", "batch", "video")
    extras = {one: name for name in names for one in project["optional-dependencies"][name]}
    assert optional == extras
    assert all(package.purpose for package in packages())


def test_what_is_missing_or_too_old_is_listed_with_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"torch": None, "numpy": "1.25.9", "monai": "1.10", "tqdm": "unknown"}
    monkeypatch.setattr(
        dependencies, "installed_version", lambda package: versions.get(package.name, "9999.1rc1")
    )
    found = {package.name: package for package in missing()}
    assert list(found) == ["numpy", "torch"]
    assert (found["numpy"].installed, found["torch"].installed) == ("1.25.9", None)
    assert found["torch"].requirement.startswith("torch>=")
    assert found["torch"].megabytes > 50
    assert all(package.megabytes > 0 for package in found.values())


def test_looking_needs_no_package_and_imports_none() -> None:
    code = """
import json, sys
sys.path = [entry for entry in sys.path if "site-packages" not in entry]
sys.path.insert(0, sys.argv[1])
from MedEnhanceLib.runtime.dependencies import missing
found = [package.name for package in missing()]
print(json.dumps([found, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    command = [sys.executable, "-I", "-S", "-c", code, str(_REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found, modules = json.loads(done.stdout)
    wanted = ("", "reports", "dicom")
    assert found == [package.name for package in packages() if package.extra in wanted]
    assert not set(modules) & {"numpy", "torch"}


_WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
import numpy as np
import MedEnhanceLib as me
from MedEnhanceLib.jobs import JobSpec, run_job
voxels = np.random.default_rng(0).integers(0, 900, (2, 32, 32)).astype(np.int16)
volume, path = me.Volume(voxels, modality="MR"), sys.argv[1]
me.compress(me.enhance(volume, model="mr", device="cpu").volume, path, lossless=True)
me.save(me.decompress(path), path + ".nrrd")
params = {"input": path + ".nrrd", "output": path + "-2.nrrd", "report": path + ".d"}
try:
    run_job(JobSpec("enhance", params))
except me.DependencyError as error:
    print(error.message, error.hint)
"""


@pytest.mark.slow
def test_only_pictures_need_matplotlib(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WITHOUT_MATPLOTLIB, str(tmp_path / "a.ucv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=_REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Drawing the report's pictures needs the package matplotlib, which is not installed "
        "Install it with: python -m pip install 'medenhance[reports]'\n"
    )
