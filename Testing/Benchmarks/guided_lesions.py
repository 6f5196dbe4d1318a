"""Lesions and the guide: what only one of the two shows, what both show, and real lesions.

    python Testing/Benchmarks/guided_lesions.py --model runs/mr --volumes "*C07*" --write
    python Testing/Benchmarks/guided_lesions.py --model runs/mr --quick

Spheres are planted in even tissue, radius 1.5 to 3 voxels, 1 to 3 σ, bright and dark; each result
is compared with that on the same noise without the spheres, so that the difference is the lesion
alone. Real lesions are those of the multiple sclerosis of C07 and C19: their contrast to the tissue
around, against the contrast in the clean image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import gate
from _denoising import (
    CROP,
    Floats,
    Model,
    Row,
    Scan,
    finish,
    noisy,
    open_model,
    origin_in_card,
    parser_of,
    scan_of,
    settled,
    table,
    whole_scan,
)
from _enhancement_data import Mask
from _enhancement_lesions import even_tissue, new_blobs
from _enhancement_statistics import Gate, chosen
from guidance import CONTRASTS, Guided, arm_of, fits, pairs_of, same_grid
from guidance import CROP as PLANTED_CROP

Box = tuple[slice, slice, slice]

PERCENT = 10
#: Radii in voxels and contrasts in σ, all combinations, of alternating sign.
RADII, CONTRASTS_IN_SIGMA = (1.5, 2.0, 2.5, 3.0), (1.0, 2.0, 3.0)
_REACH, _APART = 4, 9
_FEWEST_VOXELS = {"1 mm": 20, "2 mm": 4}
PLANTED, REAL = "planted", "real"


@dataclass(frozen=True)
class Sphere:
    """where: its box. share: of each voxel that it fills. contrast: signed, in units of the σ."""

    where: Box
    share: Floats
    radius: float
    contrast: float

    def strength(self, change: Floats) -> float:
        """How much of the sphere is in a change of the image, in units of the image."""
        return float((change[self.where] * self.share).sum() / (self.share**2).sum())


def main() -> None:
    parser = parser_of(__doc__ or "", seeds=(0,))
    parser.add_argument("--parts", nargs="+", choices=(PLANTED, REAL), default=[PLANTED, REAL])
    options = settled(parser, PLANTED_CROP)
    options.groups = ["2 mm"]
    model = open_model(options.model, "MR")
    rows: list[Row] = []
    if PLANTED in options.parts:
        for pair in pairs_of(options):
            for seed in options.seeds:
                rows += planted_rows(pair, seed, model)
        table(rows, ("part", "arm", "contrast"), ("mean", "absolute", "kept"))
    if REAL in options.parts:
        found = list(real_rows(options, model))
        table(figures_of_real(found), ("group", "pair", "arm"), ("lesions", "slope", "error"))
        rows += found
    finish("guided_lesions", rows, gates_of, options)


# --- planted --------------------------------------------------------------------------------------


def spheres_in(scan: Scan, seed: int) -> list[Sphere]:
    rng = np.random.default_rng((seed, 7))
    places: list[npt.NDArray[np.int64]] = []
    for place in rng.permutation(np.argwhere(even_tissue(scan)))[:4000]:
        is_within = (place >= _REACH).all() and (place < np.array(scan.inside.shape) - _REACH).all()
        if is_within and all(np.linalg.norm(place - other) > _APART for other in places):
            places.append(place)
    kinds = [(radius, level) for radius in RADII for level in CONTRASTS_IN_SIGMA]
    steps = np.arange(-_REACH, _REACH + 1)
    distance = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(steps, steps, steps)))
    found = []
    for number, place in enumerate(places):
        radius, level = kinds[number % len(kinds)]
        share = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
        k, j, i = (slice(int(p) - _REACH, int(p) + _REACH + 1) for p in place)
        sign = -1 if (number // len(kinds) + number) % 2 else 1
        found.append(Sphere((k, j, i), share, radius, sign * level))
    return found


def with_spheres(image: Floats, spheres: list[Sphere], sigma: float) -> Floats:
    """σ of the noise in the image; the guide, from 0 to 1 as well, has the same contrast."""
    added = image.astype(np.float32).copy()
    for sphere in spheres:
        added[sphere.where] += np.float32(sphere.contrast * sigma) * sphere.share
    return added


def planted_rows(pair: Guided, seed: int, model: Model | None) -> Iterator[Row]:
    """One row for each sphere in each setting, as shares of its contrast; and new blobs."""
    sigma, spheres = PERCENT / 100, spheres_in(pair.scan, seed)
    opposite = [Sphere(s.where, s.share, s.radius, -s.contrast) for s in spheres]
    clear = noisy(pair.scan, "Gaussian", PERCENT, seed)
    marked = clear.with_voxels(with_spheres(clear.voxels, spheres, sigma))
    guide = pair.guide
    same, other = (with_spheres(guide, some, sigma) for some in (spheres, opposite))
    head = {"part": PLANTED, "pair": pair.name, "seed": seed,
            "in_card": origin_in_card(model, pair.scan.path)}  # fmt: skip
    base, results = {"filter": arm_of("filter", clear, PERCENT).voxels}, {}
    results["filter, in the input", "filter"] = arm_of("filter", marked, PERCENT)
    if model is not None:
        base["no guide"] = arm_of("network", clear, PERCENT, model).voxels
        base["guide"] = arm_of("network", clear, PERCENT, model, guide).voxels
        for name, volume, shown, over in (
            ("no guide, in the input", marked, None, "no guide"),
            ("only in the input", marked, guide, "guide"),
            ("only in the guide", clear, same, "guide"),
            ("in both, same sign", marked, same, "guide"),
            ("in both, opposite sign", marked, other, "guide"),
        ):
            results[name, over] = arm_of("network", volume, PERCENT, model, shown)
    for (name, over), made in results.items():
        change = made.voxels - base[over]
        for sphere in spheres:
            share = sphere.strength(change) / (sphere.contrast * sigma)
            is_trace = name == "only in the guide"
            yield head | {
                "arm": name,
                "radius": sphere.radius,
                "contrast": abs(sphere.contrast),
                "sign": int(np.sign(sphere.contrast)),
                **({"mean": share, "absolute": abs(share)} if is_trace else {"kept": share}),
            }
    for name, image in base.items():
        yield head | {"arm": f"{name}, new blobs", "blobs": new_blobs(pair.scan, image)}


# --- real -----------------------------------------------------------------------------------------


def real_rows(options: argparse.Namespace, model: Model | None) -> Iterator[Row]:
    """One row for each lesion, series, guide and resolution: its contrast, clean and in a result.

    The crop is that around the lesions.
    """
    crop = options.crop if options.quick else CROP
    for patient in ("C07", "C19"):
        for given in CONTRASTS:
            path = f"mr/open_ms/{patient}/{given}.nii.gz"
            for averaged in (True, False) if fits(path, options) else ():
                _, lesions = whole_scan(path, options.data, averaged)
                scan = scan_of(path, options.data, crop, averaged=averaged, around=lesions)
                for seed in options.seeds:
                    yield from real_of(scan, given, seed, options, model)


def real_of(
    scan: Scan, given: str, seed: int, options: argparse.Namespace, model: Model | None
) -> Iterator[Row]:
    patient, volume = scan.path.split("/")[-2], noisy(scan, "Gaussian", PERCENT, seed)
    group = "2 mm" if scan.reference == "averaged" else "1 mm"
    regions = lesion_regions(scan, _FEWEST_VOXELS[group])
    clean = contrasts(scan.volume.voxels, regions)
    arms = [("input", None, "input"), ("filter", None, "filter")]
    if model is not None:
        arms.append(("network", None, "no guide"))
        arms += [("network", guide, "guide") for guide in CONTRASTS if guide != given]
    for arm, guide, name in arms:
        shown = guide and same_grid(f"mr/open_ms/{patient}/{guide}.nii.gz", scan, options.data)
        made = arm_of(arm, volume, PERCENT, model, shown)
        pair = f"{patient} {given} ← {guide}" if guide else f"{patient} {given}"
        for number, (true, found) in enumerate(
            zip(clean, contrasts(made.voxels, regions), strict=True)
        ):
            yield {"part": REAL, "group": group, "pair": pair, "seed": seed, "arm": name,
                   "input": f"{patient} {given}", "lesion": number, "clean": true, "found": found,
                   "in_card": origin_in_card(model, scan.path)}  # fmt: skip


def lesion_regions(scan: Scan, fewest: int) -> list[tuple[Mask, Mask]]:
    """Each lesion with the tissue 2 to 3 voxels around it."""
    from scipy.ndimage import binary_dilation, label

    assert scan.lesion is not None
    names, count = label(scan.lesion)
    near = binary_dilation(scan.lesion)
    found = []
    for number in range(1, count + 1):
        inside = names == number
        ring = binary_dilation(inside, iterations=3) & ~near & scan.inside
        if inside.sum() >= fewest and ring.any():
            found.append((inside, ring))
    return found


def contrasts(voxels: npt.NDArray[Any], regions: list[tuple[Mask, Mask]]) -> list[float]:
    return [float(voxels[inside].mean() - voxels[ring].mean()) for inside, ring in regions]


def figures_of_real(rows: list[Row]) -> list[Row]:
    """For each pair and arm: slope of the contrasts against the clean ones, and mean error."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["group"], row["pair"], row["arm"]), []).append(row)
    found = []
    for (group, pair, arm), members in groups.items():
        true, made = (np.array([row[key] for row in members]) for key in ("clean", "found"))
        found.append({"group": group, "pair": pair, "arm": arm, "input": members[0]["input"],
                      "lesions": len(members), "slope": float((true * made).sum() / (true**2).sum()),
                      "error": float(np.abs(made - true).mean())})  # fmt: skip
    return found


