"""Installation of packages by pip that keeps the versions of those that are installed.

Slicer and its extensions share one Python. Without constraints pip replaces packages of others:
a newer MONAI requires a newer PyTorch, which replaces another extension's build for its card.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.processes import safe_environment
from MedEnhanceLib.runtime.progress import Monitor, attend

#: Packages that Slicer and its extensions share; their versions are never changed.
SHARED = (
    "torch", "torchvision", "numpy", "scipy", "SimpleITK", "pydicom", "highdicom", "pillow",
    "requests", "packaging",
)  # fmt: skip
#: Versions as pip accepts them; it refuses a whole constraints file for one of another form.
_VERSION = re.compile(
    r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([._-][a-z0-9]+)*)?", re.I
)
#: Installer that takes pip's options and chooses the build of PyTorch for the graphics card; the
#: Slicer extension PyTorch uses it too.
_CHOOSER = "light-the-torch>=0.8.1"  # knows CUDA 13; earlier ones end at 12.6
_QUIET = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
_SIZE = re.compile(r"Downloading .*\((\d+(?:\.\d+)?) (kB|MB|GB)\)")
_MEGABYTES = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}
#: Share of the progress that downloading takes.
_DOWNLOADED = 0.9
_STOP_SECONDS = 3.0


def constraints() -> list[str]:
    """List the shared packages that are installed as lines of a constraints file: name==version.

    Local versions are included: for "torch==2.6.0+cu124" pip accepts only the installed build.
    """
    from importlib import metadata

    lines = []
    for name in SHARED:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if _VERSION.fullmatch(version or ""):
            lines.append(f"{name}=={version}")
    return lines


def write_constraints(folder: Path) -> Path:
    """Write `constraints` into a file in the folder; returns its path."""
    path = folder / "constraints.txt"
    path.write_text("".join(f"{line}\n" for line in constraints()), encoding="utf-8")
    return path


def installation_error(log: str) -> DependencyError:
    """Return the error of a failed installation, with the conflicts in pip's output."""
    names = {name.lower() for name in re.findall(r"\(constraint\) ([\w.-]*\w)", log)}
    kept = [
        line.replace("==", " ") for line in constraints() if line.split("==")[0].lower() in names
    ]
    if kept:
        return DependencyError(
            f"the packages cannot be installed beside {', '.join(kept)}, which Slicer or another "
            "extension uses",
            "Nothing was changed. Update Slicer, or the extension that installed it, and try "
            "again; or use MedEnhance in a second Slicer.",
        )
    last = [line for line in log.splitlines() if line.startswith("ERROR: ")][-1:]
    return DependencyError(
        f"the packages could not be installed ({last[0][7:207]})"
        if last
        else "the packages could not be installed",
        "Check the network and the free disk space, then try again.",
    )


def install(
    requirements: Sequence[str],
    monitor: Monitor,
    *,
    megabytes: float = 0.0,
    chooses_build: bool = False,
    reinstalls: bool = False,
) -> None:
    """Install packages with pip; the versions of shared packages do not change.

    Args:
        requirements: as pip takes them.
        monitor: gets each line of pip as a log; after a cancel pip is stopped.
        megabytes: expected download, for the progress.
        chooses_build: install light-the-torch first, which chooses PyTorch's build for the card;
            and torchvision, as that of another build cannot be loaded beside it.
        reinstalls: install these packages alone once more, as their files are damaged.
    Raises DependencyError if it fails, naming the installed packages that conflict.
    """
    with tempfile.TemporaryDirectory(prefix="medenhance-pip-") as folder:
        limits = ("-c", str(write_constraints(Path(folder))), *_QUIET)
        again = ("--force-reinstall", "--no-deps") if reinstalls else ()
        installer = "pip"
        if chooses_build:
            _run(["pip", "install", _CHOOSER, *limits], monitor, lambda _line: None)
            installer = "light_the_torch"
            requirements = [*requirements, *([] if reinstalls else ["torchvision"])]
        downloaded = [0.0, 0.0]  # megabytes: of complete files, and of the current one

        def report(line: str) -> None:
            if size := _SIZE.search(line):
                downloaded[0] += downloaded[1]
                downloaded[1] = float(size[1]) * _MEGABYTES[size[2]]
                share = min(downloaded[0] / max(megabytes, downloaded[0], 1.0), 1.0)
                monitor.progress(_DOWNLOADED * share, line.strip().partition("-")[0].lower())
            elif line.startswith("Installing collected packages"):
                monitor.progress(_DOWNLOADED, "installing")

        _run([installer, "install", *requirements, *again, *limits], monitor, report)


def _run(arguments: list[str], monitor: Monitor, report: Callable[[str], None]) -> None:
    """Run a module of Python; raises DependencyError where it fails, Cancelled after a cancel."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=os.environ | safe_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    assert process.stdout is not None
    log = []
    try:
        while line := attend(process.stdout.readline, monitor):
            log.append(line)
            monitor.log(line.rstrip())
            report(line)
        process.wait()
    finally:
        _stop(process)
        process.stdout.close()
    if process.returncode:
        raise installation_error("".join(log))


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt a process that still runs, so that pip can remove its temporary files."""
    if process.poll() is None:
        if sys.platform == "win32":
            process.terminate()
        else:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
