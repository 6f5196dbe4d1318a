"""Is the uncertainty map true? Coverage, each site with the factor of the others.

    python Testing/Benchmarks/uncertainty.py

Volumes are damaged with known noise and enhanced as users do it. The factor between the expected
and the measured errors is fitted on the other sites (MR) or the other patients (CT), and tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Part, Row, run
from _enhancement_data import TEMPLATE, Subject, subject

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Degradation, LowDose, Rician
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.denoise import CALIBRATION
from MedEnhanceLib.noise.estimate import measure_noise

Floats = npt.NDArray[np.float32]

#: Volumes and their sites: a factor is never tested on the site that it was fitted on.
SUBJECTS = {
    "MR": {
        TEMPLATE: "average of 152",
        "mr/open_ms/C19/T1.nii.gz": "open_ms",
        "mr/open_ms/C07/T1.nii.gz": "open_ms",
        "mr/studyforrest/T1.nii.gz": "studyforrest",
        "mr/sts/STS_005/MR_T1.nii.gz": "STS",
        "mr/sts/STS_025/MR_T1.nii.gz": "STS",
    },
    "CT": {f"ct/sts/STS_{n}/CT.nii.gz": n for n in ("008", "013", "019", "025", "037")},
}
if QUICK:
    SUBJECTS = {modality: dict([*names.items()][2:4]) for modality, names in SUBJECTS.items()}
CASES: dict[str, dict[str, Degradation]] = {
    "MR": {f"Rician {p} %": Rician(p / 100, 100 + p) for p in (3, 5, 10, 15)},
    "CT": {f"low dose {d}": LowDose(float(d), 5.0, 100) for d in ("5e3", "2e4", "1e5")},
}
#: Half width of an interval of 90 %, in standard deviations.
_WIDTH = 1.6449
#: Central slices of each subject.
_SLICES = 4 if QUICK else 16


@dataclass(frozen=True)
class Measured:
    """A damaged subject after enhancement: arrays over its tissue, in units of the volume.

    own: σ of the noise that the reference itself has; 0 where it cannot be measured.
    """

    modality: str
    subject: str
    site: str
    case: str
    share: float
    miss: Floats
    deviation: Floats
    own: float
    unit: float


def parts() -> Iterator[Part]:
    for modality in SUBJECTS:
        yield modality, lambda modality=modality: rows_of(measured(modality))


def measured(modality: str) -> Iterator[Measured]:
    for name, site in SUBJECTS[modality].items():
        one = subject(name, SHARED_DATA, _SLICES)
        own = own_noise(one.volume)
        for case, damage in list(CASES[modality].items())[: 1 if QUICK else None]:
            yield measure_one(one, site, own, case, damage)


def own_noise(reference: Volume) -> float:
    """σ of the reference's own noise, 0 where it cannot be separated from anatomy."""
    noise = measure_noise(
        reference.voxels, modality=reference.modality, spacing=reference.geometry.spacing
    )
    return noise.level if noise.confidence >= 0.5 else 0.0


def measure_one(
    one: Subject,
    site: str,
    own: float,
    case: str,
    damage: Degradation,
) -> Measured:
    whole = one.volume if one.whole is None else one.whole
    degraded = damage.apply(whole)
    if one.whole is not None:
        degraded = one.volume.with_voxels(degraded.voxels[one.window])
    config = EnhanceConfig(uncertainty=True, device="cpu")
    result = enhance(degraded, config)
    assert result.uncertainty is not None
    truth = one.volume.voxels.astype(np.float32)
    miss = np.abs(result.volume.voxels - truth)
    facts = result.measured["noise"]
    inside = one.inside
    return Measured(
        one.modality, one.name, site, case, facts["share_removed"], miss[inside],
        result.uncertainty.voxels[inside], own, one.span,
    )  # fmt: skip


def rows_of(measured: Iterator[Measured]) -> Iterator[Row]:
    ours = list(measured)
    factors = {id(one): needed_factor(one) for one in ours}
    for one in ours:
        others = [
            np.log(factors[id(o)]) for o in ours
            if o.site != one.site and (QUICK or (o.share > 0.9 and o.own < 0.5 * rms(o.miss)))
        ]  # fmt: skip
        factor = float(np.exp(np.median(others)))  # beside the shipped one
        yield {
            "modality": one.modality,
            "subject": one.subject,
            "site": one.site,
            "case": one.case,
            "removed": one.share,
            "rms_error": rms(one.miss) / one.unit,
            "rms_sigma": rms(one.deviation) / one.unit,
            "own_noise": one.own / one.unit,
            "coverage": covered(one, 1.0),
            "coverage_other_sites": covered(one, factor),
            "needed": factors[id(one)] * float(CALIBRATION[one.modality]),
        }


def covered(one: Measured, factor: float) -> float:
    """Share of errors in the interval; the reference's own noise makes it wider."""
    width = np.hypot(factor * one.deviation, np.float32(one.own))
    return float((one.miss <= _WIDTH * width).mean())


def needed_factor(one: Measured) -> float:
    """What the map has to be multiplied with, so that it covers 90 %."""
    square = ((one.miss / _WIDTH) ** 2 - one.own**2) / one.deviation**2
    return float(np.sqrt(max(np.quantile(square, 0.9), 0.01)))


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


if __name__ == "__main__":
    run("uncertainty", __doc__, parts, seeds=[100])
