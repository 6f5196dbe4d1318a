"""The packages that features need: imported where they are used, told of where they are missing.

Nothing here imports a package to find out whether it is there, and this file needs none itself.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from importlib import import_module, invalidate_caches, metadata
from importlib.util import find_spec
from types import ModuleType

from MedEnhanceLib.errors import DependencyError


@dataclass(frozen=True)
class Package:
    """A package that MedEnhance uses.

    requirement: as pip takes it. module: as Python imports it. purpose: what it is for.
    megabytes: about what is downloaded for it, with what it brings along. required: whether
    anything ordinary needs it. installed: its version here, "unknown" where it does not say,
    None where it is missing. fits: whether it is here and recent enough.
    """

    requirement: str
    module: str
    purpose: str
    megabytes: float
    required: bool = True
    installed: str | None = None
    fits: bool = False

    @property
    def name(self) -> str:
        """As pip knows it, without a version."""
        return re.split(r"[>=<~! ]", self.requirement)[0]


#: Sizes of the wheels for Linux and Python 3.12 in 2026; other systems' differ little, but for
#: PyTorch's (see torch_megabytes). The requirements are those of pyproject.toml (tested).
_PACKAGES = (
    Package("numpy>=1.26", "numpy", "voxels", 16),
    Package("SimpleITK>=2.4", "SimpleITK", "reading and writing volumes, N4", 53),
    Package("pydicom>=3.0", "pydicom", "DICOM", 2.4),
    Package("highdicom>=0.26", "highdicom", "writing DICOM", 4),
    Package("dicom-anonymizer>=2.0", "dicomanonymizer", "de-identification", 0.1),
    Package("torch>=2.4", "torch", "enhancing, segmenting, training", 0),
    Package("monai>=1.4", "monai", "tiled inference, segmentation heads", 1.7),
    Package("safetensors>=0.4.5", "safetensors", "models", 0.5),
    Package("imagecodecs>=2025.3.30", "imagecodecs", "compression, pixels of DICOM", 28),
    Package("zstandard>=0.22", "zstandard", "compression", 5.5),
    Package("constriction>=0.4", "constriction", "implicit blocks", 0.5),
    Package("threadpoolctl>=3.1", "threadpoolctl", "compression", 0.1),
    Package("tqdm>=4.66", "tqdm", "progress bars", 0.1),
    Package("matplotlib>=3.9", "matplotlib", "pictures and reports", 20),
    Package("dask[distributed]>=2024.8", "distributed", "batch --scheduler", 5, required=False),
    Package("av>=17.1", "av", "smaller and faster files of a ratio", 35, required=False),
)
#: import name → the name pip knows, where they differ.
PIP_NAMES = {p.module: p.name for p in _PACKAGES if p.module != p.name}
PIP_NAMES["dask.distributed"] = PIP_NAMES["distributed"]
#: PyTorch with all that it brings along: (as `pip install torch` takes it, for the CPU alone).
#: On Linux the first carries NVIDIA's libraries: measured 915 MB and 3.2 GB of them.
_TORCH_MEGABYTES = {"linux": (4100, 200), "win32": (130, 130), "darwin": (90, 90)}


def packages() -> list[Package]:
    """All packages with what is installed of them; none is imported."""
    invalidate_caches()
    return [_looked_up(package) for package in _PACKAGES]


def package_rows() -> list[dict[str, object]]:
    """All packages as a table for people and JSON."""
    return [
        {
            "package": package.name,
            "requirement": package.requirement,
            "version": package.installed,
            "purpose": package.purpose,
            "required": package.required,
            "ok": package.fits,
        }
        for package in packages()
    ]


def missing(compute_on: str = "auto") -> list[Package]:
    """The required packages that are not here, or too old, with what they are for and their size.

    compute_on: "auto" for PyTorch as pip takes it, "cpu" for its smaller build.
    """
    sizes = {"torch": torch_megabytes(compute_on)}
    return [
        replace(package, megabytes=sizes.get(package.name, package.megabytes))
        for package in packages()
        if package.required and not package.fits
    ]


def torch_megabytes(compute_on: str = "auto") -> float:
    """What PyTorch downloads on this system; "cpu" for the build without a GPU's libraries."""
    with_gpu, cpu_alone = _TORCH_MEGABYTES.get(sys.platform, _TORCH_MEGABYTES["linux"])
    return cpu_alone if compute_on == "cpu" else with_gpu


def require(module: str, *, purpose: str) -> ModuleType:
    """Import `module`, or raise DependencyError naming what needs it and how to get it."""
    try:
        return import_module(module)
    except ImportError as cause:
        package = PIP_NAMES.get(module, module.partition(".")[0])
        raise DependencyError(
            f"{purpose} needs the package {package}, which is not installed",
            f"Install it with: python -m pip install '{package}'",
        ) from cause


def has(module: str) -> bool:
    """Whether a package is here and recent enough."""
    return any(_looked_up(package).fits for package in _PACKAGES if package.module == module)


def installed_version(package: Package) -> str | None:
    """Its version, "unknown" where it is here without saying one, None where it is not."""
    try:
        if find_spec(package.module) is None:
            return None
    except (ImportError, ValueError):
        return None
    for name in (package.name.partition("[")[0], package.module):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _looked_up(package: Package) -> Package:
    version = installed_version(package)
    least = package.requirement.rpartition(">=")[2]
    fits = version is not None and (version == "unknown" or _numbers(version) >= _numbers(least))
    return replace(package, installed=version, fits=fits)


def _numbers(version: str) -> list[int]:
    """The release's numbers: "2.13.0+cpu" → [2, 13, 0]."""
    release = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in release.group().split(".")] if release else []
