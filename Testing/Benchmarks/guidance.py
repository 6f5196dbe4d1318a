"""Another series of the same examination as guide: right ones, and guides that are wrong.

    python Testing/Benchmarks/guidance.py --model runs/mr --volumes "*C07*" --write
    python Testing/Benchmarks/guidance.py --model runs/mr-other --volumes "*C19*" --write \
        --add Testing/Benchmarks/results/guidance.json
    python Testing/Benchmarks/guidance.py --model runs/mr --quick --pictures runs/pictures

Gaussian noise of known σ is added to one series of a patient; the others guide it, as they are.
C07 and C19 have four series on one grid, native (1 mm, interpolated at the source) and averaged to
2 mm. The L patients have two or three with thick slices, each on its own grid: these are registered
as the product does it. Wrong guides are measured at 10 % with the first seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any

import _denoising as shared
import numpy as np
from _denoising import FILTER, NETWORK, Floats, Made, Mask, Model, Row, Scan, gain_gate, run_arm
from _enhancement_statistics import Gate, chosen

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.io import load

CONTRASTS = ("T1", "T1POST", "T2", "FLAIR")
OTHER_PATIENT = {"C07": "C19", "C19": "C07"}
#: Guides of one examination on grids of their own: a few ordered pairs, input first.
REGISTERED = (
    ("L01/study1_FLAIR", "L01/study1_T2W"),
    ("L01/study1_T1W", "L01/study1_FLAIR"),
    ("L03/study2_T1W", "L03/study2_T2W"),
    ("L03/study1_FLAIR", "L03/study1_T2W"),
    ("L04/study1_FLAIR", "L04/study1_T2W"),
    ("L04/study1_T1W", "L04/study1_FLAIR"),
    ("L20/study2_T1W", "L20/study2_FLAIR"),
    ("L20/study2_FLAIR", "L20/study2_T1W"),
)
#: Smaller than the crops without a guide: there are many pairs.
CROP = (24, 72, 72)
RIGHT, NONE, HALF = "right guide", "no guide", "bad in one half"
SHIFTS, HARMLESS = (0.5, 1.0, 2.0), ("shifted 0.5", "noise 5 %", "inverted", HALF)
WRONG = ("mirrored", "other patient", "shifted 1", "shifted 2")
WRONG_AT = 10
#: dB over no guide that are wanted, by level of noise.
OVER_NONE = {
    "2 mm": {5: 0.2, 10: 0.35, 15: 0.5},
    "1 mm": {5: 0.0, 10: 0.15, 15: 0.15},
    "registered": {5: 0.0, 10: 0.0, 15: 0.0},
}


@dataclass(frozen=True, eq=False)
class Guided:
    """An input and its guide on the same crop.

    guide: [K, J, I], 0 to 1, NaN where it shows nothing. other: the guide's contrast of another
    patient; None where there is none on this grid.
    """

    name: str
    group: str
    scan: Scan
    guide: Floats
    other: Floats | None = None

    def guides(self, seed: int) -> dict[str, Floats]:
        """The right guide in other forms, and wrong ones."""
        from scipy.ndimage import shift

        noise = np.random.default_rng((seed, 99)).normal(0, 0.05, self.guide.shape)
        found = {
            "mirrored": np.ascontiguousarray(self.guide[..., ::-1]),
            "noise 5 %": self.guide + noise.astype(np.float32),
            "inverted": 1 - self.guide,
        }
        for by in SHIFTS:
            shown = np.nan_to_num(self.guide)
            found[f"shifted {by:g}"] = shift(shown, (0, 0, by), order=3, mode="nearest")
        if self.other is not None:
            half = np.where(self.bad_half, self.other, self.guide)
            found |= {"other patient": self.other, HALF: half}
        return found

    @property
    def bad_half(self) -> Mask:
        """Rows of the second half: where the guide of `HALF` is another patient's."""
        rows = np.arange(self.guide.shape[1])[:, None] >= self.guide.shape[1] // 2
        return np.broadcast_to(rows, self.guide.shape)


def main() -> None:
    parser = shared.parser_of(__doc__, seeds=(0, 1))
    parser.add_argument("--groups", nargs="+", choices=tuple(OVER_NONE), default=list(OVER_NONE))
    options = shared.settled(parser, CROP)
    model = shared.open_model(options.model, "MR")
    rows = [row for pair in pairs_of(options) for row in pair_rows(pair, options, model)]
    figures = ("psnr", "ssim", "use", "psnr_bad_half", "cpu_s_per_mvoxel")
    shared.table(rows, ("group", "percent", "arm"), figures)
    if options.pictures and model:
        pictures(rows, options, model)
    shared.finish("guidance", rows, gates_of, options)


# --- pairs ----------------------------------------------------------------------------------------


def pairs_of(options: argparse.Namespace) -> Iterator[Guided]:
    """All pairs whose input is among `--volumes`, in the chosen groups."""
    for group in options.groups:
        if group == "registered":
            yield from registered_pairs(options)
            continue
        for patient, other in OTHER_PATIENT.items():
            for given, guide in permutations(CONTRASTS, 2):
                path = path_of(f"{patient}/{given}")
                if shared.is_chosen(path, options):
                    scan = shared.scan_of(path, options.data, options.crop, group == "2 mm")
                    # Series of these examinations share a grid, but are up to half a voxel off.
                    aligned = registered(path_of(f"{patient}/{guide}"), path, options.data)
                    if group == "2 mm":
                        aligned = shared.mean_of_blocks(aligned, (2, 2, 2))
                    right = np.ascontiguousarray(aligned[scan.box])
                    wrong = same_grid(f"{other}/{guide}", scan, options.data)
                    yield Guided(f"{patient} {given} ← {guide}", group, scan, right, wrong)


