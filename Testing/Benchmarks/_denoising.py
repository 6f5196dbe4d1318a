"""What the benchmarks of the removal of noise share: scans, noise, arms, scores, pictures."""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import REPOSITORY, SHARED_DATA, write
from _enhancement_cache import run_kept
from _enhancement_data import TEMPLATE, Box, Floats, Mask, Subject, cropped, sample_volume
from _enhancement_peers import bm4d_mr, nlm_ct, nlm_mr
from _enhancement_statistics import Difference, Gate, Pair, difference, difference_gate

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import rician_noise, robust_max
from MedEnhanceLib.hqg import denoise
from MedEnhanceLib.io import load
from MedEnhanceLib.nets import grouped
from MedEnhanceLib.nets.noise import LevelMap, NoiseEstimate, measure_noise

Row = dict[str, Any]

#: Voxels of a crop along k, j, i; those of `--quick`, and those for peers, which are slow.
CROP, QUICK_CROP, SMALL_CROP = (32, 96, 96), (16, 64, 64), (14, 56, 56)
PERCENTS = (5, 10, 15)
#: The filter before there was a network, whatever rounds the library has now; and one more round.
FILTER_ROUNDS = {
    "MR": (grouped.Round(step=4), grouped.Round(step=4, damp=1.2), grouped.Round(step=3, damp=1.2)),
    "CT": (grouped.Round(step=4, damp=2.0, apart=4), grouped.Round(step=3, damp=1.4)),
}
ONE_MORE = grouped.Round(step=3, damp=1.2)
_SLICES_ARE_THICK = 1.6
_AIR = 0.1


@dataclass(frozen=True, eq=False)
class Scan(Subject):
    """A reference with intensities from 0 to about 1 (the robust maximum).

    path: in the folder of open volumes. reference: "plain", or "averaged" where 2 × 2 × 2 voxels
    (2 × 2 in thick slices) were averaged, which takes noise away. box: of the crop.
    """

    path: str = ""
    reference: str = "plain"
    box: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Made:
    """A result. seconds: of CPU. use: how much of the guide was used, 0 to 1; None without one."""

    voxels: Floats
    seconds: float
    use: float | None = None


@dataclass(frozen=True)
class Model:
    """An opened enhancer: its name, what `denoise` takes, and the metadata of its bundle."""

    name: str
    network: Any
    metadata: Mapping[str, Any]


# --- options and results --------------------------------------------------------------------------


