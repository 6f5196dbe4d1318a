"""Loads and checks the compiled library, which removes noise and decodes lossless files.

One shared library is in this folder, built by `build.py` from the C files beside it. It has each
function once for every vector width of the processor family; the widest that this processor
supports is used. The C functions trust their pointers: callers check shapes and types of arrays
before. On the codec the width has no effect; the filter has the same bits at all widths with fused
multiply-adds.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from MedEnhanceLib.errors import DependencyError, MedEnhanceError
from MedEnhanceLib.runtime.progress import Monitor

#: Statuses of its functions, as in native.h; 0 is success.
NO_MEMORY, BAD_STREAM = 2, 3
_NOT_COMPILED = "not compiled"
#: Vector widths by their bit in `native_widths`, narrowest first.
WIDTHS = ("plain", "avx2", "avx512")
#: Consequences of a missing library, for messages; the ratio of CPU time is measured.
_WITHOUT = (
    "noise cannot be removed, reading lossless files takes about fifteen times as long, and "
    "lossless files that are written are larger"
)
HERE = Path(__file__).resolve().parent
_BUILD = "python -P -m MedEnhanceLib.native.build"
_COMPILER = "python -m pip install ziglang"
_LABELS = {
    "plain": "no vector extension",
    "avx2": "AVX2",
    "avx512": "AVX-512",
}

Width = Literal["plain", "avx2", "avx512"]

#: As in grouped.c: largest search window along slices, rows and columns; coefficients of a block,
#: and its side.
MOST_WINDOW, CELLS, SIDE = (7, 11, 16), 64, 4


class Library:
    """The loaded library, at one vector width."""

    def __init__(self, path: Path, width: Width | None = None) -> None:
        """Load a file; MedEnhanceError if it is damaged, for another system or of other sources."""
        from MedEnhanceLib.native import build

        try:  # loading a damaged library could crash the process
            expected = path.with_suffix(".sha256").read_text(encoding="ascii").strip()
            if build.digest(path) != expected:
                raise _unusable(f"{path.name} is damaged or older than its sources")
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(f"{path.name} cannot be verified ({error})") from error
        try:
            self._library = ctypes.CDLL(str(path.resolve()))
            self._library.native_widths.restype = ctypes.c_int32
        except (OSError, AttributeError) as error:
            raise _unusable(f"{path.name} cannot be loaded ({error})") from error
        self.path = path
        bits = int(self._library.native_widths())
        self.widths = tuple(name for bit, name in enumerate(WIDTHS) if bits >> bit & 1)
        self.width = width or self.widths[-1]
        if self.width not in self.widths:
            raise _unusable(f"{path.name} has no {self.width} for this processor")

    def call(self, name: str, task: ctypes.Structure) -> int:
        """Call a function at this width, unchecked; returns its status, 0 for success."""
        function = getattr(self._library, f"native_{name}_{self.width}")
        function.restype, function.argtypes = ctypes.c_int32, (ctypes.c_void_p,)
        return int(function(ctypes.byref(task)))


def _unusable(what: str) -> MedEnhanceError:
    return MedEnhanceError(what, f"Build it again: {_BUILD}")


@cache
def find(folder: Path) -> tuple[Library | None, str]:
    """Look for the library in a folder; returns also one line with its state and remedy."""
    from MedEnhanceLib.native import build

    path, problem = build.library(folder), _NOT_COMPILED
    if path.is_file():
        try:
            library = Library(path)
        except MedEnhanceError as error:
            problem = error.message
        else:
            return library, f"compiled, {_LABELS[library.width]}"
    has_compiler = any(map(build.answers, build.compilers()))
    remedy = _BUILD if has_compiler else f"{_COMPILER} && {_BUILD}"
    return None, f"{problem}: {_WITHOUT}. Run: {remedy}"


def load(
    folder: Path = HERE, *, builds: bool = True, monitor: Monitor | None = None
) -> Library | None:
    """Load the library; if it cannot be used, warn the monitor or (once) the log, and return None.

    Args:
        folder: of the library.
        builds: whether the package ziglang, if installed, builds a missing library.
        monitor: receives the warning.
    """
    library, state = _find_or_build(folder, builds=builds, monitor=monitor)
    if library is None:
        text = f"The compiled library is not used: {state}"
        if monitor is not None and monitor.has_listener:
            monitor.warn(text)
        else:
            _log(folder, text)
    return library


def require(purpose: str, *, monitor: Monitor | None = None) -> Library:
    """Load the library; raises DependencyError, with the command that builds it."""
    library, state = _find_or_build(HERE, monitor=monitor)
    if library is None:
        hint = f"It is {state}" if state.startswith(_NOT_COMPILED) else state
        raise DependencyError(f"{purpose} needs the compiled library", hint)
    return library


def _find_or_build(
    folder: Path, *, builds: bool = True, monitor: Monitor | None = None
) -> tuple[Library | None, str]:
    """Find the library, after the package ziglang, if installed, has built a missing one."""
    if builds and find(folder)[0] is None and importlib.util.find_spec("ziglang") is not None:
        if monitor is not None:
            monitor.progress(0.0, "building the fast library, once: about a minute")
        _build_once(folder)
    return find(folder)


@cache
def _build_once(folder: Path) -> None:
    """Build with ziglang; after a failure it is not tried again in this process."""
    from MedEnhanceLib.native import build

    try:
        build.build(folder, compiler=[sys.executable, "-m", "ziglang", "cc"])
    except (build.BuildError, OSError) as error:
        _log(folder, f"The compiled library cannot be built: {error}")
    else:
        find.cache_clear()


@cache
def _log(folder: Path, warning: str) -> None:
    """Log a warning about the library of a folder, once in a process."""
    logging.getLogger("medenhance").warning("%s", warning, extra={"folder": str(folder)})


def describe(folder: Path = HERE) -> str:
    """Describe state and remedy in one line, for `medenhance doctor` and for notices."""
    return find(folder)[1]
