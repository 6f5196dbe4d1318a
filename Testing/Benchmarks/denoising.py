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
import fnmatch
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from _common import gate
from _denoising import (
    SMALL_CROP,
    Made,
    Model,
    Row,
    Scan,
    best_middle_worst,
    draw,
    finish,
    gain_gate,
    gains,
    mean_of_blocks,
    measured_noise,
    noisy,
    on_coarse_grid,
    open_model,
    origin_in_card,
    parser_of,
    run_arm,
    scan_of,
    scores,
    settled,
    short_name,
    table,
    true_noise,
)
from _enhancement_data import CASES, CT_SUBJECTS, TEMPLATE, Subject, ct_subject
from _enhancement_lesions import damaged_with_lesions, plant
from _enhancement_statistics import Gate
from _enhancement_texture import compare_spectra
from _enhancement_visibility import detectability
from harm import observer, score

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.denoise import need_of
from MedEnhanceLib.io import load

#: Volumes and whether a copy that was averaged is measured too.
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
CT_SCANS = (*CT_SUBJECTS, "ct/abdomen/CT.nii.gz")
CT_CASES = CASES["CT"][:2]
_CT_SLICES, _CT_SIDE = 12, 256
#: Of the bars: dB and SSIM over the filter by level of noise.
OVER_FILTER = {5: (0.12, 0.008), 10: (0.15, 0.02), 15: (0.17, 0.03)}
MR, PEERS, CT, LESIONS = "MR", "peers", "CT", "CT lesions"


def main() -> None:
    parser = parser_of(__doc__ or "", seeds=(0, 1, 2))
    parser.add_argument("--ct-model", help="name or folder of a CT enhancer; none: filter alone")
    parser.add_argument("--parts", nargs="+", choices=(MR, PEERS, CT), default=[MR, PEERS, CT])
    parser.add_argument("--kinds", nargs="+", default=["Gaussian", "Rician"])
    options = settled(parser)
    rows: list[Row] = []
    if {MR, PEERS} & set(options.parts):
        model = open_model(options.model, "MR")
        rows += mr_rows(options, model) if MR in options.parts else []
        rows += peer_rows(options, model) if PEERS in options.parts else []
        table(rows, ("part", "case", "reference", "arm"), ("psnr", "ssim", "cpu_s_per_mvoxel"))
        if options.pictures and rows:
            mr_pictures(rows, options, model)
    if CT in options.parts:
        found = list(ct_rows(options, open_model(options.ct_model, "CT")))
        table([r for r in found if r["part"] == CT], ("case", "reference", "arm"),
              ("psnr", "ssim", "nps_shape_distance", "cpu_s_per_mvoxel"))  # fmt: skip
        table([r for r in found if r["part"] == LESIONS], ("arm",), ("kept", "present", "absent"))
        rows += found
    finish("denoising", rows, gates_of, options)


# --- MR -------------------------------------------------------------------------------------------


def mr_scans(options: argparse.Namespace, crop: Sequence[int]) -> Iterator[Scan]:
    for path, is_averaged in MR_SCANS.items():
        chosen = any(fnmatch.fnmatch(path, pattern) for pattern in options.volumes)
        if chosen and (path == TEMPLATE or (options.data / path).is_file()):
            for averaged in (False, True)[: 1 + is_averaged]:
                yield scan_of(path, options.data, crop, averaged=averaged)


def mr_rows(options: argparse.Namespace, model: Model | None) -> list[Row]:
    arms = ("input", "filter", "one more round", "network")
    return [
        row
        for scan in mr_scans(options, options.crop)
        for kind in options.kinds
        for percent in options.percents
        for seed in options.seeds
        for row in mr_case(scan, kind, percent, seed, arms, model)
    ]


def peer_rows(options: argparse.Namespace, model: Model | None) -> list[Row]:
    """Classical peers beside filter and network, on the same small crops."""
    arms = ["input", "non-local means", "BM4D", "filter", "network"]
    if not find_spec("bm4d"):
        print("BM4D is not installed")
        arms.remove("BM4D")
    scans = [scan for scan in mr_scans(options, SMALL_CROP) if scan.name in FOR_PEERS]
    rows = []
    for scan in scans[:1] if options.quick else scans:
        for percent in [percent for percent in options.percents if percent in PEER_PERCENTS]:
            rows += mr_case(scan, "Gaussian", percent, options.seeds[0], arms, model)
    for case in {row["case"] for row in rows}:  # the better of its arms stands in both cases
        for name in {row["subject"] for row in rows}:
            same = [row for row in rows if row["subject"] == name and row["arm"] == "BM4D"
                    and row["percent"] in percents_of(case)]  # fmt: skip
            if same:
                best = max(same, key=lambda row: row["psnr"])
                rows.append(best | {"arm": "BM4D, the better", "case": case})
    return [row | {"part": PEERS} for row in rows]


