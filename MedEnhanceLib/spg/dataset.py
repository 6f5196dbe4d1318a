"""A distilled data set on disk: images and manifest, written and read back.

Nothing in it names a patient, a file, a date or a place. The order of the images does not reveal
which belong to one patient.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib._version import __version__
from MedEnhanceLib.bundles.export import NOT_STATED
from MedEnhanceLib.core.manifest import RESEARCH_ONLY, file_sha256
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.config import CT_WINDOW, DAMAGE, MODALITIES, DistillConfig
from MedEnhanceLib.spg.folder import ARRAY, IMAGES, MANIFEST, README, RUN, WORK, read_run
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.readme import NO_LICENSE, readme

FORMAT, FORMAT_VERSION = "medenhance-distilled", 1
#: The stored value of 1.0.
TOP = 65535
#: Stated in the card of every model that learned from distilled images.
NOT_ANATOMY = (
    "Learned from distilled images, which are training signal, not anatomy: shapes that look like "
    "organs can be invented in them."
)
_PACKAGES = ("numpy", "SimpleITK", "torch", "monai")


@dataclass(frozen=True)
class Distilled:
    """A distilled data set: images float32 [N, H, W] in [0, 1], its manifest, and its folder."""

    images: Floats
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
    def window(self) -> tuple[float, float]:
        """Values of 0 and 1 in the images: HU, or of MR shares of its robust maximum."""
        return CT_WINDOW if self.modality == "CT" else (0.0, 1.0)

    @property
    def shows_prior(self) -> bool:
        """Whether the anatomy is the prior's alone, as the method statistics leaves it."""
        return bool(self.manifest.get("statistics"))

    @property
    def alarm(self) -> str | None:
        """A warning for who trains on it; None if the audit raised no alarm."""
        if not (self.manifest.get("audit") or {}).get("alarm"):
            return None
        return (
            "the audit of the distilled set raised the alarm: information on its patients can be "
            "extracted from it, and may be extracted from what is trained on it"
        )

    @property
    def limits(self) -> tuple[str, ...]:
        """Limits for the card of a model that learned from it."""
        limits = [] if self.shows_prior else [NOT_ANATOMY]
        if self.alarm:
            limits.append(f"{self.alarm[:1].upper()}{self.alarm[1:]}.")
        if (self.manifest.get("prior") or {}).get("in_cohort"):
            limits.append("The distilled set shows a patient of its cohort, from whom it starts.")
        return tuple(limits)

    def entry(self) -> dict[str, str]:
        """Describe the training data for the card of a model."""
        count = int(self.manifest["patients"])
        patients = f"{count} patient{'' if count == 1 else 's'}"
        name, origin = (
            "a distilled set",
            f" distilled from {patients} (training signal, not anatomy)",
        )
        if self.shows_prior:
            name = "a prior with the statistics of a cohort"
            origin = (
                f": {self.manifest['prior']['description']}; with the intensities and textures of "
                f"{patients}, as means"
            )
        return {
            "name": name,
            "subjects": f"{len(self.images)} images{origin}",
            "license": license_of(self.manifest) or NOT_STATED,
            "source": f"{ARRAY} with the SHA-256 {file_sha256(self.folder / ARRAY)}",
        }


def license_of(manifest: Mapping[str, Any]) -> str:
    """Return the license that a manifest states; "" if none."""
    stated = str(manifest.get("license", NO_LICENSE))
    return "" if stated == NO_LICENSE else stated


def is_distilled(folder: Path) -> bool:
    """Tell whether a folder holds a distilled data set; raises InputError for an unfinished one."""
    if not (folder / MANIFEST).exists() and (folder / WORK / RUN).is_file():
        raise InputError(
            f"{folder} contains an unfinished distillation",
            "Run the same command again to resume.",
        )
    try:
        return read_run(folder / MANIFEST).get("format") == FORMAT
    except InputError:
        return False


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
    try:
        stored = np.load(folder / ARRAY, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise InputError(f"{folder / ARRAY} cannot be read: {cause}", "Copy it again.") from cause
    if stored.dtype != np.uint16 or stored.ndim != 3 or len(stored) != manifest.get("images"):
        raise InputError(f"{folder / ARRAY} does not match its manifest", "Copy the set again.")
    if manifest.get("modality") not in MODALITIES:
        raise InputError(
            f"{folder / MANIFEST}: modality is {manifest.get('modality')!r}",
            f"It is {' or '.join(MODALITIES)}; copy the manifest again.",
        )
    return Distilled(stored.astype(np.float32) / np.float32(TOP), manifest, folder)


def order_of(images: Floats) -> npt.NDArray[np.intp]:
    """Draw the order in which images [N, H, W] are written: place n gets image order[n].

    Drawn from the images before they are rounded to 16 bits, which are not published. An order
    drawn from the seed, which is published, could be undone.
    """
    secret = hashlib.sha256(np.ascontiguousarray(images, "<f4").tobytes()).digest()
    return np.random.default_rng(int.from_bytes(secret, "little")).permutation(len(images))


def quantized(images: Floats) -> npt.NDArray[np.uint16]:
    """Round [0, 1] to 16 bits, to nearest even."""
    return np.rint(np.clip(images, 0, 1) * TOP).astype(np.uint16)


def write_images(folder: Path, stored: npt.NDArray[np.uint16]) -> None:
    """Write images.npy, and images/0000.png … for people and other tools; uint16 [N, H, W]."""
    codecs: Any = require("imagecodecs", purpose="Writing images")
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(stored):
        with atomic_write(folder / IMAGES / f"{number:04d}.png", overwrite=True) as temporary:
            temporary.write_bytes(codecs.png_encode(image))
    with atomic_write(folder / ARRAY, overwrite=True) as temporary, temporary.open("wb") as stream:
        np.save(stream, stored, allow_pickle=False)


def make_manifest(
    config: DistillConfig, run: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the manifest of a distillation; it holds no time, so that equal runs give equal bytes.

    run: modality, counts and hashes, as in run.json. results: of the distillation.
    """
    window = (
        {"HU": list(CT_WINDOW)}
        if run["modality"] == "CT"
        else {"share of the robust maximum": [0.0, 1.0]}
    )
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "notice": RESEARCH_ONLY,
        "license": config.license or NO_LICENSE,
        "task": config.task,
        "modality": run["modality"],
        "window": window,
        "pixel_spacing_mm": config.images.spacing_mm,
        "bits": 16,
        "damage": DAMAGE,
        **results,
        **{name: value for name, value in run.items() if name != "config"},
        "config": run["config"],
        "software": {"medenhance": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
    }


def complete(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write README.md, for who gets the folder, and last the manifest, which completes it."""
    with atomic_write(folder / README, overwrite=True) as temporary:
        temporary.write_text(readme(manifest), encoding="utf-8")
    write_json(folder / MANIFEST, manifest, overwrite=True)


def relicense(folder: Path, license: str) -> None:
    """State another license in a finished set, to the bytes of a run with it from the beginning."""
    manifest = load_distilled(folder).manifest
    if license != license_of(manifest):
        complete(folder, manifest | {"license": license})
