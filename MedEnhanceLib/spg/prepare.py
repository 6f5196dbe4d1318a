"""Prepares a cohort for a distillation: images by patient, who is held out, and the prior.

All distilled images start from the same anatomical prior, and its anatomy stays recognizable in
every result. So by default it is a public average of many people; a patient of the cohort is used
on request alone, with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.spg.config import (
    MODALITIES,
    PATIENT,
    REPRESENTATIVE,
    TEMPLATE,
    DistillConfig,
)
from MedEnhanceLib.spg.images import Floats, axial_slices, spread_over
from MedEnhanceLib.spg.statistics import imposed, mean_over, measure

#: Slices of a patient that must show something, however few images are requested.
_LEAST_SLICES = 4
#: Held-out patients that the audit needs, if as many are left to distill.
_COMPARED = 2
_TEMPLATE_FILE = "mni152_t1.nii.gz"
_CUBE = 64
#: What is published about each kind; names nobody.
DESCRIPTIONS = {
    TEMPLATE: "ICBM 2009a, the average of 152 adult brains (T1): no single person",
    REPRESENTATIVE: "the most typical patient of the cohort, whose anatomy all images show",
    "patient": "a patient of the cohort, whose anatomy all images show",
    "file": "a volume that the user gave; who it shows and who may see it is not known here",
}


@dataclass(frozen=True)
class Prior:
    """Start of all distilled images, float32 [M, H, W] in [0, 1].

    kind: see `DistillConfig.kind_of_prior`; published. patient: of the cohort, whose anatomy it is;
    never written to a file.
    """

    images: Floats
    kind: str
    patient: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A cohort and the prior, ready to be distilled.

    training: images by patient in the cohort's order, float32 [N, H, W] in [0, 1]; held_out: the
    same of patients kept for the audit, never the prior's. prior: with matching it has the cohort's
    statistics; public: before it took them on, [M, H, W].
    """

    modality: str
    training: dict[str, Floats]
    held_out: dict[str, Floats]
    prior: Prior
    public: Floats


def prepare(cohort: Cohort, config: DistillConfig, monitor: Monitor) -> Prepared:
    """Read, check, scale and split a cohort, and make the prior.

    Raises ConfigError where the cohort does not fit the configuration, InputError, which names the
    patient, for one who cannot be distilled.
    """
    if not len(cohort):
        raise InputError("the cohort is empty", "Name patients.")
    _check(cohort.modality, config)  # before minutes of reading
    names = [patient.id for patient in cohort]
    if config.kind_of_prior == "patient" and config.prior.removeprefix(PATIENT) not in names:
        raise ConfigError(f"there is no {config.prior}", f"Patients: {', '.join(names[:10])}.")
    of_each = config.images_per_patient if config.method == "matching" else 0
    least = max(of_each, _LEAST_SLICES)
    volumes: dict[str, list[Floats]] = {}
    modality = ""
    for patient, read in cohort.volumes(least_slices=least, monitor=monitor.part(0.0, 0.9)):
        if not modality:
            modality = read[0].modality
            _check(modality, config)
        parts = [axial_slices(volume, config.images) for volume in read]
        shown = sum(map(len, parts))
        if shown < least:
            raise InputError(
                f"patient {patient.id}: {shown} slices contain tissue; at least {least} are needed",
                "Leave the patient out, or ask for fewer images per patient.",
            )
        volumes[patient.id] = [part for part in parts if len(part)]
    held = held_out(cohort, config)
    if not held:
        monitor.warn("no patient is held out: the audit is limited")
    first = {name: parts[0] for name, parts in volumes.items()}
    if config.kind_of_prior in ("patient", REPRESENTATIVE):
        chosen = config.prior.removeprefix(PATIENT)
        if chosen == REPRESENTATIVE:
            chosen = representative({n: images for n, images in first.items() if n not in held})
        monitor.warn(
            f"the prior is patient {chosen}: every distilled image shows that anatomy, and who "
            "gets the images can recognize it; use the template or a public volume unless this "
            "patient consented"
        )
        images = spread_over(first[chosen], config.images_per_patient)
        prior = Prior(images, config.kind_of_prior, chosen)
    else:
        prior = _public_prior(config, modality, monitor.part(0.9, 1.0))
        _refuse_theirs(prior, volumes)
    training = {n: np.concatenate(parts) for n, parts in volumes.items() if n not in held}
    others = {n: np.concatenate(parts) for n, parts in volumes.items() if n in held}
    public = prior.images
    if config.method == "matching":
        means = mean_over(measure(images, modality) for images in training.values())
        prior = replace(prior, images=imposed(public, means, modality))
    return Prepared(modality, training, others, prior, public)


