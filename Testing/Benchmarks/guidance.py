"""Another series of the same examination as guide: right ones, and guides that are wrong.

    python Testing/Benchmarks/guidance.py

Gaussian noise of known σ is added to one series of a patient whom no training saw; the others guide
it, as they are: on one grid, native (1 mm, interpolated at the source) and averaged to 2 mm. Wrong
guides are measured at 10 % with the first seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import permutations

import _denoising as shared
import numpy as np
from _common import QUICK, SHARED_DATA, Part, Row, run
from _denoising import (
    NETWORK,
    PERCENTS,
    Floats,
    Model,
    Scan,
    run_arm,
)

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load

CONTRASTS = ("T1", "T1POST", "T2", "FLAIR")
PATIENT, OTHER = "C07", "C19"
#: Smaller than the crops without a guide: there are many pairs.
CROP = (12, 32, 32) if QUICK else (24, 72, 72)
SEEDS = (0,) if QUICK else (0, 1)
RIGHT, NONE = "right guide", "no guide"
WRONG_AT = 10
GROUPS = ("2 mm", "1 mm")


@dataclass(frozen=True, eq=False)
class Guided:
    """An input and its guide on the same crop.

    guide: [K, J, I], 0 to 1, NaN where it shows nothing. other: the guide's contrast of another
    patient.
    """

    name: str
    group: str
    scan: Scan
    guide: Floats
    other: Floats

    def wrong(self) -> dict[str, Floats]:
        """Guides that do not show what the volume shows."""
        from scipy.ndimage import shift

        shown = np.nan_to_num(self.guide)
        return {
            "mirrored": np.ascontiguousarray(self.guide[..., ::-1]),
            "shifted 1": shift(shown, (0, 0, 1), order=3, mode="nearest"),
            "other patient": self.other,
        }


def parts() -> Iterator[Part]:
    model = shared.open_model("MR")
    for pair in pairs_of(GROUPS[:1] if QUICK else GROUPS):
        yield f"{pair.group} {pair.name}", partial(pair_rows, pair, model)
        if QUICK:
            break


# --- pairs ----------------------------------------------------------------------------------------


def pairs_of(groups: Iterable[str]) -> Iterator[Guided]:
    """All pairs of series of the patient. groups: "1 mm", "2 mm"."""
    for group in groups:
        for given, guide in permutations(CONTRASTS, 2):
            path = path_of(f"{PATIENT}/{given}")
            scan = shared.scan_of(path, SHARED_DATA, CROP, group == "2 mm")
            # Series of these examinations share a grid, but are up to half a voxel off.
            aligned = registered(path_of(f"{PATIENT}/{guide}"), path)
            if group == "2 mm":
                aligned = shared.mean_of_blocks(aligned, (2, 2, 2))
            right = np.ascontiguousarray(aligned[scan.box])
            wrong = same_grid(f"{OTHER}/{guide}", scan)
            yield Guided(f"{PATIENT} {given} ← {guide}", group, scan, right, wrong)


def path_of(name: str) -> str:
    return f"mr/open_ms/{name}.nii.gz"


def same_grid(name: str, scan: Scan) -> Floats:
    whole, _ = shared.whole_scan(path_of(name), SHARED_DATA, scan.reference == "averaged")
    return np.ascontiguousarray(whole.voxels[scan.box], np.float32)


@lru_cache(maxsize=14)
def registered(guide: str, volume: str) -> Floats:
    """A guide on the grid of a volume, as the product registers it: 0 to 1, NaN outside."""
    from MedEnhanceLib.denoise import guide as product
    from MedEnhanceLib.runtime.progress import Monitor

    moving, fixed = (load(SHARED_DATA / path, modality="MR") for path in (guide, volume))
    voxels: Floats = product.align(moving, fixed, Monitor()).voxels
    return voxels


# --- rows -----------------------------------------------------------------------------------------


def pair_rows(pair: Guided, model: Model) -> Iterator[Row]:
    """No guide and the right guide at each level; further guides at one level."""
    for percent in PERCENTS:
        for seed in SEEDS:
            guides: dict[str, Floats | None] = {NONE: None, RIGHT: pair.guide}
            if percent == WRONG_AT and seed == SEEDS[0]:
                guides |= pair.wrong()
            volume = shared.noisy(pair.scan, "Gaussian", percent, seed)
            for arm, guide in guides.items():
                yield {
                    "subject": pair.name,
                    "group": pair.group,
                    "reference": pair.scan.reference,
                    "case": f"{pair.group}, {percent} %",
                    "percent": percent,
                    "seed": seed,
                    "arm": arm,
                    **shared.origin(model, pair.scan.path),
                    **shared.scores(pair.scan, by_network(volume, percent, model, guide)),
                }


def by_network(volume: Volume, percent: int, model: Model, guide: Floats | None = None) -> Floats:
    noise = shared.true_noise(volume, percent / 100, rician=False)
    return run_arm(NETWORK, volume, noise, model=model, guide=guide)


if __name__ == "__main__":
    run("guidance", __doc__, parts, seeds=SEEDS)
