"""Compiles and loads guard.cpp, which declares two CUDA cards to PyTorch's C++ side."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

#: Versions of PyTorch whose hooks and dispatcher guard.cpp and device.py were written for.
KNOWN = ("2.13.",)


class UnavailableError(Exception):
    """Why the device cannot be pretended here."""


def load_guard(folder: Path) -> None:
    """Compile guard.cpp into `folder` and load it.

    Raises UnavailableError where this process, this PyTorch or this machine does not allow it.
    """
    version = metadata.version("torch")
    if "torch" in sys.modules:
        raise UnavailableError("PyTorch was imported before the pretended device")
    if sys.platform != "linux":
        raise UnavailableError(f"the pretended device knows Linux, and this is {sys.platform}")
    if not version.startswith(KNOWN):
        raise UnavailableError(f"PyTorch {version}: the pretended device knows {KNOWN}")
    if not version.endswith("+cpu"):
        raise UnavailableError(f"PyTorch {version} is not built for the CPU alone")
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    root, library = Path(spec.origin).parent, folder / "guard.so"
    command = [
        "g++", "-O0", "-w", "-shared", "-fPIC", "-std=c++20",
        str(Path(__file__).with_name("guard.cpp")), f"-I{root / 'include'}",
        f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}", "-ltorch_cpu", "-lc10",
        "-o", str(library),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except FileNotFoundError as cause:
        raise UnavailableError("there is no compiler (g++)") from cause
    except subprocess.CalledProcessError as cause:
        raise UnavailableError(f"guard.cpp does not compile: {cause.stderr[-500:]}") from cause
    ctypes.CDLL(str(library))
