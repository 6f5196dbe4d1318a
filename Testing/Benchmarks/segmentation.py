"""The head that ships, on scans that it did not learn from.

    python Testing/Benchmarks/segmentation.py --data FOLDER …    volumes of heads.json

Labels of `brain` are compared with FreeSurfer's and with those that people drew, between sequences
of a patient, between two scans of a person, and with those of the same scan noisy, noisy and
enhanced, in thick slices, and stored otherwise. Scans beyond what it learned (reach) are refused
with a reason, or compared too. Beside it stand its mixture, placed by its locator but not
corrected, and labels of one person that demons carry to others.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _atlas import carry_labels
from _common import (
    QUICK,
    REPOSITORY,
    Gate,
    Part,
    Row,
    at_least,
    at_most,
    kept,
    most,
    over_goals,
    run,
)
from _heads_data import (
    CORTEX,
    STRUCTURES,
    WHITE,
    Entry,
    Heads,
    agreement,
    agreement_of_labels,
    on_wrong_side,
    onto,
    structures_of,
    volume_errors,
    volumes_of,
)

from MedEnhanceLib import gradprom
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Rician
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.segmenting import StructureSegmenter
from MedEnhanceLib.io import load, save

SEED = 0
BUNDLE = REPOSITORY / "Resources" / "models" / "brain"
_CONFIG = SegmentConfig(model=str(BUNDLE), device="cpu")
HEAD, MIXTURE, TEMPLATE = "head", "mixture", "one template"
NOISY, ENHANCED = "noisy", "enhanced"
#: Volumes of heads.json: noisy ones, one in thick slices, one in other storages, to which labels
#: are carried, and whose time is measured.
_NOISY = ("malf/malf_1104_T1", "multi/open_ms_C26_T2")
_THICK = ("malf/malf_1003_T1", "multi/open_ms_C26_T2")
_STORED = ("malf/malf_1003_T1",)
_CARRIED = ("malf/malf_1104_T1", "malf/malf_1116_T1", "malf/malf_1128_T1")
_TIMED = ("fs/fstrain_01_T1",)
_PERCENTS = (10, 15)
_SLICES_MM = (5, 8)
#: The patient of whom nothing was seen in development, and the sequences compared.
_KEPT_BACK = {"subject": "cstar_stroke", "case": "T1, T2"}
#: Limits of CPU seconds, memory, shares outside the brain (mean, worst) and brains refused.
_LIMIT_S, _LIMIT_GIB, _LIMIT_OUTSIDE, _LIMIT_WORST, _LIMIT_REFUSED = 15.0, 1.5, 0.025, 0.06, 1
_WHY_BARS = (
    "slices of 8 mm lose most: nuclei sit some mm off; the grid of 2 mm costs .06; "
    "six hours of training"
)
_WHY_VOLUMES = "readers and FreeSurfer draw cortex and nuclei by different rules"
_WHY_LIMITS = (
    "a patient with a tumor in slices of 5.5 mm is placed poorly, which is refused unless forced; "
    "five looks of the corrector take time"
)


def parts(options: Namespace) -> Iterator[Part]:
    heads = Heads(options.data)
    print(f"segmentation: {heads.skipped} listed volumes are not there", flush=True)
    judged = [*examinations(heads)]
    yield from judged
    yield "quality", partial(quality_rows, judged)
    for table, make, files in (
        ("noise", noise_rows, _NOISY),
        ("thick", thick_rows, _THICK),
        ("storages", storage_rows, _STORED),
        ("template", partial(template_rows, heads), _CARRIED),
        ("cost", cost_rows, _TIMED),
    ):
        for entry in [] if QUICK else heads.entries:
            if entry["group"] != "reach" and entry["file"].startswith(files):
                yield f"{table} {entry['file']}", partial(make, Scan(heads, entry))
    for entry in heads.entries:
        if entry["group"] == "reach":
            yield f"reach {entry['kind']} {entry['file']}", partial(reach_rows, Scan(heads, entry))
        if entry["group"] not in ("brain", "not brain"):
            continue
        yield f"refused {entry['file']}", partial(verdict_rows, Scan(heads, entry))


class _Uncorrected(torch.nn.Module):
    """In place of a corrector: the mixture's own posteriors, and sides by place."""

    def forward(self, image: Any, share: Any, prior: Any, places: Any) -> tuple[Any, Any]:
        sides = torch.nn.functional.interpolate(places[:, :1], size=image.shape[2:])
        return share.clamp_min(1e-6).log(), sides[:, 0]


