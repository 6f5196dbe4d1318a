"""What is missing, and what it takes to get it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime import dependencies
from MedEnhanceLib.runtime.dependencies import missing, packages

_REPOSITORY = Path(__file__).resolve().parents[2]


def test_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [each.requirement for each in dependencies.PACKAGES if not each.extra]
    assert required == project["dependencies"]
    optional = {package.requirement: package.extra for package in packages() if package.extra}
    names = ("reports", "dicom", "training", "batch", "video")
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


@pytest.mark.parametrize(("version", "fits"), [("2026.3.6", True), ("2026.6.6", False)])
def test_a_version_above_the_limit_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, version: str, fits: bool
) -> None:
    monkeypatch.setattr(dependencies, "is_intel_mac", lambda: True)
    monkeypatch.setattr(dependencies, "installed_version", lambda package: version)
    (imagecodecs,) = (each for each in packages() if each.name == "imagecodecs")
    assert imagecodecs.fits is fits


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
    wanted = ("", "reports", "dicom", "training")
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
me.compress(me.enhance(volume).volume, path, lossless=True)
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
        "Drawing the report needs the package matplotlib, which is not installed "
        "Install it with: python -m pip install 'medenhance[reports]'\n"
    )


_CAUSES = (
    'ImportError("libtorch_cpu.so: undefined symbol: iJIT_NotifyEvent")',
    'OSError("libcublas.so.12: cannot open shared object file")',
    'MemoryError("8 bytes")',
    'AttributeError("np.float_ was removed")',
    'ModuleNotFoundError("No module named x", name="x")',
)


def break_package(folder: Path, name: str, cause: str) -> str:
    """Make a package that is there and cannot be loaded; returns the reason."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"raise {cause}\n")
    return cause.split('"')[1]


@pytest.mark.parametrize("cause", _CAUSES)
def test_a_package_that_cannot_be_loaded_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    reason = break_package(tmp_path, "package_in_pieces", cause)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError, match="is installed, but cannot be loaded") as caught:
        dependencies.require("package_in_pieces.parts", purpose="This test")
    assert caught.value.message.endswith(reason)
    assert "pip install" not in caught.value.hint
    with pytest.raises(DependencyError, match="which is not installed"):
        dependencies.require("package_nowhere.parts", purpose="This test")


def test_dask_without_its_distributed_part_is_missing_and_not_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "dask.distributed", raising=False)
    with pytest.raises(DependencyError, match="which is not installed") as caught:
        dependencies.require("dask.distributed", purpose="This test")
    assert "medenhance[batch]" in caught.value.hint


_WITH_BROKEN_TORCH = """
import io, json, sys
import numpy as np
import MedEnhanceLib as me
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.jobs import JobSpec, run_job
voxels, grid = np.arange(4096, dtype=np.int16).reshape(16, 16, 16), me.Geometry((1, 1, 4))
volume = me.Volume(voxels, grid, modality="MR")
path = sys.argv[1]
me.save(volume, path)
assert me.enhance(volume).volume.shape == volume.shape  # the noise is removed without it
thin = {"input": path, "output": path + "-b.nii", "config": {"task": "slices"}}
doors = {
    "api": lambda: me.enhance(volume, task="slices"),
    "segment": lambda: me.segment(volume),
    "job": lambda: run_job(JobSpec("enhance", thin)),
    "train": lambda: me.train("hqg", {}, sys.argv[2], out=sys.argv[2]),
}
said = {}
for name, call in doors.items():
    try:
        call()
    except me.MedEnhanceError as error:
        said[name] = [error.code, error.exit_status, error.message]
sys.stderr = io.StringIO()
status = main(["enhance", path, path + "-c.nii", "--task", "slices"])
said["command"] = ["dependency", status, sys.stderr.getvalue().splitlines()[0]]
print(json.dumps(said))
"""


@pytest.mark.training
def test_every_door_says_why_pytorch_cannot_be_loaded(tmp_path: Path) -> None:
    reason = break_package(tmp_path / "broken", "torch", _CAUSES[0])
    path = os.pathsep.join(map(str, (tmp_path / "broken", _REPOSITORY)))
    program = ["-c", _WITH_BROKEN_TORCH, str(tmp_path / "a.nii"), str(tmp_path)]
    done = subprocess.run([sys.executable, "-P", *program], env={**os.environ, "PYTHONPATH": path},
                          capture_output=True, text=True, check=True)  # fmt: skip
    doors = json.loads(done.stdout)
    assert [*doors] == ["api", "segment", "job", "train", "command"]
    for code, status, message in doors.values():
        assert (code, status) == ("dependency", 4)
        assert "needs the package torch, which is installed, but cannot be loaded" in message
        assert reason in message
