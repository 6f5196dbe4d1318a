"""The removal of noise without a guide: network, filter and BM4D.

    python Testing/Benchmarks/denoising.py [--data FOLDER]

Noise that is known is added to crops of references. Each row says what of the volume's origin the
model's card lists among its training data.

Volumes that nobody here trained or tuned on lie in a folder of their own, as mr/NAME/T2.nii.gz and
ct/NAME/CT.nii.gz, each beside a source.json with the fields source and license, which every row
repeats; without the folder they are skipped. BM4D, whose results are kept in runs, is beside the
network there, with the true σ (MR, white noise of 10 %) or the true spectrum (CT).
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import _denoising as shared
from _common import QUICK, SHARED_DATA, Gate, Part, Row, run
from _denoising import CROP, FILTER, NETWORK, PERCENTS, Model, Scan, gain, over_goal, run_arm
from _enhancement_data import CASES, CT_SUBJECTS, TEMPLATE, Subject, ct_subject, modality_of
from _enhancement_statistics import chosen

from MedEnhanceLib.denoise.removal import removal_of
from MedEnhanceLib.io import load

#: Volumes and whether an averaged copy is measured too.
MR_SCANS = {
    "mr/open_ms/C07/T1.nii.gz": True,
    "mr/open_ms/C07/T2.nii.gz": True,
    "mr/open_ms/C07/FLAIR.nii.gz": True,
    "mr/studyforrest/T1.nii.gz": True,
    TEMPLATE: False,
}
CT_CASES = CASES["CT"][:2]
_CT_SLICES, _CT_SIDE = (6, 64) if QUICK else (12, 256)
SEEDS = (0,) if QUICK else (0, 1, 2)
MR, CT = "MR", "CT"
UNLEARNED_MR, UNLEARNED_CT = "unlearned MR", "unlearned CT"
#: Voxels of a crop of a volume of another source: whole heads are looked at in their width.
WIDE_CROP = (12, 112, 112)
TRUE, MEASURED = "true σ", "measured σ"
#: Noise of a simulated acquisition, beside noise that is added voxel by voxel.
SCANNER = "scanner"
KINDS = ("Gaussian", "Rician", SCANNER)
BM4D = "BM4D"


def parts(options: Namespace) -> Iterator[Part]:
    model, ct_model = (shared.open_model(modality) for modality in ("MR", "CT"))
    for path in list(MR_SCANS)[: 1 if QUICK else None]:
        yield path, partial(mr_rows, path, model)
    for path in CT_SUBJECTS[:1] if QUICK else CT_SUBJECTS:
        yield path, partial(ct_rows, path, ct_model)
    for folder, path in unlearned_paths(options.data):
        opened = model if modality_of(path) == "MR" else ct_model
        yield path, partial(unlearned_rows, folder, path, opened)


# --- MR -------------------------------------------------------------------------------------------


def mr_rows(path: str, model: Model) -> Iterator[Row]:
    for averaged in (False, True)[: 1 + MR_SCANS[path]] if shared.is_there(path) else ():
        scan = shared.scan_of(path, SHARED_DATA, CROP, averaged)
        for kind, percent, seed in product(KINDS, PERCENTS, SEEDS):
            yield from mr_case(scan, kind, percent, seed, model)


def mr_case(
    scan: Scan,
    kind: str,
    percent: int,
    seed: int,
    model: Model,
    with_peer: bool = False,
) -> Iterator[Row]:
    """Filter and network with the measured σ; beside BM4D with the true one."""
    if kind == SCANNER:
        scan, volume, truth = shared.scanned(scan, percent, seed)
    else:
        volume = shared.noisy(scan, kind, percent, seed)
        truth = shared.true_noise(volume, percent / 100, rician=kind == "Rician")
    removal = removal_of(shared.measured_noise(volume), "MR")
    ways = [(MEASURED, removal.noise, removal.share, (FILTER, NETWORK))]
    ways += [(TRUE, truth, 1.0, (BM4D, NETWORK))] if with_peer else []
    for which, noise, share, arms in ways:
        for arm in arms:
            made = run_arm(arm, volume, noise, share=share, model=model, sigma=truth.level)
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
                **shared.scores(scan, made),
            }


# --- CT -------------------------------------------------------------------------------------------


def ct_subjects(path: str, data: Path = SHARED_DATA) -> Iterator[tuple[str, Subject]]:
    """Central slices, plain, and averaged two by two, which makes a low-noise reference."""
    scan = load(data / path, modality="CT")
    sides = (2 * _CT_SLICES, _CT_SIDE, _CT_SIDE)
    starts = [max(0, (n - side) // 2) for n, side in zip(scan.shape, sides, strict=True)]
    parts = [slice(first, first + side) for first, side in zip(starts, sides, strict=True)]
    scan = scan.crop(*parts)
    middle = max(0, (scan.shape[0] - _CT_SLICES) // 2)
    plain = scan.crop(k=slice(middle, middle + _CT_SLICES))
    yield "plain", ct_subject(shared.short_name(path), plain)
    thick = shared.shrunk(scan, (2, 1, 1))
    yield "averaged", ct_subject(shared.short_name(path, averaged=True), thick)


def ct_rows(path: str, model: Model) -> Iterator[Row]:
    """Low dose, the noise's map and spectrum measured."""
    for reference, known in ct_subjects(path):
        head = {"subject": known.name, "volume": known.name, "reference": reference,
                **shared.origin(model, path)}  # fmt: skip
        for case, seed in product(CT_CASES, SEEDS):
            yield from (head | row for row in ct_case(known, case, seed, model))