class _Mixture(StructureSegmenter):
    """The head without its corrector."""

    @property
    def _model(self) -> StructureModel:
        return replace(super()._model, corrector=_Uncorrected(), sizes={})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Labeled:
    """Labels of a volume; expected: Dice of each structure, by the model."""

    labels: Volume
    expected: Mapping[str, float]
    cpu_s: float


def labeled(volume: Volume, arm: str = HEAD) -> Labeled:
    """Segment a volume as users do, whether it is refused or not."""
    began = time.process_time()
    head = gradprom.open_head_for(volume, replace(_CONFIG, force_segmenter=True))
    if arm == MIXTURE:
        head = replace(head, segmenter=_Mixture(read_bundle(BUNDLE)))
    result = gradprom.segment(volume, head=head)
    expected = {row["label"]: row["quality"] for row in result.table if "quality" in row}
    cpu_s = time.process_time() - began
    voxels = np.asarray(result.volume.voxels).astype(np.int32)
    return Labeled(volume.with_voxels(voxels), expected, cpu_s)


def verdict(volume: Volume) -> str:
    """State why a volume is refused; "" where it is not."""
    try:
        gradprom.open_head_for(volume, _CONFIG)
    except InputError as refusal:
        return refusal.message.rpartition(": ")[2]
    return ""


@dataclass(frozen=True)
class Scan:
    """A listed volume."""

    heads: Heads
    entry: Entry

    @property
    def image(self) -> Volume:
        return self.heads.image(self.entry)

    @property
    def name(self) -> str:
        return f"{self.entry['subject']} {self.entry['sequence']}"

    def drawn(self, what: str) -> Any:
        return self.heads.drawn(self.entry, what)


# --- persons


def examinations(heads: Heads) -> Iterator[Part]:
    """A part for each person whose labels are compared with anything."""
    for group in ("FreeSurfer", "manual", "retest", "sequences", "masks"):
        for subject, listed in heads.of(group).items():
            yield f"{group} {subject}", partial(person_rows, group, heads, listed)


def person_rows(group: str, heads: Heads, listed: Iterable[Entry]) -> Iterator[Row]:
    """Compare each volume of a person with labels and masks, and all with each other."""
    scans = [Scan(heads, entry) for entry in listed]
    for arm in (HEAD, MIXTURE):
        if arm == MIXTURE and group != "FreeSurfer":
            continue
        results = [labeled(scan.image, arm) for scan in scans]
        for scan, result in zip(scans, results, strict=True):
            row = {"subject": scan.name, "arm": arm, "cpu_s": round(result.cpu_s, 1)}
            truth, mask = scan.drawn("labels"), scan.drawn("mask")
            if group in ("FreeSurfer", "manual") and truth is not None:
                yield {"table": group, **row, **compared(result, truth)}
            if mask is not None:
                yield {"table": "outside", **row, **outside(result.labels.voxels, truth, mask)}
        head = {"table": group, "subject": scans[0].entry["subject"], "arm": arm}
        for first, second in itertools.combinations(range(len(scans)), 2):
            pair = [results[first].labels, results[second].labels]
            names = [scans[n].entry["sequence"] for n in (first, second)]
            if group == "sequences":
                yield head | {"case": ", ".join(names)} | across(*pair)
            elif group == "retest":
                yield head | changed(*pair)


