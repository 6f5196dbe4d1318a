"""The audit of matched sets on real patients: silent on clean ones, loud on planted leaks.

python Testing/Benchmarks/distillation_audit.py           two draws, writes results
python Testing/Benchmarks/distillation_audit.py --quick   one, fewer matches, into runs/benchmarks

MR of sarcoma patients from the data beside the repository. No picture of them is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write

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

SEEDS = (0, 1)
#: Share of a raw slice in the slice that it leaks into; 1 is a copy.
SHARES = (1.0, 0.7, 0.5)
#: Sets with a leak of each share: another slice of the set, patient and slice in each.
PLANTS = 3
Row = dict[str, Any]


def main() -> None:
    """Distill, leak, audit; then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    seeds = SEEDS[:1] if quick else SEEDS
    cohort = Cohort.from_folder(SHARED_DATA / "mr" / "sts", pattern="MR_T1.nii.gz")
    rows: list[Row] = []
    for seed in seeds:
        base = replace(DistillConfig.preset("cpu"), method="matching", held_out=0.4, seed=seed)
        loop = replace(base.loop, outer=1, inner=2 if quick else base.loop.inner)
        config = replace(base, device="cpu", volumes=1, loop=loop)
        rows += _rows(prepare(cohort, config, Monitor()), config, leaks=seed == seeds[0])
    folder = REPOSITORY / "runs" / "benchmarks" if quick else RESULTS
    write("distillation_audit", gates=_gates(rows), rows=rows, seeds=seeds, folder=folder)


def _rows(prepared: Prepared, config: DistillConfig, *, leaks: bool) -> list[Row]:
    """A clean set; with `leaks` also that set with leaks planted."""
    made = []
    for number, name in enumerate(prepared.training):
        print(f"seed {config.seed}: patient {number + 1}", file=sys.stderr)
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
    clean = [row["alarm"] for row in rows if row["set"] == "clean"]
    copies = [row["alarm"] for row in rows if row.get("share") == 1.0]
    return [
        gate(f"alarms at clean sets ({len(clean)})", sum(clean), "0", not any(clean)),
        gate(
            f"alarms at {len(copies)} sets into which one raw slice was copied",
            sum(copies),
            str(len(copies)),
            all(copies),
        ),
    ]


if __name__ == "__main__":
    main()
