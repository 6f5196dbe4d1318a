"""The shared anatomical prior: the images that everybody's distilled images start from.

Whatever it shows stays recognisable in every result. So by default it is a public average of many
people; a patient of the cohort is taken on request alone, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedEnhanceLib import io
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.spg.config import PATIENT, REPRESENTATIVE, TEMPLATE, DistillConfig, ImageConfig
from MedEnhanceLib.spg.slices import Floats, axial_slices, data_sha256, shown, spread_over

_TEMPLATE_FILE = "mni152_t1.nii.gz"
_CUBE, _COMPONENTS = 64, 32
_QUANTILES = 33
#: What is written about each kind; nothing of it names anybody.
_TOLD = {
    TEMPLATE: "ICBM 2009a, the average of 152 adult brains (T1): no single person",
    REPRESENTATIVE: "the most typical patient of the cohort, whose anatomy all images show",
    "patient": "a patient of the cohort, whose anatomy all images show",
    "file": "a volume that the user gave; who it shows and who may see it is not known here",
}


@dataclass(frozen=True)
class Prior:
    """images: float32 [M, H, W] in [0, 1]. patient: of the cohort, whose anatomy it is, or None;
    never written anywhere. kind, told: what is written.
    """

    images: Floats
    kind: str
    patient: str | None = None

    @property
    def told(self) -> str:
        """A sentence's worth, for card and manifest."""
        return _TOLD[self.kind]

    @property
    def sha256(self) -> str:
        """Of its images."""
        return data_sha256([self.images])


def check_prior(config: DistillConfig, modality: str | None) -> None:
    """Raise ConfigError for a prior that there is not; modality: None where it is not known yet."""
    if config.prior == TEMPLATE and modality == "CT":
        raise ConfigError(
            "there is no public template of CT to start from",
            "Name a CT that may be shared (--prior FILE), or a patient who consented to be "
            "recognised (--prior patient:ID).",
        )
    if config.kind_of_prior == "file" and not Path(config.prior).exists():
        raise ConfigError(
            f"the prior {config.prior!r} is not there",
            "Use template, representative, patient:ID, or the path of a volume.",
        )


def prior_patient(config: DistillConfig, volumes: Mapping[str, Sequence[Floats]]) -> str | None:
    """The patient of the cohort that the configuration's prior is; None for one from elsewhere.

    volumes: images [N, H, W] of each volume of those patients who may be it.
    """
    if config.prior == REPRESENTATIVE:
        return representative(volumes)
    if config.kind_of_prior != "patient":
        return None
    return config.prior.removeprefix(PATIENT)


def make_prior(
    config: DistillConfig,
    modality: str,
    patient: str | None,
    volumes: Mapping[str, Sequence[Floats]],
    monitor: Monitor,
) -> Prior:
    """M images at equal quantiles of the volume that the configuration names.

    patient: as `prior_patient` found. Warns of what a patient or an unknown volume gives away.
    """
    kind, count = config.kind_of_prior, config.images_per_patient
    if patient is not None:
        monitor.warn(
            f"the prior is patient {patient}: every distilled image shows that anatomy, and who "
            "gets the images can recognise it; use the template or a public volume unless this "
            "patient consented"
        )
        return Prior(spread_over(volumes[patient][0], count), kind, patient)
    path = Path(config.prior)
    if kind == TEMPLATE:
        path = resource_folder("samples") / _TEMPLATE_FILE
    else:
        monitor.warn(
            f"the prior is {path.name}: every distilled image shows its anatomy; use a volume that "
            "is public, or whose patient consented"
        )
    volume = io.load(path, modality=modality, monitor=monitor)
    if volume.is_sequence:
        raise InputError(f"{path.name}: {volume.shape[0]} frames", "Give one frame alone.")
    images = axial_slices(volume, config.images)
    if not len(images):
        raise InputError(f"{path.name}: no slice shows anything", "Use another prior.")
    return Prior(spread_over(images, count), kind)


def with_intensities(
    prior: Prior, patients: Iterable[Floats], modality: str, config: ImageConfig
) -> Prior:
    """The prior with the patients' intensities: what it shows is mapped by quantiles.

    patients: images [N, H, W] of each. Of each only 33 numbers are used, and only their mean: no
    patient weighs more than another. Ours: a template of another part of the body, or of another
    sequence, otherwise teaches a network intensities that there are not.
    """
    levels = np.linspace(0, 1, _QUANTILES)
    found = [np.quantile(images[shown(images, modality, config)], levels) for images in patients]
    wanted = np.mean(found, axis=0)
    images = prior.images.copy()
    inside = shown(images, modality, config)
    own = np.quantile(images[inside], levels)
    images[inside] = np.interp(np.interp(images[inside], own, levels), levels, wanted)
    return replace(prior, images=images)


def representative(volumes: Mapping[str, Sequence[Floats]]) -> str:
    """The patient with the smallest sum of distances to all others.

    Distances are those of the first 32 principal components of each patient's first volume as
    64³ voxels, and of the length of their gradient. Source: design, spg part 2 (reconstructed).
    """
    names = list(volumes)
    embedded = np.stack([_embedded(volumes[name][0]) for name in names])
    centred = embedded - embedded.mean(axis=0)
    # The components of few points in many dimensions, by their products with each other.
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    kept = np.argsort(values)[::-1][:_COMPONENTS]
    points = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2).sum(axis=1)
    return names[int(distances.argmin())]


def _embedded(images: Floats) -> Floats:
    """[2 · 64³]: values, then lengths of gradients."""
    cube = images
    for axis in range(3):
        cube = _stretched(cube, axis)
    slopes = np.gradient(cube)
    length = np.sqrt(sum(slope**2 for slope in slopes))
    return np.concatenate([cube.ravel(), np.asarray(length, np.float32).ravel()])


def _stretched(array: Floats, axis: int) -> Floats:
    """64 linear samples along an axis, whatever its length."""
    length = array.shape[axis]
    position = np.clip((np.arange(_CUBE) + 0.5) / _CUBE * length - 0.5, 0, length - 1)
    low = np.floor(position).astype(np.intp)
    share = (position - low).astype(np.float32)
    shape = [1] * array.ndim
    shape[axis] = _CUBE
    share = share.reshape(shape)
    high = np.minimum(low + 1, length - 1)
    sampled: npt.NDArray[np.float32] = (
        array.take(low, axis=axis) * (1 - share) + array.take(high, axis=axis) * share
    )
    return sampled