def scores(labels: Any, others: Any) -> Row:
    """Dice: mean, cortex, white matter, worst structure and all."""
    dice = agreement(labels, others)
    worst = min(dice, key=lambda name: dice[name])
    row: Row = {"dice": fmean(dice.values()), "cortex": dice.get(CORTEX, 0.0)}
    row["white"] = dice.get(WHITE, 0.0)
    return row | {"worst": dice[worst], "worst_structure": worst, "structures": dice}


def compared(result: Labeled, truth: Any) -> Row:
    """Scores against labels of others, and what the model expected of itself."""
    row = scores(result.labels.voxels, truth)
    errors = volume_errors(result.labels.voxels, truth)
    row["volume_error"] = median(map(abs, errors.values())) if errors else 1.0
    row["volume_errors"] = errors
    side = on_wrong_side(result.labels.voxels, truth)
    return row | {"wrong_side": round(side, 5), "expected": by_structure(result.expected)}


def by_structure(expected: Mapping[str, float]) -> dict[str, float]:
    """Means over the labels of each structure; their names end in the structure's."""
    values: dict[str, list[float]] = {}
    for label, value in expected.items():
        name = "ventricles" if "ventricle" in label else label.split(" ", 1)[-1]
        name = name if name in STRUCTURES else label.lower()
        values.setdefault(name, []).append(value)
    return {name: round(fmean(values[name]), 4) for name in STRUCTURES if name in values}


def outside(labels: Any, truth: Any, mask: Any) -> Row:
    """Shares of the structures outside the brain, and of the brain without a label.

    Masks are generous: where structures are drawn, these are the brain that is missed.
    """
    structures, brain = structures_of(labels) > 0, mask > 0
    drawn = brain if truth is None else structures_of(truth) > 0
    return {
        "outside": float(np.mean(~brain[structures])) if structures.any() else 0.0,
        "missed": float(np.mean(labels[drawn] == 0)),
    }


def across(first: Volume, second: Volume) -> Row:
    """Scores of the labels of two sequences, where both show anything."""
    moved = onto(second, first)
    both = moved >= 0
    labels = agreement_of_labels(first.voxels[both], moved[both])
    return scores(first.voxels[both], moved[both]) | {"labels": labels}


def changed(first: Volume, second: Volume) -> Row:
    """Relative differences of volumes."""
    sizes = [volumes_of(each.voxels) * np.prod(each.spacing) for each in (first, second)]
    shares = 2 * abs(sizes[0] - sizes[1]) / np.maximum(sizes[0] + sizes[1], 1e-6)
    each = {name: round(float(share), 5) for name, share in zip(STRUCTURES, shares, strict=True)}
    largest = max(each, key=lambda name: each[name])
    row: Row = {"difference": median(each.values()), "largest": each[largest]}
    return row | {"largest_structure": largest, "structures": each}


def quality_rows(judged: Iterable[Part]) -> Iterator[Row]:
    """Expected beside true Dice, over all structures of all persons with labels."""
    pairs = [
        (row["expected"][name], row["structures"][name])
        for part, make in judged
        if part.startswith(("FreeSurfer", "manual"))
        for row in kept("segmentation", part, make)
        if row["table"] != "outside" and row["arm"] == HEAD
        for name in row["expected"].keys() & row["structures"].keys()
    ]
    if len(pairs) > 2:
        expected, true = np.array(pairs).T
        r = np.corrcoef(expected, true)[0, 1] if np.ptp(expected) and np.ptp(true) else 0.0
        error = float(np.mean(abs(expected - true)))
        row = {"r": round(float(r), 3), "error": error, "bias": float(np.mean(expected - true))}
        yield {"table": "quality", "arm": HEAD, "structures": len(pairs), **row}


# --- the same scan, otherwise


def noise_rows(scan: Scan) -> Iterator[Row]:
    """Labels of the noisy scan, and of that enhanced, beside those of the scan itself."""
    truth = scan.drawn("labels")
    clean = labeled(scan.image).labels.voxels
    for percent in _PERCENTS:
        damaged = Rician(percent / 100, SEED).apply(scan.image)
        enhanced = enhance(damaged, EnhanceConfig(device="cpu")).volume
        for arm, volume in ((NOISY, damaged), (ENHANCED, enhanced)):
            labels = labeled(volume).labels.voxels
            row = {"table": "noise", "subject": scan.name, "percent": percent, "arm": arm}
            row |= scores(labels, clean)
            if truth is not None:
                row["dice_truth"] = scores(labels, truth)["dice"]
            yield row


