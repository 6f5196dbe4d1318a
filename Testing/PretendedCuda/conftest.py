"""Registers the pretended cards before PyTorch is imported, or says why that cannot be.

Only in a process of its own: `pytest Testing/PretendedCuda -n 0 -m ""`, which
Testing/Library/test_pretended_cuda.py does.
"""

from __future__ import annotations

import ctypes
import importlib.util
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
_VERSION = "2.13."
_reason = "not loaded yet"


def pytest_configure(config: pytest.Config) -> None:
    global _reason
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if any(_HERE not in (path, *path.parents) for path in asked):
        _reason = "other tests run in this process, which the pretended cards would disturb"
        return
    folder = Path(tempfile.mkdtemp(prefix="medenhance-guard-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    _reason = _load_guard(folder)


def _load_guard(folder: Path) -> str:
    """Compile guard.cpp, which declares the cards to PyTorch's C++ side, into a folder and load it.

    Returns why that cannot be done in this process; "" where it was.
    """
    version = metadata.version("torch")
    if "torch" in sys.modules:
        return "PyTorch was imported before the pretended device"
    is_known = version.startswith(_VERSION) and version.endswith("+cpu")
    if sys.platform != "linux" or not is_known:
        return f"it needs PyTorch {_VERSION}x+cpu on Linux; this is {version} on {sys.platform}"
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    root, library = Path(spec.origin).parent, folder / "guard.so"
    command = [
        "g++", "-O0", "-w", "-shared", "-fPIC", "-std=c++20", str(_HERE / "guard.cpp"),
        f"-I{root / 'include'}", f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}",
        "-ltorch_cpu", "-lc10", "-o", str(library),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        return "there is no compiler (g++)"
    except subprocess.CalledProcessError as error:
        return f"guard.cpp does not compile: {error.stderr[-500:]}"
    ctypes.CDLL(str(library))
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _reason:
        for item in items:
            if _HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=_reason))


@pytest.fixture
def cards() -> Iterator[object]:
    """Two pretended cards, and their state."""
    from PretendedCuda.device import pretended

    with pretended() as cards:
        yield cards


@pytest.fixture(params=["cuda", "cuda:1"])
def card(request: pytest.FixtureRequest, cards: object) -> str:
    """Each of the two cards; the other one is the current one for "cuda:1"."""
    name: str = request.param
    return name
