"""The removal of noise without a guide: network, filter and classical peers.

    python Testing/Benchmarks/denoising.py --model runs/mr --ct-model runs/ct --write
    python Testing/Benchmarks/denoising.py --quick                 the filter alone, small crops
    PYTHONPATH=/tmp/bm4d python Testing/Benchmarks/denoising.py --parts peers --model runs/mr

Noise that is known is added to crops of references. BM4D (`pip install --target /tmp/bm4d --no-deps
bm4d`; its license: non-commercial use) takes 160 CPU s per million voxels, non-local means 23: all
arms meet them on smaller crops of fewer volumes, and the results of BM4D are kept in runs/. Each
row says what of the volume's origin the model's card lists among its training data.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import product
from typing import Any

import _denoising as shared
import numpy as np
from _common import gate
from _denoising import FILTER, NETWORK, ROUND, Made, Model, Row, Scan, gain_gate, run_arm
from _enhancement_data import CASES, CT_SUBJECTS, TEMPLATE, Subject, ct_subject
from _enhancement_lesions import damaged_with_lesions, plant
from _enhancement_statistics import Gate, chosen
from _enhancement_texture import compare_spectra
from _enhancement_visibility import detectability
from harm import observer, score

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.denoise import removal_of
from MedEnhanceLib.io import load

#: Volumes and whether an averaged copy is measured too.
MR_SCANS = {
    TEMPLATE: False,
    **{f"mr/open_ms/{p}/{c}.nii.gz": True for p in ("C07", "C19") for c in ("T1", "T2", "FLAIR")},
    "mr/studyforrest/T1.nii.gz": True,
    "mr/open_ms/L09/study2_FLAIR.nii.gz": True,
    "mr/open_ms/L20/study2_FLAIR.nii.gz": True,
    "mr/open_ms/L20/study2_T1W.nii.gz": True,
    **{f"mr/sts/STS_{n:03d}/MR_T1.nii.gz": False for n in (3, 10, 12, 38)},
}
#: Those that classical peers are measured on.
FOR_PEERS = (TEMPLATE, "C07 T1, averaged", "C19 T2, averaged", "studyforrest T1",
             "L20 study2_T1W", "STS_012 MR_T1")  # fmt: skip
PEER_PERCENTS = (5, 10)
CT_CASES = CASES["CT"][:2]
_CT_SLICES, _CT_SIDE = 12, 256
#: dB and SSIM over the filter that are wanted, by level of noise.
OVER_FILTER = {5: (0.12, 0.008), 10: (0.15, 0.02), 15: (0.17, 0.03)}
MR, PEERS, CT, LESIONS = "MR", "peers", "CT", "CT lesions"
TRUE, MEASURED = "true σ", "measured σ"
#: Noise of a simulated acquisition, beside noise that is added voxel by voxel.
SCANNER = "scanner"
BM4D, BETTER = "BM4D", "BM4D, the better"


def main() -> None:
    parser = shared.parser_of(__doc__, seeds=(0, 1, 2))
    parser.add_argument("--ct-model", help="name or folder of a CT enhancer; none: filter alone")
    parser.add_argument("--parts", nargs="+", choices=(MR, PEERS, CT), default=[MR, PEERS, CT])
    parser.add_argument("--kinds", nargs="+", default=["Gaussian", "Rician", SCANNER])
    options = shared.settled(parser)
    model = shared.open_model(options.model, "MR")
    ct_model = shared.open_model(options.ct_model, "CT")
    rows = mr_rows(options, model) if MR in options.parts else []
    if rows and options.pictures:
        pictures(rows, options, model)
    rows += peer_rows(options, model) if PEERS in options.parts else []
    rows += ct_rows(options, ct_model) if CT in options.parts else []
    figures = ("psnr", "ssim", "nps_shape_distance", "cpu_s_per_mvoxel", "kept")
    shared.table(rows, ("part", "case", "reference", "arm"), figures)
    shared.finish("denoising", rows, gates_of, options)


# --- MR -------------------------------------------------------------------------------------------


def mr_scans(options: argparse.Namespace, crop: Sequence[int]) -> Iterator[Scan]:
    for path, is_averaged in MR_SCANS.items():
        for averaged in (False, True)[: 1 + is_averaged]:
            if shared.is_chosen(path, options):
                yield shared.scan_of(path, options.data, crop, averaged)


def mr_rows(options: argparse.Namespace, model: Model | None) -> list[Row]:
    rows: list[Row] = []
    cases = list(product(options.kinds, options.percents, options.seeds))
    for scan in mr_scans(options, options.crop):
        for kind, percent, seed in cases:
            rows += mr_case(scan, kind, percent, seed, ("input", FILTER, ROUND, NETWORK), model)
    return rows


def peer_rows(options: argparse.Namespace, model: Model | None) -> list[Row]:
    """Classical peers beside filter and network, on the same small crops."""
    arms = ["input", "non-local means", *([BM4D] if find_spec("bm4d") else []), FILTER, NETWORK]
    scans = [scan for scan in mr_scans(options, shared.SMALL_CROP) if scan.name in FOR_PEERS]
    rows: list[Row] = []
    for scan in scans[:1] if options.quick else scans:
        for percent in set(PEER_PERCENTS) & set(options.percents):
            found = list(mr_case(scan, "Gaussian", percent, options.seeds[0], arms, model))
            both = chosen(found, arm=BM4D)
            best = max(both, key=lambda row: row["psnr"], default={})
            found += [row | best | {"arm": BETTER, "case": row["case"]} for row in both]
            rows += found
    return [row | {"part": PEERS} for row in rows]


def mr_case(
    scan: Scan, kind: str, percent: int, seed: int, arms: Sequence[str], model: Model | None
) -> Iterator[Row]:
    """All arms on one noisy crop, with the true and with the measured σ."""
    if kind == SCANNER:
        scan, volume, truth = shared.scanned(scan, percent, seed)
    else:
        volume = shared.noisy(scan, kind, percent, seed)
        truth = shared.true_noise(volume, percent / 100, rician=kind == "Rician")
    measured, sigma = shared.measured_noise(volume), truth.level
    removal = removal_of(measured, "MR")
    for which, noise, share in ((TRUE, truth, 1.0), (MEASURED, removal.noise, removal.share)):
        for arm in arms:
            is_once = which == MEASURED and arm in ("input", "non-local means", ROUND)
            if is_once or (arm == NETWORK and model is None):
                continue
            given = sigma if which == TRUE else None
            made = run_arm(arm, volume, noise, share=share, model=model, sigma=given)
            yield {
                "part": MR,
                "subject": scan.name,
                "reference": scan.reference,
                "case": f"{kind} {percent} %, {which}",
                "noise": SCANNER if kind == SCANNER else "white",
                "percent": percent,
                "seed": seed,
                "arm": arm,
                **shared.origin(model, scan.path),
                "sigma_over_true": round(noise.level / sigma, 3),
                **shared.scores(scan, made),
            }


def pictures(rows: list[Row], options: argparse.Namespace, model: Model | None) -> None:
    """Gains of the network (without one, of one more round) over the filter."""
    ours, kind, seed = NETWORK if model else ROUND, options.kinds[0], options.seeds[0]
    same = chosen(rows, case=f"{kind} 10 %, {TRUE}", seed=seed)
    psnr = {(row["subject"], row["arm"]): row["psnr"] for row in same}
    scans = {scan.name: scan for scan in mr_scans(options, options.crop)}

    def panels(name: str) -> dict[str, Any]:
        volume, clean = shared.noisy(scans[name], kind, 10, seed), scans[name].volume.voxels
        noise = shared.true_noise(volume, 0.1, rician=kind == "Rician")
        before, after = (run_arm(a, volume, noise, model=model).voxels for a in (FILTER, ours))
        return {"noisy": volume.voxels, FILTER: before, ours: after, "reference": clean,
                f"{ours} − {FILTER}": after - before, f"{FILTER} − reference": before - clean,
                f"{ours} − reference": after - clean}  # fmt: skip

    gain = {name: psnr[name, ours] - psnr[name, FILTER] for name, arm in psnr if arm == ours}
    shared.draw(options.pictures / "denoising.png", gain, panels)


# --- CT -------------------------------------------------------------------------------------------


def ct_subjects(options: argparse.Namespace) -> Iterator[tuple[str, str, Subject]]:
    """Central slices, plain, and averaged two by two, which makes a low-noise reference."""
    most = 6 if options.quick else _CT_SLICES
    for path in [path for path in CT_SUBJECTS if shared.is_chosen(path, options)]:
        scan = load(options.data / path, modality="CT")
        sides = (2 * most, _CT_SIDE, _CT_SIDE)
        starts = [max(0, (n - side) // 2) for n, side in zip(scan.shape, sides, strict=True)]
        parts = [slice(first, first + side) for first, side in zip(starts, sides, strict=True)]
        scan = scan.crop(*parts)
        middle = max(0, (scan.shape[0] - most) // 2)
        plain = scan.crop(k=slice(middle, middle + most))
        yield path, "plain", ct_subject(shared.short_name(path), plain)
        thick = shared.shrunk(scan, (2, 1, 1))
        yield path, "averaged", ct_subject(shared.short_name(path, averaged=True), thick)


def ct_rows(options: argparse.Namespace, model: Model | None) -> list[Row]:
    """Low dose, the noise's map and spectrum measured; and faint lesions at the lower one."""
    rows: list[Row] = []
    for path, reference, known in ct_subjects(options):
        head = {"subject": known.name, "volume": known.name, "reference": reference,
                **shared.origin(model, path)}  # fmt: skip
        for case, seed in product(CT_CASES, options.seeds):
            rows += [head | row for row in ct_case(known, case, seed, model)]
        rows += [head | row for row in ct_lesions(known, options.seeds[0], model)]
    return rows