def parser_of(text: str, seeds: Sequence[int]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of open volumes")
    parser.add_argument("--model", help="name or folder of an MR enhancer; none: the filter alone")
    parser.add_argument("--volumes", nargs="+", default=["*"], help="patterns, as *C07*: held out")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument("--percents", nargs="+", type=int, default=list(PERCENTS))
    parser.add_argument("--crop", nargs=3, type=int, help="voxels along k, j, i")
    parser.add_argument("--quick", action="store_true", help="small crops, 10 %%, the first seed")
    parser.add_argument("--write", action="store_true", help="write Testing/Benchmarks/results")
    parser.add_argument("--add", type=Path, help="JSON of another run, whose rows are kept")
    parser.add_argument("--pictures", type=Path, help="folder for rows of PNG pictures")
    return parser


def settled(parser: argparse.ArgumentParser, crop: Sequence[int] = CROP) -> argparse.Namespace:
    import torch

    torch.set_num_threads(1)
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.percents = options.seeds[:1], [10]
    options.crop = tuple(options.crop or (QUICK_CROP if options.quick else crop))
    return options


def finish(
    name: str, rows: list[Row], gates_of: Callable[[list[Row]], list[Gate]], options: Any
) -> None:
    """Print the gates; write the JSON where that was requested."""
    if options.add:
        rows = json.loads(options.add.read_text(encoding="utf-8"))["rows"] + rows
    reached = gates_of(rows)
    for entry in [entry for entry in reached if entry["value"] is not None]:
        value = f"{entry['value']:+.4f}"
        least = f" (least {entry['least']:+.3f}, n {entry['subjects']})" if "least" in entry else ""
        print("pass" if entry["pass"] else "FAIL", f"{entry['name']}: {value}{least}, goal",
              entry["bound"])  # fmt: skip
    if options.write:
        write(name, gates=reached, rows=rows, seeds=options.seeds)


def table(rows: Sequence[Row], keys: Sequence[str], figures: Sequence[str]) -> None:
    """Print means of figures over the rows that agree in `keys`, and their number."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    print("\n" + " | ".join((*keys, "n", *figures)))
    for group, members in groups.items():
        cells = [str(cell) for cell in (*group, len(members))]
        for figure in figures:
            values = [row[figure] for row in members if row.get(figure) is not None]
            cells.append(f"{np.mean(values):.3f}" if values else "–")
        print(" | ".join(cells))


def gain_gate(
    name: str,
    found: Difference | None,
    mean: float | None = None,
    least: float | None = None,
) -> Gate:
    """Whether a mean difference, and the least of any subject, reach their bounds."""
    bounds = [f"≥ {mean:g}"] if mean is not None else []
    bounds += [f"least ≥ {least:g}"] if least is not None else []
    reached = (
        found is not None
        and (mean is None or found.mean >= mean)
        and (least is None or found.least >= least)
    )
    entry = difference_gate(name, found, ", ".join(bounds), reached)
    return entry if found is None else entry | {"least": found.least}


def gains(rows: list[Row], figure: str, cases: Sequence[str], arm: str, over: str) -> Any:
    pairs: list[Pair] = [(case, arm, over) for case in cases]
    return difference(rows, figure, pairs) if cases else None


# --- scans ----------------------------------------------------------------------------------------


def short_name(path: str) -> str:
    """As "C07 T1"."""
    parts = path.removesuffix(".nii.gz").split("/")
    return path if len(parts) == 1 else " ".join(parts[-2:])


@lru_cache(maxsize=6)
def whole_scan(path: str, data: Path, averaged: bool) -> tuple[Volume, Mask | None]:
    """All of a volume in float32, its robust maximum at 1, and the lesions marked in it, if any."""
    volume = sample_volume() if path == TEMPLATE else load(data / path, modality="MR")
    voxels = np.maximum(volume.voxels, 0).astype(np.float32)  # splines of the source undershoot
    lesion = (data / path).with_name("lesion.nii.gz")
    marked = load(lesion, modality="SEG").voxels > 0 if lesion.is_file() else None
    if averaged:
        factors = averaging(volume)
        voxels = mean_of_blocks(voxels, factors)
        if marked is not None:
            marked = mean_of_blocks(marked.astype(np.float32), factors) > 0.5
        volume = on_coarse_grid(volume, voxels, factors)
    return volume.with_voxels(voxels / np.float32(robust_max(voxels))), marked


def averaging(volume: Volume) -> tuple[int, int, int]:
    di, _, dk = volume.geometry.spacing
    return (1 if dk > _SLICES_ARE_THICK * di else 2), 2, 2


def mean_of_blocks(voxels: Floats, factors: tuple[int, int, int]) -> Floats:
    sizes = [side // by for side, by in zip(voxels.shape, factors, strict=True)]
    k, j, i = (slice(0, size * by) for size, by in zip(sizes, factors, strict=True))
    shape = [n for pair in zip(sizes, factors, strict=True) for n in pair]
    mean: Floats = voxels[k, j, i].reshape(shape).mean(axis=(1, 3, 5))
    return mean


def on_coarse_grid(volume: Volume, voxels: Floats, factors: tuple[int, int, int]) -> Volume:
    spacing = [mm * by for mm, by in zip(volume.geometry.spacing, factors[::-1], strict=True)]
    geometry = replace(volume.geometry, spacing=(spacing[0], spacing[1], spacing[2]))
    return replace(volume, voxels=voxels, geometry=geometry, history=())


def scan_of(
    path: str,
    data: Path,
    crop: Sequence[int],
    *,
    averaged: bool = False,
    around: Mask | None = None,
) -> Scan:
    """A crop around the median of the foreground, or of another mask."""
    whole, marked = whole_scan(path, data, averaged)
    inside = whole.voxels > _AIR
    places = np.argwhere(inside if around is None else around)
    box = []
    for middle, most, side in zip(np.median(places, axis=0), crop, whole.shape, strict=True):
        first = int(np.clip(round(float(middle)) - most // 2, 0, max(0, side - most)))
        box.append(slice(first, min(first + most, side)))
    where = box[0], box[1], box[2]
    name = short_name(path) + (", averaged" if averaged else "")
    volume = replace(cropped(whole, where), source=name)
    lesion = None if marked is None else marked[where]
    reference = "averaged" if averaged else "plain"
    regions = {"foreground": np.ascontiguousarray(inside[where])}
    return Scan(name, volume, 1.0, regions, lesion, path=path, reference=reference, box=where)


def noisy(scan: Scan, kind: str, percent: int, seed: int) -> Volume:
    """With Gaussian or Rician noise, σ in % of the robust maximum."""
    rng = np.random.default_rng((seed, percent, kind == "Rician"))
    clean, sigma = scan.volume.voxels.astype(np.float32), percent / 100
    if kind == "Rician":
        return scan.volume.with_voxels(rician_noise(clean, sigma, rng))
    noise = rng.normal(0, sigma, clean.shape).astype(np.float32)
    return scan.volume.with_voxels(clean + noise)


def true_noise(volume: Volume, sigma: float, *, rician: bool) -> NoiseEstimate:
    """White noise whose level is given, as if it had been measured without an error."""
    k, j, i = volume.shape
    return NoiseEstimate(
        level=sigma,
        sigma=np.full((1, 1, 1), sigma, np.float32),
        spectrum=np.ones((4, 4, 4), np.float32),
        confidence=1.0,
        reason="",
        rician=rician,
        air=sigma if rician else None,
        contrast=1.0,
        shape=(k, j, i),
        cell=(float(k), float(j), float(i)),
    )


def measured_noise(volume: Volume) -> NoiseEstimate:
    spacing = volume.geometry.spacing
    return measure_noise(volume.voxels, modality=volume.modality, spacing=spacing)


# --- arms -----------------------------------------------------------------------------------------


def open_model(name: str | None, modality: str) -> Model | None:
    """The network of a bundle; None where no model was named."""
    if name is None or name == "none":
        return None
    from MedEnhanceLib.bundles import open_bundle
    from MedEnhanceLib.hqg.bundle import open_enhancer

    bundle = open_bundle(name, kind="enhancer", modality=modality)
    return Model(f"{bundle.name} {bundle.sha256[:12]}", open_enhancer(bundle), bundle.metadata)


def origin_in_card(model: Model | None, path: str) -> str | None:
    """What of a volume's origin the card lists among the training data.

    Returns:
        "volume" where a pattern of files fits it and none that is left out does, "collection",
        "none", or None without a model.
    """
    if model is None:
        return None
    stated = {key: model.metadata.get(key) for key in ("training", "data")}
    used, left_out = _texts(stated, kept_apart=False), _texts(stated, kept_apart=True)
    if any(map(partial(fnmatch.fnmatch, path), used)) and not any(
        fnmatch.fnmatch(path, pattern) for pattern in left_out
    ):
        return "volume"
    collection = "mni152|template" if path == TEMPLATE else path.split("/")[1]
    named = re.compile(rf"(?<![a-z])(?:{collection})(?![a-z])", re.IGNORECASE)
    return "collection" if any(named.search(text) for text in used) else "none"


def _texts(fields: Any, *, kept_apart: bool, inside: bool = False) -> Iterator[str]:
    """Texts below fields whose names say that they are left out of the training, or all others."""
    if isinstance(fields, Mapping):
        for key, value in fields.items():
            apart = inside or bool(re.search("leave|left|held", str(key)))
            yield from _texts(value, kept_apart=kept_apart, inside=apart)
    elif isinstance(fields, list | tuple):
        for value in fields:
            yield from _texts(value, kept_apart=kept_apart, inside=inside)
    elif isinstance(fields, str) and inside == kept_apart:
        yield fields


def run_arm(
    arm: str,
    volume: Volume,
    noise: NoiseEstimate,
    *,
    share: float = 1.0,
    model: Model | None = None,
    guide: Floats | None = None,
    sigma: float | None = None,
) -> Made:
    """One way to remove noise.

    Args:
        arm: "input", "non-local means", "BM4D", "filter", "one more round" or "network".
        volume: with noise.
        noise: true or measured; peers measure it themselves.
        share: of the correction.
        model: of the arm "network".
        guide: of the same, [K, J, I] on the volume's grid, 0 to 1, NaN where it shows nothing.
        sigma: the true level, for BM4D; None lets it estimate.
    """
    if arm == "input":
        return Made(volume.voxels.astype(np.float32), 0.0)
    if arm == "BM4D":
        run = partial(bm4d_mr, sigma=sigma, rician=noise.rician)
        return Made(*run_kept(run, f"BM4D {sigma} {noise.rician} 2", volume, keep=True))
    began = time.process_time()
    use = None
    if arm == "non-local means":
        run = nlm_ct if volume.modality == "CT" else partial(nlm_mr, rician=noise.rician)
        voxels = run(volume).voxels.astype(np.float32)
    elif arm in ("filter", "one more round"):
        rounds = FILTER_ROUNDS["CT" if volume.modality == "CT" else "MR"]
        rounds += (ONE_MORE,) if arm == "one more round" else ()
        voxels = by_filter(volume, noise, share, rounds)
    else:
        assert model is not None
        voxels, use = by_network(volume, noise, share, model, guide)
    return Made(voxels, time.process_time() - began, use)


def by_filter(
    volume: Volume, noise: NoiseEstimate, share: float, rounds: Sequence[grouped.Round]
) -> Floats:
    """The grouped filter with its last steps, and no network."""
    voxels: Floats = grouped.denoised(
        volume.voxels,
        LevelMap(noise),
        noise.spectrum.reshape(-1),
        rounds=rounds,
        spacing=volume.geometry.spacing,
        finish=denoise._Finish(noise, share, None),
    )
    return voxels


def by_network(
    volume: Volume, noise: NoiseEstimate, share: float, model: Model, guide: Floats | None
) -> tuple[Floats, float | None]:
    """The only place that knows how the library takes a network and a guide."""
    run: Any = denoise.denoise
    made = run(volume, noise, share=share, network=model.network, guide=guide)
    voxels, use = made if isinstance(made, tuple) else (made, None)
    return voxels, use


def scores(scan: Subject, result: Floats, mask: Mask | None = None) -> Row:
    """PSNR (its range: the span) and SSIM of the foreground, or of a part of it."""
    inside = scan.inside if mask is None else scan.inside & mask
    reference, made = scan.volume.voxels, result.astype(np.float32)
    return {
        "psnr": min(99.0, metrics.psnr(reference, made, scan.span, mask=inside)),
        "ssim": metrics.ssim(reference, made, scan.span, mask=inside),
    }


# --- pictures -------------------------------------------------------------------------------------


def best_middle_worst(found: Mapping[str, float]) -> dict[str, str]:
    """The names with the highest, the median and the lowest value."""
    order = sorted(found, key=lambda name: found[name])
    return {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}


def draw(path: Path, rows: Sequence[tuple[str, Mapping[str, Floats]]], signed: str = "−") -> None:
    """Rows of slices with their names; those with `signed` in the name are differences, ± 0.1."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    width = max(len(panels) for _, panels in rows)
    figure, axes = plt.subplots(
        len(rows), width, figsize=(2.2 * width, 2.5 * len(rows)), squeeze=False
    )
    for line, (name, panels) in zip(axes, rows, strict=True):
        for place in line:
            place.axis("off")
        for place, (what, image) in zip(line, panels.items(), strict=False):
            low, high = (-0.1, 0.1) if signed in what else (0.0, 1.0)
            place.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            place.set_title(what if place is not line[0] else "", fontsize=7)
        line[0].set_title(f"{name}\n{next(iter(panels))}", fontsize=7, loc="left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print("pictures:", path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)
