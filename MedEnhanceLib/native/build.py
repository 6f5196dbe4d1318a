"""Builds the compiled library: python -m MedEnhanceLib.native.build.

The one place that knows how: the command for developers, the hook of installations
(`hatch_hook.py`) and the extension's CMake use it. It needs the standard library alone, because
these two run it before MedEnhanceLib is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Compiled once for each vector width; widths.c once. Same values with every compiler and width:
#: no sum is reordered, and to fused multiply-adds is contracted only where all sums are exact.
KERNELS = {
    "grouped.c": "-ffp-contract=off",
    "predictor.c": "-ffp-contract=fast",
    "video_filter.c": "-ffp-contract=off",
}
_FLAGS = [
    "-std=c11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
]
_MSVC_FLAGS = ["/nologo", "/std:c11", "/O2", "/fp:precise", "/W3"]
#: Width → flags of GCC and clang, and of Visual C++; the plain one needs none.
_WIDE = {
    "avx2": (["-mavx2", "-mfma"], ["/arch:AVX2"]),
    "avx512": (
        ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"],
        ["/arch:AVX512"],
    ),
}
_SECONDS = 300


class BuildError(Exception):
    """No compiler, or one that fails; the text says which."""


def system_of(target: str = "") -> str:
    """The system here or of a target as zig names it: "windows", "macos" or "linux" (any other)."""
    here = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    return target.split("-")[1] if target else here


def file_name(target: str = "") -> str:
    """The library's file name here or for a target, for example "x86_64-windows-gnu"."""
    endings = {"windows": ".dll", "macos": ".dylib"}
    return "medenhance_native" + endings.get(system_of(target), ".so")


def compilers() -> Iterator[list[str]]:
    """Commands of C compilers found here: $CC, the system's, then ziglang of the package index."""
    if os.environ.get("CC"):
        yield shlex.split(os.environ["CC"])
    names = ("cl", "clang", "gcc") if sys.platform == "win32" else ("cc", "gcc", "clang")
    for name in names:
        found = shutil.which(name)
        if found:
            yield [found]
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc"]


def answers(compiler: Sequence[str]) -> bool:
    """Whether it is more than a name: macOS without developer tools has a `cc` that only fails."""
    asked = [] if _is_msvc(compiler) else ["--version"]
    try:
        _run([*compiler, *asked], str(HERE))
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def digest(library: Path) -> str:
    """SHA-256 of a library and of the sources here: one built from other sources is known by it."""
    whole = hashlib.sha256(library.read_bytes())
    for source in sorted([*HERE.glob("*.[ch]"), HERE / "build.py"]):
        whole.update(source.read_bytes())
    return whole.hexdigest()


def build(folder: Path = HERE, *, compiler: Sequence[str] = (), target: str = "") -> Path:
    """Build the library into a folder; an earlier one is replaced once the new one is complete.

    Args:
        folder: for the library; made if missing.
        compiler: command of a C compiler; empty for the first of `compilers` that works.
        target: for zig's cross-compilation, for example "aarch64-macos"; empty for this machine.
    Returns:
        The library's path; its `digest` lies beside it, because loading a damaged one ends the
        process.
    Raises:
        BuildError: no compiler works; the text has the output of each.
    """
    failures = []
    for command in [list(compiler)] if compiler else compilers():
        try:
            return _build(command, folder, target)
        except (OSError, subprocess.SubprocessError) as error:
            output = getattr(error, "stdout", None) or str(error)
            failures.append(f"{shlex.join(command)}:\n{output.strip()[-2000:]}")
    if not failures:
        raise BuildError(
            "There is no C compiler here. Install gcc or clang, or: python -m pip install ziglang"
        )
    raise BuildError("No C compiler works here.\n" + "\n".join(failures))


def _build(compiler: list[str], folder: Path, target: str) -> Path:
    is_msvc, is_windows = _is_msvc(compiler), system_of(target) == "windows"
    machine = target.split("-")[0] if target else platform.machine().lower()
    widths = {"plain": ([], []), **(_WIDE if machine in ("x86_64", "amd64") else {})}
    known = [f"NATIVE_HAS_{width.upper()}" for width in widths if width != "plain"]
    parts: list[tuple[str, str, list[str], list[str]]] = [("widths.c", "any", known, [])]
    for width, (flags, msvc_flags) in widths.items():
        for source, sums in KERNELS.items():
            options = msvc_flags if is_msvc else [sums, *flags]
            parts.append((source, width, [f"NATIVE_WIDTH={width}"], options))
    goal = ["-target", target] if target else []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as place:
        objects = []
        for source, width, defines, flags in parts:
            made = str(Path(place) / f"{Path(source).stem}-{width}.o")
            if is_msvc:
                options = [*_MSVC_FLAGS, *flags, *(f"/D{name}" for name in defines)]
                command = [*compiler, *options, "/c", str(HERE / source), f"/Fo{made}"]
            else:
                options = [*goal, *_FLAGS, *flags, *(f"-D{name}" for name in defines)]
                options += [] if is_windows else ["-fPIC"]
                command = [*compiler, *options, "-c", str(HERE / source), "-o", made]
            _run(command, place)
            objects.append(made)
        library = Path(place) / file_name(target)
        if is_msvc:
            _run([*compiler, "/nologo", "/LD", *objects, f"/Fe{library}"], place)
        else:
            maths = [] if is_windows else ["-lm"]
            _run([*compiler, *goal, "-shared", "-o", str(library), *objects, *maths], place)
        final = folder / library.name
        expected = digest(library)
        library.replace(final)
        final.with_suffix(".sha256").write_text(f"{expected}\n", encoding="ascii")
    return final


def _is_msvc(compiler: Sequence[str]) -> bool:
    return Path(compiler[0]).stem.lower() == "cl"


def _run(command: list[str], folder: str) -> None:
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and print the path or what is missing."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name if __spec__ else 'build'}")
    parser.add_argument("--folder", type=Path, default=HERE, help="for the library")
    parser.add_argument("--compiler", default="", help="command of a C compiler")
    parser.add_argument("--target", default="", help="for zig: for example aarch64-macos")
    given = parser.parse_args(arguments)
    is_path = Path(given.compiler).is_file()  # with spaces and backslashes, on Windows
    compiler = [given.compiler] if is_path else shlex.split(given.compiler)
    try:
        made = build(given.folder, compiler=compiler, target=given.target)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