def coarse(image: Volume, times: tuple[int, int, int]) -> Volume:
    """Average blocks of voxels (k, j, i), as a coarser scan does."""
    counts = [size // each for size, each in zip(image.shape, times, strict=True)]
    part = tuple(slice(count * each) for count, each in zip(counts, times, strict=True))
    split = [size for pair in zip(counts, times, strict=True) for size in pair]
    means = image.voxels[part].reshape(split).mean(axis=(1, 3, 5), dtype=np.float32)
    blocks = np.diag([*reversed(times), 1.0])
    blocks[:3, 3] = [(each - 1) / 2 for each in reversed(times)]
    geometry = Geometry.from_affine_ras(image.geometry.affine_ras @ blocks)
    return Volume(means, geometry, modality="MR")


def thick_rows(scan: Scan) -> Iterator[Row]:
    """Labels of thick slices, beside those of the scan itself."""
    image = scan.image.upright()
    clean = labeled(image).labels
    for slice_mm in _SLICES_MM:
        thick = coarse(image, (round(slice_mm / image.spacing[2]), 1, 1))
        row = across(labeled(thick).labels, clean)
        yield {"table": "thick", "subject": scan.name, "slice_mm": slice_mm, "arm": HEAD, **row}


#: Scans that could not be had are painted from the one that is listed: slices of 8 mm, and, as of
#: 64 mT, slices of 5 mm, pixels of 2 mm and noise of a tenth.
_PAINTED: Mapping[str, Callable[[Volume], Volume]] = {
    "8 mm slices, painted": lambda image: coarse(image.upright(), (8, 1, 1)),
    "low field, painted": lambda image: Rician(0.1, SEED).apply(coarse(image.upright(), (5, 2, 2))),
}


def reach_rows(scan: Scan) -> Iterator[Row]:
    """A scan beyond what was learned: refused, or beside labels of its own or of another scan."""
    entry = scan.entry
    image = _PAINTED.get(entry["kind"], lambda image: image)(scan.image)
    row: Row = {"table": "reach", "subject": scan.name, "case": entry["kind"], "arm": HEAD}
    drawn = "drawn" if entry.get("labels") else "–"
    row |= {"reason": verdict(image), "beside": entry.get("beside", drawn)}
    row["refused"] = bool(row["reason"])
    truth = scan.drawn("labels")
    if "beside" in entry:
        truth = onto(labeled(scan.heads.image(scan.heads.named(entry["beside"]))).labels, image)
    if truth is not None and not row["refused"]:
        # What a scan does not show (a cavity, a crop) is 0, and has no labels to compare.
        seen = (image.voxels != 0) & (truth >= 0)
        found, truth = labeled(image).labels.voxels[seen], truth[seen]
        known = np.isin(structures_of(found), structures_of(truth))
        row |= scores(np.where(known, found, 0), truth)
    yield row


def storage_rows(scan: Scan) -> Iterator[Row]:
    """Labels of the same scan, its axes in another order and direction, in two formats."""
    import SimpleITK as sitk  # noqa: N813 - its own short name

    first = labeled(scan.image).labels
    turned = sitk.Flip(sitk.PermuteAxes(scan.image.to_sitk(), [2, 0, 1]), [True, False, True])
    for suffix in ("nii.gz", "nrrd"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"turned.{suffix}"
            save(Volume.from_sitk(turned, modality="MR"), path)
            again = load(path, modality="MR").single()
        row = changed(first, labeled(again).labels)
        yield {"table": "storages", "subject": scan.name, "case": suffix, "arm": HEAD, **row}


def template_rows(heads: Heads, scan: Scan) -> Iterator[Row]:
    """Labels that demons carry from one person who is not judged."""
    (listed,) = heads.of("template").values()
    template = Scan(heads, listed[0])
    began = time.process_time()
    labels = carry_labels(template.image, template.drawn("labels"), scan.image)
    row: Row = {"table": "manual", "subject": scan.name, "arm": TEMPLATE}
    row["cpu_s"] = round(time.process_time() - began, 1)
    truth = scan.drawn("labels")
    side = round(on_wrong_side(labels, truth), 5)
    yield row | scores(labels, truth) | {"wrong_side": side}


def verdict_rows(scan: Scan) -> Iterator[Row]:
    """Whether a volume is refused, and why."""
    entry = scan.entry
    reason = verdict(scan.image)
    kind = entry["kind"] if entry["group"] in ("brain", "not brain") else "labeled or masked"
    row = {"table": "refused", "model": "brain", "kind": kind, "volume": entry["file"]}
    is_like = entry["group"] != "not brain"
    yield row | {"is_like": is_like, "refused": bool(reason), "reason": reason}


def cost_rows(scan: Scan) -> Iterator[Row]:
    """CPU seconds and memory of a process that segments a whole head, and bytes of weights."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        used = pool.submit(_used, scan).result()
    size = sum(path.stat().st_size for path in BUNDLE.glob("models/*"))
    yield {"table": "cost", "subject": scan.name, "arm": HEAD, "weight_bytes": size, **used}


def _used(scan: Scan) -> Row:
    torch.set_num_threads(2)
    image = scan.image
    began = time.process_time(), time.monotonic()
    labeled(image)
    cpu_s, wall_s = time.process_time() - began[0], time.monotonic() - began[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"cpu_s": round(cpu_s, 1), "wall_s": round(wall_s, 1), "peak_gib": round(peak, 2)}


# --- goals


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Dice over its bars, errors of volumes, and what has a limit."""

    def values(table: str, field: str, arm: str = HEAD, **fields: Any) -> list[float]:
        wanted = {"table": table, "arm": arm, **fields}
        return [row[field] for row in rows if wanted.items() <= row.items()]

    def mean(*names: str, **fields: Any) -> float | None:
        known = values(*names, **fields)
        return fmean(known) if known else None

    labels = ("FreeSurfer", "manual")
    margins = over_goals({
        0.82: [mean("FreeSurfer", "dice")],
        0.81: [mean("manual", "dice")],
        0.85: [mean(table, "cortex") for table in labels],
        0.92: [mean(table, "white") for table in labels],
        0.78: [mean("sequences", "labels", **_KEPT_BACK)],
        0.76: [mean("sequences", "dice")],
        0.90: [mean("thick", "dice", slice_mm=8), mean("noise", "dice", NOISY, percent=15)],
    })  # fmt: skip
    yield at_least("brain: Dice over its bars, least", margins, 0, _WHY_BARS)
    errors = [
        abs(error)
        for table in labels
        for person in values(table, "volume_errors")
        for error in person.values()  # type: ignore[attr-defined]
    ]
    yield at_most(
        "brain: error of a structure's volume, median over structures and persons",
        median(errors) if errors else None, 0.1, _WHY_VOLUMES,
    )  # fmt: skip
    outside = values("outside", "outside") or [np.nan]
    shares = [fmean(outside) / _LIMIT_OUTSIDE, max(outside) / _LIMIT_WORST]
    judged = [row["refused"] and row["is_like"] for row in rows if row["table"] == "refused"]
    shares.append(sum(judged) / _LIMIT_REFUSED)
    for row in rows:
        if row["table"] == "cost":
            shares += [row["cpu_s"] / _LIMIT_S, row["peak_gib"] / _LIMIT_GIB]
    yield at_most(
        "brain: outside the brain, brains refused, time or memory over their limits",
        most(None if np.isnan(each) else each for each in shares), 1, _WHY_LIMITS,
    )  # fmt: skip


if __name__ == "__main__":
    run("segmentation", __doc__, parts, gates_of, seeds=[SEED])
