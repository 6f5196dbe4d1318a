"""Faint lesions in enhanced CT, and how surely observers find them.

    python Testing/Benchmarks/faint_lesions.py

Lesions are planted in low-dose CT whose noise is simulated, and in a scan of a uniform phantom,
whose noise is real. Arms: the input, the defaults, `smooth`, and BM4D in some volumes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_least, least, over_goals, run
from _enhancement_data import (
    CASES,
    CT_RANGE_HU,
    CT_SUBJECTS,
    Subject,
    refuse_trained,
    run_kept,
    subject,
)
from _enhancement_lesions import Floats, Lesion, contrast_kept, even_tissue, new_blobs, plant
from _enhancement_peers import bm4d_ct
from _observers import Doubles, Hotelling, auc, channel_outputs, channels, template_score

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, VolumeCache, enhance
from MedEnhanceLib.io import load

PHANTOM = "repeated/ct_phantom_34mA.nii.gz"
#: Contrast of lesions in the phantom, HU: its noise is a tenth of the simulated one.
_PHANTOM_HU = (4.0, 14.0)
SUBJECTS = (*CT_SUBJECTS, "ct/sts/STS_028/CT.nii.gz", "ct/sts/STS_005/CT.nii.gz")
#: Volumes and draws of BM4D, which takes minutes for each.
_BM4D = (CT_SUBJECTS, (0,))
_SLICES, _SEEDS = (6, (0,)) if QUICK else (24, (0, 1))
_REDRAWN = 200


@dataclass
class Seen:
    """One arm on one volume. present, absent: of each lesion, with and without it.

    slices: of the middles of the lesions.
    """

    kept: Sequence[float]
    slices: Doubles
    present: Doubles
    absent: Doubles
    channels_present: Doubles
    channels_absent: Doubles
    figures: Mapping[str, float] = field(default_factory=dict)


def parts() -> Iterator[Part]:
    refuse_trained(list(SUBJECTS))
    for case in CASES["CT"][:1] if QUICK else CASES["CT"][:2]:
        yield case.name, partial(measured, case.name)
    if (SHARED_DATA / PHANTOM).is_file():
        yield "phantom, real noise", partial(measured, "phantom, real noise")


def measured(column: str) -> list[Row]:
    """A row for each arm, over all volumes of a column."""
    seen: dict[str, dict[str, Seen]] = defaultdict(dict)
    for name, known, noisy, seed in scans(column):
        contrast = _PHANTOM_HU if "phantom" in column else None
        added, lesions = plant(known, seed, contrast)
        pair = noisy, noisy.with_voxels(noisy.voxels + added)
        for arm, results in arms(pair, name, seed):
            seen[arm][f"{name} {seed}"] = see(known, noisy, lesions, *results)
    return [
        {"column": column, "arm": arm, **summary(volumes, seen["input"])}
        for arm, volumes in seen.items()
    ]


def scans(column: str) -> Iterator[tuple[str, Subject, Volume, int]]:
    """Yield name, reference, noisy volume and seed."""
    for seed in _SEEDS:
        if "phantom" in column:
            yield PHANTOM, *phantom(), seed
            continue
        (case,) = (case for case in CASES["CT"] if case.name == column)
        for name in SUBJECTS[:1] if QUICK else SUBJECTS:
            known = subject(name, SHARED_DATA, _SLICES)
            yield name, known, known.damaged(case, seed), seed


def phantom() -> tuple[Subject, Volume]:
    """The mean of its slices, which repeat each other, and the scan."""
    scan = load(SHARED_DATA / PHANTOM, modality="CT")
    scan = scan.with_voxels(scan.voxels.astype(np.float32))
    mean = np.broadcast_to(scan.voxels.mean(0), scan.shape)
    body = gaussian_blur(mean, 1.5) > -300
    return Subject(PHANTOM, scan.with_voxels(mean), CT_RANGE_HU, body), scan


def arms(
    pair: tuple[Volume, Volume], name: str, seed: int
) -> Iterator[tuple[str, tuple[Floats, ...]]]:
    """Yield the results of each arm without and with lesions."""
    caches = VolumeCache(), VolumeCache()
    yield "input", tuple(volume.voxels.astype(np.float32) for volume in pair)
    for arm, smooth in (("ours", False), ("ours, smooth", True)):
        config = EnhanceConfig(device="cpu", for_viewing=smooth)
        results = [enhance(v, config, cache=c) for v, c in zip(pair, caches, strict=True)]
        yield arm, tuple(result.volume.voxels.astype(np.float32) for result in results)
    if find_spec("bm4d") and name in _BM4D[0] and seed in _BM4D[1]:
        yield "BM4D", tuple(run_kept(bm4d_ct, "BM4D CT", v, keep=not QUICK)[0] for v in pair)


def see(
    known: Subject, noisy: Volume, lesions: Sequence[Lesion], without: Floats, present: Floats
) -> Seen:
    """Score the lesions of a result, and measure the one without."""
    images, even = channels(known.volume.geometry.spacing), even_tissue(known)
    left, before = ((v - known.volume.voxels)[even].std() for v in (without, noisy.voxels))
    figures = {
        "noise_removed": 1 - float(left / before),
        "blobs_per_100_ml": new_blobs(known, without),
        "psnr": metrics.psnr(known.volume.voxels, without, known.span),
    }
    scores = (np.array([template_score(v, one) for one in lesions]) for v in (present, without))
    # In σ of the input, so that volumes can be pooled.
    sigma = before or 1.0
    outputs = (
        np.stack([channel_outputs(v, one, images) for one in lesions]) / sigma
        for v in (present, without)
    )
    middles = np.array([(one.where[0].start + one.where[0].stop) // 2 for one in lesions])
    return Seen(contrast_kept(without, present, lesions), middles, *scores, *outputs, figures)


def summary(volumes: Mapping[str, Seen], inputs: Mapping[str, Seen]) -> dict[str, Any]:
    """Figures of an arm; AUC less the input's in the same volumes, and its deviation over these."""

    def pooled(names: Sequence[str], seen: Mapping[str, Seen]) -> float:
        found = [seen[name] for name in names]
        present, absent = ([getattr(s, key) for s in found] for key in ("present", "absent"))
        return auc(np.concatenate(present), np.concatenate(absent))

    def stacked(seen: Mapping[str, Seen]) -> tuple[Doubles, Doubles]:
        every = [seen[name] for name in volumes]
        present, absent = (
            np.concatenate([getattr(s, f"channels_{key}") for s in every]) for key in _STATES
        )
        return present, absent

    names, rng = list(volumes), np.random.default_rng(0)
    draws = [rng.choice(names, len(names)) for _ in range(_REDRAWN)]
    differences = [pooled(draw, volumes) - pooled(draw, inputs) for draw in draws]
    slices = np.concatenate([s.slices for s in volumes.values()])
    alone, noisy = Hotelling.on(slices, stacked(inputs))
    kept = np.concatenate([s.kept for s in volumes.values()])
    return {
        "volumes": len(names),
        "lesions": len(kept),
        "auc": pooled(names, volumes),
        "auc_less_input": pooled(names, volumes) - pooled(names, inputs),
        "auc_sd": float(np.std(differences)),
        "hotelling": alone.auc(stacked(volumes)),
        "hotelling_internal_noise": noisy.auc(stacked(volumes)),
        "kept": float(kept.mean()),
        "kept_less_than_half": float((kept < 0.5).mean()),
        **{
            name: float(np.mean([s.figures[name] for s in volumes.values()]))
            for name in next(iter(volumes.values())).figures
        },
    }


_STATES = ("present", "absent")


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    of_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in ("ours", "ours, smooth")}
    why = "what is given back: docs/decisions/0117-texture-of-ct.md"
    name = "faint lesions: AUC less the input's, least column"
    yield at_least(name, least(row["auc_less_input"] for row in of_arm["ours"]), -0.01, why)
    goals = {"kept": 0.6, "noise_removed": 0.55}
    values = {goal: [row[key] for row in of_arm["ours"]] for key, goal in goals.items()}
    yield at_least(
        "faint lesions: contrast kept and share of the noise removed, least column above its goal "
        "(0.6, 0.55)", over_goals(values), 0, why,
    )  # fmt: skip
    smooth = least(row["auc_less_input"] for row in of_arm["ours, smooth"])
    yield at_least("faint lesions, smooth: AUC less the input's, least column", smooth, -0.05, why)


if __name__ == "__main__":
    run("faint_lesions", __doc__, parts, gates_of, seeds=_SEEDS)
