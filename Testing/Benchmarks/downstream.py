"""What compression does to the work that follows: features, labels, enhanced volumes.

    python Testing/Benchmarks/downstream.py            writes results/downstream.json
    python Testing/Benchmarks/downstream.py --thin     16 slices of each scan, much sooner
    python Testing/Benchmarks/downstream.py --quick    three thin scans, writes runs/benchmarks

What was measured before, by the same codec on the same voxels, is read from runs/downstream-rows.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import REPOSITORY, RESULTS, write
from _downstream_rows import ORIGINAL, SETTINGS, Row, enhanced_rows, scan_rows
from _downstream_scans import load_scans
from _downstream_statistics import share_within


def main() -> None:
    """Measure, then write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="16 slices of three scans")
    parser.add_argument("--thin", action="store_true", help="16 slices of each scan")
    parser.add_argument("--no-enhancement", action="store_true", help="features and labels alone")
    parser.add_argument("--only", nargs="+", help="these scans alone, by name")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or (REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS)
    settings = SETTINGS[1::3] if options.quick else SETTINGS
    rows: list[Row] = []
    for scan in load_scans(options.quick, thin=options.thin or options.quick):
        if not options.only or scan.name in options.only:
            rows += scan_rows(scan, settings)
    enhanced = [] if options.no_enhancement else list(enhanced_rows(settings))
    out.mkdir(parents=True, exist_ok=True)
    record = [*public(rows), *enhanced]
    write(
        "downstream",
        gates=[],
        rows=record,
        seeds=[0],
        folder=out,
    )


def public(rows: list[Row]) -> list[Row]:
    """Rows for the record: features as the share that stayed, instead of hundreds of values."""
    stated = []
    for row in rows:
        slim = {key: value for key, value in row.items() if key != "features"}
        if "features" in row:
            slim["within"] = share_within(_original(rows, row)["features"], row["features"])
        stated.append(slim)
    return stated


def _original(rows: list[Row], row: Row) -> Row:
    name = str(ORIGINAL)
    return next(r for r in rows if r["scan"] == row["scan"] and r["setting"] == name)


if __name__ == "__main__":
    main()
