"""The audit of distilled sets on real patients: silent on clean ones, loud on planted leaks.

python Testing/Benchmarks/distillation_audit.py           two draws, writes docs/benchmarks
python Testing/Benchmarks/distillation_audit.py --quick   one, fewer steps, into runs/benchmarks
python Testing/Benchmarks/distillation_audit.py --statistics   these sets anew, all else stays

MR of sarcoma patients from the data beside the repository. No picture of them is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from _common import DOCS, REPOSITORY, SHARED_DATA, gate, gate_table, table, write

from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import AuditConfig, Audited, AuditReport, audit
from MedEnhanceLib.spg.audit.redistilled import plant_canaries
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.dataset import TOP, quantized
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.statistics import imposed, mean_over, measure

SEEDS = (0, 1)
#: Share of a raw slice in the image that it leaks into; 1 is a copy.
SHARES = (1.0, 0.7, 0.5)
#: Sets with a leak of each share: another image, patient and slice in each.
PLANTS = 3
#: Distillations of random halves of the patients, in the sets that all attacks are tried on.
SHADOWS = 8
#: Further draws of lesions, where those of a set by statistics raise the alarm.
_REDRAWN = 11
BY_STATISTICS = "statistics, all attacks"
_COUNTED = "training", "held_out"
_KEPT = """**Of this run are the sets by statistics alone**; all else is of {commit}, when matching
started from the cohort's intensities and not yet from its textures."""
WITHOUT_SHADOWS = AuditConfig(shadows=0, canaries=False)
Row = dict[str, Any]


def main() -> None:
    """Distill, leak, audit; then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--statistics", action="store_true", help="these sets alone anew")
    options = parser.parse_args()
    quick = options.quick
    seeds = SEEDS[:1] if quick else SEEDS
    cohort = Cohort.from_folder(SHARED_DATA / "mr" / "sts", pattern="MR_T1.nii.gz")
    kept = json.loads((DOCS / "distillation_audit.json").read_text(encoding="utf-8"))
    rows: list[Row] = [row for row in kept["rows"] if not row["set"].startswith(BY_STATISTICS)]
    rows = rows if options.statistics else []
    for seed in seeds:
        config = _config(seed, quick=quick)
        prepared = prepare(cohort, config, Monitor())
        if not options.statistics:
            rows += _rows(prepared, config, leaks=seed == seeds[0])
            if seed == seeds[0]:
                rows += _rows_of_all_attacks(prepared, config, quick=quick)
        rows.append(_row_of_statistics(prepared, config, quick=quick))
    note = _KEPT.format(commit=kept["commit"]) if options.statistics else ""
    gates = _gates(rows)
    folder = REPOSITORY / "runs" / "benchmarks" if quick else DOCS
    write(
        "distillation_audit",
        _page(rows, gates, config, note),
        gates=gates,
        rows=rows,
        seeds=seeds,
        folder=folder,
    )


def _config(seed: int, *, quick: bool) -> DistillConfig:
    """The preset `cpu` with a quarter of its networks and half of its batches."""
    base = DistillConfig.preset("cpu")
    loop = replace(base.loop, outer=1 if quick else 4, teaching=10, batch=8, teaching_batch=4)
    return replace(base, images_per_patient=5, held_out=0.4, device="cpu", seed=seed, loop=loop)


def _rows(prepared: Prepared, config: DistillConfig, *, leaks: bool) -> list[Row]:
    """A clean set; with `leaks` also that set with leaks planted, and one started from patients."""
    clean, measured = _distilled(prepared, config, prepared.prior.images)
    change = float(
        np.mean(np.abs(clean - np.tile(prepared.prior.images, (_count(prepared), 1, 1))))
    )
    rows = [_row("clean", prepared, config, clean) | {"change": change, "measured": measured}]
    if not leaks:
        return rows
    for share in SHARES:
        for number in range(PLANTS):
            leaked = _planted(clean, prepared, share, number)
            rows.append(_row("planted", prepared, config, leaked) | {"share": share})
    # Raw slices are there from the start: one network shows what becomes of them.
    started, _ = _distilled(prepared, _short(config), None)
    return [*rows, _row("real start", prepared, config, started)]


def _rows_of_all_attacks(prepared: Prepared, config: DistillConfig, *, quick: bool) -> list[Row]:
    """Short distillations, as every shadow is one more: from the prior, and from raw slices."""
    short = _short(config)
    rows = []
    for what, prior in (("clean", prepared.prior.images), ("real start", None)):

        def redistill(
            patients: Mapping[str, Floats], seed: int, prior: Floats | None = prior
        ) -> Floats:
            return _images_of(patients, prepared.modality, replace(short, seed=seed), prior)[0]

        images = redistill(prepared.training, short.seed)
        attacks = AuditConfig(shadows=4 if quick else SHADOWS)
        name = f"{what}, short, all attacks"
        rows.append(_row(name, prepared, short, images, attacks, redistill))
    return rows


def _row_of_statistics(prepared: Prepared, config: DistillConfig, *, quick: bool) -> Row:
    """The prior with statistics over the patients, and all attacks, which make it again."""

    def made(patients: Mapping[str, Floats], _seed: int) -> Floats:
        found = (measure(one, prepared.modality, config.images) for one in patients.values())
        means = mean_over(found)
        images = imposed(prepared.public, means, prepared.modality, config.images)
        return quantized(images).astype(np.float32) / np.float32(TOP)

    attacks = AuditConfig(shadows=4 if quick else SHADOWS)
    images = made(prepared.training, config.seed)
    row = _row(BY_STATISTICS, prepared, config, images, attacks, made, owned=False)
    if not row["findings"]["canaries"]["alarm"]:
        return row
    # A leak, or the one audit in twenty that raises the alarm by chance? Other lesions decide.
    found = Audited(images, prepared.training, prepared.held_out, prior=prepared.public)
    level = row["findings"]["canaries"]["level"]
    again = [
        plant_canaries(found, made, replace(attacks, seed=seed), level, Monitor()).p
        for seed in range(1, 1 + _REDRAWN)
    ]
    return row | {"canaries_again": again}


def _short(config: DistillConfig) -> DistillConfig:
    return replace(config, loop=replace(config.loop, outer=1))


def _count(prepared: Prepared) -> int:
    return len(prepared.training)


def _distilled(
    prepared: Prepared, config: DistillConfig, prior: Floats | None
) -> tuple[Floats, dict[str, float]]:
    """All patients' images as they are stored, in order; prior: None starts from their own."""
    return _images_of(prepared.training, prepared.modality, config, prior)


