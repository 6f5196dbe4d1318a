"""How often the enhancer warns of an input: of what it did not learn from, and of what it did.

    python Testing/Benchmarks/out_of_range.py            writes results/out_of_range.json

Nothing here was trained on unless its row says so. No network runs but the guidance encoder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from _common import RESULTS, SHARED_DATA, gate, write
from _range_cases import CLEAN, FLAGGED, Case, ct_cases, mr_cases

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer

REFUSED = "refused"
Row = dict[str, Any]


def main() -> None:
    options = parse()
    rows: list[Row] = []
    banks = []
    for modality, name, cases in (
        ("MR", options.mr_model, mr_cases),
        ("CT", options.ct_model, ct_cases),
    ):
        if options.modality not in (None, modality):
            continue
        model = open_enhancer(open_bundle(name, kind="enhancer", modality=modality))
        if model.range is None:
            raise SystemExit(
                f"{name} has no bank: MedEnhanceLib.hqg.train.range_fit.fit_range gives one"
            )
        banks.append((model.bundle.name, model.range.to_json()))
        rows += [measure(case, model) for case in cases(options.data, options.seeds)]
    write("out_of_range", gates=gates(rows), rows=rows, seeds=options.seeds, folder=options.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of open volumes")
    parser.add_argument("--modality", choices=("MR", "CT"), help="only this one")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--mr-model", default="mr-brain", help="bundle name or folder")
    parser.add_argument("--ct-model", default="ct-lowdose", help="bundle name or folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def measure(case: Case, model: EnhancerModel) -> Row:
    began = time.process_time()
    row: Row = {
        "model": model.bundle.name,
        "group": case.group,
        "name": case.name,
        "wanted": None if case.wanted is None else list(case.wanted),
    }
    try:
        verdict = model.compare(case.volume)
    except InputError as error:
        return row | {"codes": [REFUSED], "messages": [error.message], "as_wanted": True}
    assert verdict is not None
    codes = [warning.code for warning in verdict.warnings]
    row |= {
        "codes": codes,
        "messages": [warning.message for warning in verdict.warnings],
        "distance": round(verdict.distance, 3),
        "noise": round(verdict.noise, 4),
        "as_wanted": as_wanted(codes, case.wanted),
        "cpu_s": round(time.process_time() - began, 2),
    }
    print(
        f"{row['model']} · {case.group} · {case.name}: {verdict.distance:.2f} {codes}", flush=True
    )
    return row


def as_wanted(codes: Sequence[str], wanted: tuple[str, ...] | None) -> bool | None:
    """Whether what was said is what should be; None where neither is right or wrong."""
    if wanted is None:
        return None
    if wanted == FLAGGED:
        return any(code in FLAGGED for code in codes)
    if wanted == CLEAN:
        return list(codes) == list(CLEAN)
    return not any(code in FLAGGED for code in codes)


def gates(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The goals of the warning, by model."""
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        known = [row for row in of_model if row["wanted"] in ([], list(CLEAN))]
        foreign = [row for row in of_model if row["wanted"] == list(FLAGGED)]
        clean = [row for row in of_model if row["wanted"] == list(CLEAN)]
        noisy = [row for row in of_model if is_noisy(row)]
        found += [
            gate(
                f"{model}: false alarms", share(known, FLAGGED), "≤ 0.05", at_most(known, FLAGGED)
            ),
            gate(f"{model}: foreign inputs flagged", flagged(foreign), "≥ 0.95", enough(foreign)),
        ]
        if clean:
            value = share(clean, CLEAN)
            found.append(gate(f"{model}: clean volumes flagged", value, "≥ 0.95", value == 1))
        found.append(
            gate(
                f"{model}: damaged called clean",
                share(noisy, CLEAN),
                "≤ 0.05",
                at_most(noisy, CLEAN),
            )
        )
    return found


def is_noisy(row: Row) -> bool:
    return row["wanted"] == [] and "as scanned" not in row["group"]


def share(rows: Sequence[Row], codes: Iterable[str]) -> float | None:
    """Of rows, how many got one of the codes."""
    wanted = set(codes)
    return sum(bool(wanted & set(row["codes"])) for row in rows) / len(rows) if rows else None


def flagged(rows: Sequence[Row]) -> float | None:
    return share(rows, (*FLAGGED, REFUSED))


def at_most(rows: Sequence[Row], codes: Iterable[str]) -> bool:
    value = share(rows, codes)
    return value is not None and value <= 0.05


def enough(rows: Sequence[Row]) -> bool:
    value = flagged(rows)
    return value is not None and value >= 0.95


if __name__ == "__main__":
    main()