def percents_of(case: str) -> tuple[int, ...]:
    return tuple(percent for percent in OVER_FILTER if f" {percent} %" in case)


def mr_case(
    scan: Scan, kind: str, percent: int, seed: int, arms: Sequence[str], model: Model | None
) -> Iterator[Row]:
    """All arms on one noisy crop, with the true and with the measured σ."""
    volume, sigma = noisy(scan, kind, percent, seed), percent / 100
    found = measured_noise(volume)
    noises = {
        "true σ": (true_noise(volume, sigma, rician=kind == "Rician"), 1.0),
        "measured σ": (found, need_of(found).share),
    }
    for which, (noise, share) in noises.items():
        for arm in arms:
            if (arm == "network" and model is None) or (
                which == "measured σ" and arm in ("input", "non-local means")
            ):
                continue
            given = sigma if which == "true σ" else None
            made = run_arm(arm, volume, noise, share=share, model=model, sigma=given)
            yield {
                "part": MR,
                "subject": scan.name,
                "reference": scan.reference,
                "case": f"{kind} {percent} %, {which}",
                "percent": percent,
                "seed": seed,
                "arm": arm,
                "in_card": origin_in_card(model, scan.path),
                "sigma_over_true": round(noise.level / sigma, 3),
                **scores(scan, made.voxels),
                "cpu_s_per_mvoxel": round(made.seconds / volume.voxels.size * 1e6, 3),
            }


def mr_pictures(rows: list[Row], options: argparse.Namespace, model: Model | None) -> None:
    """Best, median and worst gain of the network (or of one more round) over the filter."""
    ours = "network" if model else "one more round"
    case, seed = f"{options.kinds[0]} 10 %, true σ", options.seeds[0]
    same = [row for row in rows if row["case"] == case and row["seed"] == seed
            and row["part"] == MR]  # fmt: skip
    psnr = {(row["subject"], row["arm"]): row["psnr"] for row in same}
    gain = {name: psnr[name, ours] - psnr[name, "filter"] for name, arm in psnr if arm == ours}
    scans = {scan.name: scan for scan in mr_scans(options, options.crop) if scan.name in gain}
    lines = []
    for which, name in best_middle_worst(gain).items():
        scan = scans[name]
        volume = noisy(scan, options.kinds[0], 10, seed)
        noise = true_noise(volume, 0.1, rician=options.kinds[0] == "Rician")
        made = [run_arm(arm, volume, noise, model=model).voxels for arm in ("filter", ours)]
        middle = len(volume.voxels) // 2
        clean, before, after, given = (
            v[middle] for v in (scan.volume.voxels, *made, volume.voxels)
        )
        panels = {"noisy": given, "filter": before, ours: after, "reference": clean,
                  f"{ours} − filter": after - before, "filter − reference": before - clean,
                  f"{ours} − reference": after - clean}  # fmt: skip
        lines.append((f"{which}: {name}, {gain[name]:+.2f} dB", panels))
    draw(options.pictures / "denoising.png", lines)


# --- CT -------------------------------------------------------------------------------------------