def _images_of(
    patients: Mapping[str, Floats], modality: str, config: DistillConfig, prior: Floats | None
) -> tuple[Floats, dict[str, float]]:
    found = []
    for number, images in enumerate(patients.values()):
        print(f"seed {config.seed}: patient {number + 1}", file=sys.stderr)
        start = _equal(images, config.images_per_patient) if prior is None else prior
        raw = Raw(images, start, modality, number)
        found.append(distill_patient(raw, config))
    images = np.concatenate([one.images for one in found])
    names = ("alignment_of_prior", "alignment", "saturation")
    means = {name: float(np.mean([one.measured[name] for one in found])) for name in names}
    return quantized(images).astype(np.float32) / np.float32(TOP), means


def _equal(images: Floats, count: int) -> Floats:
    """Slices at equal quantiles."""
    places = ((np.arange(count) + 0.5) / count * len(images)).astype(int)
    return np.ascontiguousarray(images[places])


def _planted(clean: Floats, prepared: Prepared, share: float, number: int) -> Floats:
    """The set with a raw slice in one image; another place, patient and slice for each number."""
    rng = np.random.default_rng((20, number))
    patients = list(prepared.training.values())
    slices = patients[rng.integers(len(patients))]
    copied = slices[rng.integers(len(slices) // 4, 3 * len(slices) // 4)]
    place = rng.integers(len(clean))
    leaked = clean.copy()
    leaked[place] = (1 - share) * leaked[place] + share * copied
    return leaked


def _row(
    what: str,
    prepared: Prepared,
    config: DistillConfig,
    images: Floats,
    attacks: AuditConfig = WITHOUT_SHADOWS,
    redistill: Callable[[Mapping[str, Floats], int], Floats] | None = None,
    *,
    owned: bool = True,
) -> Row:
    """owned: whether each image is of one patient."""
    began = time.monotonic()
    owners = tuple(np.repeat(list(prepared.training), config.images_per_patient).tolist())
    report = audit(
        Audited(
            images,
            prepared.training,
            prepared.held_out,
            prior=None if what.startswith("real start") else prepared.prior.images,
            owners=owners if owned else None,
        ),
        attacks,
        redistill=redistill,
    )
    print(f"{what}: {report.headline}", file=sys.stderr)
    return {
        "set": what,
        "seed": config.seed,
        "alarm": report.alarm,
        "counts": dict(report.counts),
        "seconds": round(time.monotonic() - began, 1),
        "findings": _findings(report),
    }


def _findings(report: AuditReport) -> dict[str, Row]:
    kept = ("alarm", "p", "level", "detectable", "power")
    return {
        one.attack: {name: one.to_json()[name] for name in kept}
        | {
            name: one.measured[name]
            for name in ("highest_training", "highest_held_out", "detectable_square")
            if name in one.measured
        }
        for one in report.findings
    }


def _gates(rows: list[Row]) -> list[Row]:
    clean = [row["alarm"] for row in rows if row["set"].startswith(("clean", BY_STATISTICS))]
    copies = [row["alarm"] for row in rows if row.get("share") == 1.0]
    started = [row["alarm"] for row in rows if row["set"].startswith("real start")]
    return [
        gate(f"alarms at clean sets ({len(clean)})", sum(clean), "0", not any(clean)),
        gate(
            f"alarms at {len(copies)} sets into which one raw slice was copied",
            sum(copies),
            str(len(copies)),
            all(copies),
        ),
        gate(
            f"alarms at {len(started)} sets that were started from raw slices",
            sum(started),
            str(len(started)),
            all(started),
        ),
    ]


def _page(rows: list[Row], gates: list[Row], config: DistillConfig, note: str) -> str:
    counts = rows[0]["counts"]
    loop = config.loop
    clean = [row for row in rows if row["set"] == "clean"]
    minutes = sum(row["seconds"] for row in rows) / 60
    return "\n\n".join(
        [
            "# The audit of distilled sets, on real patients",
            f"T1-weighted MR of sarcoma patients (STS, TCIA): {counts['training_patients']} "
            f"distilled, {counts['held_out_patients']} held out, drawn by the seed (the number of "
            "each set is in the table). Preset `cpu`, "
            f"reduced: {loop.outer} networks × {loop.inner} matches, {loop.batch} patches a match, "
            f"{config.images_per_patient} images for each patient; the prior is the template. "
            f"All attacks, with {SHADOWS} shadows and with canaries, which distill again, were "
            "tried on two sets of one network each; the others were audited without. All audits "
            f"together took {minutes:.1f} minutes. No picture is shown: these are patients.",
            *([note] if note else []),
            "## Gates\n\n" + gate_table(gates).rstrip(),
            "## What was found\n\n" + _found(rows).rstrip(),
            *_again(rows),
            "*Clean*: distilled as it is. *Planted*: that set with one image blended with one raw "
            "slice, another image, patient and slice each time. *Real start*: the same method "
            "started from each patient's own slices, as data set condensation often is, in place "
            "of the template, with one network. *Statistics*: the template with means over the "
            "patients of their intensities and textures, 101 numbers; images that are nobody's, so "
            "no image can be assigned to a patient.",
            "## What would have been missed\n\n" + _rates(rows).rstrip(),
            "Read it so: a blend weaker than the first line, a set whose training patients are "
            "nearer than the others by less than the AUC, or one whose images can be assigned "
            "less often than the rank-1 rate may pass in silence.",
            "## How far the clean sets went\n\n" + _distance(clean).rstrip(),
        ]
    )


def _found(rows: list[Row]) -> str:
    lines = []
    for key in dict.fromkeys((row["set"], row.get("share")) for row in rows):
        group = [row for row in rows if (row["set"], row.get("share")) == key]
        raised = sorted(
            {name for row in group for name, one in row["findings"].items() if one["alarm"]}
        )
        nearest = [row["findings"]["copies"]["highest_training"] for row in group]
        lowest = [row["findings"]["copies"]["p"] for row in group]
        lines.append(
            (
                key[0],
                "–" if key[1] is None else f"{key[1]:.0%}",
                " + ".join(str(group[0]["counts"][f"{one}_patients"]) for one in _COUNTED),
                len(group),
                sum(row["alarm"] for row in group),
                ", ".join(raised) or "–",
                _span(nearest, "{:.2f}"),
                _span(lowest, "{:.2g}"),
            )
        )
    header = (
        "set",
        "raw",
        "patients",
        "sets",
        "alarms",
        "by",
        "nearest slice (NCC)",
        "p of copies",
    )
    return table(header, lines)


def _again(rows: list[Row]) -> list[str]:
    """What further draws of lesions found, for each alarm of lesions in a set by statistics."""
    return [
        f"Seed {row['seed']}, statistics: the planted lesions raised the alarm with p = "
        f"{row['findings']['canaries']['p']:.2g}. With {len(row['canaries_again'])} further draws "
        f"of lesions p is {_span(row['canaries_again'], '{:.2g}')}: that alarm is by chance, as "
        "one clean audit in twenty may raise by construction."
        for row in rows
        if "canaries_again" in row
        and min(row["canaries_again"]) > row["findings"]["canaries"]["level"]
    ]


def _span(values: list[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _rates(rows: list[Row]) -> str:
    """Of the clean sets that all attacks were tried on."""
    row, *others = (
        next(row for row in rows if row["set"].startswith(name))
        for name in ("clean, ", BY_STATISTICS)
    )
    units = {
        "shadows": "share of right answers",
        "lira": "AUC",
        "canaries": "share of lesions that come through",
        "copies": "share of an image that is copied",
        "likeness-ncc": "AUC",
        "likeness-ssim": "AUC",
        "identity": "rank-1 rate",
    }
    return table(
        (
            "attack",
            "smallest leak found with 80 % probability",
            "the same, statistics",
            "of what",
            "alarm at p ≤",
        ),
        (
            (
                name,
                _detectable(one),
                *(_detectable(other["findings"].get(name)) for other in others),
                units.get(name, ""),
                f"{one['level']:.3g}",
            )
            for name, one in row["findings"].items()
        ),
    )


def _detectable(finding: Row | None) -> str:
    if finding is None:
        return "–"
    return "none" if finding["detectable"] is None else f"{finding['detectable']:.2f}"


def _distance(rows: list[Row]) -> str:
    return table(
        (
            "seed",
            "distance of gradients, prior",
            "distilled",
            "saturated",
            "mean change of a pixel",
        ),
        (
            (
                row["seed"],
                f"{row['measured']['alignment_of_prior']:.3f}",
                f"{row['measured']['alignment']:.3f}",
                f"{row['measured']['saturation']:.0%}",
                f"{row['change']:.3f}",
            )
            for row in rows
        ),
    )


if __name__ == "__main__":
    main()
