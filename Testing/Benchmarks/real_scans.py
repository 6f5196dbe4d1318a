"""Raw scans judged without a reference: noise, sharpness, agreement of two halves.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/real_scans.py            writes results
    OMP_NUM_THREADS=1 python Testing/Benchmarks/real_scans.py --quick    few, runs/benchmarks

Noisy scans of several sites as they are, and volumes with known noise, where the judgment itself is
judged. Each is cropped to the middle, so that BM4D takes half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from _agreement import Floats, Halves, Mask, split
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _enhancement_cache import code_hash, run_kept
from _enhancement_catalog import INFERENCE
from _enhancement_data import modality_of
from _enhancement_measures import EDGES, measure_real
from _enhancement_peers import bm4d_ct, bm4d_mr, nlm_ct, nlm_mr, noise_between_slices
from _enhancement_texture import edge_slope
from noise import CT, MR, Case, ct_cases, known_spectrum, mr_cases

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import gaussian_blur, robust_max
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise

Row = dict[str, Any]
#: Scans and where they come from, the noisiest that are at hand of each site.
SCANS = {
    "mr/open_ms/L09/study2_FLAIR.nii.gz": "open_ms",
    "mr/open_ms/L20/study2_FLAIR.nii.gz": "open_ms",
    "mr/open_ms/L20/study2_T1W.nii.gz": "open_ms",
    "mr/open_ms/L03/study2_FLAIR.nii.gz": "open_ms",
    "mr/studyforrest/T1.nii.gz": "Magdeburg",
    "ct/sts/STS_002/CT.nii.gz": "STS",
    "ct/sts/STS_003/CT.nii.gz": "STS",
    "ct/sts/STS_022/CT.nii.gz": "STS",
    "ct/sts/STS_037/CT.nii.gz": "STS",
    "ct/abdomen/CT.nii.gz": "TotalSegmentator",
}
#: Known noise: volumes of noise.py, kinds and levels.
KNOWN_CT = (CT[0], CT[3]), {("CT standard", "25 HU"), ("CT sharp, overlap", "25 HU")}
KNOWN_MR = (MR[0], MR[3], MR[5]), {("MR Rician", "5 %"), ("MR zero-filled", "10 %")}
BOX = (16, 128, 128)
SEEDS = (0, 1, 2, 3)
OURS = "ours"
#: Confidence in the measured noise from which gates rest on a scan.
TRUSTED = 0.5


@dataclass(frozen=True)
class Arm:
    """modalities: how it is run in each. slow: with the first seed alone."""

    name: str
    run: dict[str, Callable[[Volume], Volume]]
    slow: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        return SEEDS[:1] if self.slow else SEEDS


@dataclass(frozen=True, eq=False)
class Scan:
    """A cropped scan with the noise measured in it; clean, truth: where they are known."""

    name: str
    volume: Volume
    noise: NoiseEstimate
    sigma: Floats
    tissue: Mask
    clean: Floats | None = None
    truth: tuple[NoiseEstimate, Floats] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few scans, results in runs/")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    known = [row for scan in known_scans(quick) for row in judged(scan, on_known=True)]
    names = list(SCANS)[:: 5 if quick else 1]
    real = [row for name in names for row in judged(real_scan(name), on_known=False)]
    gates = gates_of(known, real)
    folder = REPOSITORY / "runs" / "benchmarks" if quick else RESULTS
    write("real_scans", gates=gates, rows=[*known, *real], seeds=SEEDS, folder=folder)


# --- scans ----------------------------------------------------------------------------------------


def real_scan(name: str) -> Scan:
    volume = load(SHARED_DATA / name, modality=modality_of(name))
    return cropped(name, volume, measured(volume))


def measured(volume: Volume) -> NoiseEstimate:
    return measure_noise(volume.voxels, modality=volume.modality, spacing=volume.geometry.spacing)


def cropped(name: str, volume: Volume, noise: NoiseEstimate) -> Scan:
    """The middle of what is tissue; the noise is that of the whole scan."""
    where, tissue = middle_of(volume)
    voxels = np.ascontiguousarray(volume.voxels[where], np.float32)
    geometry = Geometry(spacing=volume.geometry.spacing)
    small = replace(volume, voxels=voxels, geometry=geometry, history=())
    return Scan(name, small, noise, noise[:][where], tissue[where])


def middle_of(volume: Volume) -> tuple[tuple[slice, slice, slice], Mask]:
    smooth = gaussian_blur(volume.voxels, 1.5)
    tissue = smooth > (-300 if volume.modality == "CT" else 0.25 * robust_max(smooth))
    box = []
    for axis, side in enumerate(BOX):
        count = volume.shape[axis]
        inside = np.flatnonzero(tissue.any(axis=tuple({0, 1, 2} - {axis})))
        first = int(inside[0] + inside[-1] + 1 - side) // 2
        first = max(0, min(first, count - side))
        box.append(slice(first, min(first + side, count)))
    return (box[0], box[1], box[2]), tissue


def known_scans(quick: bool) -> Iterator[Scan]:
    """Cleaned volumes with noise that was added, measured as real ones are."""
    for make, (names, wanted) in ((ct_cases, KNOWN_CT), (mr_cases, KNOWN_MR)):
        for case in make(names[: 1 if quick else None]):  # type: ignore[operator]
            if (case.kind, case.level) in wanted:
                yield known_scan(case)


def known_scan(case: Case) -> Scan:
    volume = Volume(case.voxels, Geometry(spacing=case.spacing), modality=case.modality)  # type: ignore[arg-type]
    noise = measured(volume)
    scan = cropped(f"{case.name}, {case.kind} {case.level}", volume, noise)
    clean = case.clean[middle_of(volume)[0]]
    inside = case.tissue
    level = np.sqrt(np.square(case.noise[inside].astype(np.float64)).mean())
    found = np.sqrt(np.square(noise[:][inside].astype(np.float64)).mean())
    spectrum = known_spectrum(case).astype(np.float32)
    factor = np.float32(level / found)
    truth = replace(noise, spectrum=spectrum, level=noise.level * float(factor))
    tissue = scan.tissue
    if case.modality == "MR":  # elsewhere the mean of magnitudes is not the signal
        tissue = tissue & (clean > 0.25 * robust_max(clean))
    return replace(scan, clean=clean, tissue=tissue, truth=(truth, scan.sigma * factor))


# --- judging --------------------------------------------------------------------------------------


def arms() -> list[Arm]:
    def ours(**chosen: Any) -> dict[str, Callable[[Volume], Volume]]:
        run = partial(enhanced, **chosen)
        return {"MR": run, "CT": run}

    blurred = {"MR": smoothed, "CT": smoothed}
    return [
        Arm(OURS, ours()),
        Arm("ours, full strength", ours(strength="full")),
        Arm("Gaussian", blurred),
        Arm("NLM", {"MR": nlm_mr, "CT": nlm_ct}, slow=True),
        Arm("BM4D", {"MR": bm4d_mr, "CT": bm4d_ct}, slow=True),
    ]


def enhanced(volume: Volume, **chosen: Any) -> Volume:
    """Noise alone: what else is corrected would count as an error here."""
    return enhance(volume, EnhanceConfig(task="noise", device="cpu", **chosen)).volume


def smoothed(volume: Volume) -> Volume:
    return volume.with_voxels(gaussian_blur(volume.voxels, 1.0))


def judged(scan: Scan, *, on_known: bool) -> Iterator[Row]:
    """One row for each arm; errors as shares of the noise's power in what the arm was given."""
    halves = {seed: split(scan.volume.voxels, scan.noise, scan.sigma, scan.tissue, seed)
              for seed in SEEDS}  # fmt: skip
    informed = {}
    if scan.truth is not None:
        noise, sigma = scan.truth
        informed = {s: split(scan.volume.voxels, noise, sigma, scan.tissue, s) for s in SEEDS}
    paired: dict[int, float] = {}
    for arm in arms():
        if on_known and arm.name.startswith("ours,"):
            continue
        errors, true, row = {}, [], heading(scan, arm)
        for seed in arm.seeds:
            result, seconds = run_on(arm, scan, halves[seed])
            errors[seed] = halves[seed].error_of(result) / halves[seed].error_before
            if seed == SEEDS[0]:
                row |= look_of(scan, halves[seed].first, result)
                row["cpu_s"] = round(seconds, 2)
            if scan.clean is not None:
                given = square(halves[seed].first - scan.clean, scan.tissue)
                true.append(square(result - scan.clean, scan.tissue) / given)
        if arm.name == OURS:
            paired = errors
        # The error that all results share by chance is known better from ours, with all seeds.
        less = float(np.mean([errors[seed] - paired[seed] for seed in arm.seeds]))
        row["error"] = round(less + float(np.mean(list(paired.values()))), 4)
        row["less_ours"] = round(less, 4)
        if true:
            row["true"] = round(float(np.mean(true)), 4)
        if informed and not arm.slow:
            shares = [half.error_of(run_on(arm, scan, half)[0]) / half.error_before
                      for half in informed.values()]  # fmt: skip
            row["error_informed"] = round(float(np.mean(shares)), 4)
        print(row, flush=True)
        yield row


