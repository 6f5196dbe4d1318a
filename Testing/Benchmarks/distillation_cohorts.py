"""Where a distillation pays: what raw images gain over the public prior, and who closes the gap.

    python Testing/Benchmarks/distillation_cohorts.py           writes results
    python Testing/Benchmarks/distillation_cohorts.py --only STS-CT

Rows are kept in runs/distillation-rows: a run that was stopped goes on with the same line.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import SHARED_DATA, gate, write
from _distillation_cases import ROWS, Case, config_of
from _enhancement_statistics import Difference, difference

from MedEnhanceLib.io.cohort import Cohort, Patient
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.comparison import (
    FULL,
    PRIOR,
    PUBLIC,
    SPG,
    STATISTICS,
    CompareConfig,
    Row,
    RowStore,
    measure,
)
from MedEnhanceLib.spg.comparison_arms import Material, gather
from MedEnhanceLib.spg.prepare import Prepared, Prior
from MedEnhanceLib.spg.worth import LEAST_ROOM, Room, room_of

#: Patients of a cohort that are taken, in the order of their names: matching takes each its time.
_MOST = 13
_SEEDS = 3
_ARMS = (FULL, PUBLIC, PRIOR, STATISTICS, SPG)
_ABDOMEN = str(SHARED_DATA / "ct" / "abdomen" / "CT.nii.gz")


@dataclass(frozen=True)
class Group:
    """A cohort.

    files: of its volumes, a folder for each patient; the last one counts. outer: networks that each
    patient is matched with, ten times each; as many as by default where there are few patients.
    """

    name: str
    what: str
    files: str
    modality: str
    prior: str
    held_out: float
    outer: int


GROUPS = {
    one.name: one
    for one in (
        Group(
            "STS-MR",
            "T1 of sarcoma patients (limbs, trunk), several scanners; the prior is the template of "
            "152 brains",
            "mr/sts/*/MR_T1.nii.gz",
            "MR",
            "template",
            0.4,
            3,
        ),
        Group(
            "STS-CT",
            "CT of sarcoma patients, several scanners; the prior is one abdomen of elsewhere",
            "ct/sts/*/CT.nii.gz",
            "CT",
            _ABDOMEN,
            0.4,
            3,
        ),
        Group(
            "MS-FLAIR",
            "FLAIR of patients with multiple sclerosis, slices of 3 to 4 mm; the prior is the "
            "template, a T1",
            "mr/open_ms/L*/study*_FLAIR.nii.gz",
            "MR",
            "template",
            0.4,
            15,
        ),
        Group(
            "brains-T1",
            "T1 of brains of that hospital, slices of 3 to 4 mm; the prior is the template",
            "mr/open_ms/L*/study*_T1W.nii.gz",
            "MR",
            "template",
            0.4,
            15,
        ),
    )
}
CASES = (
    ("STS-MR", Case("MR", "denoise", 600)),
    ("STS-CT", Case("CT", "denoise", 600)),
    ("MS-FLAIR", Case("MR", "denoise", 600)),
    ("brains-T1", Case("MR", "denoise", 600)),
    ("STS-MR", Case("MR", "sr2", 1500)),
    ("STS-CT", Case("CT", "sr2", 1500)),
    ("MS-FLAIR", Case("MR", "sr2", 1500)),
    ("STS-MR", Case("MR", "undersample", 1500)),
)


@dataclass(frozen=True)
class Found:
    """What was measured of a case."""

    name: str
    group: Group
    material: Material
    room: Room
    rows: list[Row]

    def gain(self, arm: str, other: str) -> Difference | None:
        """One arm over another on the held-out patients, dB."""
        flat = [
            {"case": "", "arm": row["arm"], "subject": n, "seed": row["seed"], "psnr_db": psnr}
            for row in self.rows
            for n, psnr in enumerate(row["by_patient_db"])
        ]
        return difference(flat, "psnr_db", [("", arm, other)])


def main() -> None:
    """Measure, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="these cohorts alone")
    options = parser.parse_args()
    found = [
        _measured(GROUPS[name], case)
        for name, case in CASES
        if not options.only or name in options.only
    ]
    rows = [_record(one) for one in found]
    seeds = list(range(_SEEDS))
    write("distillation_cohorts", gates=gates(found), rows=rows, seeds=seeds)


def _measured(group: Group, case: Case) -> Found:
    name = f"{group.name} {case.task}"
    config = _config(group, case)
    material = gather(cohort_of(group), config.distill, Monitor())
    rows: list[Row] = []
    for row in measure(material, config, RowStore(ROWS / f"cohort-{name.replace(' ', '-')}.jsonl")):
        rows.append(row)
        print(name, row["arm"], row["seed"], row["psnr_db"], flush=True)
    prior = Prior(material.public, config.distill.kind_of_prior)
    prepared = Prepared(
        material.modality, material.training, material.held_out, prior, material.public
    )
    store = RowStore(ROWS / "room.jsonl")
    known = store.find(name)
    room = Room.of(known) if known else room_of(prepared, config.distill)
    if known is None:
        store.add(name, room.record())
    print(name, room.sentence, flush=True)
    return Found(name, group, material, room, rows)


def _config(group: Group, case: Case) -> CompareConfig:
    config = config_of(case, seeds=_SEEDS, draws=1, quick=False)
    distill = replace(config.distill, prior=group.prior, held_out=group.held_out)
    return replace(config, distill=distill, budgets=config.budgets[-1:], arms=_ARMS, networks=())


def cohort_of(group: Group) -> Cohort:
    files = {file.parent.name: file for file in sorted(SHARED_DATA.glob(group.files))}
    patients = tuple(Patient(name, (file,)) for name, file in list(files.items())[:_MOST])
    return Cohort(patients, group.modality)


def _record(one: Found) -> dict[str, Any]:
    return {
        "case": one.name,
        "training": len(one.material.training),
        "held_out": len(one.material.held_out),
        "room": one.room.record(),
        "rows": one.rows,
        "gains": {
            f"{arm} over {other}": asdict(gain)
            for arm, other in ((SPG, STATISTICS), (STATISTICS, PUBLIC), (FULL, STATISTICS))
            if (gain := one.gain(arm, other))
        },
    }


def gates(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The cases in which matching earns its minutes."""
    earned = []
    for one in found:
        gain = one.gain(SPG, STATISTICS)
        if gain is not None and gain.mean >= LEAST_ROOM and gain.low > 0:
            earned.append(one.name)
    name = "cases in which matching beats statistics by 0.3 dB or more, for certain"
    return [gate(name, len(earned), "≥ 2", len(earned) >= 2)]


if __name__ == "__main__":
    main()
