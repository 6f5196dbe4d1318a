"""A distilled set on disk: volumes and manifest, written and read back.

Nothing in it names a patient, a file, a date or a place. The order of the volumes does not reveal
which belong to one patient.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib._version import __version__
from MedEnhanceLib.bundles.export import NOT_STATED
from MedEnhanceLib.core.arrays import Floats, Numbers, Shorts
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.manifest import RESEARCH_ONLY, file_sha256
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.text import counted
from MedEnhanceLib.training.spg.config import CT_WINDOW, MODALITIES, DistillConfig
from MedEnhanceLib.training.spg.folder import (
    IMAGES,
    MANIFEST,
    README,
    RUN,
    SHEET,
    VOLUMES,
    WORK,
    read_run,
)
from MedEnhanceLib.training.spg.readme import NO_LICENSE, readme, sheet

FORMAT, FORMAT_VERSION = "medenhance-distilled", 2
#: The stored values of 0 and 1: HU in CT.
STORED = {"CT": CT_WINDOW, "MR": (0.0, 10_000.0)}
#: Pattern of the volumes below the folder of a set.
PATTERN = f"{VOLUMES}/*.nii.gz"
#: Stated in the card of every model that learned from a distilled set.
NOT_ANATOMY = (
    "Learned from distilled volumes, which are training signal, not anatomy: shapes that look like "
    "organs can be invented in them."
)
_PACKAGES = ("numpy", "torch", "monai")


@dataclass(frozen=True)
class Distilled:
    """A distilled set.

    Attributes:
        manifest: the JSON object in the folder.
    """

    manifest: dict[str, Any]
    folder: Path

    @property
    def config(self) -> DistillConfig:
        """The configuration that it was distilled with."""
        return DistillConfig.from_json(dict(self.manifest["config"]))

    @property
    def modality(self) -> str:
        """CT or MR."""
        return str(self.manifest["modality"])

    @property
    def files(self) -> list[Path]:
        """The files of the volumes, in order."""
        return sorted(self.folder.glob(PATTERN))

    def volumes(self) -> Iterator[Volume]:
        """Read the volumes; CT in HU, in MR bright tissue is 10,000."""
        return (io.load(path, modality=self.modality).single() for path in self.files)

    @property
    def alarm(self) -> str | None:
        """A warning for those who train on it; None if the audit raised no alarm."""
        if not (self.manifest.get("audit") or {}).get("alarm"):
            return None
        return (
            "the audit of the distilled set raised the alarm: information on its patients can be "
            "extracted from it, and may be extracted from what is trained on it"
        )

    @property
    def limits(self) -> tuple[str, ...]:
        """Limits for the card of a model that learned from it."""
        alarm = self.alarm
        return (NOT_ANATOMY, *([f"{alarm[:1].upper()}{alarm[1:]}."] if alarm else []))

    def entry(self) -> dict[str, str]:
        """Describe the training data for the card of a model."""
        patients = counted(int(self.manifest["patients"]), "patient")
        origin = f"distilled from {patients} (training signal, not anatomy)"
        if self.config.method == "statistics":
            prior = self.manifest["prior"]["description"]
            kinds = (
                "textures" if profile_of(self.modality).is_absolute else "intensities and textures"
            )
            origin = f"{prior}; with the {kinds} of {patients}, as means"
        return {
            "name": "a distilled set",
            "subjects": f"{counted(int(self.manifest['volumes']), 'volume')}: {origin}",
            "license": license_of(self.manifest) or NOT_STATED,
            "source": f"{MANIFEST} with the SHA-256 {file_sha256(self.folder / MANIFEST)}",
        }


def license_of(manifest: Mapping[str, Any]) -> str:
    """Return the license that a manifest states; "" if none."""
    stated = str(manifest.get("license", NO_LICENSE))
    return "" if stated == NO_LICENSE else stated


def is_distilled(folder: Path) -> bool:
    """Return whether a folder holds a distilled data set; InputError for an unfinished one."""
    if not (folder / MANIFEST).exists() and (folder / WORK / RUN).is_file():
        raise InputError(
            f"{folder} contains an unfinished distillation",
            "Run the same command again to resume.",
        )
    try:
        return read_run(folder / MANIFEST).get("format") == FORMAT
    except InputError:
        return False


def find_set(folder: Path) -> Path | None:
    """Find the set in a folder, or in its subfolder `out` if it is the folder of a run."""
    return next((each for each in (folder, folder / "out") if is_distilled(each)), None)


def load_distilled(folder: Path) -> Distilled:
    """Read a distilled data set; raises InputError if it is missing, incomplete or too new."""
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"{folder} contains no finished distillation", "Name the folder of a distilled set."
        )
    manifest = read_run(folder / MANIFEST)
    if manifest.get("format") != FORMAT or manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder / MANIFEST} is of another format or a later version", "Update MedEnhance."
        )
    if manifest.get("modality") not in MODALITIES:
        raise InputError(
            f"{folder / MANIFEST}: modality is {manifest.get('modality')!r}",
            f"It is {' or '.join(MODALITIES)}; copy the manifest again.",
        )
    result = Distilled(manifest, folder)
    if len(result.files) != manifest.get("volumes"):
        raise InputError(f"{folder / VOLUMES} does not match its manifest", "Copy the set again.")
    return result


def order_of(volumes: Floats) -> Numbers:
    """Draw the order in which volumes [N, K, J, I] are written: place n gets volume order[n].

    The random seed is a hash of the values before rounding to 16 bits, which are not published: an
    order drawn from the published seed could be undone.
    """
    secret = hashlib.sha256(np.ascontiguousarray(volumes, "<f4").tobytes()).digest()
    return np.random.default_rng(int.from_bytes(secret, "little")).permutation(len(volumes))


def quantized(volumes: Floats, modality: str) -> Shorts:
    """Convert [0, 1] to the stored values, to nearest even."""
    low, high = STORED[modality]
    values = np.rint(np.clip(volumes, 0, 1) * (high - low) + low)
    stored: Shorts = values.astype(np.int16)
    return stored


def write_volumes(
    folder: Path,
    stored: Shorts,
    spacing_mm: Sequence[tuple[float, float]],
    modality: str,
) -> None:
    """Write volumes/0000.nii.gz …, and the middle slice of each as images/0000.png.

    Args:
        folder: of the set.
        stored: [N, K, J, I].
        spacing_mm: of slices and of pixels, for each.
        modality: CT or MR.
    """
    codecs: Any = require("imagecodecs", purpose="Writing pictures")
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    (folder / VOLUMES).mkdir(exist_ok=True)
    low, high = STORED[modality]
    units = profile_of(modality).units
    for number, (voxels, (slice_mm, pixel_mm)) in enumerate(zip(stored, spacing_mm, strict=True)):
        geometry = Geometry((pixel_mm, pixel_mm, slice_mm))
        volume = Volume(voxels, geometry, modality=modality, units=units)
        io.save(volume, folder / VOLUMES / f"{number:04d}.nii.gz", overwrite=True)
        middle = (voxels[len(voxels) // 2] - low) / (high - low)
        pixels = np.rint(255 * middle.clip(0, 1)).astype(np.uint8)
        with atomic_write(folder / IMAGES / f"{number:04d}.png", overwrite=True) as temporary:
            temporary.write_bytes(codecs.png_encode(pixels))


def make_manifest(
    config: DistillConfig, run: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the manifest of a distillation; it holds no time, so that equal runs give equal bytes.

    Args:
        config: of the distillation.
        run: modality, counts and hashes, as in run.json.
        results: of the distillation.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "notice": RESEARCH_ONLY,
        "license": config.license or NO_LICENSE,
        "modality": run["modality"],
        "bright_tissue": None if profile_of(run["modality"]).is_absolute else STORED["MR"][1],
        **results,
        **{name: value for name, value in run.items() if name != "config"},
        "config": run["config"],
        "software": {"medenhance": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
    }


def complete(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the pages for the recipient, and last the manifest, which completes it."""
    for name, page in ((README, readme), (SHEET, sheet)):
        with atomic_write(folder / name, overwrite=True) as temporary:
            temporary.write_text(page(manifest), encoding="utf-8")
    write_json(folder / MANIFEST, manifest, overwrite=True)


def relicense(folder: Path, license: str) -> None:
    """Change the license of a finished set; the bytes equal those of a run begun with it."""
    manifest = load_distilled(folder).manifest
    if license != license_of(manifest):
        complete(folder, manifest | {"license": license})