def _refuse_theirs(prior: Prior, volumes: Mapping[str, Sequence[Floats]]) -> None:
    """Raise ConfigError if an image of the prior equals one of a patient's.

    A prior from a file counts as public: nothing would warn that the patient is exposed.
    """
    known = {image.tobytes() for image in prior.images}
    for name, parts in volumes.items():
        if any(image.tobytes() in known for part in parts for image in part):
            raise ConfigError(
                f"the prior is of patient {name} of the cohort",
                "Use the template, or the file of a public volume, or say that it is theirs: "
                f"patient:{name}.",
            )


def held_out(cohort: Cohort, config: DistillConfig) -> set[str]:
    """Draw patients by the seed; at least two if two are left, because the audit needs two.

    A patient who is named as the prior is not drawn: that one is exposed anyway.
    """
    named = config.prior.removeprefix(PATIENT) if config.kind_of_prior == "patient" else ""
    others = cohort.only(lambda patient: patient.id != named)
    share = config.held_out
    if share > 0 and len(others) >= 2 * _COMPARED:
        share = max(share, _COMPARED / len(others))
    return {patient.id for patient in others.split(share, config.seed)[1]}


def _check(modality: str | None, config: DistillConfig) -> None:
    """Raise ConfigError for what can be checked without images; modality None: not known yet."""
    if modality not in (None, *MODALITIES):
        raise ConfigError(
            f"the cohort is {modality}; distillation supports {' and '.join(MODALITIES)}",
            "Set the modality (--modality) if it is missing in the files or wrong.",
        )
    if config.prior == TEMPLATE and modality == "CT":
        raise ConfigError(
            "there is no public CT template to start from",
            "Name a CT that may be shared (--prior FILE), or a patient who consented to be "
            "recognized (--prior patient:ID).",
        )
    if config.kind_of_prior == "file" and not Path(config.prior).exists():
        raise ConfigError(
            f"the prior {config.prior!r} does not exist",
            "Use template, representative, patient:ID, or the path of a volume.",
        )


def _public_prior(config: DistillConfig, modality: str, monitor: Monitor) -> Prior:
    """Take M images at equal quantiles of the template, or of a volume's file, with a warning."""
    kind, count = config.kind_of_prior, config.images_per_patient
    path = Path(config.prior)
    if kind == TEMPLATE:
        path = resource_folder("samples") / _TEMPLATE_FILE
    else:
        monitor.warn(
            f"the prior is {path.name}: every distilled image shows its anatomy; use a volume that "
            "is public, or whose patient consented"
        )
    volume = io.load(path, modality=modality, monitor=monitor).single()
    images = axial_slices(volume, config.images)
    if not len(images):
        raise InputError(f"{path.name}: no slice contains tissue", "Use another prior.")
    return Prior(spread_over(images, count), kind)


def representative(volumes: Mapping[str, Floats]) -> str:
    """Find the patient with the smallest sum of distances to all others.

    Distances are those of each patient's first volume [N, H, W] as 64³ voxels, and of the length of
    their gradient. Source: design, spg part 2 (reconstructed; without principal components, which
    keep all distances of fewer than 32 patients).
    """
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's own short name

    names, embedded = list(volumes), []
    for images in volumes.values():
        volume, size = torch.from_numpy(np.ascontiguousarray(images))[None, None], (_CUBE,) * 3
        cube = F.interpolate(volume, size, mode="trilinear", align_corners=False)[0, 0].numpy()
        length = np.sqrt(sum(slope**2 for slope in np.gradient(cube)))
        embedded.append(np.concatenate([cube.ravel(), np.asarray(length, np.float32).ravel()]))
    points = np.stack(embedded).astype(np.float64)
    products = points @ points.T
    squares = products.diagonal()
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))
    return names[int(distances.sum(axis=1).argmin())]
