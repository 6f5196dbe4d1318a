"""Prepares a cohort for a distillation: its statistics, the held-out patients, and the prior.

All distilled volumes start from the same prior, and its anatomy stays recognizable in every result.
So by default it is nobody's: random shapes with the spacing of the cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.synthetic import synthetic_volume
from MedEnhanceLib.training.spg.audit.significance import ALPHA, smallest_rank_sum_p, tarone_level
from MedEnhanceLib.training.spg.cohort import Cohort, slice_hashes
from MedEnhanceLib.training.spg.config import (
    FEWEST_AUDITED,
    MODALITIES,
    SYNTHETIC,
    DistillConfig,
)
from MedEnhanceLib.training.spg.images import data_sha256, framed, windowed, with_tissue
from MedEnhanceLib.training.spg.readme import NO_LICENSE, few_patients
from MedEnhanceLib.training.spg.statistics import Statistics, imposed, mean_over, measure, spacings

#: Fewest slices of a patient that must show tissue.
_LEAST_SLICES = 4
#: Published description of each kind of prior; names nobody.
DESCRIPTIONS = {
    SYNTHETIC: "random shapes and textures, drawn without any patient",
    "file": "a volume that the user gave; who it shows and who may see it is not known here",
}


@dataclass(frozen=True)
class Brick:
    """A volume of a patient or of a set.

    Attributes:
        voxels: float32 [K, J, I] in [0, 1].
        spacing_mm: along columns, rows and slices (I, J, K).
        is_clean: whether it has no noise of its own.
    """

    voxels: Floats
    spacing_mm: tuple[float, float, float]
    is_clean: bool = False

    @classmethod
    def of(cls, volume: Volume) -> Brick:
        """Scale a volume; may raise InputError."""
        return cls(windowed(volume), volume.geometry.spacing)


@dataclass(frozen=True)
class PatientData:
    """Data kept of a patient.

    Attributes:
        slices: float32 [N, side, side], the middle of each slice that shows something, for the
            audit.
        spacing_mm: of slices and of pixels.
        sha256: of all voxels.
    """

    slices: Floats
    statistics: Statistics
    spacing_mm: tuple[float, float]
    sha256: str


@dataclass(frozen=True)
class Prior:
    """Start of all distilled volumes, float32 [M, K, J, I] in [0, 1]; with the statistics.

    Attributes:
        spacing_mm: of slices and of pixels, for each.
        kind: see `DistillConfig.kind_of_prior`.
    """

    volumes: Floats
    spacing_mm: tuple[tuple[float, float], ...]
    kind: str


@dataclass(frozen=True)
class Prepared:
    """A cohort and the prior, ready to be distilled.

    Attributes:
        training: by name, in the cohort's order.
        held_out: patients kept for the audit, likewise.
        means: over the training patients.
        read: patient's name → volumes.
    """

    modality: str
    training: dict[str, PatientData]
    held_out: dict[str, PatientData]
    means: Statistics
    prior: Prior
    read: Callable[[str], list[Brick]]

    @property
    def data_sha256(self) -> str:
        """Hash of all patients' voxels."""
        everybody = [*self.training.values(), *self.held_out.values()]
        return data_sha256(np.frombuffer(p.sha256.encode(), np.uint8) for p in everybody)


