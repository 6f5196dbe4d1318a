"""A distilled data set on disk: images, manifest and card; written, and read back.

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
from MedEnhanceLib.spg.config import DistillConfig, sha256_of
from MedEnhanceLib.spg.folder import MANIFEST, RUN, WORK, read_run
from MedEnhanceLib.spg.images import Floats

FORMAT, FORMAT_VERSION = "medenhance-distilled", 1
#: The stored value of 1.0.
TOP = 65535
_IMAGES, _ARRAY, _CARD = "images", "images.npy", "card.md"
#: Stated in the card of every model that learned from distilled images.
NOT_ANATOMY = (
    "Learned from distilled images, which are training signal, not anatomy: shapes that look like "
    "organs can be invented in them."
)
PRIOR = "prior"
#: A distillation with fewer matches of a patient is a test, as the preset smoke.
_FEWEST_MATCHES = 20
_PACKAGES = ("numpy", "SimpleITK", "torch", "monai")
_PURPOSES = {
    "denoise": "removing noise",
    "sr2": "doubling the resolution",
    "sr4": "four times the resolution",
    "undersample": "completing MR of which a quarter of the lines was measured",
}


@dataclass(frozen=True)
class Distilled:
    """A distilled data set.

    Args:
        images: float32 [N, H, W] in [0, 1].
        manifest: as `make_manifest` wrote it.
        folder: where it lies.
    """

    images: Floats
    manifest: dict[str, Any]
    folder: Path

    @property
    def config(self) -> DistillConfig:
        """The configuration that it was distilled with."""
        return DistillConfig.from_json(dict(self.manifest["config"]))

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
        privacy, prior = self.manifest.get("privacy"), self.manifest.get("prior") or {}
        exposed = "The distilled set starts from a patient of its cohort, who is to be seen in it."
        alarm = self.alarm
        return (
            *([] if self.manifest.get("is_prior") else [NOT_ANATOMY]),
            *([f"{alarm[0].upper()}{alarm[1:]}."] if alarm else []),
            *([exposed] if prior.get("in_cohort") else []),
            *([f"The distilled set: {privacy['statement']}"] if privacy else []),
        )

    def entry(self) -> dict[str, str]:
        """The entry on the training data for the card of a model."""
        patients = int(self.manifest["patients"])
        learned = f"{patients} patient{'' if patients == 1 else 's'}"
        if self.manifest.get("is_prior"):
            name, origin = "the prior of a distillation", f": {self.manifest['prior']['told']}"
            if self.manifest["config"].get("intensities") == "cohort":
                origin += f"; with the intensities of {learned}, 33 numbers"
        else:
            name = "a distilled set"
            origin = f" distilled from {learned} (training signal, not anatomy)"
        return {
            "name": name,
            "subjects": f"{len(self.images)} images{origin}",
            "licence": NOT_STATED,
            "source": f"{_ARRAY} with the SHA-256 {file_sha256(self.folder / _ARRAY)}",
        }


def is_distilled(folder: Path) -> bool:
    """Whether a folder holds a distilled data set, readable or not.

    Raises:
        InputError: it holds a distillation that is not finished.
    """
    if not (folder / MANIFEST).exists() and (folder / WORK / RUN).is_file():
        raise InputError(
            f"{folder} holds a distillation that is not finished",
            "Run the same command again to resume; medenhance distill --status FOLDER shows the "
            "progress.",
        )
    try:
        return read_run(folder / MANIFEST).get("format") == FORMAT
    except InputError:
        return False


def load_distilled(folder: Path) -> Distilled:
    """Read a distilled data set.

    Raises:
        InputError: the folder holds none, or not all of it, or one of a later version.
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"{folder} holds no finished distillation", "See: medenhance distill --status."
        )
    manifest = read_run(folder / MANIFEST)
    if manifest.get("format") != FORMAT or manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder / MANIFEST} is of another format or a later version", "Update MedEnhance."
        )
    try:
        stored = np.load(folder / _ARRAY, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise InputError(f"{folder / _ARRAY} cannot be read: {cause}", "Copy it again.") from cause
    if stored.dtype != np.uint16 or stored.ndim != 3 or len(stored) != manifest.get("images"):
        raise InputError(f"{folder / _ARRAY} is not what its manifest says", "Copy it again.")
    return Distilled(stored.astype(np.float32) / np.float32(TOP), manifest, folder)


def order_of(images: Floats) -> npt.NDArray[np.intp]:
    """The order in which images [N, H, W] are written: place n gets image order[n].

    Drawn from the images before they are rounded to 16 bits, which are not published. An order
    drawn from the seed, which is published, could be undone.
    """
    secret = hashlib.sha256(np.ascontiguousarray(images, "<f4").tobytes()).digest()
    return np.random.default_rng(int.from_bytes(secret, "little")).permutation(len(images))


def quantized(images: Floats) -> npt.NDArray[np.uint16]:
    """[0, 1] → 16 bits, rounded to nearest even."""
    return np.rint(np.clip(images, 0, 1) * TOP).astype(np.uint16)


def write_images(folder: Path, stored: npt.NDArray[np.uint16]) -> None:
    """Write images.npy, and images/0000.png … for people and other tools; uint16 [N, H, W]."""
    _write_array(folder, stored)
    _write_pictures(folder / _IMAGES, stored)


def write_prior(
    folder: Path, images: Floats, config: DistillConfig, run: Mapping[str, Any]
) -> None:
    """Write the prior's images as a set that can be trained on: folder/prior, replaced if there.

    Args:
        folder: gets the folder `prior`.
        images: float32 [M, H, W] in [0, 1].
        config: of the distillation.
        run: as for `make_manifest`.
    """
    place = folder / PRIOR
    for before in place.glob("[0-9][0-9][0-9][0-9].png"):
        before.unlink()
    stored = quantized(images)
    _write_pictures(place, stored)
    _write_array(place, stored)
    known = ("modality", "patients", "prior", "prior_sha256", "config")
    size = {"images": len(stored), "size": list(stored.shape[1:]), "is_prior": True}
    write_manifest(place, make_manifest(config, {name: run[name] for name in known}, size))


def _write_array(folder: Path, stored: npt.NDArray[np.uint16]) -> None:
    with atomic_write(folder / _ARRAY, overwrite=True) as temporary, temporary.open("wb") as stream:
        np.save(stream, stored, allow_pickle=False)


def _write_pictures(folder: Path, stored: npt.NDArray[np.uint16]) -> None:
    codecs: Any = require("imagecodecs", purpose="Writing images")
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(stored):
        with atomic_write(folder / f"{number:04d}.png", overwrite=True) as temporary:
            temporary.write_bytes(codecs.png_encode(image))


def make_manifest(
    config: DistillConfig, run: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of a distillation; it holds no time, so that equal runs give equal bytes.

    Args:
        config: of the distillation.
        run: modality, counts and hashes, as in run.json.
        results: of the distillation.
    """
    scaling = config.images
    window = (
        {"HU": list(scaling.ct_window)}
        if run["modality"] == "CT"
        else {"share of the robust maximum": [0.0, scaling.mr_top]}
    )
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "notice": RESEARCH_ONLY,
        "task": config.task,
        "modality": run["modality"],
        "window": window,
        "pixel_spacing_mm": scaling.spacing_mm,
        "bits": 16,
        **results,
        **{name: value for name, value in run.items() if name not in ("config", "steps")},
        "config": run["config"],
        "config_sha256": sha256_of(run["config"]),
        "software": {"medenhance": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest; it is written last, and completes the result."""
    write_json(folder / MANIFEST, manifest, overwrite=True)


def write_card(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the card: what a person should know before using or sharing the images."""
    with atomic_write(folder / _CARD, overwrite=True) as temporary:
        temporary.write_text(card(manifest), encoding="utf-8")


def _kept_lines(kept: Mapping[str, Any]) -> list[str]:
    if not kept.get("psnr_db"):
        return []
    found = ", ".join(f"{float(n):.0%}: {psnr:.2f} dB" for n, psnr in kept["psnr_db"].items())
    return [
        f"- Of the change from the prior, {kept['share']:.0%} is kept: the least that trains "
        "networks as well as any share, measured on patients of the cohort whose own images had no "
        f"part in the training ({found})."
    ]


def _alignment_lines(measured: Mapping[str, float], kept: Mapping[str, Any]) -> list[str]:
    if kept.get("share", 1.0) < 1:  # measured with all of the change
        return []
    ours, theirs = measured["alignment"], measured["alignment_of_prior"]
    nearer = "nearer to" if ours < theirs else "no nearer to"
    return [
        f"- The gradients of small networks on them are {nearer} those on the patients' images "
        f"than the prior's are: the distance is {ours:.3g}, the prior's is {theirs:.3g}."
    ]


def _loop_line(loop: Mapping[str, Any]) -> str:
    steps = int(loop["outer"]) * int(loop["inner"])
    networks = "1 network" if loop["outer"] == 1 else f"{loop['outer']} networks"
    few = ": a test only, of no other use" if steps < _FEWEST_MATCHES else ""
    return f"- Each patient's images were matched {steps} times, on {networks}{few}."


def _prior_lines(manifest: Mapping[str, Any]) -> list[str]:
    lines = [f"- They start from a prior and stay near it. The prior: {manifest['prior']['told']}."]
    if manifest["config"].get("intensities") == "cohort":
        lines.append(
            "- The prior was given the patients' intensities: 33 quantiles, means over all of them."
        )
    return lines


def _privacy_lines(privacy: Mapping[str, Any]) -> list[str]:
    return [
        "",
        "## Differential privacy",
        "",
        str(privacy["statement"]),
        "",
        f"- In each of {privacy['matches']} matches the gradient of a patient was cut to "
        f"{privacy['clip']:g} times the norm of the distilled images' own, and Gaussian noise of "
        f"{privacy['noise_multiplier']:.4g} times that norm added (δ = {privacy['delta']:g}).",
        f"- What ε compares: {privacy['neighbours']}.",
        "- It holds for this set alone: with several sets of the same patients the ε add up.",
        "- It covers neither settings that were chosen after looking at the patients' images, nor "
        "attacks on floating-point rounding.",
    ]


def card(manifest: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    task, measured = manifest["task"], manifest["measured"]
    privacy, kept = manifest.get("privacy"), manifest.get("kept") or {}
    audit = manifest.get("audit") or {}
    tried = (
        "No attack was tried."
        if audit.get("alarm") is None and not privacy
        else "Attacks were tried, see below; others may find more."
    )
    lines = [
        f"# Distilled {manifest['modality']} images for {_PURPOSES[task]}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        f"{manifest['images']} images of {manifest['size'][0]} × {manifest['size'][1]} pixels, "
        f"{manifest['pixel_spacing_mm']} mm, 16 bits, distilled from {manifest['patients']} "
        f"{'patient' if manifest['patients'] == 1 else 'patients'} "
        f"({manifest['images_per_patient']} for each), to train small networks for the "
        f"task {task!r}.",
        "",
        "## What they are",
        "",
        "- Training signal, not anatomy: shapes that look like organs can be invented.",
        *_prior_lines(manifest),
        *(_privacy_lines(privacy) if privacy else _alignment_lines(measured, kept)),
        *_kept_lines(kept),
        _loop_line(manifest["config"]["loop"]),
        "",
        "## What is not proven",
        "",
        f"- That no information on a patient can be extracted. {tried}",
        "- That they are better for training than a handful of real images, which is often enough.",
        "- Anything for another task, scanner or part of the body.",
        "",
        "## Audit",
        "",
        str(audit.get("summary") or "Not audited: treat the images as the patients' own."),
        "",
    ]
    return "\n".join(lines)
