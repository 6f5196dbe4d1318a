"""Lesions and the guide: what only one of the two shows, and real lesions.

    python Testing/Benchmarks/guided_lesions.py

Spheres are planted in even tissue, radius 1.5 to 3 voxels, 1 to 3 σ, bright and dark; each result
is compared with that on the same noise without the spheres, so that the difference is the lesion
alone. Real lesions are those of the multiple sclerosis of C07: their contrast to the tissue around,
against the contrast in the clean image.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import _denoising as shared
import numpy as np
import numpy.typing as npt
import torch
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_most, measure, most, parser_of
from _denoising import Floats, Mask, Model, Scan
from _enhancement_lesions import Lesion, contrast_kept, even_tissue
from _enhancement_statistics import chosen, mean_of, values_of
from guidance import (
    CONTRASTS,
    CROP,
    NONE,
    PATIENT,
    Guided,
    by_network,
    pairs_of,
    path_of,
    same_grid,
)

PERCENT = 10
#: Radii in voxels and contrasts in σ: all combinations, of alternating sign.
KINDS = [(radius, level) for radius in (1.5, 2.0, 2.5, 3.0) for level in (1.0, 2.0, 3.0)]
_REACH, _APART = 4, 9
SERIES = [f"{PATIENT}/{given}" for given in CONTRASTS]
SEED = 0
#: Voxels of the smallest real lesion that counts.
FEWEST = {"1 mm": 20, "2 mm": 4}
PLANTED, REAL = "planted", "real"
GUIDE, ONLY_GUIDE, ONLY_INPUT = "guide", "only in the guide", "only in the input"
ALONE = "in the input, no guide"


def main() -> None:
    torch.set_num_threads(1)
    options = parser_of(__doc__).parse_args()

    def parts() -> Iterator[Part]:
        model = shared.open_model("MR")
        for pair in pairs_of(["2 mm"]):
            yield f"{PLANTED} {pair.name}", partial(planted_rows, pair, SEED, model)
            if QUICK:
                break
        for name, averaged in list(product(SERIES, (True, False)))[: 1 if QUICK else None]:
            yield f"{REAL} {name} {averaged}", partial(real_rows, name, averaged, model)

    measure("guided_lesions", options, parts, gates_of, seeds=[SEED])


# --- planted --------------------------------------------------------------------------------------


def spheres_in(scan: Scan, seed: int) -> list[Lesion]:
    """One of `KINDS` after the other, half of them dark."""
    rng, most = np.random.default_rng((seed, 7)), np.array(scan.inside.shape) - _REACH
    places: list[npt.NDArray[np.int64]] = []
    for place in rng.permutation(np.argwhere(even_tissue(scan)))[:4000]:
        is_within = (place >= _REACH).all() and (place < most).all()
        if is_within and all(np.linalg.norm(place - other) > _APART for other in places):
            places.append(place)
    steps = np.arange(-_REACH, _REACH + 1)
    distance = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(steps, steps, steps)))
    lesions = []
    for number, place in enumerate(places):
        radius, level = KINDS[number % len(KINDS)]
        share = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
        k, j, i = (slice(int(p) - _REACH, int(p) + _REACH + 1) for p in place)
        sign = -1 if (number // len(KINDS) + number) % 2 else 1
        lesions.append(Lesion((k, j, i), share, sign * level * PERCENT / 100))
    return lesions


def with_spheres(image: npt.NDArray[Any], spheres: list[Lesion]) -> Floats:
    """The same contrast in a guide, which goes from 0 to 1 as well."""
    added = image.astype(np.float32)
    for sphere in spheres:
        added[sphere.where] += np.float32(sphere.contrast) * sphere.share
    return added


def planted_rows(pair: Guided, seed: int, model: Model) -> Iterator[Row]:
    """One row for each sphere in each setting, in shares of its contrast."""
    spheres, guide = spheres_in(pair.scan, seed), pair.guide
    clear = shared.noisy(pair.scan, "Gaussian", PERCENT, seed)
    marked = clear.with_voxels(with_spheres(clear.voxels, spheres))
    head = {"part": PLANTED, "pair": pair.name, "seed": seed,
            **shared.origin(model, pair.scan.path)}  # fmt: skip
    base = {shown is None: by_network(clear, PERCENT, model, shown) for shown in (None, guide)}
    for name, volume, shown in (
        (ALONE, marked, None),
        (ONLY_INPUT, marked, guide),
        (ONLY_GUIDE, clear, with_spheres(guide, spheres)),
    ):
        made = by_network(volume, PERCENT, model, shown)
        for number, share in enumerate(contrast_kept(base[shown is None], made, spheres)):
            radius, level = KINDS[number % len(KINDS)]
            figures = {"mean" if name == ONLY_GUIDE else "kept": share}
            yield head | {"arm": name, "radius": radius, "contrast": level} | figures


# --- real -----------------------------------------------------------------------------------------


def real_rows(name: str, averaged: bool, model: Model) -> Iterator[Row]:
    """One row for each lesion and guide: its contrast, clean and in a result.

    The crop is that around the lesions.
    """
    crop = CROP if QUICK else shared.CROP
    _, lesions = shared.whole_scan(path_of(name), SHARED_DATA, averaged)
    scan = shared.scan_of(path_of(name), SHARED_DATA, crop, averaged, around=lesions)
    group = "2 mm" if averaged else "1 mm"
    volume = shared.noisy(scan, "Gaussian", PERCENT, SEED)
    regions = lesion_regions(scan, FEWEST[group])
    clean = contrasts(scan.volume.voxels, regions)
    made = {(NONE, ""): by_network(volume, PERCENT, model)}
    for other in [other for other in SERIES if other != name]:
        shown = same_grid(other, scan)
        made[GUIDE, f" ← {other[4:]}"] = by_network(volume, PERCENT, model, shown)
    for (arm, guide), image in made.items():
        for true, measured in zip(clean, contrasts(image, regions), strict=True):
            yield {"part": REAL, "group": group, "input": name, "pair": name + guide,
                   "arm": arm, "seed": SEED, "clean": true, "found": measured,
                   **shared.origin(model, scan.path)}  # fmt: skip


def lesion_regions(scan: Scan, fewest: int) -> list[tuple[Mask, Mask]]:
    """Each lesion with the tissue 2 to 3 voxels around it."""
    from scipy.ndimage import binary_dilation, label

    assert scan.lesion is not None
    names, count = label(scan.lesion)
    near = binary_dilation(scan.lesion)
    regions_kept = []
    for number in range(1, count + 1):
        inside = names == number
        ring = binary_dilation(inside, iterations=3) & ~near & scan.inside
        if inside.sum() >= fewest and ring.any():
            regions_kept.append((inside, ring))
    return regions_kept


def contrasts(voxels: npt.NDArray[Any], regions: list[tuple[Mask, Mask]]) -> list[float]:
    return [float(voxels[inside].mean() - voxels[ring].mean()) for inside, ring in regions]


def figures_of(rows: list[Row]) -> list[Row]:
    """For each pair and arm: slope of the contrasts against the clean ones, and mean error."""
    places = []
    keys = ("group", "input", "pair", "arm")
    for place in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        where = dict(zip(keys, place, strict=True))
        true, made = (np.array(values_of(rows, key, **where)) for key in ("clean", "found"))
        slope, error = (true * made).sum() / (true**2).sum(), np.abs(made - true).mean()
        places.append(where | {"lesions": true.size, "slope": float(slope), "error": float(error)})
    return places


# --- gates ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """What shows only in the guide stays out; what shows only in the input stays; real lesions."""

    def less(figure: str, arm: str, other: str) -> float | None:
        ours, theirs = (mean_of(rows, figure, arm=name) for name in (arm, other))
        return None if ours is None or theirs is None else ours - theirs

    traces = np.abs(values_of(rows, "mean", arm=ONLY_GUIDE, contrast=1.0))
    value = float(np.quantile(traces, 0.95)) if traces.size else None
    why = "a contrast of 1 σ in the guide looks like noise of the input"
    name = f"{ONLY_GUIDE}, 1 σ: share of the contrast, 95th percentile"
    yield at_most(name, value, 0.08, why)
    lost = less("kept", ALONE, ONLY_INPUT)
    why = "likely: where the guide is even, a faint lesion is smoothed a little more"
    yield at_most(f"{ONLY_INPUT}: contrast kept, no guide less guide", lost, 0, why)
    figures = figures_of(chosen(rows, part=REAL))
    changes = []
    for group in FEWEST:
        alone = {row["input"]: row for row in chosen(figures, group=group, arm=NONE)}
        guided = chosen(figures, group=group, arm=GUIDE)
        lower = [alone[row["input"]]["slope"] - row["slope"] for row in guided]
        changes += [float(np.mean(lower))] if lower else []
    yield at_most("real lesions: slope, no guide less guide, worse of 1 and 2 mm", most(changes), 0)


if __name__ == "__main__":
    main()
