"""The page that people read: tables, what arms are, gates, pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import table
from _enhancement_catalog import INFORMED
from _enhancement_data import CASES, CLEAN, CT_RANGE_HU, trained_on
from _enhancement_gates import NOISY, against, worse_region
from _enhancement_statistics import chosen, mean_of

Row = dict[str, Any]
_SPECIAL = ("real scan", "planted lesions", "visibility of planted lesions")
_OVER = (
    "input",
    "TV",
    "NLM",
    "BM4D",
    INFORMED,
    "CycleGAN",
    "CUT",
    "Noise2Void",
    "paired U-Net",
)


def report(
    rows: list[Row],
    gates: list[Row],
    notes: list[str],
    missing: list[str],
    pictures: list[tuple[str, str]],
    options: argparse.Namespace,
) -> str:
    parts = [_head(rows, options)]
    for modality in ("MR", "CT"):
        own = [row for row in rows if row["modality"] == modality]
        if own:
            parts += [f"\n## {modality}\n", *_modality(own, modality)]
    parts += ["\n## Gates\n", _gate_text(), _gate_table(gates)]
    parts += ["\n## Arms\n", _ARMS]
    parts += ["\nTrained for comparison:\n", *(f"- {note}" for note in notes), ""] if notes else []
    if missing:
        parts += ["\nNot measured here:\n", *(f"- {reason}" for reason in missing), ""]
    parts += [f"\n![{caption}]({name})\n\n{caption}\n" for name, caption in pictures]
    return "\n".join(parts)


def _head(rows: list[Row], options: argparse.Namespace) -> str:
    subjects = list(
        dict.fromkeys(row["subject"] for row in rows if row["case"] not in ("real scan",))
    )
    seeds = sorted({row["seed"] for row in rows})
    slow = sorted({row["seed"] for row in rows if row["arm"] == "BM4D"})
    extent = f"the central {options.slices} slices" if options.slices else "all slices"
    return (
        "# Enhancement against its input, classical and trained peers\n\n"
        f"Subjects that no model was trained on, {extent} of each, cropped to the body, of CT the "
        f"middle 160 × 160 pixels (noise is simulated on whole slices): {', '.join(subjects)}. "
        f"Noise of the trained kinds with seeds {', '.join(map(str, seeds))} (BM4D: "
        f"{', '.join(map(str, slow)) or 'none'}), the rest with the first (BM4D there "
        "only with --thorough); "
        "differences are always taken on the same noise. Every figure is in "
        "enhancement.json. CPU seconds with OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')} and one thread.\n\n"
        "PSNR / SSIM against the undamaged volume. MR: the span is its robust maximum (99.5th "
        "percentile of the foreground), the foreground lies above 10 % of it. CT: the span is "
        f"{CT_RANGE_HU:g} HU, the foreground is the body (above −300 HU after smoothing). SSIM "
        "slice by slice, Gaussian window 11, σ 1.5.\n\n"
        "**How much this rests on**: two MR volumes, one of them an average of 152 people, and "
        "three CT patients. Slabs are not patients. An interval over so few is wide or, where "
        "both agree, narrower than it should be: read the single figures too.\n"
    )


def _modality(rows: list[Row], modality: str) -> Iterator[str]:
    regions = ["foreground", "image", *(["flat", "edges"] if modality == "CT" else [])]
    cases = [case.name for case in CASES[modality]] + [CLEAN]
    for region in regions:
        yield f"\n### PSNR / SSIM, {'whole image' if region == 'image' else region}\n"
        yield _by_case(rows, cases, lambda found, region=region: _quality(found, region))
    outside = [case.name for case in CASES[modality] if not case.family]
    yield f"\nNo model was trained on damage of the kind of {' and '.join(outside)}.\n"
    yield "\n### Ours less another arm\n"
    yield _differences(rows, modality)
    yield "\n### Gradient-magnitude similarity in the foreground\n"
    yield _by_case(rows, cases, lambda found: _figure(found, "gms", "{:.3f}"))
    yield from _lesions(rows, modality, cases)
    yield "\n### Edges: steepest slope as a share of the reference's, strong / soft edges\n"
    yield _EDGES[modality]
    yield _by_case(rows, cases, _edges)
    yield "\n### Second difference through slices as a share of the clean one's\n"
    yield _by_case(rows, cases, lambda found: _figure(found, "slice_ratio", "{:.2f}"))
    if modality == "CT":
        yield from _spectrum(rows)
    else:
        yield from _labels(rows)
        yield from _real(rows)


def _by_case(rows: list[Row], cases: list[str], cell: Callable[[list[Row]], str]) -> str:
    known = [row for row in rows if row["case"] not in _SPECIAL]
    shown = [case for case in cases if chosen(known, case=case)]
    body = []
    for arm in dict.fromkeys(row["arm"] for row in known):
        speed = mean_of(known, "cpu_s_per_mvoxel", arm=arm)
        cells = [cell(chosen(known, arm=arm, case=case)) for case in shown]
        if any(entry != "–" for entry in cells):
            body.append((arm, f"{speed:.1f}", *cells))
    return table(("arm", "CPU s per Mvoxel", *shown), body)


def _quality(rows: list[Row], region: str) -> str:
    psnr, ssim = (mean_of(rows, f"{figure}_{region}") for figure in ("psnr", "ssim"))
    return "–" if psnr is None or ssim is None else f"{psnr:.2f} / {ssim:.3f}"


def _figure(rows: list[Row], figure: str, form: str) -> str:
    value = mean_of(rows, figure)
    return "–" if value is None else form.format(value)


def _edges(rows: list[Row]) -> str:
    strong, soft = (_figure(rows, f"edge_slope_{kind}", "{:.2f}") for kind in ("strong", "soft"))
    return "–" if strong == soft == "–" else f"{strong} / {soft}"


def _differences(rows: list[Row], modality: str) -> str:
    """Mean paired difference with its interval, in the worse of image and foreground."""
    body = []
    for over in _OVER:
        pairs = against(over, modality)
        if over == "input" and modality == "MR":
            pairs = [(case, arm, "N4" if "N4" in other else other) for case, arm, other in pairs]
        cells = []
        for selection in (pairs, *([pair] for pair in pairs)):
            found = [worse_region(rows, figure, selection) for figure in ("psnr", "ssim")]
            cells.append(" · ".join("–" if entry is None else str(entry) for entry in found))
        if any(cell != "– · –" for cell in cells):
            body.append((over, *cells))
    return table(("less", "all of these", *NOISY[modality]), body) + (
        "\nPSNR in dB · SSIM, each with its 95 % interval (patients and seeds drawn with "
        "replacement, 4,000 times), in the whole image or the foreground, whichever is worse for "
        "ours. Where there is shading, both with N4; where there is blur, ours is asked to undo "
        "it.\n"
    )


def _lesions(rows: list[Row], modality: str, cases: list[str]) -> Iterator[str]:
    planted = chosen(rows, case="planted lesions")
    if planted:
        yield "\n### Planted lesions\n"
        yield _PLANTED[modality]
        body = []
        for arm in dict.fromkeys(row["arm"] for row in planted):
            kept = np.concatenate([row["planted_kept"] for row in chosen(planted, arm=arm)])
            blobs = mean_of(rows, "new_blobs_per_100_ml", arm=arm)
            low, high = np.percentile(kept, (5, 95))
            body.append(
                (
                    arm,
                    kept.size,
                    f"{kept.mean():.2f} ({low:.2f} to {high:.2f})",
                    f"{np.mean(kept < 0.5):.1%}",
                    "–" if blobs is None else f"{blobs:.1f}",
                )
            )
        header = ("arm", "lesions", "contrast kept (5th to 95th percentile)", "lost")
        yield table((*header, "new blobs per 100 mL without lesions"), body)
        seen = [value for row in rows for value in row.get("d_prime", ())]
        if seen:
            yield _visibility(np.array(seen))
    if any("lesion_contrast_kept" in row for row in rows):
        yield "\n### Real lesions (C19, three readers' consensus): contrast kept\n"
        yield _by_case(rows, cases, lambda f: _figure(f, "lesion_contrast_kept", "{:.2f}"))


def _visibility(d_prime: npt.NDArray[np.float64]) -> str:
    low, middle, high = np.percentile(d_prime, (5, 50, 95))
    return (
        "\nHow visible they are: for a matched filter that knows place, shape, contrast and the "
        f"noise's spectrum, d′ is {middle:.1f} in the middle ({low:.1f} to {high:.1f}, 5th to 95th "
        f"percentile), and below 5 for {np.mean(d_prime < 5):.0%} of them. Who does not know "
        "where to look needs about 5 to find a lesion among as many places; what cannot be found "
        "cannot be kept, unless the noise is kept with it.\n"
    )


def _spectrum(rows: list[Row]) -> Iterator[str]:
    yield "\n### Noise in flat regions: the error's power spectrum against the added noise's\n"
    yield (
        "Power left / shift of the mean frequency per mm / distance of the shapes (0: same "
        "texture, 1: no frequency shared). Negative shifts are blotchier than the noise was.\n"
    )
    known = [row for row in rows if "nps_power_left" in row]
    cases = list(dict.fromkeys(row["case"] for row in known))
    yield _by_case(known, cases, _spectrum_cell)
    native = [row for row in rows if row["arm"] == "input" and "native_noise_hu" in row]
    if native:
        yield "\n### The reference has noise of its own\n"
        yield _NATIVE
        yield table(
            ("subject", "case", "native HU", "added HU", "added / native"),
            (
                (
                    row["subject"],
                    row["case"],
                    f"{row['native_noise_hu']:.1f}",
                    f"{row['added_noise_hu']:.1f}",
                    f"{row['added_noise_hu'] / row['native_noise_hu']:.1f}",
                )
                for row in native
                if row["seed"] == 0
            ),
        )


def _spectrum_cell(rows: list[Row]) -> str:
    figures = ("nps_power_left", "nps_mean_shift_per_mm", "nps_shape_distance")
    values = [mean_of(rows, figure) for figure in figures]
    if None in values:
        return "–"
    return f"{values[0]:.3f} / {values[1]:+.3f} / {values[2]:.2f}"


def _labels(rows: list[Row]) -> Iterator[str]:
    known = [row for row in rows if "dice_clean" in row]
    if known:
        yield "\n### Task: mean Dice of three tissues, found by the shipped head\n"
        yield (
            "With what it finds on the clean volume (both subjects) / with the template's own "
            "labels (template). On the clean template itself it reaches the latter only as far as "
            "the head can. Seed 0.\n"
        )
        cases = list(dict.fromkeys(row["case"] for row in known))
        yield _by_case(
            known,
            cases,
            lambda f: (
                f"{_figure(f, 'dice_clean', '{:.3f}')} / {_figure(f, 'dice_template', '{:.3f}')}"
            ),
        )


def _real(rows: list[Row]) -> Iterator[str]:
    known = chosen(rows, case="real scan")
    if not known:
        return
    yield "\n### Real scans of poor quality, without any reference\n"
    scans = list(dict.fromkeys(row["subject"] for row in known))
    pool = [scan for scan in scans if trained_on(scan)]
    yield (
        "Noise left within tissue / steepest slope of strong edges, both as shares of "
        "the scan's. Blur lowers both. "
        + (f"In the shipped model's unpaired pool: {', '.join(pool)}.\n" if pool else "\n")
    )
    body = []
    for arm in dict.fromkeys(row["arm"] for row in known):
        cells = []
        for scan in scans:
            found = chosen(known, arm=arm, subject=scan)
            noise, edge = (
                _figure(found, figure, "{:.2f}") for figure in ("noise_left", "edge_slope_strong")
            )
            cells.append(f"{noise} / {edge}")
        body.append((arm, *cells))
    yield table(("arm", *scans), body)


def _gate_text() -> str:
    return (
        "Differences are means over patients with their 95 % interval, in the whole image or the "
        "foreground, whichever is worse; on all noisy damage together unless one is named. “Level "
        "with” means that the interval reaches 0: with so few patients that is a weak statement, "
        "so the mean stands beside it.\n"
    )


def _gate_table(gates: list[Row]) -> str:
    body = []
    for entry in gates:
        value = "not measured" if entry["value"] is None else f"{entry['value']:.4g}"
        if "interval" in entry:
            low, high = entry["interval"]
            value += f" ({low:.3g} to {high:.3g}; n = {entry['subjects']} × {entry['seeds']})"
        body.append((entry["name"], value, entry["bound"], "yes" if entry["pass"] else "**no**"))
    return table(("gate", "value", "bound", "passed"), body)


_EDGES = {
    "MR": "Strong: 30 to 100 % of the range over 10 pixels; soft: 10 to 30 %.\n",
    "CT": "Strong: 300 to 2,000 HU over 10 pixels; soft: 60 to 200 HU.\n",
}
_PLANTED = {
    "MR": "Ellipsoids, radii 1.5 to 4 mm, 5 to 30 % of the range, darker or brighter, at Rician "
    "10 %. Kept: what the result with lesions has more than the result without, on the same "
    "noise. Lost: less than half kept. A new blob is as strong as a lesion of 10 % "
    "and 2.5 mm, in even tissue, and less than half of it is in the clean volume.\n",
    "CT": "Ellipsoids, radii 1.5 to 4 mm, 20 to 100 HU, darker or brighter, at 5e3 photons. Kept: "
    "what the result with lesions has more than the result without, on the same noise. Lost: "
    "less than half kept. A new blob is as strong as a lesion of 33 HU and 2.5 mm, in even "
    "tissue, and less than half of it is in the clean volume.\n",
}
_NATIVE = (
    "Native noise: robust spread of the differences between neighboring slices in flat regions, "
    "/ √2. Where the added noise is less than 1.5 × that, a perfect denoiser scores below the "
    "input, because it takes the reference's own noise away too. Added noise is FBP(noisy) − "
    "FBP(noise-free): an infinite dose returns the reference.\n"
)
_ARMS = (
    "- input: the damaged volume. N4: SimpleITK, shrink 4, 20 and 20 iterations; “+ N4” is N4 "
    "after that arm.\n"
    "- TV: scikit-image's 3D total variation (Chambolle), weight 0.5 σ. NLM: its fast 3D "
    "non-local means, patch 5, distance 5, h 0.4 σ in MR and 0.3 σ in CT. Weights and h were "
    "chosen on open_ms C07 and STS_012, which are not measured here. σ is estimated blindly (MR: "
    "diagonal differences in the foreground; CT: differences between slices); in MR the Rician "
    "bias of the mean is undone after each (Koay's inversion).\n"
    "- BM4D (`pip install bm4d`; its license is non-commercial: neither shipped nor a dependency): "
    "profile np. MR: white noise of the same σ, the same inversion. CT: the noise's spectrum, from "
    "simulated low-dose noise in an ellipse of water with a seed of its own (in slices; white "
    "across them), on a copy divided by a smooth map of σ (12 pixels, 4 slices), because noise is "
    "stronger where rays are longer; on STS_012 that and one σ for all came within 0.1 dB. "
    f"{INFORMED}: MR with white noise alone, the same with the σ that was added instead of the "
    "estimate; the gates take the better of the two, case by case.\n"
    "- CycleGAN, CUT, Noise2Void, paired U-Net and HQG-Net (bench), with its ablations: the same "
    "small size and the same short budget for each, 40 CPU seconds on CT and MR each, see "
    "_trained_arms.py: compare them with each other, not with ours.\n"
    "- block filter: what enhancement started from before (threshold, mean of similar voxels, "
    "Wiener; spectrum and strength learned on a few scanners), without any network.\n"
    "- ours: the shipped bundle on the CPU with its defaults: noise measured in the volume and "
    "removed by the grouped filter as far as it calls for (strength auto), blur and shading "
    "corrected where they are measured. full strength: strength full. + N4: with "
    "`bias_correction` n4.\n"
    "- Arms that the command at the end does not name were measured earlier, by the same code on "
    "the same voxels.\n"
)
