"""The audit of distilled sets on real patients: silent on clean ones, loud on planted leaks.

python Testing/Benchmarks/distillation_audit.py           two draws, writes results
python Testing/Benchmarks/distillation_audit.py --quick   one, fewer steps, into runs/benchmarks
python Testing/Benchmarks/distillation_audit.py --statistics   these sets anew, all else stays

MR of sarcoma patients from the data beside the repository. No picture of them is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write

from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import Audited, AuditReport, audit
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.dataset import TOP, quantized
from MedEnhanceLib.spg.images import Floats, spread_over
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare
from MedEnhanceLib.spg.statistics import imposed, mean_over, measure

SEEDS = (0, 1)
#: Share of a raw slice in the image that it leaks into; 1 is a copy.
SHARES = (1.0, 0.7, 0.5)
#: Sets with a leak of each share: another image, patient and slice in each.
PLANTS = 3
BY_STATISTICS = "statistics"
Row = dict[str, Any]


def main() -> None:
    """Distill, leak, audit; then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--statistics", action="store_true", help="these sets alone anew")
    options = parser.parse_args()
    quick = options.quick
    seeds = SEEDS[:1] if quick else SEEDS
    cohort = Cohort.from_folder(SHARED_DATA / "mr" / "sts", pattern="MR_T1.nii.gz")
    kept = json.loads((RESULTS / "distillation_audit.json").read_text(encoding="utf-8"))
    rows: list[Row] = [row for row in kept["rows"] if not row["set"].startswith(BY_STATISTICS)]
    rows = rows if options.statistics else []
    for seed in seeds:
        config = _config(seed, quick=quick)
        prepared = prepare(cohort, config, Monitor())
        if not options.statistics:
            rows += _rows(prepared, config, leaks=seed == seeds[0])
        rows.append(_row_of_statistics(prepared, config))
    gates = _gates(rows)
    folder = REPOSITORY / "runs" / "benchmarks" if quick else RESULTS
    write(
        "distillation_audit",
        gates=gates,
        rows=rows,
        seeds=seeds,
        folder=folder,
    )


def _config(seed: int, *, quick: bool) -> DistillConfig:
    """The preset `cpu` with a quarter of its networks and half of its matches' batches."""
    base = replace(DistillConfig.preset("cpu"), method="matching")
    loop = replace(base.loop, outer=1 if quick else 4, teaching=10, batch=8)
    return replace(base, images_per_patient=5, held_out=0.4, device="cpu", seed=seed, loop=loop)


def _rows(prepared: Prepared, config: DistillConfig, *, leaks: bool) -> list[Row]:
    """A clean set; with `leaks` also that set with leaks planted, and one started from patients."""
    clean, measured = _distilled(prepared, config, prepared.prior.images)
    change = float(
        np.mean(np.abs(clean - np.tile(prepared.prior.images, (len(prepared.training), 1, 1))))
    )
    rows = [_row("clean", prepared, config, clean) | {"change": change, "measured": measured}]
    if not leaks:
        return rows
    for share in SHARES:
        for number in range(PLANTS):
            leaked = _planted(clean, prepared, share, number)
            rows.append(_row("planted", prepared, config, leaked) | {"share": share})
    # Raw slices are there from the start: one network shows what becomes of them.
    short = replace(config, loop=replace(config.loop, outer=1))
    started, _ = _distilled(prepared, short, None)
    return [*rows, _row("real start", prepared, config, started)]


def _row_of_statistics(prepared: Prepared, config: DistillConfig) -> Row:
    """The prior with statistics over the patients."""
    numbers = (measure(images, prepared.modality) for images in prepared.training.values())
    images = imposed(prepared.public, mean_over(numbers), prepared.modality)
    stored = quantized(images).astype(np.float32) / np.float32(TOP)
    return _row(BY_STATISTICS, prepared, config, stored)


def _distilled(
    prepared: Prepared, config: DistillConfig, prior: Floats | None
) -> tuple[Floats, dict[str, float]]:
    """All patients' images as they are stored, in order; prior: None starts from their own."""
    found = []
    for number, images in enumerate(prepared.training.values()):
        print(f"seed {config.seed}: patient {number + 1}", file=sys.stderr)
        start = spread_over(images, config.images_per_patient) if prior is None else prior
        raw = Raw(images, start, prepared.modality, number)
        found.append(distill_patient(raw, config))
    images = np.concatenate([one.images for one in found])
    names = ("alignment", "saturation")
    means = {name: float(np.mean([one.measured[name] for one in found])) for name in names}
    return quantized(images).astype(np.float32) / np.float32(TOP), means


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


def _row(what: str, prepared: Prepared, config: DistillConfig, images: Floats) -> Row:
    began = time.monotonic()
    report = audit(
        Audited(
            images,
            prepared.training,
            prepared.held_out,
            prior=None if what.startswith("real start") else prepared.prior.images,
        ),
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
            for name in ("highest_training", "highest_held_out")
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


if __name__ == "__main__":
    main()
