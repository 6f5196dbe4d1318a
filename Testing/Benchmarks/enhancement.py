"""Enhancement against its input and classical peers, with simulated noise.

    python Testing/Benchmarks/enhancement.py

Pairs are made here: the central slices of a volume are the reference, their damaged copy the input.
Arms see the input alone. Results of slow peers are kept in runs. A peer that is not installed is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Gate, Part, Row, gate, run
from _enhancement_data import (
    CASES,
    Case,
    Floats,
    Mask,
    Subject,
    modality_of,
    run_kept,
    subject,
    subject_names,
)
from _enhancement_lesions import contrast_kept, damaged_with_lesions, plant
from _enhancement_peers import bm4d_ct, bm4d_mr, nlm_ct, nlm_mr
from _enhancement_statistics import Difference, difference, difference_gate, mean_of
from scipy.ndimage import binary_dilation

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance

PLANTED = "planted lesions"
SLICES, SEED = 5 if QUICK else 12, 0
#: BM4D with the σ that was added: what it could reach with a perfect estimate.
INFORMED = "BM4D, true σ"
#: What is left alone to the last bit would count as infinite in a mean.
_MOST_DB = 99.0
Arm = Callable[[Volume], Volume]


def parts() -> Iterator[Part]:
    names = subject_names(SHARED_DATA)
    for name in names[1::3] if QUICK else names:
        for case in CASES[modality_of(name)][: 1 if QUICK else None]:
            yield f"{name} {case.name}", partial(on_damage, name, case)
        if modality_of(name) == "MR":
            yield f"{name} {PLANTED}", partial(on_lesions, name)


def arms_of(known: Subject, case: Case) -> Iterator[tuple[str, Arm, str]]:
    """Name, method, and for slow ones the name that their results are kept by."""
    is_mr = known.modality == "MR"
    yield "input", lambda volume: volume, ""
    yield "NLM", nlm_mr if is_mr else nlm_ct, f"NLM {known.modality} 1"
    # All of the noise, as the peers; what the default of CT keeps: faint_lesions.py.
    yield "ours", ours, ""
    if find_spec("bm4d"):
        yield "BM4D", bm4d_mr if is_mr else bm4d_ct, f"BM4D {known.modality} 1"
        if case.noise is not None:
            sigma = case.noise * robust_max(known.volume.voxels)
            yield INFORMED, partial(bm4d_mr, sigma=sigma), "BM4D MR true 1"


def ours(volume: Volume) -> Volume:
    """Enhance; of CT for viewing."""
    return enhance(volume, EnhanceConfig(for_viewing=volume.modality == "CT")).volume


# --- rows


def on_damage(name: str, case: Case) -> Iterator[Row]:
    """All arms on one damaged volume, on one thread, as BM4D."""
    known = subject(name, SHARED_DATA, SLICES)
    degraded = known.damaged(case, SEED)
    for arm, method, shelf in arms_of(known, case):
        result, _ = run_kept(method, shelf, degraded, keep=bool(shelf))
        yield heading(known, case.name, arm) | measured(known, result)


def on_lesions(name: str) -> Iterator[Row]:
    """What becomes of planted lesions, in the first case."""
    known = subject(name, SHARED_DATA, SLICES)
    case = CASES[known.modality][0]
    degraded = known.damaged(case, SEED)
    added, lesions = plant(known, SEED)
    planted = damaged_with_lesions(known, case, SEED, degraded, added)
    without, present = (ours(volume).voxels for volume in (degraded, planted))
    kept = contrast_kept(without, present, lesions)
    yield heading(known, PLANTED, "ours") | {"planted_kept": [round(share, 3) for share in kept]}


def heading(known: Subject, case: str, arm: str) -> Row:
    about = {"subject": known.name, "modality": known.modality}
    return about | {"case": case, "seed": SEED, "arm": arm}


def measured(known: Subject, result: Floats) -> Row:
    """PSNR, and contrast of real lesions."""
    row: Row = {
        f"psnr_{region}": min(
            metrics.psnr(known.volume.voxels, result, known.span, mask=mask), _MOST_DB
        )
        for region, mask in (("image", None), ("foreground", known.inside))
    }
    if known.lesion is not None and known.lesion.any():
        shown, true = (_contrast(v, known.lesion, known.inside) for v in
                       (result, known.volume.voxels))  # fmt: skip
        row["lesion_contrast_kept"] = shown / true
    return row


def _contrast(voxels: npt.NDArray[Any], lesion: Mask, inside: Mask) -> float:
    """Mean of the lesions less that of the tissue 2 to 3 voxels around them."""
    near = binary_dilation(lesion, iterations=1)
    ring = binary_dilation(near, iterations=2) & ~near & inside
    return float(voxels[lesion].mean()) - float(voxels[ring].mean())


# --- goals

#: dB over BM4D that are wanted, and why they are missed.
OVER_BM4D = {
    "MR": (0.5, "at weak noise in finely resolved brains BM4D, which is given the true σ, is "
                "better"),
    "CT": (0.8, "BM4D is given the spectrum of the simulated noise"),
}  # fmt: skip


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Goals, each with its interval where it is a difference."""
    for modality, (bound, why) in OVER_BM4D.items():
        gains = [
            (gain, peer)
            for case in CASES[modality]
            for peer in ("BM4D", INFORMED)
            if (gain := _lead(rows, case.name, peer)) is not None
        ]
        gain, peer = min(gains, key=lambda entry: entry[0].mean, default=(None, "BM4D"))
        name = f"{modality}: above {peer}, PSNR, dB, least over levels of noise"
        is_met = gain is not None and gain.mean >= bound
        reason = "BM4D is not installed" if gain is None else why
        yield difference_gate(name, gain, f"≥ {bound:g}", is_met, reason)
    brains = [row for row in rows if row["arm"] == "ours" and row["modality"] == "MR"]
    planted = [share for row in brains for share in row.get("planted_kept", ())]
    real = [mean_of(brains, "lesion_contrast_kept", case=case.name) for case in CASES["MR"]]
    means = [float(np.mean(planted)) if planted else None, *real]
    kept = [value for value in means if value is not None]
    # Contrast is neither to be lost nor made up.
    yield gate(
        "MR: lesions, planted (mean) and real (C07), contrast kept, farthest level of noise",
        max(kept, key=lambda value: abs(value - 1), default=None), "0.92 to 1.1",
        bool(kept) and 0.92 <= min(kept) <= max(kept) <= 1.1,
        "strong noise hides the smallest lesions",
    )  # fmt: skip


def _lead(rows: list[Row], case: str, peer: str) -> Difference | None:
    return difference(rows, "psnr_foreground", [(case, "ours", peer)])


if __name__ == "__main__":
    run("enhancement", __doc__, parts, gates_of, seeds=[SEED])