def ct_case(
    known: Subject, case: Any, seed: int, model: Model, peers: Sequence[str] = ()
) -> Iterator[Row]:
    volume = known.damaged(case, seed)
    removal = removal_of(shared.measured_noise(volume), volume.modality)
    for arm in (FILTER, NETWORK, *peers):
        made = run_arm(arm, volume, removal.noise, share=removal.share, model=model)
        head = {"part": CT, "case": case.name, "seed": seed, "arm": arm}
        yield head | shared.scores(known, made)


# --- volumes of other sources ---------------------------------------------------------------------


def unlearned_paths(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    if not folders:
        print("skipped: volumes of other sources, whose folder --data names")
    files = [(folder, file) for folder in folders for file in sorted(folder.glob("*/*/*.nii.gz"))]
    return [(folder, file.relative_to(folder).as_posix()) for folder, file in files]


def unlearned_rows(data: Path, path: str, model: Model) -> Iterator[Row]:
    known = json.loads((data / path).with_name("source.json").read_text(encoding="utf-8"))
    head = {"source": known["source"], "license": known["license"]}
    measured = unlearned_mr if modality_of(path) == "MR" else unlearned_ct
    yield from (row | head for row in measured(data, path, model))


def unlearned_mr(data: Path, path: str, model: Model) -> Iterator[Row]:
    """White noise, at one level beside BM4D, and 10 % of each kind of scanner."""
    scan = shared.scan_of(path, data, WIDE_CROP)
    cases = [("Gaussian", percent, SEEDS[0]) for percent in PERCENTS]
    for kind, percent, seed in [*cases, *((SCANNER, 10, seed) for seed in SEEDS)]:
        with_peer = bool(find_spec("bm4d")) and (kind, percent) == ("Gaussian", 10)
        for row in mr_case(scan, kind, percent, seed, model, with_peer):
            yield row | {"part": UNLEARNED_MR}


def unlearned_ct(data: Path, path: str, model: Model) -> Iterator[Row]:
    peers = [BM4D] if find_spec("bm4d") else []
    for reference, known in ct_subjects(path, data):
        head = {"subject": known.name, "reference": reference, "part": UNLEARNED_CT}
        for case in CT_CASES:
            for row in ct_case(known, case, SEEDS[0], model, peers):
                yield row | head | shared.origin(model, path)


# --- gates ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """What the network adds to the filter, with the noise as it is measured, by its goals."""
    arms, sources = (NETWORK, FILTER), [chosen(rows, part=part) for part in (MR, UNLEARNED_MR)]
    yield over_goal(
        "MR, noise of a scanner, other sources too: network over filter, dB, least above its goal "
        "(0.3; of a volume −0.1)",
        [(gain(of, [f"{SCANNER} {n} %, {MEASURED}"], arms), 0.3, -0.1)
         for of in sources for n in PERCENTS],
        "≥ 0", "of weak correlated noise the network removes less than of white noise",
    )  # fmt: skip
    unseen = chosen(rows, part=CT, in_card="none"), chosen(rows, part=UNLEARNED_CT)
    yield over_goal(
        "CT of collections that no training saw, other sources too: network over filter, dB, "
        "least above its goal (0.2; of a volume 0)",
        [(gain(of, [case.name], arms), 0.2, 0) for of in unseen for case in CT_CASES],
        "≥ 0", "in bone and lungs it smooths fine structure of high contrast",
    )  # fmt: skip


if __name__ == "__main__":
    run("denoising", __doc__, parts, gates_of, seeds=SEEDS)