def run_on(arm: Arm, scan: Scan, half: Halves) -> tuple[Floats, float]:
    run = arm.run[scan.volume.modality]
    settings = f"real scans {arm.name} {code_hash(*INFERENCE, '_enhancement_peers.py')}"
    return run_kept(run, settings, scan.volume.with_voxels(half.first), keep=arm.slow)


def look_of(scan: Scan, given: Floats, result: Floats) -> Row:
    """Noise left and steepness of strong edges, as shares of what the arm was given."""
    if scan.volume.modality == "MR":
        return measure_real(scan.volume.with_voxels(given), result)
    left, before = (noise_between_slices(v, scan.tissue) for v in (result, given))
    slope = edge_slope(given, result, scan.tissue, EDGES["CT"]["strong"])
    return {"noise_left": left / before, "edge_slope_strong": slope}


def square(difference: Floats, tissue: Mask) -> float:
    return float(np.square(difference[tissue].astype(np.float64)).mean())


def heading(scan: Scan, arm: Arm) -> Row:
    unit = 1.0 if scan.volume.modality == "CT" else robust_max(scan.volume.voxels) / 100
    row: Row = {
        "scan": scan.name,
        "modality": scan.volume.modality,
        "arm": arm.name,
        "sigma": round(scan.noise.level / unit, 2),
        "unit": "HU" if scan.volume.modality == "CT" else "%",
        "confidence": round(scan.noise.confidence, 2),
    }
    if scan.truth is not None:
        row["sigma_to_truth"] = round(scan.noise.level / scan.truth[0].level, 3)
    else:
        row["site"] = SCANS[scan.name]
    return row


