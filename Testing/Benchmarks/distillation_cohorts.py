"""Where a distillation pays: what raw images gain over the public prior, and who closes the gap.

    python Testing/Benchmarks/distillation_cohorts.py           writes docs/benchmarks
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

from _common import SHARED_DATA, gate, gate_table, table, write
from _distillation_cases import ROWS, Case, config_of
from _enhancement_statistics import Difference, difference

from MedEnhanceLib.io.cohort import Cohort, Patient
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.comparison import (
    ARMS,
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
    """Measure, then write the page."""
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
    write("distillation_cohorts", page(found), gates=gates(found), rows=rows, seeds=seeds)


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


def page(found: Sequence[Found]) -> str:
    """The whole text."""
    first = found[0].material
    groups = {one.group.name: one for one in found}
    listed = "\n".join(
        f"- {one.group.name}: {one.group.what}. {len(one.material.training)} patients to learn "
        f"from, {len(one.material.held_out)} held out; {10 * one.group.outer} matches a patient."
        for one in groups.values()
    )
    return "\n\n".join(
        [
            "# Where a distillation pays",
            "Networks (SRCNN) learn from the public prior, from the prior with the cohort's "
            "intensities (33 numbers) and with its intensities and textures (101), from what "
            "matching made of each patient, starting from those (10 images), "
            "and from all raw images; equal steps for all. They are measured on held-out patients, "
            f"{_SEEDS} seeds. Differences are means over patients, with 95 % intervals over draws "
            "of patients and of seeds; with two or three held-out patients an interval says "
            f"little. Images are {first.scaling.size}² pixels.",
            listed,
            "## Gates\n\n" + gate_table(gates(found)).rstrip(),
            "## PSNR, dB\n\n" + _quality(found).rstrip(),
            "## Who closes the gap\n\n" + _differences(found).rstrip(),
            "## What is estimated before a run\n\nBy `medenhance distill --room`, on halves of the "
            "patients who are distilled, without those held out, with half of the steps.\n\n"
            + _rooms(found).rstrip(),
        ]
    )


def _quality(found: Sequence[Found]) -> str:
    lines = []
    for one in found:
        means = []
        for arm in (PUBLIC, PRIOR, STATISTICS, SPG, FULL):
            values = [row["psnr_db"] for row in one.rows if row["arm"] == arm]
            means.append(f"{sum(values) / len(values):.2f}")
        lines.append((one.name, f"{one.rows[0]['floor_db']:.2f}", *means))
    head = ("case", "degraded", *(ARMS[arm] for arm in (PUBLIC, PRIOR, STATISTICS, SPG, FULL)))
    return table(head, lines)


def _differences(found: Sequence[Found]) -> str:
    pairs = ((FULL, PUBLIC), (STATISTICS, PUBLIC), (SPG, STATISTICS), (FULL, SPG))
    head = (
        "case",
        "all raw images over the prior",
        "statistics over the prior",
        "matching over statistics",
        "all raw images over matching",
        "CPU s for matching",
    )
    lines = []
    for one in found:
        made = max(row["made_s"] for row in one.rows if row["arm"] == SPG)
        gains = (str(one.gain(arm, other) or "–") for arm, other in pairs)
        lines.append((one.name, *gains, f"{made:.0f}"))
    return table(head, lines)


def _rooms(found: Sequence[Found]) -> str:
    head = ("case", "prior", "statistics", "all raw images", "left", "advised")
    return table(
        head,
        (
            (
                one.name,
                f"{one.room.public_db:.2f}",
                f"{one.room.statistics_db:.2f}",
                f"{one.room.full_db:.2f}",
                f"{one.room.left_db:+.2f} ± {one.room.error_db:.2f}",
                one.room.method,
            )
            for one in found
        ),
    )


if __name__ == "__main__":
    main()
