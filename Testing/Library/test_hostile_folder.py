"""Programs started in a folder of somebody else's Python files: none of these is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.native import build

_NAMES = (
    "MedEnhanceLib", "filelock", "json", "multiprocessing", "numpy", "pip", "random", "site",
    "sitecustomize", "torch", "ziglang",
)  # fmt: skip
#: Those that Python itself imports, before the program, where PYTHONPATH has an empty entry.
_OF_PYTHON = ("MedEnhanceLib", "site", "sitecustomize")
_BIN = Path(sys.executable).parent
_MODULE = [sys.executable, "-P", "-m", "MedEnhanceLib"]
_BATCH = ["batch", "compress", "scans", "--lossless", "--out", "out", "--workers", "2"]

_INSTALL = """
import sys
sys.path.remove("")
from MedEnhanceLib.native import build
from MedEnhanceLib.runtime import installing
from MedEnhanceLib.runtime.progress import Monitor
installing._run(["pip", "--version"], Monitor(), lambda line: None)
build.answers([sys.executable, "-m", "ziglang", "cc"])
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with a scan, and modules that leave a file when they are run."""
    (tmp_path / "scans").mkdir()
    voxels = np.arange(4000, dtype=np.int16).reshape(10, 20, 20)
    io.save(Volume(voxels, modality="MR"), tmp_path / "scans" / "a.nii.gz")
    for name in _NAMES:
        code = "import os\nopen(__file__ + '.ran', 'w').close()\n"
        (tmp_path / f"{name}.py").write_text(code)
    return tmp_path


def run(folder: Path, command: list[str | Path], said: str, **variables: str) -> None:
    """Run a command in the folder; it has to print the words, and to run nothing that is there."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=kept | variables, input="", capture_output=True, text=True
    )
    assert [path.name for path in folder.glob("*.ran")] == []
    assert said in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([_BIN / "medenhance", "inspect", "scans/a.nii.gz"], "MR"),
        ([*_MODULE, "worker"], '"hello"'),
        pytest.param([_BIN / "medenhance", "doctor"], "MedEnhance", marks=pytest.mark.slow),
        pytest.param([_BIN / "medenhance", *_BATCH], "1 of 1 done", marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("path", [None, os.pathsep])
def test_no_command_runs_what_is_in_the_current_folder(
    hostile: Path, command: list[str | Path], said: str, path: str | None
) -> None:
    if path:
        for name in _OF_PYTHON:
            (hostile / f"{name}.py").unlink()
    run(hostile, command, said, **({"PYTHONPATH": path} if path else {}))


@pytest.mark.skipif(sys.platform == "win32", reason="makes a program of POSIX")
def test_no_compiler_is_taken_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ".")
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "cc").touch(mode=0o700)
    assert [command for command in build.compilers() if "cc" in Path(command[0]).name] == []


@pytest.mark.slow
def test_pip_and_the_compiler_are_not_taken_from_the_current_folder(hostile: Path) -> None:
    run(hostile, [sys.executable, "-c", f"{_INSTALL}\nprint('ended')"], "ended")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_workers_of_a_cluster_as_the_page_starts_them(hostile: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text(encoding="utf-8")
    assert "`PYTHONSAFEPATH=1 dask worker " in page
    distributed = pytest.importorskip("distributed", reason="dask is an optional package")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        command = [_BIN / "dask", "worker", cluster.scheduler_address, "--lifetime", "1"]
        run(hostile, command, "", PYTHONSAFEPATH="1")
