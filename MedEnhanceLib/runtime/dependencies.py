"""The packages that MedEnhance needs: their names, sizes and purposes, which are missing, imports.

Packages are imported where they are used (`require`), and MedEnhance's own modules when a name of
them is first used. Nothing here imports a package to find out whether it is installed, and this
file needs none itself.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

from MedEnhanceLib.errors import DependencyError, MedEnhanceError
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.shared_setting import Restore, SharedSetting, refuse_torn_process
from MedEnhanceLib.runtime.text import reason_of

#: The package that trains. An installation without it enhances, segments and compresses.
_TRAINING = "MedEnhanceLib.training"
#: What packages are for: to open, remove noise, compress and export; or to run networks (thin
#: slices, segmentation, training), which needs those packages too.
Use = Literal["basic", "networks"]


@dataclass(frozen=True)
class Package:
    """A package that MedEnhance uses.

    Attributes:
        requirement: as pip takes it.
        module: as Python imports it.
        purpose: what it is for.
        megabytes: approximate download, its own dependencies included.
        extra: the extra that brings it; "" where it is installed along with MedEnhance.
        use: "networks" where only networks need it.
        installed: its version, "unknown" where it states none, None where it is missing.
        fits: whether it is installed, in a version that the requirement allows.
        fault: why it cannot be loaded, if that was tried.
    """

    requirement: str
    module: str
    purpose: str
    megabytes: float
    extra: str = ""
    use: Use = "basic"
    installed: str | None = None
    fits: bool = False
    fault: str = ""

    @property
    def name(self) -> str:
        """Name for pip, without a version."""
        return re.split(r"[>=<~!; ]", self.requirement)[0]

    @property
    def is_for_this_machine(self) -> bool:
        """Whether the marker of its requirement holds here."""
        marker = self.requirement.partition("; ")[2]
        return not marker or (marker == _INTEL_MAC) == is_intel_mac()


#: Markers of requirements. PyTorch has no wheels for Macs with an Intel processor any more; those
#: of imagecodecs after 2026.3.6 need macOS 12.
_INTEL_MAC = "sys_platform == 'darwin' and platform_machine == 'x86_64'"
_ELSEWHERE = "sys_platform != 'darwin' or platform_machine != 'x86_64'"
#: What an Intel Mac lacks, for messages.
NO_TORCH = (
    "PyTorch is not made any more for Macs with an Intel processor, nor for Slicer under Rosetta"
)


def is_intel_mac() -> bool:
    """Return whether this Python is for Macs with an Intel processor, as under Rosetta."""
    return sys.platform == "darwin" and platform.machine() == "x86_64"


#: Sizes of the wheels for Linux and Python 3.12 in 2026; on other systems only PyTorch's differs
#: much (see _TORCH_MEGABYTES). The requirements are those of pyproject.toml (tested). PyTorch
#: brings filelock and Jinja2 along, and Slicer psutil.
PACKAGES = (
    Package("numpy>=1.26", "numpy", "voxels", 16),
    Package("SimpleITK>=2.4", "SimpleITK", "NRRD and MetaImage, N4", 53),
    Package("nibabel>=5.3", "nibabel", "NIfTI", 3.5),
    Package("pydicom>=3.0", "pydicom", "DICOM", 2.4),
    Package(f"torch>=2.5; {_ELSEWHERE}", "torch", "networks, training", 0, use="networks"),
    Package("safetensors>=0.4.5", "safetensors", "models", 0.5),
    Package(f"imagecodecs>=2025.3.30; {_ELSEWHERE}", "imagecodecs", "compression, DICOM", 28),
    Package(
        f"imagecodecs>=2025.3.30,<=2026.3.6; {_INTEL_MAC}", "imagecodecs", "compression, DICOM", 28
    ),
    Package("threadpoolctl>=3.1", "threadpoolctl", "compression", 0.1),
    Package("tqdm>=4.66", "tqdm", "progress bars", 0.1),
    Package("psutil>=5.9", "psutil", "memory, priority", 0.3),
    Package("filelock>=3.30", "filelock", "locks of folders", 0.1),
    Package("Jinja2>=3.1", "jinja2", "pages of reports", 0.2, "reports"),
    Package("matplotlib>=3.9", "matplotlib", "pictures", 20, "reports"),
    Package("highdicom>=0.26", "highdicom", "DICOM objects", 4, "dicom"),
    Package(
        f"monai>=1.4; {_ELSEWHERE}", "monai", "training, MONAI bundles", 1.7, "training", "networks"
    ),
    Package("dask[distributed]>=2024.8", "distributed", "batch --scheduler", 5, "batch"),
    Package("av>=17.1", "av", "smaller and faster files of a ratio", 35, "video"),
)
#: What the module in Slicer installs: the core, and extras that its pages have buttons for.
_IN_SLICER = ("", "reports", "dicom", "training")
#: import name → pip's name, where they differ.
PIP_NAMES = {p.module: p.name for p in PACKAGES if p.module != p.name}
PIP_NAMES["dask.distributed"] = PIP_NAMES["distributed"]
#: What `pip install torch` downloads; on Linux with NVIDIA's libraries, measured 915 MB and 3.2 GB.
_TORCH_MEGABYTES = {"linux": 4100, "win32": 130, "darwin": 90}


def packages(*, loads: bool = False) -> list[Package]:
    """Return all packages of this machine with their versions; with `loads` each is imported."""
    invalidate_caches()
    found = [_with_version(package) for package in PACKAGES if package.is_for_this_machine]
    return [replace(each, fault=_fault_of(each)) for each in found] if loads else found


def _fault_of(package: Package) -> str:
    try:
        if package.installed:
            require(package.module, purpose="MedEnhance")
    except DependencyError as error:
        return str(error)
    return ""


def missing(use: Use = "networks") -> list[Package]:
    """List packages for the module in Slicer to install; [] unless an essential one is missing.

    use: "basic" leaves out packages that only networks need, such as PyTorch.
    """
    torch = _TORCH_MEGABYTES.get(sys.platform, _TORCH_MEGABYTES["linux"])
    absent = [
        replace(package, megabytes=torch) if package.name == "torch" else package
        for package in packages()
        if package.extra in _IN_SLICER and package.use in ("basic", use) and not package.fits
    ]
    return [] if all(package.extra for package in absent) else absent


def _let_idle_threads_sleep() -> Restore:
    if "OMP_WAIT_POLICY" in os.environ:
        return lambda: None
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return lambda: os.environ.pop("OMP_WAIT_POLICY", None)


#: OpenMP reads its policy once, when a package loads it. By default idle threads spin: on a busy
#: machine an enhancement took three times the CPU time.
_sleeping_idle_threads = SharedSetting(_let_idle_threads_sleep)


#: Seconds that a small operation of PyTorch may take before its threads count as missing.
_LONGEST_TRY = 5
#: "torch" in a process that was forked with PyTorch loaded, until it is known to compute.
_inherited: set[str] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _inherited.update({"torch"} & sys.modules.keys()))


def refuse_without_threads() -> None:
    """Raise MedEnhanceError in a forked process where PyTorch would wait for its threads forever.

    It lacks the threads with which PyTorch had computed before the fork. To find out, a small
    operation is tried in a process that is forked for it.
    """
    refuse_torn_process()
    if not _inherited or sys.platform == "win32":
        return
    if (child := os.fork()) == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_LONGEST_TRY)
            sys.modules["torch"].ones(1 << 20).sum()
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        raise MedEnhanceError(
            "PyTorch cannot compute in this process, which was forked after it had computed",
            'Start processes with multiprocessing.get_context("spawn").',
        )
    _inherited.clear()


def require(module: str, *, purpose: str) -> ModuleType:
    """Import `module`, or raise DependencyError naming what needs it and how to get it."""
    if module == "torch":
        refuse_without_threads()
    try:
        with _sleeping_idle_threads:
            return import_module(module)
    except Exception as cause:  # what cannot be loaded raises anything: OSError, MemoryError
        raise package_error(module, cause, f"{purpose} needs the package {{}}, which") from cause


def load_packages(*modules: str, purpose: str, monitor: Monitor) -> None:
    """Import packages that take seconds, each as a stage of progress; raises as `require` does."""
    refuse_without_threads()  # in this thread, which computes
    for module in (each for each in modules if imported(each) is None):
        monitor.progress(0.0, f"loading {module.partition('.')[0]}")
        attend(partial(require, module, purpose=purpose), monitor)


def imported_when_used(
    package: str, names: Iterable[str], homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        names: its `__all__`.
        homes: the names in each module of the package, {"encode": ["compress"]}.
    """
    modules = {name: module for module, exports in homes.items() for name in exports}

    def is_there(name: str) -> bool:
        home = f"{package}.{modules.get(name, '')}"
        return not home.startswith(_TRAINING) or has_training()  # which looks at the disk

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = f"{package}.{modules[name]}"
        if not is_there(name):
            raise DependencyError(
                f"{name} needs {_TRAINING}, which this installation lacks",
                "Install all of MedEnhance: python -m pip install --force-reinstall medenhance",
            )
        if imported(home) is None:  # the thread that was importing it may be gone
            refuse_torn_process()
        return getattr(import_module(home), name)

    return get, lambda: sorted(filter(is_there, names))