def ct_case(known: Subject, case: Any, seed: int, model: Model | None) -> Iterator[Row]:
    degraded, clean = known.damaged(case, seed), known.volume.voxels
    flat, pixel = known.regions["flat"], known.volume.geometry.spacing[0]
    for arm in ("input", FILTER, NETWORK)[: 3 if model else 2]:
        made = ct_arm(arm, degraded, model)
        texture = compare_spectra(made.voxels - clean, degraded.voxels - clean, flat, pixel)
        head = {"part": CT, "case": case.name, "seed": seed, "arm": arm}
        yield head | shared.scores(known, made) | texture


def ct_arm(arm: str, volume: Volume, model: Model | None) -> Made:
    removal = removal_of(shared.measured_noise(volume), volume.modality)
    return run_arm(arm, volume, removal.noise, share=removal.share, model=model)


def ct_lesions(known: Subject, seed: int, model: Model | None) -> Iterator[Row]:
    """Faint lesions planted: contrast kept, and what an observer with a template finds."""
    case = CT_CASES[0]
    degraded = known.damaged(case, seed)
    added, lesions = plant(known, seed)
    planted = damaged_with_lesions(known, case, seed, degraded, added)
    visible = detectability(known, degraded, lesions)
    for arm in ("input", FILTER, NETWORK)[: 3 if model else 2]:
        without, present = (ct_arm(arm, volume, model).voxels for volume in (degraded, planted))
        for lesion, d_prime in zip(lesions, visible, strict=True):
            through = (present[lesion.where] - without[lesion.where]) * lesion.share
            kept = float(through.sum() / (lesion.share**2).sum()) / lesion.contrast
            yield {"part": LESIONS, "case": case.name, "seed": seed, "arm": arm,
                   "d_prime": d_prime, "kept": kept, "present": score(present, lesion),
                   "absent": score(without, lesion), "blobs": 0.0}  # fmt: skip


