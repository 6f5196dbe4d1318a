"""Is the uncertainty map true, and the share of the error that is said to be left?

    python Testing/Benchmarks/uncertainty.py

Volumes are damaged with known noise and enhanced as users do it. The factor between the expected
and the measured errors is fitted on the other sites (MR) or the other patients (CT), and tested.
`CALIBRATION` and, of the rows of MR, `_LEFT` by `_SNR` in MedEnhanceLib.denoise.removal are fitted
to these volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Part, Row, run
from _enhancement_data import TEMPLATE, Case, Subject, subject

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Degradation, LowDose, Rician
from MedEnhanceLib.denoise import EnhanceConfig, enhance
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
    "MR": {f"Rician {p} %": Rician(p / 100, 100 + p) for p in (2, 3, 5, 10, 15)},
    "CT": {f"low dose {d}": LowDose(float(d), 5.0, 100) for d in ("5e3", "2e4", "1e5")},
}
#: Half width of an interval of 90 %, in standard deviations.
_WIDTH = 1.6449
#: Central slices of each subject.
_SLICES = 4 if QUICK else 16


@dataclass(frozen=True)
class Measured:
    """A damaged subject after enhancement: arrays over its tissue, in units of the volume.

    about: of its row, with SNR and the share of the error that is left. share: of the noise that
    was removed, without `CT_SHARE`. own: σ of the noise that the reference itself has; 0 where it
    cannot be measured.
    """

    about: Row
    share: float
    miss: Floats
    deviation: Floats
    own: float

    @property
    def needed_factor(self) -> float:
        """What the map has to be multiplied with, so that it covers 90 %."""
        square = ((self.miss / _WIDTH) ** 2 - self.own**2) / self.deviation**2
        return float(np.sqrt(max(np.quantile(square, 0.9), 0.01)))

    @property
    def is_typical(self) -> bool:
        """Whether factors are fitted to it: its noise was removed, and it has little of its own."""
        error = float(np.sqrt(np.mean(np.square(self.miss, dtype=np.float64))))
        return QUICK or (self.share > 0.9 and self.own < 0.5 * error)

    def covered(self, factor: float) -> float:
        """Share of errors in the interval; the reference's own noise makes it wider."""
        width = np.hypot(factor * self.deviation, np.float32(self.own))
        return float((self.miss <= _WIDTH * width).mean())


def parts() -> Iterator[Part]:
    for modality in SUBJECTS:
        yield modality, lambda modality=modality: rows_of([*measured(modality)])


def measured(modality: str) -> Iterator[Measured]:
    for name, site in SUBJECTS[modality].items():
        known = subject(name, SHARED_DATA, _SLICES)
        own = own_noise(known.volume)
        for case, damage in list(CASES[modality].items())[: 1 if QUICK else None]:
            about = {"modality": modality, "subject": name, "site": site, "case": case}
            yield measure_one(about, known, own, damage)


def own_noise(reference: Volume) -> float:
    """σ of the reference's own noise, 0 where it cannot be separated from anatomy."""
    noise = measure_noise(
        reference.voxels, modality=reference.modality, spacing=reference.geometry.spacing
    )
    return noise.level if noise.confidence >= 0.5 else 0.0


def measure_one(about: Row, known: Subject, own: float, damage: Degradation) -> Measured:
    degraded = known.damaged(Case("", lambda volume, _seed: damage.apply(volume)), 0)
    result = enhance(degraded, EnhanceConfig(uncertainty=True))
    assert result.uncertainty is not None
    miss, before = (
        np.abs(volume.voxels - known.volume.voxels.astype(np.float32))
        for volume in (result.volume, degraded)
    )
    noise = result.measured["noise"]
    share = noise["share_removed"] / noise.get("ct_share", 1)
    left = float(
        np.sqrt(np.square(miss[known.inside]).sum() / np.square(before[known.inside]).sum())
    )
    about |= {"snr": noise.get("snr"), "share": share, "left": left}
    deviation = result.uncertainty.voxels[known.inside]
    return Measured(about, share, miss[known.inside], deviation, own)


def rows_of(ours: list[Measured]) -> Iterator[Row]:
    """Coverage with the factor, beside the shipped one, that the other sites need."""
    for one in ours:
        others = [o for o in ours if o.about["site"] != one.about["site"] and o.is_typical]
        factor = float(np.exp(np.median([np.log(other.needed_factor) for other in others])))
        needed = {"factor": one.needed_factor} if one.is_typical else {}
        yield one.about | needed | {"coverage_other_sites": one.covered(factor)}


if __name__ == "__main__":
    run("uncertainty", __doc__, parts, seeds=[100])