def has_training() -> bool:
    """Return whether the package that trains is part of this installation."""
    return find_spec(_TRAINING) is not None


def imported(module: str) -> Any:
    """Return a module if its import is complete, else None: another thread may be importing it."""
    loaded = sys.modules.get(module)
    spec = getattr(loaded, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else loaded


def package_error(module: str, cause: Exception, subject: str) -> DependencyError:
    """Return the error of a package that is missing, or that cannot be loaded.

    Args:
        module: that was imported.
        cause: what its import raised.
        subject: begins the message; {} stands for the package.
    """
    # Dask itself says that its distributed part is missing; None marks a module as missing.
    if not _is_present(module.removeprefix("dask.")) or sys.modules.get(module, cause) is None:
        return missing_package(module, subject)
    package = PIP_NAMES.get(module, module.partition(".")[0])
    return DependencyError(
        f"{subject.format(package)} is installed, but cannot be loaded: {reason_of(cause)}",
        "Repair what the reason names: a system library, a package of another version, a limit of "
        f"memory. Or install {package} again.",
    )


def missing_package(module: str, subject: str = "the package {}") -> DependencyError:
    """Return the error of a missing module; the hint names the extra that brings it, if any."""
    package = PIP_NAMES.get(module, module.partition(".")[0])
    if package in ("torch", "monai") and is_intel_mac():
        return DependencyError(
            f"{subject.format(package)} is not available on this Mac",
            f"{NO_TORCH}. Compressing and opening files works.",
        )
    # dask is only of use together with distributed: a missing one is installed by the extra.
    known = (p for p in PACKAGES if p.extra and p.name.split("[")[0] == package.split("[")[0])
    install = next((f"medenhance[{p.extra}]" for p in known), package)
    return DependencyError(
        f"{subject.format(package)} is not installed",
        f"Install it with: python -m pip install '{install}'",
    )


def has(module: str) -> bool:
    """Return whether a package that fits is installed; `module` is its import name."""
    return any(_with_version(package).fits for package in PACKAGES if package.module == module)


def installed_version(package: Package) -> str | None:
    """Return the version of a package, "unknown" if it states none, None if it is missing."""
    from importlib import metadata  # takes longer to import than the rest of this package

    if not _is_present(package.module):
        return None
    for name in (package.name.partition("[")[0], package.module):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _is_present(module: str) -> bool:
    """Return whether the package of a module is installed; it may be broken."""
    try:
        return find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _with_version(package: Package) -> Package:
    version = installed_version(package)
    fits = version is not None and (version == "unknown" or _is_within(version, package))
    return replace(package, installed=version, fits=fits)


def _is_within(version: str, package: Package) -> bool:
    """Return whether a version keeps to the limits of the requirement: "torch>=2.5,<=2.9"."""
    limits = re.findall(r"([<>])=([\d.]+)", package.requirement.partition(";")[0])
    release = _numbers(version)
    return all(
        release >= _numbers(limit) if sign == ">" else release <= _numbers(limit)
        for sign, limit in limits
    )


def _numbers(version: str) -> list[int]:
    """Return the numbers of a release: "2.13.0+cpu" → [2, 13, 0]."""
    release = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in release.group().split(".")] if release else []