# --- results


def gates_of(known: list[Row], real: list[Row]) -> list[Row]:
    """The estimate against the truth; then ours against each other arm."""
    wrong = [abs(r["error_informed"] - r["true"]) for r in known if "error_informed" in r]
    truth = {row["scan"]: row["true"] for row in known if row["arm"] == OURS}
    others = [row for row in known if row["arm"] != OURS]
    apart = [abs(r["less_ours"] - (r["true"] - truth[r["scan"]])) for r in others]
    found = [
        gate("known noise: estimate with the true noise against the truth, mean difference",
             float(np.mean(wrong)), "≤ 0.02", float(np.mean(wrong)) <= 0.02),
        gate("known noise: distance between arms, estimated from the scan alone, mean difference",
             float(np.mean(apart)), "≤ 0.05", float(np.mean(apart)) <= 0.05),
    ]  # fmt: skip
    sure = [row for row in real if row["confidence"] >= TRUSTED]
    most = max((row["error"] for row in sure if row["arm"] == OURS), default=None)
    name = "real scans of certain noise: error of ours, most (1: as the scan)"
    found.append(gate(name, most, "< 1", most is not None and most < 1))
    for arm in ("Gaussian", "NLM", "BM4D"):
        less = [row["less_ours"] for row in sure if row["arm"] == arm]
        mean = float(np.mean(less)) if less else None
        name = f"real scans of certain noise: error of {arm} less that of ours, mean"
        found.append(gate(name, mean, "≥ 0", mean is not None and mean >= 0))
    return found


if __name__ == "__main__":
    main()