def ct_subjects(options: argparse.Namespace) -> Iterator[tuple[str, Subject]]:
    """Central slices as they are, and with neighbors averaged two by two: a low-noise reference."""
    for path in CT_SCANS:
        is_there = (options.data / path).is_file()
        if not (is_there and any(fnmatch.fnmatch(path, p) for p in options.volumes)):
            continue
        scan = load(options.data / path, modality="CT")
        most = 6 if options.quick else _CT_SLICES
        sides = 2 * most, _CT_SIDE, _CT_SIDE
        starts = [max(0, (n - side) // 2) for n, side in zip(scan.shape, sides, strict=True)]
        parts = [slice(first, first + side) for first, side in zip(starts, sides, strict=True)]
        scan = scan.crop(*parts)
        pairs = mean_of_blocks(scan.voxels.astype(np.float32), (2, 1, 1))
        first = max(0, (scan.shape[0] - most) // 2)
        yield path, ct_subject(short_name(path), scan.crop(k=slice(first, first + most)))
        thick = on_coarse_grid(scan, pairs, (2, 1, 1))
        yield path, ct_subject(f"{short_name(path)}, averaged", thick)


def ct_rows(options: argparse.Namespace, model: Model | None) -> Iterator[Row]:
    """Low dose, the noise's map and spectrum measured; and faint lesions at the lower one."""
    for path, known in ct_subjects(options):
        head = {
            "subject": known.name,
            "volume": known.name,
            "reference": "averaged" if "averaged" in known.name else "plain",
            "in_card": origin_in_card(model, path),
        }
        for case in CT_CASES:
            for seed in options.seeds:
                degraded = known.damaged(case, seed)
                added = degraded.voxels - known.volume.voxels
                flat, pixel = known.regions["flat"], known.volume.geometry.spacing[0]
                for arm in ("input", "filter", "network"):
                    if arm == "network" and model is None:
                        continue
                    made = ct_arm(arm, degraded, model)
                    error = made.voxels - known.volume.voxels
                    yield head | {
                        "part": CT,
                        "case": case.name,
                        "seed": seed,
                        "arm": arm,
                        **scores(known, made.voxels),
                        **compare_spectra(error, added, flat, pixel),
                        "cpu_s_per_mvoxel": round(made.seconds / error.size * 1e6, 3),
                    }
        yield from (head | row for row in ct_lesions(known, options.seeds[0], model))


def ct_arm(arm: str, volume: Volume, model: Model | None) -> Made:
    noise = measured_noise(volume)
    return run_arm(arm, volume, noise, share=need_of(noise).share, model=model)


def ct_lesions(known: Subject, seed: int, model: Model | None) -> Iterator[Row]:
    """Faint lesions planted: contrast kept, and what an observer with a template finds."""
    case = CT_CASES[0]
    degraded = known.damaged(case, seed)
    added, lesions = plant(known, seed)
    planted = damaged_with_lesions(known, case, seed, degraded, added)
    visible = detectability(known, degraded, lesions)
    for arm in ("input", "filter", "network"):
        if arm == "network" and model is None:
            continue
        without, present = (ct_arm(arm, volume, model).voxels for volume in (degraded, planted))
        for lesion, d_prime in zip(lesions, visible, strict=True):
            through = (present[lesion.where] - without[lesion.where]) * lesion.share
            yield {
                "part": LESIONS,
                "case": case.name,
                "seed": seed,
                "arm": arm,
                "d_prime": d_prime,
                "kept": float(through.sum() / (lesion.share**2).sum()) / lesion.contrast,
                "present": score(present, lesion),
                "absent": score(without, lesion),
                "blobs": 0.0,
            }


# --- gates ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> list[Gate]:
    found: list[Gate] = []
    mr, small = ([row for row in rows if row["part"] == part] for part in (MR, PEERS))
    for which in ("true σ", "measured σ"):
        for percent, (decibels, similarity) in OVER_FILTER.items():
            text = f"MR {percent} %, {which}"
            cases = cases_of(mr, which, percent)
            for over, mean, least in (("filter", decibels, -0.02), ("one more round", 0.0, None)):
                gain = gains(mr, "psnr", cases, "network", over)
                found.append(gain_gate(f"{text}: network over {over}, dB", gain, mean, least))
            gain = gains(mr, "ssim", cases, "network", "filter")
            found.append(gain_gate(f"{text}: network over filter, SSIM", gain, similarity))
            if percent in PEER_PERCENTS:
                cases = cases_of(small, which, percent)
                for figure, mean in (("psnr", 0.5), ("ssim", 0.0)):
                    gain = gains(small, figure, cases, "network", "BM4D, the better")
                    name = f"{text}: network over the better BM4D, {figure}"
                    found.append(gain_gate(name, gain, mean))
    return found + ct_gates(rows)


def cases_of(rows: list[Row], which: str, percent: int) -> list[str]:
    return sorted({r["case"] for r in rows if r["percent"] == percent and which in r["case"]})


def ct_gates(rows: list[Row]) -> list[Gate]:
    found: list[Gate] = []
    ct = [row for row in rows if row["part"] == CT]
    elsewhere = [row for row in ct if row["in_card"] == "none"]
    for name, mean, part in (
        ("low-noise references", 0.0, [row for row in ct if row["reference"] == "averaged"]),
        ("collections that no training saw", 0.2, elsewhere),
        ("all", 0.0, ct),
    ):
        for case in CT_CASES:
            for figure, least, bound in (("psnr", 0.0, mean), ("ssim", None, 0.0)):
                gain = gains(part, figure, [case.name], "network", "filter")
                text = f"CT {case.name}, {name}: network over filter, {figure}"
                found.append(gain_gate(text, gain, bound, least))
    shape = gains(ct, "nps_shape_distance", [case.name for case in CT_CASES], "network", "filter")
    change = None if shape is None else shape.mean
    found.append(gate("CT: distance of the noise's spectrum, network less filter", change,
                      "≤ 0.02", change is not None and change <= 0.02))  # fmt: skip
    lesions = [row for row in rows if row["part"] == LESIONS]
    before, after = (observer(lesions, arm) for arm in ("filter", "network"))
    for figure in ("auc_faint", "auc", "kept"):
        value: Any = after[figure] - before[figure] if before and after else None
        reached = value is not None and value >= -0.005
        value = value if value is None or np.isfinite(value) else None
        found.append(gate(f"CT lesions: {figure}, network less filter", value, "≥ −0.005", reached))
    return found


if __name__ == "__main__":
    main()
