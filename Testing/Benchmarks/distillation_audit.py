"""The audit of matched sets on real patients: silent on clean ones, loud on planted leaks.

    python Testing/Benchmarks/distillation_audit.py

MR of sarcoma patients from the data beside the repository. No picture of them is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from _common import QUICK, SHARED_DATA, Gate, Part, Row, gate, measure, parser_of

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.jobs.teaching.matched_networks import make_networks
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import Audited, AuditReport, audit
from MedEnhanceLib.spg.cohort import Cohort
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.dataset import STORED, quantized
from MedEnhanceLib.spg.matching import Raw
from MedEnhanceLib.spg.patient import distill_patient
from MedEnhanceLib.spg.prepare import Prepared, prepare

SEEDS = (0,) if QUICK else (0, 1)
#: Share of a raw slice in the slice that it leaks into; 1 is a copy.
SHARES = (1.0,) if QUICK else (1.0, 0.7, 0.5)
#: Sets with a leak of each share: another slice of the set, patient and slice in each.
PLANTS = 1 if QUICK else 3


def main() -> None:
    measure("distillation_audit", parser_of(__doc__).parse_args(), parts, gates_of, seeds=SEEDS)


def parts() -> Iterator[Part]:
    cohort = Cohort.from_folder(SHARED_DATA / "mr" / "sts", pattern="MR_T1.nii.gz")
    for seed in SEEDS:
        base = replace(DistillConfig.preset("cpu"), method="matching", held_out=0.4, seed=seed)
        loop = replace(base.loop, outer=1, inner=1 if QUICK else base.loop.inner)
        config = replace(base, device="cpu", volumes=1, loop=loop)
        yield f"seed {seed}", partial(_rows, cohort, config, leaks=seed == SEEDS[0])


def _rows(cohort: Cohort, config: DistillConfig, *, leaks: bool) -> list[Row]:
    """A clean set; with `leaks` also that set with leaks planted."""
    prepared = prepare(cohort, config, Monitor())
    made = []
    for number, name in enumerate(prepared.training):
        raw = Raw(prepared.read(name), prepared.prior, prepared.modality, number)
        made.append(distill_patient(raw, config, make_networks))
    low, high = STORED[prepared.modality]
    stored = quantized(np.concatenate([each.volumes for each in made]), prepared.modality)
    scaled = (stored.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    clean: Floats = scaled.reshape(-1, *scaled.shape[2:])
    change = float(np.mean([each.measured["change"] for each in made]))
    rows = [_row("clean", prepared, config, clean) | {"change": change}]
    for share in SHARES if leaks else ():
        for number in range(PLANTS):
            leaked = _planted(clean, prepared, share, number)
            rows.append(_row("planted", prepared, config, leaked) | {"share": share})
    return rows


def _planted(clean: Floats, prepared: Prepared, share: float, number: int) -> Floats:
    """The set with a raw slice in one of its own; another place and patient for each number."""
    rng = np.random.default_rng((20, number))
    patients = list(prepared.training.values())
    slices = patients[rng.integers(len(patients))].slices
    copied = slices[rng.integers(len(slices) // 4, 3 * len(slices) // 4)]
    place = rng.integers(len(clean))
    leaked = clean.copy()
    leaked[place] = (1 - share) * leaked[place] + share * copied
    return leaked


def _row(what: str, prepared: Prepared, config: DistillConfig, images: Floats) -> Row:
    began = time.monotonic()
    groups = (
        {name: data.slices for name, data in group.items()}
        for group in (prepared.training, prepared.held_out)
    )
    prior = prepared.prior.volumes
    report = audit(Audited(images, *groups, prior=prior.reshape(-1, *prior.shape[2:])))
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


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Neither false alarms at clean sets, nor copies of a raw slice that are missed."""
    alarms = [row["alarm"] for row in rows if row["set"] == "clean"]
    copies = [row["alarm"] for row in rows if row.get("share") == 1.0]
    wrong = sum(alarms) + copies.count(False)
    name = f"alarms at {len(alarms)} clean sets, and {len(copies)} copied slices without one"
    yield gate(name, wrong, "0", not wrong)


if __name__ == "__main__":
    main()