# --- gates ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> list[Gate]:
    found: list[Gate] = []
    mr, peers = (chosen(rows, part=part) for part in (MR, PEERS))
    over_filter, over_bm4d = (NETWORK, FILTER), (NETWORK, BETTER)
    for which in (TRUE, MEASURED):
        for percent, (decibels, similarity) in OVER_FILTER.items():
            name, cases = f"MR {percent} %, {which}", cases_of(mr, which, percent)
            found += [
                gain_gate(name, mr, cases, over_filter, mean=decibels, least=-0.02),
                gain_gate(name, mr, cases, over_filter, figure="ssim", mean=similarity),
            ]
            if which == TRUE:
                found.append(gain_gate(name, mr, cases, (NETWORK, ROUND), mean=0))
            scans = [f"{SCANNER} {percent} %, {which}"]
            found.append(gain_gate(f"MR {scans[0]}", mr, scans, over_filter, mean=0.3, least=-0.1))
        for percent in PEER_PERCENTS:
            name, cases = f"MR {percent} %, {which}", cases_of(peers, which, percent)
            found.append(gain_gate(name, peers, cases, over_bm4d, mean=0.5))
            found.append(gain_gate(name, peers, cases, over_bm4d, figure="ssim", mean=0))
    return found + ct_gates(chosen(rows, part=CT), chosen(rows, part=LESIONS))


def cases_of(rows: list[Row], which: str, percent: int) -> list[str]:
    white = (r for r in rows if r["noise"] == "white" and r["percent"] == percent)
    return sorted({r["case"] for r in white if which in r["case"]})


def ct_gates(rows: list[Row], lesions: list[Row]) -> list[Gate]:
    found: list[Gate] = []
    arms = (NETWORK, FILTER)
    for name, mean, some in (
        ("low-noise references", 0.0, chosen(rows, reference="averaged")),
        ("collections that no training saw", 0.2, chosen(rows, in_card="none")),
        ("all", 0.0, rows),
    ):
        for case in CT_CASES:
            text = f"CT {case.name}, {name}"
            found.append(gain_gate(text, some, [case.name], arms, mean=mean, least=0))
            found.append(gain_gate(text, some, [case.name], arms, figure="ssim", mean=0))
    entry = gain_gate("CT", rows, [c.name for c in CT_CASES], arms, figure="nps_shape_distance")
    is_kept = entry["value"] is not None and entry["value"] <= 0.02
    found.append(entry | {"bound": "≤ 0.02", "pass": is_kept})
    before, after = (observer(lesions, arm) for arm in (FILTER, NETWORK))
    for figure in ("auc_faint", "auc", "kept"):
        value: Any = after[figure] - before[figure] if before and after else None
        value = value if value is None or np.isfinite(value) else None
        reached = value is not None and value >= -0.005
        found.append(gate(f"CT lesions: {figure}, network less filter", value, "≥ −0.005", reached))
    return found


if __name__ == "__main__":
    main()
