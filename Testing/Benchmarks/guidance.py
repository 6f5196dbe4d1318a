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
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from _denoising import (
    Floats,
    Made,
    Model,
    Row,
    Scan,
    averaging,
    best_middle_worst,
    draw,
    finish,
    gain_gate,
    gains,
    mean_of_blocks,
    noisy,
    open_model,
    origin_in_card,
    parser_of,
    run_arm,
    scan_of,
    scores,
    settled,
    table,
    true_noise,
    whole_scan,
)
from _enhancement_data import Mask
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
)
#: Smaller than the crops without a guide: there are many pairs.
CROP = (24, 72, 72)
SHIFTS = (0.5, 1.0, 2.0)
RIGHT, NONE, HALF = "right guide", "no guide", "bad in one half"
WRONG = ("mirrored", "other patient", "shifted 1", "shifted 2")
_WRONG_AT = 10
#: Of the bars: dB over no guide by level of noise, at 2 mm and at native 1 mm.
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
    other: Floats | None

    def guides(self, seed: int) -> dict[str, Floats]:
        """The right guide in other forms, and wrong ones."""
        from scipy.ndimage import shift

        rng = np.random.default_rng((seed, 99))
        noise = rng.normal(0, 0.05, self.guide.shape).astype(np.float32)
        shown = np.nan_to_num(self.guide)
        found = {
            "mirrored": np.ascontiguousarray(self.guide[..., ::-1]),
            **{f"shifted {by:g}": shift(shown, (0, 0, by), order=3, mode="nearest")
               for by in SHIFTS},
            "noise 5 %": self.guide + noise,
            "inverted": 1 - self.guide,
        }  # fmt: skip
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
    parser = parser_of(__doc__ or "", seeds=(0, 1))
    parser.add_argument("--groups", nargs="+", choices=tuple(OVER_NONE), default=list(OVER_NONE))
    options = settled(parser, CROP)
    model = open_model(options.model, "MR")
    rows = [row for pair in pairs_of(options) for row in pair_rows(pair, options, model)]
    table(rows, ("group", "percent", "arm"), ("psnr", "ssim", "use", "psnr_bad_half"))
    if options.pictures and model:
        pictures(rows, options, model)
    finish("guidance", rows, gates_of, options)


# --- pairs ----------------------------------------------------------------------------------------


def pairs_of(options: argparse.Namespace) -> Iterator[Guided]:
    """All pairs whose input fits `--volumes`, in the chosen groups."""
    for group in options.groups:
        if group == "registered":
            yield from registered_pairs(options)
            continue
        for patient, other in OTHER_PATIENT.items():
            for given, guide in permutations(CONTRASTS, 2):
                path = f"mr/open_ms/{patient}/{given}.nii.gz"
                if fits(path, options):
                    averaged = group == "2 mm"
                    scan = scan_of(path, options.data, options.crop, averaged=averaged)
                    yield Guided(
                        f"{patient} {given} ← {guide}",
                        group,
                        scan,
                        same_grid(f"mr/open_ms/{patient}/{guide}.nii.gz", scan, options.data),
                        same_grid(f"mr/open_ms/{other}/{guide}.nii.gz", scan, options.data),
                    )


def fits(path: str, options: argparse.Namespace) -> bool:
    is_chosen = any(fnmatch.fnmatch(path, pattern) for pattern in options.volumes)
    return is_chosen and (options.data / path).is_file()


def same_grid(path: str, scan: Scan, data: Path) -> Floats:
    whole, _ = whole_scan(path, data, scan.reference == "averaged")
    return np.ascontiguousarray(whole.voxels[scan.box], np.float32)


def registered_pairs(options: argparse.Namespace) -> Iterator[Guided]:
    for given, guide in REGISTERED[: 1 if options.quick else None]:
        path, other = (f"mr/open_ms/{name}.nii.gz" for name in (given, guide))
        if not fits(path, options):
            continue
        try:
            aligned = registered(other, path, options.data)
        except (ImportError, MedEnhanceError) as error:
            print(f"{given} ← {guide}: {error}")
            continue
        for averaged in (False, True):
            scan = scan_of(path, options.data, options.crop, averaged=averaged)
            voxels = mean_of_blocks(aligned, averaging(scan.volume)) if averaged else aligned
            name = f"{given} ← {guide.split('_')[1]}" + (", averaged" if averaged else "")
            yield Guided(name, "registered", scan, np.ascontiguousarray(voxels[scan.box]), None)


