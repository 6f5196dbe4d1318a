"""Enhancement against its input and classical peers, on subjects that no model was trained on.

    python Testing/Benchmarks/enhancement.py             whole volumes, writes docs/benchmarks
    python Testing/Benchmarks/enhancement.py --quick     central slabs, writes runs/benchmarks

Pairs are made here: a volume is the reference, its degraded copy the input. Arms see the input
alone. A peer that is not installed, or a model that is not there, is left out and named.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import DOCS, REPOSITORY, SHARED_DATA, gate, gate_table, table, write
from _enhancement_peers import bm4d_mr, nlm_ct, nlm_mr, noise_between_slices
from _enhancement_pictures import draw_pictures

from MedEnhanceLib import metrics
from MedEnhanceLib.degrade import (
    Blur,
    Degradation,
    LowDose,
    Rician,
    gaussian_blur,
    robust_max,
    standard_composite,
)
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.io import load
from MedEnhanceLib.resources import resource_folder
from MedEnhanceLib.volume import Volume

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Arm = Callable[[Volume], Volume]

#: The span that PSNR and SSIM refer to in CT: −1000 to 1000 HU.
CT_RANGE_HU = 2000.0
ELECTRONIC_PHOTONS = 5.0
MR_SUBJECTS = ("mr/open_ms/C19/T1.nii.gz",)
CT_SUBJECTS = tuple(f"ct/sts/{name}/CT.nii.gz" for name in ("STS_013", "STS_025", "STS_037"))
QUICK_SLICES = 32

MR_CASES: dict[str, Callable[[int], Degradation]] = {
    "Rician 5 %": partial(Rician, 0.05),
    "Rician 10 %": partial(Rician, 0.10),
    "Rician 15 %": partial(Rician, 0.15),
    "blur σ 1 px": partial(Blur, 1.0),
    "composite": standard_composite,
}
CT_CASES: dict[str, Callable[[int], Degradation]] = {
    "low dose 5e3": partial(LowDose, 5e3, ELECTRONIC_PHOTONS),
    "low dose 2e4": partial(LowDose, 2e4, ELECTRONIC_PHOTONS),
}
#: A volume without damage: what does an arm do to what needs nothing?
CLEAN = "undamaged"


@dataclass(frozen=True)
class Subject:
    """A reference volume, the regions it is measured in and the span that figures refer to."""

    name: str
    volume: Volume
    span: float
    regions: dict[str, Mask]
    lesion: Mask | None = None


def main() -> None:
    options = parse()
    subjects = list(find_subjects(options))
    refuse_trained(options.data, [subject.name for subject in subjects])
    arms, missing = find_arms(options)
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        rows += measure_subject(subject, arms[subject.volume.modality], options)
        publish(rows, subjects, missing, [], options)  # an interrupted run leaves what it has
    if options.pictures:
        pictures = draw_pictures(options.out, arms, central(sample_volume()))
        publish(rows, subjects, missing, pictures, options)


def publish(
    rows: list[dict[str, Any]],
    subjects: list[Subject],
    missing: list[str],
    pictures: list[tuple[str, str]],
    options: argparse.Namespace,
) -> None:
    measured = {row["subject"] for row in rows}
    text = report(
        rows, [s for s in subjects if s.name in measured], missing, pictures, options.quick
    )
    write(
        "enhancement", text, gates=gates(rows), rows=rows, seeds=options.seeds, folder=options.out
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="central slabs only")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of open volumes")
    parser.add_argument("--modality", choices=("MR", "CT"), help="only this one")
    parser.add_argument("--arms", nargs="+", help="only these, e.g. NLM ours")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--mr-model", default="mr-brain", help="bundle name or folder")
    parser.add_argument("--ct-model", default="ct-lowdose", help="bundle name or folder")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.out = options.out or (REPOSITORY / "runs" / "benchmarks" if options.quick else DOCS)
    return options


def sample_volume() -> Volume:
    return load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")


def find_subjects(options: argparse.Namespace) -> Iterator[Subject]:
    """The held-out volumes; without the open volumes beside the project, the sample alone."""
    if options.modality != "CT":
        yield mr_subject("sample template", sample_volume(), None, options.quick)
        for name in MR_SUBJECTS:
            path = options.data / name
            if path.is_file():
                lesion = load(path.with_name("lesion.nii.gz"), modality="SEG")
                yield mr_subject(name, load(path, modality="MR"), lesion, options.quick)
    if options.modality != "MR":
        for name in CT_SUBJECTS:
            path = options.data / name
            if path.is_file():
                yield ct_subject(name, load(path, modality="CT"), options.quick)


def mr_subject(name: str, volume: Volume, lesion: Volume | None, quick: bool) -> Subject:
    volume = central(volume) if quick else volume
    top = robust_max(volume.voxels)
    marked = None
    if lesion is not None:
        marked = (central(lesion) if quick else lesion).voxels > 0
    return Subject(name, volume, top, {"foreground": volume.voxels > 0.1 * top}, marked)


def ct_subject(name: str, volume: Volume, quick: bool) -> Subject:
    volume = central(volume) if quick else volume
    smooth = gaussian_blur(volume.voxels, 1.5)
    slope = np.hypot(np.gradient(smooth, axis=-1), np.gradient(smooth, axis=-2))
    body = smooth > -300
    regions = {"foreground": body, "flat": body & (slope < 8), "edges": body & (slope > 30)}
    return Subject(name, volume, CT_RANGE_HU, regions)


def central(volume: Volume) -> Volume:
    first = max(0, volume.shape[0] // 2 - QUICK_SLICES // 2)
    geometry = volume.geometry.cropped((first, 0, 0))
    return replace(
        volume, voxels=volume.voxels[first : first + QUICK_SLICES], geometry=geometry, history=()
    )


def refuse_trained(data: Path, names: list[str]) -> None:
    """Stop if a recipe trains on what is measured here."""
    for recipe in sorted((REPOSITORY / "docs" / "recipes").glob("*.json")):
        fields = json.loads(recipe.read_text())
        patterns = [*fields.get("high_quality", ()), *fields.get("low_quality", ())]
        for name in names:
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                raise SystemExit(f"{recipe.name} trains on {name}, which is measured here")


def find_arms(options: argparse.Namespace) -> tuple[dict[str, dict[str, Arm]], list[str]]:
    """What can run here, by modality, and what cannot with the reason."""
    missing = []
    mr: dict[str, Arm] = {"input": lambda volume: volume, "NLM": nlm_mr}
    mr["NLM + N4"] = lambda volume: without_shading(nlm_mr(volume))
    ct: dict[str, Arm] = {"input": lambda volume: volume, "NLM": nlm_ct}
    if find_spec("bm4d"):
        mr["BM4D"] = bm4d_mr
        mr["BM4D + N4"] = lambda volume: without_shading(bm4d_mr(volume))
    else:
        missing.append("BM4D: the package bm4d is not installed (its licence is non-commercial)")
    for arms, modality, model in ((mr, "MR", options.mr_model), (ct, "CT", options.ct_model)):
        reason = why_no_model(model, modality)
        if reason:
            missing.append(f"ours ({modality}): {reason}")
            continue
        arms["ours"] = partial(ours, model=model, bias_correction="none")
        if modality == "MR":
            arms["ours + N4"] = partial(ours, model=model, bias_correction="n4")
    found = {"MR": mr, "CT": ct}
    if options.arms:
        wanted = {"input", *options.arms}
        found = {
            modality: {name: arm for name, arm in arms.items() if name in wanted}
            for modality, arms in found.items()
        }
    return found, missing


def why_no_model(model: str, modality: str) -> str:
    from MedEnhanceLib.bundles import open_bundle

    try:
        open_bundle(model, kind="enhancer", modality=modality)
    except MedEnhanceError as error:
        return str(error)
    return ""


def ours(volume: Volume, *, model: str, bias_correction: str) -> Volume:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    config = EnhanceConfig(model=model, bias_correction=bias_correction, device="cpu")
    return enhance(volume, config).volume


def without_shading(volume: Volume) -> Volume:
    """N4 with shrink 4 and 20, 20 iterations, the same code that `enhance` uses."""
    from MedEnhanceLib.hqg.bias import n4_field

    return volume.with_voxels(volume.voxels / n4_field(volume))


def measure_subject(
    subject: Subject, arms: dict[str, Arm], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    cases = MR_CASES if subject.volume.modality == "MR" else CT_CASES
    for seed in options.seeds:
        for case, make in cases.items():
            degraded = make(seed).apply(subject.volume)
            chosen = arms if case == "composite" else without_n4(arms)
            for arm, enhance in chosen.items():
                yield measure(subject, case, seed, arm, enhance, degraded)
    for arm, enhance in without_n4(arms).items():
        if arm != "input":
            clean = subject.volume.with_voxels(subject.volume.voxels.astype(np.float32))
            yield measure(subject, CLEAN, 0, arm, enhance, clean)


def without_n4(arms: dict[str, Arm]) -> dict[str, Arm]:
    return {name: arm for name, arm in arms.items() if "N4" not in name}


def measure(
    subject: Subject, case: str, seed: int, arm: str, enhance: Arm, degraded: Volume
) -> dict[str, Any]:
    began = time.process_time()
    result = enhance(degraded).voxels
    seconds = time.process_time() - began
    reference = subject.volume.voxels
    row: dict[str, Any] = {
        "subject": subject.name,
        "modality": subject.volume.modality,
        "case": case,
        "seed": seed,
        "arm": arm,
        "cpu_s": round(seconds, 2),
        "cpu_s_per_mvoxel": round(seconds / reference.size * 1e6, 2),
        "psnr_image": metrics.psnr(reference, result, subject.span),
        "ssim_image": metrics.ssim(reference, result, subject.span),
        "slice_ratio": roughness(result, subject) / roughness(reference, subject),
    }
    for region, mask in subject.regions.items():
        row[f"psnr_{region}"] = metrics.psnr(reference, result, subject.span, mask=mask)
        row[f"ssim_{region}"] = metrics.ssim(reference, result, subject.span, mask=mask)
    if subject.lesion is not None and subject.lesion.any():
        kept = contrast(result, subject) / contrast(reference, subject)
        row["lesion_contrast_kept"] = kept
    if "flat" in subject.regions and arm == "input":
        flat = subject.regions["flat"]
        row["native_noise_hu"] = noise_between_slices(reference, flat)
        row["added_noise_hu"] = float((result - reference)[flat].std())
    print(
        f"{subject.name} · {case} · {arm}: {row['psnr_foreground']:.2f} dB "
        f"{row['ssim_foreground']:.3f} ({seconds:.0f} s)",
        flush=True,
    )
    return row


def roughness(voxels: npt.NDArray[Any], subject: Subject) -> float:
    """Mean absolute second difference through the slices, in the foreground."""
    values = voxels.astype(np.float32)
    second = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    return float(second[subject.regions["foreground"][1:-1]].mean())


def contrast(voxels: npt.NDArray[Any], subject: Subject) -> float:
    """Mean of the lesions less that of the tissue 2 to 3 voxels around them."""
    from scipy.ndimage import binary_dilation

    assert subject.lesion is not None
    near = binary_dilation(subject.lesion, iterations=1)
    ring = binary_dilation(near, iterations=2) & ~near & subject.regions["foreground"]
    return float(voxels[subject.lesion].mean()) - float(voxels[ring].mean())


def mean_of(rows: list[dict[str, Any]], figure: str, **where: object) -> float | None:
    """The mean of one figure over the rows that agree with `where`; None where there are none."""
    values = [
        row[figure]
        for row in rows
        if figure in row and all(row[key] == value for key, value in where.items())
    ]
    return float(np.mean(values)) if values else None


def least_gain(
    rows: list[dict[str, Any]], figure: str, case: str, arm: str, over: str
) -> float | None:
    """The smallest difference between two arms over subjects (each the mean of its seeds)."""
    gains = []
    for subject in sorted({row["subject"] for row in rows}):
        ours_value = mean_of(rows, figure, case=case, arm=arm, subject=subject)
        theirs = mean_of(rows, figure, case=case, arm=over, subject=subject)
        if ours_value is not None and theirs is not None:
            gains.append(ours_value - theirs)
    return min(gains) if gains else None


def gates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the method's page that can be measured here; the rest as not measured."""
    found = []
    for case, arm, over in (
        ("composite", "ours", "input"),
        ("composite", "ours + N4", "NLM + N4"),
        ("composite", "ours + N4", "BM4D + N4"),
        ("Rician 10 %", "ours", "input"),
        ("Rician 10 %", "ours", "NLM"),
        ("low dose 5e3", "ours", "input"),
        ("low dose 5e3", "ours", "NLM"),
    ):
        for figure, unit in (("psnr_image", "PSNR, dB"), ("ssim_image", "SSIM")):
            gain = least_gain(rows, figure, case, arm, over)
            name = f"{case}: {arm} above {over}, {unit}, least over subjects"
            found.append(gate(name, gain, "> 0", gain is not None and gain > 0))
    mr_ours = [row for row in rows if row["modality"] == "MR" and row["arm"] == "ours"]
    identity = [row["psnr_image"] for row in mr_ours if row["case"] == CLEAN]
    least = min(identity, default=None)
    found.append(
        gate("undamaged MR left alone, dB", least, "≥ 35", least is not None and least >= 35)
    )
    kept = [row["lesion_contrast_kept"] for row in mr_ours if "lesion_contrast_kept" in row]
    for name, value in (
        ("lesion contrast kept, least over degradations", min(kept, default=None)),
        ("lesion contrast kept, most over degradations", max(kept, default=None)),
    ):
        passed = value is not None and 0.92 <= value <= 1.1
        found.append(gate(name, value, "0.92 to 1.1", passed))
    ratios = [row["slice_ratio"] for row in rows if row["arm"] == "ours"]
    worst = max(ratios, default=None)
    found.append(
        gate("slice consistency, worst", worst, "≤ 1.1", worst is not None and worst <= 1.1)
    )
    for name, bound in (
        ("above CycleGAN and CUT with the same budget", "> 0"),
        ("guidance matters", "HQ guide above zeroed and LQ guide"),
        ("guide swap, high-pass spread", "≤ 10 % of the correction"),
    ):
        found.append(gate(f"{name} (no arm here)", None, bound, False))
    return found


