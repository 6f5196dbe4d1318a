"""Compression against the codecs that a user might take instead, on open CT, MR and EM.

    python Testing/Benchmarks/compression.py               our rows anew, peers of the last run
    python Testing/Benchmarks/compression.py --peers       peers anew too: hours
    python Testing/Benchmarks/compression.py --only C19    these volumes alone; all else stays
    python Testing/Benchmarks/compression.py --large-only  time and memory anew; all else stays

Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json

from _common import RESULTS, write
from _compression_gates import all_gates
from _compression_large import LARGE, large_rows, measure_large
from _compression_rows import ESTIMATE, OURS, OURS_FAST, Row, our_rows, peer_rows
from _compression_volumes import SUBJECTS, Subject, load_subject

_LARGE_SLICES = 100


def main() -> None:
    """Measure, then write what was found."""
    options = parse()
    if options.large:
        print(json.dumps(measure_large(options.large, _LARGE_SLICES)))
        return
    kept: list[Row] = json.loads((RESULTS / "compression.json").read_text("utf-8"))["rows"]
    rows: list[Row] = []
    for subject in SUBJECTS:
        known = [row for row in kept if row["volume"] == subject.name]
        rows += _rows(subject, known, options)
    if options.only:
        rows += [row for row in kept if row["mode"] == LARGE]
    else:
        rows += large_rows(__file__)
    write("compression", gates=all_gates(rows), rows=rows, seeds=[])


def _rows(subject: Subject, known: list[Row], options: argparse.Namespace) -> list[Row]:
    """All rows of one volume, measured or those that are known."""
    named = not options.only or any(name in subject.name for name in options.only)
    if options.large_only or not named:
        return known
    volume = load_subject(subject)
    if options.peers:
        peers = list(peer_rows(subject, volume))
    else:
        peers = [row for row in known if row["codec"] not in (OURS, OURS_FAST)]
    rows = [*our_rows(subject, volume), *peers]
    for row in rows:
        if row["mode"] != ESTIMATE:
            print(row["volume"], row["mode"], row["setting"], row["codec"], row.get("ratio"))
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="volumes whose name holds one of these")
    parser.add_argument("--peers", action="store_true", help="measure the peers anew")
    parser.add_argument("--large-only", action="store_true", help="time and memory anew")
    parser.add_argument("--large", help=argparse.SUPPRESS)  # one measurement, in its own process
    return parser.parse_args()


if __name__ == "__main__":
    main()