# --- gates ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> list[Gate]:
    found: list[Gate] = []

    def add(name: str, value: float | None, bound: str, reached: bool) -> None:
        found.append(gate(name, value, bound, value is not None and reached))

    faint = chosen(rows, part=PLANTED, arm="only in the guide", contrast=1.0)
    traces = np.array([row["mean"] for row in faint])
    for name, value, most in (
        ("mean of signs", abs(float(traces.mean())) if faint else None, 0.01),
        ("mean of absolutes", float(np.abs(traces).mean()) if faint else None, 0.03),
        ("95th percentile", float(np.quantile(np.abs(traces), 0.95)) if faint else None, 0.08),
    ):
        text = f"only in the guide, 1 σ: share of the contrast, {name}"
        add(text, value, f"≤ {most:g}", value is not None and value <= most)
    kept = {arm: [row["kept"] for row in chosen(rows, arm=arm)]
            for arm in ("only in the input", "no guide, in the input")}  # fmt: skip
    ours, alone = (float(np.mean(values)) if values else 0.0 for values in kept.values())
    gain = ours - alone if all(kept.values()) else None
    add("only in the input: contrast kept, guide less no guide", gain, "≥ 0", ours >= alone)
    blobs = {arm: [row["blobs"] for row in chosen(rows, arm=f"{arm}, new blobs")]
             for arm in ("guide", "no guide")}  # fmt: skip
    ours, alone = (float(np.mean(values)) if values else 0.0 for values in blobs.values())
    gain = ours - alone if all(blobs.values()) else None
    add("new blobs per 100 mL, guide less no guide", gain, "≤ 0", ours <= alone)
    return found + real_gates([row for row in rows if row["part"] == REAL])


def real_gates(rows: list[Row]) -> list[Gate]:
    """Means over pairs of the guided result less that of the same input without a guide."""
    found: list[Gate] = []
    figures = figures_of_real(rows)
    for group in _FEWEST_VOXELS:
        alone = {row["input"]: row for row in chosen(figures, group=group, arm="no guide")}
        guided = chosen(figures, group=group, arm="guide")
        for name, bound, sign in (("slope", "≥ 0", 1), ("error", "≤ 0", -1)):
            less = [row[name] - alone[row["input"]][name] for row in guided]
            value = float(np.mean(less)) if less else None
            found.append(gate(f"real lesions, {group}: {name}, guide less no guide", value, bound,
                              value is not None and sign * value >= 0))  # fmt: skip
    return found


if __name__ == "__main__":
    main()