def report(
    rows: list[dict[str, Any]],
    subjects: list[Subject],
    missing: list[str],
    pictures: list[tuple[str, str]],
    quick: bool,
) -> str:
    extent = f"Central {QUICK_SLICES} slices only. " if quick else ""
    seeds = sorted({row["seed"] for row in rows})
    parts = [
        "# Enhancement against its input and classical peers\n",
        f"{extent}Subjects that no model was trained on: "
        f"{', '.join(subject.name for subject in subjects)}. Means over subjects and seeds "
        f"({', '.join(map(str, seeds))}); every single figure is in enhancement.json. "
        f"CPU seconds with OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}.\n",
        "PSNR / SSIM against the undamaged volume. MR: the span is its robust maximum (99.5th "
        "percentile of the foreground), the foreground lies above 10 % of it. CT: the span is "
        f"{CT_RANGE_HU:g} HU, the foreground is the body (above −300 HU after smoothing). SSIM "
        "slice by slice, Gaussian window 11, σ 1.5.\n",
    ]
    for modality in ("MR", "CT"):
        chosen = [row for row in rows if row["modality"] == modality]
        if chosen:
            parts += [f"\n## {modality}\n", *tables(chosen)]
    native = [row for row in rows if "native_noise_hu" in row]
    if native:
        parts += ["\n### The reference has noise of its own\n", NATIVE_TEXT, noise_table(native)]
    parts += ["\n## Arms\n", ARMS_TEXT]
    if missing:
        parts += ["\nNot measured here:\n", *(f"- {reason}" for reason in missing)]
    parts += ["\n## Gates\n", gate_table(gates(rows))]
    parts += [f"\n![{caption}]({name})\n\n{caption}\n" for name, caption in pictures]
    return "\n".join(parts)


def tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    cases = list(dict.fromkeys(row["case"] for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    regions = [key.removeprefix("psnr_") for key in rows[0] if key.startswith("psnr_")]
    for region in regions:
        yield f"\nIn the {region}:\n" if region != "image" else "\nWhole image:\n"
        body = []
        for arm in arms:
            speed = mean_of(rows, "cpu_s_per_mvoxel", arm=arm)
            cells = [quality_cell(rows, region, case, arm) for case in cases]
            body.append((arm, f"{speed:.1f}", *cells))
        yield table(("arm", "CPU s per Mvoxel", *cases), body)
    if any("lesion_contrast_kept" in row for row in rows):
        yield "\nLesion contrast kept (1 is all of it):\n"
        body = []
        for arm in arms:
            kept = [mean_of(rows, "lesion_contrast_kept", arm=arm, case=case) for case in cases]
            body.append((arm, *("–" if value is None else f"{value:.2f}" for value in kept)))
        yield table(("arm", *cases), body)


def quality_cell(rows: list[dict[str, Any]], region: str, case: str, arm: str) -> str:
    psnr = mean_of(rows, f"psnr_{region}", case=case, arm=arm)
    ssim = mean_of(rows, f"ssim_{region}", case=case, arm=arm)
    return "–" if psnr is None or ssim is None else f"{psnr:.2f} / {ssim:.3f}"


def noise_table(rows: list[dict[str, Any]]) -> str:
    return table(
        ("subject", "case", "native HU", "added HU", "added / native"),
        (
            (
                row["subject"],
                row["case"],
                f"{row['native_noise_hu']:.1f}",
                f"{row['added_noise_hu']:.1f}",
                f"{row['added_noise_hu'] / row['native_noise_hu']:.1f}",
            )
            for row in rows
        ),
    )


NATIVE_TEXT = (
    "Native noise: robust spread of the differences between neighbouring slices in flat regions, "
    "/ √2. Where the added noise is less than 1.5 × that, a perfect denoiser scores below the "
    "input, because it takes the reference's own noise away too.\n"
)
ARMS_TEXT = (
    "- input: the damaged volume.\n"
    "- NLM: scikit-image's fast 3D non-local means, patch 5, distance 5, σ estimated blindly "
    "(MR: diagonal differences in the foreground; CT: differences between slices), h 0.4 σ in MR "
    "and 0.3 σ in CT, chosen on open_ms C07 and STS_012, which are not measured here; in MR the "
    "Rician bias of the mean is undone after it (Koay's inversion).\n"
    "- N4: SimpleITK, shrink 4, 20 and 20 iterations, after the denoising.\n"
    "- BM4D, where it is installed: with the same σ and the same inversion.\n"
    "- ours: HQG-Net's shipped bundle on the CPU, `bias_correction` none or n4.\n"
)

if __name__ == "__main__":
    main()