def path_of(name: str) -> str:
    return f"mr/open_ms/{name}.nii.gz"


def same_grid(name: str, scan: Scan, data: Path) -> Floats:
    whole, _ = shared.whole_scan(path_of(name), data, scan.reference == "averaged")
    return np.ascontiguousarray(whole.voxels[scan.box], np.float32)


def registered_pairs(options: argparse.Namespace) -> Iterator[Guided]:
    chosen_pairs = [p for p in REGISTERED if shared.is_chosen(path_of(p[0]), options)]
    for given, guide in chosen_pairs[: 1 if options.quick else None]:
        try:
            aligned = registered(path_of(guide), path_of(given), options.data)
        except (ImportError, MedEnhanceError) as error:
            print(f"{given} ← {guide}: {error}")
            continue
        for averaged in (False, True):
            scan = shared.scan_of(path_of(given), options.data, options.crop, averaged)
            factors = shared.averaging(scan.volume)
            voxels = shared.mean_of_blocks(aligned, factors) if averaged else aligned
            name = f"{scan.name} ← {guide.split('_')[1]}"
            yield Guided(name, "registered", scan, np.ascontiguousarray(voxels[scan.box]))


@lru_cache(maxsize=14)
def registered(guide: str, volume: str, data: Path) -> Floats:
    """A guide on the grid of a volume, as the product registers it: 0 to 1, NaN outside."""
    from MedEnhanceLib.hqg import guide as product
    from MedEnhanceLib.runtime.progress import Monitor

    moving, fixed = (load(data / path, modality="MR") for path in (guide, volume))
    voxels: Floats = product.align(moving, fixed, Monitor()).voxels
    return voxels


# --- rows -----------------------------------------------------------------------------------------


def pair_rows(pair: Guided, options: argparse.Namespace, model: Model | None) -> Iterator[Row]:
    """Filter, no guide and the right guide at each level; further guides at one level."""
    for percent in options.percents:
        for seed in options.seeds:
            guides: dict[str, Floats | None] = {NONE: None, RIGHT: pair.guide}
            if percent == WRONG_AT and seed == options.seeds[0]:
                guides |= pair.guides(seed)
            volume = shared.noisy(pair.scan, "Gaussian", percent, seed)
            made = {arm: arm_of(arm, volume, percent) for arm in ("input", FILTER)}
            for name, guide in guides.items() if model else ():
                made[name] = arm_of(NETWORK, volume, percent, model, guide)
            for arm, result in made.items():
                row = {
                    "subject": pair.name,
                    "group": pair.group,
                    "reference": pair.scan.reference,
                    "case": f"{pair.group}, {percent} %",
                    "percent": percent,
                    "seed": seed,
                    "arm": arm,
                    **shared.origin(model, pair.scan.path),
                    "use": result.use,
                    **shared.scores(pair.scan, result),
                }
                if pair.other is not None:
                    there = shared.scores(pair.scan, result, pair.bad_half)
                    row["psnr_bad_half"] = there["psnr"]
                yield row


def arm_of(
    arm: str, volume: Volume, percent: int, model: Model | None = None, guide: Floats | None = None
) -> Made:
    noise = shared.true_noise(volume, percent / 100, rician=False)
    return run_arm(arm, volume, noise, model=model, guide=guide)


def pictures(rows: list[Row], options: argparse.Namespace, model: Model) -> None:
    """Gains of right guides at one level."""
    same = chosen(rows, percent=WRONG_AT, seed=options.seeds[0])
    psnr = {(f"{row['group']}: {row['subject']}", row["arm"]): row["psnr"] for row in same}
    pairs = {f"{pair.group}: {pair.name}": pair for pair in pairs_of(options)}

    def panels(name: str) -> dict[str, Any]:
        pair = pairs[name]
        volume = shared.noisy(pair.scan, "Gaussian", WRONG_AT, options.seeds[0])
        before = arm_of(FILTER, volume, WRONG_AT).voxels
        alone, guided = (
            arm_of(NETWORK, volume, WRONG_AT, model, guide).voxels for guide in (None, pair.guide)
        )
        clean = pair.scan.volume.voxels
        return {"noisy": volume.voxels, "guide": pair.guide, FILTER: before, NONE: alone,
                "guided": guided, "reference": clean, f"guided − {NONE}": guided - alone,
                f"{NONE} − reference": alone - clean,
                "guided − reference": guided - clean}  # fmt: skip

    gain = {name: value - psnr[name, NONE] for (name, arm), value in psnr.items() if arm == RIGHT}
    shared.draw(options.pictures / "guidance.png", gain, panels)


# --- gates ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> list[Gate]:
    found: list[Gate] = []
    in_bad_half = [row | {"psnr": row.get("psnr_bad_half")} for row in rows]
    for group, bounds in OVER_NONE.items():
        for percent, mean in bounds.items():
            case, least = f"{group}, {percent} %", 0.04 if group == "2 mm" else None
            found.append(gain_gate(case, rows, [case], (RIGHT, NONE), mean=mean, least=least))
        case = f"{group}, {WRONG_AT} %"
        found += [gain_gate(case, rows, [case], (arm, NONE), least=-0.02) for arm in WRONG]
        found += [gain_gate(case, rows, [case], (arm, NONE), mean=0) for arm in HARMLESS]
        name = f"{case}, in that half"
        found.append(gain_gate(name, in_bad_half, [case], (HALF, NONE), least=-0.02))
    for patient in OTHER_PATIENT:
        pair, case = chosen(rows, subject=f"{patient} T1 ← T2"), f"2 mm, {WRONG_AT} %"
        found.append(gain_gate(f"{patient} T1 ← T2, {case}", pair, [case], (RIGHT, NONE), mean=0.6))
    return found


if __name__ == "__main__":
    main()
