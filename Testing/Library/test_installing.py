"""Installation beside what others installed, with the genuine pip and no network."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.errors import Cancelled, ConfigError, DependencyError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime import dependencies, installing
from MedEnhanceLib.runtime.dependencies import missing
from MedEnhanceLib.runtime.progress import Event

_CUDA = "2.6.0+cu124"
_CONFLICT = """\
ERROR: Cannot install monai==1.6.1 because these package versions have conflicting dependencies.

The conflict is caused by:
    monai 1.6.1 depends on torch>=2.8.0
    The user requested (constraint) torch<=2.14.1,==2.6.0+cu124
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site-packages of a Slicer where another extension installed PyTorch."""
    _installed(tmp_path, "torch", _CUDA)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _installed(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("")


def _wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", head + (f"Requires-Dist: {needs}\n" if needs else ""))
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.usefixtures("site")
def test_what_is_installed_is_handed_over_with_its_local_version() -> None:
    lines = installing.constraints()
    assert lines[0] == f"torch=={_CUDA}"
    assert {"numpy", "SimpleITK", "pydicom", "highdicom"} <= {line.split("==")[0] for line in lines}


def test_no_shared_package_is_exchanged_even_where_pip_is_to_upgrade_all(site: Path) -> None:
    names = ["torchvision", "numpy", "scipy", "SimpleITK", "pydicom", "highdicom", "pillow",
             "requests", "packaging"]  # fmt: skip
    for name in names:
        _installed(site, name, "0.1")
    for name in ["torch", *names]:
        _wheel(site, name, "99.0")
        _wheel(site, f"needs_{name}", "1.0", name)
    needed = [f"needs_{name}" for name in ["torch", *names]]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", *needed]
    command += ["--upgrade", "--upgrade-strategy", "eager", "--quiet", "--report", "-"]
    command += ["-c", str(installing.write_constraints(site))]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    installs = {each["metadata"]["name"] for each in json.loads(said)["install"]}
    assert installs == set(needed)


@pytest.mark.parametrize("version", ["", "unknown", "2.6 (of a build)"])
def test_a_version_that_pip_refuses_is_no_constraint(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    assert installing.constraints() == []


def test_a_package_that_needs_another_torch_is_named_and_not_installed(site: Path) -> None:
    _wheel(site, "needy", "1.0", "torch>=2.8")
    before = sorted(site.iterdir())
    with pytest.raises(DependencyError) as caught:
        run_job(JobSpec("install", {"requirements": ["needy"]}))
    assert f"beside torch {_CUDA}, which Slicer or another" in caught.value.message
    assert "Nothing was changed" in caught.value.hint
    assert sorted(site.iterdir()) == before


def test_an_older_package_that_fits_is_taken_instead(site: Path) -> None:
    """As MONAI 1.5 for MONAI 1.6; pip only says what it would do."""
    _wheel(site, "needy", "1.0", "torch>=2.8")
    _wheel(site, "needy", "0.9", "torch>=2.4")
    limits = installing.write_constraints(site)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "needy", "-c", str(limits)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Would install needy-0.9\n" in said


@pytest.mark.usefixtures("site")
def test_an_error_names_what_stands_in_the_way_or_what_pip_said_last() -> None:
    assert f"torch {_CUDA}" in installing.installation_error(_CONFLICT).message
    error = installing.installation_error("...\nERROR: No matching distribution found for x\n")
    assert "No matching distribution found for x" in error.message
    assert "network" in error.hint


def _script(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the module `pip` of a process be these lines."""
    (folder / "pip.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_progress_follows_the_downloads(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys\nprint(*sys.argv[1:3], open(sys.argv[sys.argv.index('-c') + 1]).read())\n"
    code += "print('Downloading torch-2.whl (300.0 MB)')\nprint('Downloading b-1.whl (100 MB)')\n"
    _script(site, monkeypatch, f"{code}print('Installing collected packages: torch')\n")
    events: list[Event] = []
    run_job(JobSpec("install", {"requirements": ["torch>=2.5"], "megabytes": 400}), events.append)
    stages = [(e.fields["fraction"], e.fields["stage"]) for e in events if e.kind == "progress"]
    assert stages[1:] == [(0.0, "downloading torch"), (0.675, "downloading b"), (0.9, "installing")]
    log = "\n".join(e.fields["message"] for e in events if e.kind == "log")
    assert log.startswith(f"install torch>=2.5 torch=={_CUDA}\n")


def test_a_build_for_the_card_comes_with_its_torchvision_and_a_repair_alone(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys\nprint(*sys.argv[1:])\n"
    _script(site, monkeypatch, code)
    (site / "light_the_torch.py").write_text(code)

    def lines(**more: Any) -> list[str]:
        events: list[Event] = []
        run_job(JobSpec("install", {"requirements": ["torch"], **more}), events.append)
        return [e.fields["message"] for e in events if e.kind == "log"]

    chooser, chosen = lines(chooses_build=True)
    assert chooser.startswith("install light-the-torch>=0.8.1 ")  # earlier: no CUDA above 12.6
    assert chosen.startswith("install torch torchvision -c ")
    assert lines(reinstalls=True)[0].startswith("install torch --force-reinstall --no-deps -c ")


def test_a_cancel_stops_pip(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the tests run in the background of a shell, processes ignore the signal otherwise.
    code = "import os, signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "try:\n    open(os.environ['BEGUN'], 'w').close()\n"
    code += "    time.sleep(60)\nfinally:\n    os.unlink(os.environ['BEGUN'])\n"
    _script(site, monkeypatch, code)
    begun, cancel = site / "begun", threading.Event()
    monkeypatch.setenv("BEGUN", str(begun))

    def stop() -> bool:
        if begun.exists():
            cancel.set()
        return cancel.is_set()

    with pytest.raises(Cancelled):
        run_job(JobSpec("install", {"requirements": ["torch"]}), cancel=stop)
    assert not begun.exists()


@pytest.mark.parametrize("requirements", [[], ["--target", "/tmp"]])
def test_options_are_no_requirements(requirements: list[str]) -> None:
    with pytest.raises(ConfigError, match="requirements are names of packages"):
        JobSpec("install", {"requirements": requirements})


def test_what_needs_no_torch_is_a_small_download(monkeypatch: pytest.MonkeyPatch) -> None:
    in_slicer = {"numpy", "SimpleITK", "pydicom", "psutil", "highdicom"}
    monkeypatch.setattr(
        dependencies, "installed_version", lambda each: "99" if each.name in in_slicer else None
    )
    small, everything = missing("basic"), missing("networks")
    assert not {"torch", "monai"} & {each.name for each in small}
    assert sum(each.megabytes for each in small) < 56
    assert {"torch", "monai"} <= {each.name for each in everything}


@pytest.mark.parametrize(("machine", "is_intel"), [("x86_64", True), ("arm64", False)])
def test_an_intel_mac_runs_no_networks(
    monkeypatch: pytest.MonkeyPatch, machine: str, is_intel: bool
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(dependencies, "installed_version", lambda each: None)
    names = {each.name: each.requirement for each in missing("networks")}
    assert ("torch" not in names) == ("monai" not in names) == is_intel
    assert ("<=2026.3.6" in names["imagecodecs"]) == is_intel
    error = dependencies.missing_package("torch")
    assert ("not available on this Mac" in error.message) == is_intel


@pytest.mark.slow
def test_all_but_networks_works_without_torch(tmp_path: Path) -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "monai", "matplotlib")))
import numpy as np, MedEnhanceLib as me
voxels = np.random.default_rng(0).integers(0, 900, (4, 32, 32)).astype(np.int16)
volume, path = me.degrade(me.Volume(voxels, modality="MR"), rician=0.1), sys.argv[1]
for number, how in enumerate(({"lossless": True}, {"max_error": 2}, {"ratio": 6})):
    me.compress(volume, f"{path}{number}.ucv", **how)
    me.save(me.decompress(f"{path}{number}.ucv"), f"{path}{number}.nrrd")
me.save_dicom(me.enhance(volume).volume, path, patient_id="x")
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
