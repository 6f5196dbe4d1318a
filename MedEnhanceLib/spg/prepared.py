"""A cohort as a distillation needs it: images by patient, who is distilled and who is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import MODALITIES, PATIENT, DistillConfig
from MedEnhanceLib.spg.prior import Prior, check_prior, make_prior, prior_patient, with_intensities
from MedEnhanceLib.spg.slices import Floats, axial_slices, data_sha256

#: Fewer slices than these are nothing to learn a patient from, however few images are wished.
_LEAST_SLICES = 4
#: Patients that the audit compares with at least, where there are as many to distil.
_COMPARED = 2


@dataclass(frozen=True)
class Prepared:
    """training, held_out: images [N, H, W] in [0, 1] by patient, in the cohort's order.

    The prior's patient, where it is one of the cohort, is never held out.
    """

    modality: str
    training: dict[str, Floats]
    held_out: dict[str, Floats]
    prior: Prior

    @property
    def sha256(self) -> str:
        """Of all images, those held out last."""
        return data_sha256([*self.training.values(), *self.held_out.values()])


def prepare(cohort: Cohort, config: DistillConfig, monitor: Monitor) -> Prepared:
    """Read, check, scale and split a cohort, and make the prior.

    Raises ConfigError and InputError for what cannot be distilled, with the patient's name.
    """
    if not len(cohort):
        raise InputError("the cohort is empty", "Name patients.")
    _check(cohort.modality, config)  # before minutes of reading
    if config.kind_of_prior == "patient":
        cohort[config.prior.removeprefix(PATIENT)]
    least = max(config.images_per_patient, _LEAST_SLICES)
    volumes: dict[str, list[Floats]] = {}
    modality = ""
    for patient, read in cohort.volumes(least_slices=least, monitor=monitor.part(0.0, 0.9)):
        if not modality:
            modality = read[0].modality
            _check(modality, config)
        images = [axial_slices(volume, config.images) for volume in read]
        shown = sum(map(len, images))
        if shown < least:
            raise InputError(
                f"patient {patient.id}: {shown} slices show something; at least {least} are needed",
                "Leave the patient out, or ask for fewer images per patient.",
            )
        volumes[patient.id] = [part for part in images if len(part)]
    held = held_out(cohort, config)
    candidates = {name: parts for name, parts in volumes.items() if name not in held}
    chosen = prior_patient(config, candidates)
    prior = make_prior(config, modality, chosen, volumes, monitor.part(0.9, 1.0))
    if chosen is None:
        _refuse_theirs(prior, volumes, config)
    joined = {name: np.concatenate(parts) for name, parts in volumes.items()}
    training = {name: images for name, images in joined.items() if name not in held}
    if config.intensities == "cohort":
        prior = with_intensities(prior, training.values(), modality, config.images)
    if not held:
        monitor.warn(
            "no patient is held out: the audit has nobody to compare with, and can tell little"
        )
    return Prepared(
        modality,
        training,
        {name: images for name, images in joined.items() if name in held},
        prior,
    )


def _refuse_theirs(
    prior: Prior, volumes: Mapping[str, Sequence[Floats]], config: DistillConfig
) -> None:
    """Raise ConfigError where an image of the prior, by pixel, is one of a patient's.

    Nobody would be told that the patient is exposed: it counts as a public volume.
    """
    known = {image.tobytes() for image in prior.images}
    for name, parts in volumes.items():
        if any(image.tobytes() in known for part in parts for image in part):
            covered = ", whom no noise covers" if config.dp else ""
            named = "" if config.dp else f", or say that it is theirs: patient:{name}"
            raise ConfigError(
                f"the prior is of patient {name} of the cohort{covered}",
                f"Use the template, or the file of a public volume{named}.",
            )


def held_out(cohort: Cohort, config: DistillConfig) -> set[str]:
    """Patients drawn by the seed; two at least where two are left, because one is no comparison.

    A patient who is named as the prior does not take part in the draw: that one is exposed anyway.
    """
    named = config.prior.removeprefix(PATIENT) if config.kind_of_prior == "patient" else ""
    others = cohort.only(lambda patient: patient.id != named)
    share = config.held_out
    if share > 0 and len(others) >= 2 * _COMPARED:
        share = max(share, _COMPARED / len(others))
    return {patient.id for patient in others.split(share, config.seed)[1]}


def _check(modality: str | None, config: DistillConfig) -> None:
    """Raise ConfigError for what is no matter of the patients; None: not known yet."""
    if modality not in (None, *MODALITIES):
        raise ConfigError(
            f"the cohort is {modality}; distillation knows {' and '.join(MODALITIES)}",
            "State the modality (--modality) where the files do not, or do wrongly.",
        )
    if config.task == "undersample" and modality == "CT":
        raise ConfigError(
            f"undersample is a task of MR; the cohort is {modality}", "Use denoise, sr2 or sr4."
        )
    check_prior(config, modality)
