"""What distilled images are worth: quality against images given, by arm, on held-out patients.

    python Testing/Benchmarks/distillation.py            writes results/distillation.json
    python Testing/Benchmarks/distillation.py --quick    one case, few steps; into runs/benchmarks
    python Testing/Benchmarks/distillation.py --page     what was measured so far, nothing new

Rows are kept in runs/distillation-rows: a run that was stopped goes on with the same line.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import REPOSITORY, RESULTS, write
from _distillation_cases import CASES, ROWS, Case, config_of, material_of
from _distillation_elsewhere import elsewhere
from _distillation_gates import Found, gates

from MedEnhanceLib.spg.comparison import SPG, STATISTICS, Cell, Row, RowStore, cells, measure
from MedEnhanceLib.spg.comparison_arms import Material
from MedEnhanceLib.spg.images import Floats


def main() -> None:
    """Measure, then write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one case with few steps")
    parser.add_argument("--page", action="store_true", help="write from the rows that there are")
    parser.add_argument("--only", nargs="+", help="these cases alone, as modality-task")
    parser.add_argument("--networks", nargs="*", default=["edsr", "unet"], help="besides SRCNN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument(
        "--most-seeds", type=int, default=8, help="of matching over statistics, many patients"
    )
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.draws, options.most_seeds = 1, 2, 1
    out = REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS
    wanted = [
        case
        for case in (CASES[:1] if options.quick else CASES)
        if not options.only or f"{case.modality}-{case.task}" in options.only
    ]
    found = [one for one in (_measured(case, options) for case in wanted) if one.rows]
    out.mkdir(parents=True, exist_ok=True)
    record = [{"case": str(one.case)} | row for one in found for row in one.rows]
    record += [{"case": str(one.case)} | row for one in found for row in one.elsewhere]
    seeds = list(range(options.seeds))
    write("distillation", gates=gates(found), rows=record, seeds=seeds, folder=out)


def _measured(case: Case, options: argparse.Namespace) -> Found:
    config = config_of(
        case,
        seeds=options.seeds,
        draws=options.draws,
        quick=options.quick,
    )
    config = replace(config, networks=tuple(options.networks))
    material = material_of(case.modality)
    name = f"{case}{' quick' if options.quick else ''}".replace(" ", "-")
    store = RowStore(ROWS / f"{name}.jsonl")
    shelf = ROWS / f"{name}-images.npz"
    rows: list[Row] = []
    for row in measure(material, config, store, made=_Shelf(shelf, material), kept=options.page):
        rows.append(row)
        if not options.page:
            print(
                case, *(row[k] for k in ("arm", "budget", "seed", "network", "psnr_db")), flush=True
            )
    planned = sum(len(cell.networks) for cell in cells(config))
    images = dict(np.load(shelf)) if shelf.is_file() else {}
    others = elsewhere(
        name, material, config, images.get("distilled"), kept=options.page or options.quick
    )
    # The question of the page is what matching adds: three seeds leave it open.
    closely = replace(
        config,
        arms=(STATISTICS, SPG),
        budgets=config.budgets[-1:],
        seeds=options.most_seeds,
        networks=(),
    )
    more = list(measure(material, closely, store, kept=options.page or options.most_seeds == 1))
    return Found(case, config, material, rows, images, planned, list(others), more)


class _Shelf:
    """Keeps the distilled images of the first seed for the pictures, and where they started."""

    def __init__(self, path: Path, material: Material) -> None:
        self._path, self._material = path, material

    def __call__(self, cell: Cell, images: Floats) -> None:
        if cell.arm != SPG or cell.seed or not cell.budget.per_patient:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(self._path, distilled=images, prior=self._material.prior)


if __name__ == "__main__":
    main()
