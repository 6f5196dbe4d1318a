"""Builds the compiled library: python -m MedEnhanceLib.native.build.

For Windows a library comes with the sources, in `windows`; `--windows` builds it, byte for byte the
same in any folder, and its log. The hook of installations (`hatch_build.py`) uses this module too.
The extension's CMake compiles by itself, with the same files and flags from `build.json`, and runs
this file for the digest. It needs only the standard library: hook and CMake run it before
MedEnhanceLib is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: File name of the library.
FILE = "medenhance_native" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_SETTINGS = json.loads((HERE / "build.json").read_text(encoding="utf-8"))
#: C files compiled once for each vector width (widths.c only once), with flags that reorder no
#: sum. Where the last bits matter, multiply-adds are not fused.
KERNELS: dict[str, str] = _SETTINGS["kernels"]
#: Tags of wheels whose library ziglang builds on any system, and its targets.
TARGETS = {
    "manylinux_2_28_x86_64": "x86_64-linux-gnu.2.28",
    "manylinux_2_28_aarch64": "aarch64-linux-gnu.2.28",
    "win_amd64": "x86_64-windows-gnu",
    "macosx_11_0_x86_64": "x86_64-macos.11.0",
    "macosx_11_0_arm64": "aarch64-macos.11.0",
}
#: The version that builds the library for Windows: another one gives other bytes.
ZIGLANG = "0.17.0"
_SECONDS = 900


class BuildError(Exception):
    """No compiler, or one that fails; the message says which."""


def compilers() -> Iterator[list[str]]:
    """Yield commands of installed C compilers: $CC, the system's, then ziglang.

    All take the options of GCC, which Visual C++ does not.
    """
    if os.environ.get("CC"):
        yield shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path and Path(path).is_absolute():  # else it is of the current folder
            yield [path]
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc"]


def library(folder: Path = HERE) -> Path:
    """Return the path of a folder's library: built there, or that which came for Windows."""
    built, shipped = folder / FILE, folder / "windows" / FILE
    return shipped if shipped.is_file() and not built.is_file() else built


def answers(compiler: Sequence[str]) -> bool:
    """Test whether a compiler works: macOS without developer tools has a `cc` that fails."""
    try:
        return bool(_run([*compiler, "-dumpmachine"]))
    except (OSError, subprocess.SubprocessError):
        return False


def digest(file: Path) -> str:
    """Hash a library together with the sources, so that one of other sources does not match."""
    sha256 = hashlib.sha256(file.read_bytes())
    for source in _sources():
        sha256.update(source.read_bytes())
    return sha256.hexdigest()


def _sources() -> list[Path]:
    return sorted([*HERE.glob("*.[ch]"), HERE / "build.json"])


def build(folder: Path = HERE, *, compiler: Sequence[str] = (), target: str = "") -> Path:
    """Build the library into a folder; an earlier one is replaced when the new one is complete.

    Args:
        folder: of the library.
        compiler: command of a C compiler; empty for the first of `compilers` that works.
        target: the system that it builds for; empty for its own.
    Returns the library's path; its `digest` is beside it, as loading a damaged library could crash
    the process.
    Raises BuildError if no compiler works; the message has the output of each.
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
            "No C compiler was found. Install gcc or clang, or: python -m pip install ziglang"
        )
    raise BuildError("No C compiler works here.\n" + "\n".join(failures))


def build_for(tag: str, folder: Path) -> Path:
    """Build the library for another system with ziglang.

    tag: of its wheels, one of `TARGETS`.
    Returns the library's path. Raises BuildError if ziglang is missing or fails.
    """
    target = TARGETS[tag]
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target]
    return build(folder, compiler=compiler, target=target)


def installed_ziglang() -> str:
    """Return the version of the package ziglang, "not installed" without it."""
    try:
        return metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        return "not installed"


def build_for_windows(folder: Path = HERE / "windows") -> Path:
    """Build the library that comes with the sources, with its log; returns its path.

    Raises BuildError unless ziglang has the version that always gives the same bytes.
    """
    version = installed_ziglang()
    if version != ZIGLANG:
        raise BuildError(f"ziglang is {version}: python -m pip install ziglang=={ZIGLANG}")
    library = build_for("win_amd64", folder)
    library.with_suffix(".log").write_text(windows_log(library), encoding="utf-8", newline="\n")
    return library


def windows_log(library: Path) -> str:
    """Return how a library for Windows is built: version, commands, SHA-256 of each file."""
    target = TARGETS["win_amd64"]
    compiler = ["python", "-m", "ziglang", "cc", "-target", target]
    commands = [shlex.join(command) for command in _commands(compiler, target, Path(), Path())]
    files = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
        for file in (*_sources(), library)
    ]
    return "\n".join([f"ziglang {ZIGLANG}, SOURCE_DATE_EPOCH=0", *commands, *files, ""])


def _build(compiler: list[str], folder: Path, target: str) -> Path:
    target = target or _run([*compiler, "-dumpmachine"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as place:
        commands = _commands(compiler, target, HERE, Path(place))
        for command in commands:
            _run(command)
        temporary = Path(commands[-1][commands[-1].index("-o") + 1])
        expected, final = digest(temporary), folder / temporary.name
        temporary.replace(final)
        _write_digest(final, expected)
    return final


def _commands(compiler: list[str], target: str, sources: Path, place: Path) -> list[list[str]]:
    """List the commands that build the library from a folder of sources in another folder."""
    is_windows = "windows" in target or "mingw" in target
    is_mac = "macos" in target or "darwin" in target
    is_x86 = target.startswith(("x86_64", "amd64"))
    widths: dict[str, str] = {"plain": "", **(_SETTINGS["x86_64"] if is_x86 else {})}
    position = [] if is_windows else ["-fPIC"]
    parts: list[tuple[str, str, list[str]]] = [("widths.c", "any", [])]
    for width, wide in widths.items():
        for source, sums in KERNELS.items():
            parts.append((source, width, [f"-DNATIVE_WIDTH={width}", *sums.split(), *wide.split()]))
    commands, objects = [], []
    for source, width, flags in parts:
        part = str(place / f"{Path(source).stem}-{width}.o")
        options = [*_SETTINGS["flags"].split(), *position, *flags]
        commands.append([*compiler, *options, "-c", str(sources / source), "-o", part])
        objects.append(part)
    ending = ".dll" if is_windows else ".dylib" if is_mac else ".so"
    last = ["-s"] if is_windows else ["-lm"]
    file = str(place / f"medenhance_native{ending}")
    return [*commands, [*compiler, "-shared", "-o", file, *objects, *last]]


def _write_digest(file: Path, value: str) -> None:
    file.with_suffix(".sha256").write_text(f"{value}\n", encoding="ascii")


def _run(command: list[str]) -> str:
    """Run a compiler and return its output; raises subprocess.CalledProcessError if it fails.

    A fixed build time makes the same sources give the same bytes. Python as ziglang's takes no code
    from the current folder.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    safe = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        command,
        env={**os.environ, **safe, "SOURCE_DATE_EPOCH": "0"},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
    ).stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and print the path, or the error; or write the digest of a library that CMake built."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name if __spec__ else 'build'}")
    parser.add_argument("--folder", type=Path, default=HERE, help="output folder")
    parser.add_argument(
        "--digest", type=Path, metavar="LIBRARY", help="only write the digest of this library"
    )
    parser.add_argument(
        "--windows", action="store_true", help="build the library for Windows, with its log"
    )
    options = parser.parse_args(arguments)
    if options.digest:
        _write_digest(options.digest, digest(options.digest))
        return 0
    try:
        path = build_for_windows() if options.windows else build(options.folder)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