def prepare(cohort: Cohort, config: DistillConfig, monitor: Monitor) -> Prepared:
    """Read, check, measure and split a cohort, and make the prior.

    Args:
        cohort: the patients.
        config: decides who is held out, and the prior.
        monitor: receives progress.
    Raises ConfigError if the cohort does not fit the configuration, InputError, with the patient's
    name, for a patient who cannot be distilled.
    """
    if not len(cohort):
        raise InputError("the cohort is empty", "Name patients.")
    _check(cohort.modality, config)  # before minutes of reading
    modality, everybody, keys = _read(cohort, config, monitor.part(0.0, 0.3))
    monitor.log(plan_text(len(cohort), config))
    held = held_out(cohort, config)
    training = {name: data for name, data in everybody.items() if name not in held}
    means = mean_over(data.statistics for data in training.values())
    count = config.volumes
    if config.method == "matching":
        count = max(1, count // len(training))
    spacing = spacings([data.spacing_mm for data in training.values()], count)
    prior = _prior(config, modality, spacing, keys, monitor.part(0.3, 1.0))
    volumes = imposed(prior.volumes, means, modality)

    def volumes_of(name: str) -> list[Brick]:
        (patient,) = cohort.only(lambda p: p.id == name)
        return [Brick.of(volume) for volume in patient.volumes(modality=cohort.modality)]

    return Prepared(
        modality,
        training,
        {name: data for name, data in everybody.items() if name in held},
        means,
        Prior(volumes, prior.spacing_mm, prior.kind),
        volumes_of,
    )


def _read(
    cohort: Cohort, config: DistillConfig, monitor: Monitor
) -> tuple[str, dict[str, PatientData], dict[bytes, str]]:
    """Read and measure all patients.

    Returns the modality, the data kept of each patient, and, for a prior from a file, the patient
    of each slice by `slice_hashes`.
    """
    everybody: dict[str, PatientData] = {}
    keys: dict[bytes, str] = {}
    modality = ""
    for patient, read in cohort.volumes(least_slices=_LEAST_SLICES, monitor=monitor):
        modality = read[0].modality
        _check(modality, config)
        everybody[patient.id] = _measured(patient.id, read, config)
        if config.kind_of_prior == "file":
            for volume in read:
                keys |= dict.fromkeys(slice_hashes(windowed(volume), least=0), patient.id)
    return modality, everybody, keys


def _measured(name: str, volumes: list[Volume], config: DistillConfig) -> PatientData:
    """Measure a patient; InputError if too few slices show tissue."""
    modality = volumes[0].modality
    scaled = [windowed(volume) for volume in volumes]
    slices = [with_tissue(framed(each, config.size.side), modality) for each in scaled]
    count = sum(map(len, slices))
    if count < _LEAST_SLICES:
        raise InputError(
            f"patient {name}: {count} slices contain tissue; at least {_LEAST_SLICES} are needed",
            "Leave the patient out.",
        )
    noises = [
        measure_noise(each, modality=modality, spacing=volume.geometry.spacing)
        for each, volume in zip(scaled, volumes, strict=True)
    ]
    i, j, k = np.median([volume.geometry.spacing for volume in volumes], axis=0)
    return PatientData(
        np.concatenate(slices),
        measure(scaled, modality, noises),
        (float(k), float(np.sqrt(i * j))),
        data_sha256(volume.voxels for volume in volumes),
    )


def held_out(cohort: Cohort, config: DistillConfig) -> set[str]:
    """Draw patients by the seed, as many as `DistillConfig.count_held_out` says."""
    share = config.count_held_out(len(cohort)) / len(cohort)
    return {patient.id for patient in cohort.split(share, config.seed)[1]}


def plan_text(patients: int, config: DistillConfig) -> str:
    """Say before a distillation how many patients it has, what its audit can find, and its license.

    The license is mentioned where there is none.
    """
    texts = [f"Patients in the cohort: {patients}.", *_audit_texts(patients, config)]
    return " ".join(filter(None, [*texts, "" if config.license else NO_LICENSE]))


def _audit_texts(patients: int, config: DistillConfig) -> list[str]:
    held = config.count_held_out(patients)
    if config.method == "statistics":
        return [few_patients(patients)]
    if not held:
        least = 2 * FEWEST_AUDITED
        return [f"Nobody is held out for an audit, which needs {least} patients or more."]
    p = smallest_rank_sum_p(patients - held, held)
    is_blunt = p > tarone_level([0.0, p, p], ALPHA)  # as `audit` has it
    limit = "With so few, the audit can find copied slices at best." if is_blunt else ""
    return [f"Held out for the audit: {held}.", limit]


def _check(modality: str | None, config: DistillConfig) -> None:
    """Raise ConfigError for what can be checked without images; modality None: not known yet."""
    if modality not in (None, *MODALITIES):
        raise ConfigError(
            f"the cohort is {modality}; distillation supports {' and '.join(MODALITIES)}",
            "Set the modality (--modality) if it is missing in the files or wrong.",
        )
    if config.kind_of_prior == "file" and not Path(config.prior).exists():
        raise ConfigError(
            f"the prior {config.prior!r} does not exist",
            "Use synthetic, or the path of a volume.",
        )


def _prior(
    config: DistillConfig,
    modality: str,
    spacing: list[tuple[float, float]],
    patients: Mapping[bytes, str],
    monitor: Monitor,
) -> Prior:
    """Draw synthetic volumes, or cut a volume's file, with a warning.

    Raises ConfigError if a slice of the file is in `patients` (by `slice_hashes`): a prior from a
    file counts as public, and nothing would warn that the patient is exposed.
    """
    kind, size = config.kind_of_prior, config.size
    if kind == SYNTHETIC:
        return Prior(_synthetic(config, modality, spacing, monitor), tuple(spacing), kind)
    path = Path(config.prior)
    monitor.warn(
        f"the prior is {path.name}: every distilled volume shows its anatomy; use a volume that is "
        "public, or whose patient consented"
    )
    public = io.load(path, modality=modality, monitor=monitor).single()
    whole = windowed(public)
    owners = {patients[key] for key in slice_hashes(whole, least=0) if key in patients}
    if owners:
        raise ConfigError(
            f"the prior is of patient {min(owners)} of the cohort",
            "Use the prior synthetic, or the file of a public volume.",
        )
    slices = with_tissue(framed(whole, size.side), modality)
    if not len(slices):
        raise InputError(f"{path.name}: no slice contains tissue", "Use another prior.")
    count, depth = len(spacing), min(size.slices, len(slices))
    starts = np.linspace(0, len(slices) - depth, count).round().astype(int)
    i, j, k = public.geometry.spacing
    boxes = np.stack([slices[start : start + depth] for start in starts])
    return Prior(boxes, ((k, float(np.sqrt(i * j))),) * count, kind)


def _synthetic(
    config: DistillConfig, modality: str, spacing: list[tuple[float, float]], monitor: Monitor
) -> Floats:
    """Draw a synthetic volume for each spacing of slices and of pixels, [M, K, J, I]."""
    size, volumes = config.size, []
    for number, (slice_mm, pixel_mm) in enumerate(spacing):
        monitor.progress(number / len(spacing), "drawing synthetic volumes")
        volume = synthetic_volume(
            profile_of(modality).like,
            config.seed * 10_000 + number,
            shape=(size.slices, size.side, size.side),
            spacing=(slice_mm, pixel_mm, pixel_mm),
        )
        volumes.append(windowed(volume))
    return np.stack(volumes)
