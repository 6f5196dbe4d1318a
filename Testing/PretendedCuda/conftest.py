"""Registers the pretended cards before PyTorch is imported, or says why that cannot be.

Only in a process of its own: `pytest Testing/PretendedCuda -n 0 -m ""`, which
Testing/Library/test_pretended_cuda.py does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
#: Of PyTorch, whose hooks and dispatcher guard.cpp and device.py were written for.
_VERSION = r"2\.13\.\d+\+cpu"
_reason = "not loaded yet"


def pytest_configure(config: pytest.Config) -> None:
    global _reason
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if any(_HERE not in (path, *path.parents) for path in asked) or "torch" in sys.modules:
        _reason = "other tests run in this process, which the pretended cards would disturb"
        return
    folder = Path(tempfile.mkdtemp(prefix="medenhance-guard-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    _reason = _load_guard(folder)


def _load_guard(folder: Path) -> str:
    """Compile guard.cpp, which declares the cards to PyTorch's C++ side, and load it.

    Returns why that cannot be done here; "" where it was.
    """
    version, spec = metadata.version("torch"), importlib.util.find_spec("torch")
    if sys.platform != "linux" or not re.fullmatch(_VERSION, version):
        return f"it needs PyTorch {_VERSION} on Linux; this is {version} on {sys.platform}"
    assert spec is not None and spec.origin is not None
    root, library = Path(spec.origin).parent, folder / "guard.so"
    command = [
        "g++", "-O0", "-w", "-shared", "-fPIC", "-std=c++20", str(_HERE / "guard.cpp"),
        f"-I{root / 'include'}", f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}",
        "-ltorch_cpu", "-lc10", "-o", str(library),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, timeout=120)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"guard.cpp is not compiled: {error}"
    ctypes.CDLL(str(library))
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _reason and _HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=_reason))


@pytest.fixture
def cards() -> Iterator[object]:
    """Two pretended cards, and their state."""
    from PretendedCuda.device import pretended

    with pretended() as cards:
        yield cards