@lru_cache(maxsize=8)
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
            if percent == _WRONG_AT and seed == options.seeds[0]:
                guides |= pair.guides(seed)
            volume = noisy(pair.scan, "Gaussian", percent, seed)
            made = {"input": arm_of("input", volume, percent),
                    "filter": arm_of("filter", volume, percent)}  # fmt: skip
            for name, guide in guides.items() if model else ():
                made[name] = arm_of("network", volume, percent, model, guide)
            for arm, result in made.items():
                yield row_of(pair, percent, seed, arm, result, model)


def arm_of(
    arm: str,
    volume: Volume,
    percent: int,
    model: Model | None = None,
    guide: Floats | None = None,
) -> Made:
    noise = true_noise(volume, percent / 100, rician=False)
    return run_arm(arm, volume, noise, model=model, guide=guide)


def row_of(pair: Guided, percent: int, seed: int, arm: str, made: Made, model: Model | None) -> Row:
    row = {
        "subject": pair.name,
        "group": pair.group,
        "reference": pair.scan.reference,
        "case": f"{pair.group}, {percent} %",
        "percent": percent,
        "seed": seed,
        "arm": arm,
        "in_card": origin_in_card(model, pair.scan.path),
        "use": made.use,
        **scores(pair.scan, made.voxels),
        "cpu_s_per_mvoxel": round(made.seconds / made.voxels.size * 1e6, 3),
    }
    if pair.other is not None:
        row["psnr_bad_half"] = scores(pair.scan, made.voxels, pair.bad_half)["psnr"]
    return row


def pictures(rows: list[Row], options: argparse.Namespace, model: Model) -> None:
    """Best, median and worst gain of a right guide at 10 %."""
    same = chosen(rows, percent=_WRONG_AT, seed=options.seeds[0])
    psnr = {(row["group"], row["subject"], row["arm"]): row["psnr"] for row in same}
    gain = {f"{group}: {name}": value - psnr[group, name, NONE]
            for (group, name, arm), value in psnr.items() if arm == RIGHT}  # fmt: skip
    wanted = best_middle_worst(gain)
    lines = {}
    for pair in pairs_of(options):
        name = f"{pair.group}: {pair.name}"
        for which in [key for key, value in wanted.items() if value == name]:
            volume = noisy(pair.scan, "Gaussian", _WRONG_AT, options.seeds[0])
            results = [
                arm_of("filter", volume, _WRONG_AT).voxels,
                arm_of("network", volume, _WRONG_AT, model).voxels,
                arm_of("network", volume, _WRONG_AT, model, pair.guide).voxels,
            ]
            every = (volume.voxels, pair.guide, *results, pair.scan.volume.voxels)
            given, guide, before, alone, guided, clean = (v[len(v) // 2] for v in every)
            lines[which] = (
                f"{which}: {name}, {gain[name]:+.2f} dB",
                {"noisy": given, "guide": guide, "filter": before, "no guide": alone,
                 "guided": guided, "reference": clean, "guided − no guide": guided - alone,
                 "no guide − reference": alone - clean, "guided − reference": guided - clean},
            )  # fmt: skip
    draw(options.pictures / "guidance.png", [lines[which] for which in wanted])


# --- gates ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> list[Gate]:
    found: list[Gate] = []

    def add(name: str, some: list[Row], case: str, arm: str, mean: Any, least: Any) -> None:
        gain = gains(some, "psnr", [case], arm, NONE)
        found.append(gain_gate(f"{name} over no guide, dB", gain, mean, least))

    for group, bounds in OVER_NONE.items():
        for percent, mean in bounds.items():
            case = f"{group}, {percent} %"
            least = 0.04 if group == "2 mm" else None
            add(f"{case}: right guide", rows, case, RIGHT, mean, least)
        case = f"{group}, {_WRONG_AT} %"
        for arm in WRONG:
            add(f"{case}: {arm}", rows, case, arm, None, -0.02)
        bad = [row | {"psnr": row.get("psnr_bad_half")} for row in rows]
        add(f"{case}: bad in one half, there", bad, case, HALF, None, -0.02)
        for arm in ("shifted 0.5", "noise 5 %", "inverted", HALF):
            add(f"{case}: {arm}", rows, case, arm, 0.0, None)
    for patient in OTHER_PATIENT:
        pair = chosen(rows, subject=f"{patient} T1 ← T2")
        case = f"2 mm, {_WRONG_AT} %"
        add(f"{patient} T1 ← T2, {case}: right guide", pair, case, RIGHT, 0.6, None)
    return found


if __name__ == "__main__":
    main()
