"""Compression against the codecs that a user might take instead, on open CT, MR and EM.

    python Testing/Benchmarks/compression.py             whole volumes, writes results
    python Testing/Benchmarks/compression.py --quick     thin slabs, writes runs/benchmarks
    python Testing/Benchmarks/compression.py --large-only  time and memory anew; all else stays
    python Testing/Benchmarks/compression.py --ours-anew C19  our rows of these volumes anew

What was measured before, by the same code on the same voxels, is read from runs/compression-rows:
a new form of the codec measures itself, time and memory anew, and no peer. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from _common import REPOSITORY, RESULTS, write
from _compression_gates import all_gates
from _compression_implicit import implicit_rows
from _compression_large import large_rows, measure_large
from _compression_measures import Row
from _compression_ours import (
    OURS,
    OURS_FAST,
    SELF_CONTAINED,
    ablation_rows,
    estimate_rows,
    our_rows,
    self_contained,
)
from _compression_quality import quality_rows
from _compression_rows import RATIOS, Case, peer_rows
from _compression_volumes import load_subjects

_QUICK_RATIOS = (16, 64, 256)
#: Modes in which peers are measured.
_PEER_MODES = ("lossless", "max_error", "ratio", "implicit")
_LARGE_SLICES = 100
#: The smaller volumes.
ABLATED = ("CT STS_013", "MR open_ms L20")


def main() -> None:
    """Measure, then write what was found."""
    options = parse()
    if options.large:
        print(json.dumps(measure_large(options.large, options.slices)))
        return
    if options.large_only:
        _measure_large_anew(options)
        return
    if options.ours_anew:
        _measure_some_anew(options)
        return
    rows: list[Row] = []
    cases = [Case.of(*found) for found in load_subjects(options.quick, options.only)]
    for case in cases:
        rows += measured(case, options)
    if options.measure_only:
        return
    if options.ablation_only:
        options.out.mkdir(parents=True, exist_ok=True)
        record = json.dumps({"rows": rows}, indent=1)
        (options.out / "ablation.json").write_text(record + "\n")
        return
    rows += self_contained(rows)
    if options.large_volume:
        rows += large_rows(__file__, options.slices)
    options.out.mkdir(parents=True, exist_ok=True)
    _write(rows, options.out)


def _measure_large_anew(options: argparse.Namespace) -> None:
    """The results with other time and memory; it says that all else is of an earlier commit."""
    kept = json.loads((options.out / "compression.json").read_text(encoding="utf-8"))
    rows = [row for row in kept["rows"] if row["mode"] != "large"]
    rows += large_rows(__file__, options.slices)
    _write(rows, options.out)


def _measure_some_anew(options: argparse.Namespace) -> None:
    """The results with other rows of ours of some volumes; it says of which."""
    kept = json.loads((options.out / "compression.json").read_text(encoding="utf-8"))
    options.peers_kept = True
    anew = {
        subject.name: list(measured(Case.of(subject, volume), options))
        for subject, volume in load_subjects(False, options.ours_anew)
    }
    whole = [row for row in kept["rows"] if row["mode"] != "large"]
    whole = [row for row in whole if row["codec"] != SELF_CONTAINED]
    rows: list[Row] = []
    for name in dict.fromkeys(row["volume"] for row in whole):
        rows += anew.get(name) or [row for row in whole if row["volume"] == name]
    rows += self_contained(rows)
    rows += [row for row in kept["rows"] if row["mode"] == "large"]
    _write(rows, options.out)


def _write(rows: list[Row], out: Path) -> None:
    write("compression", gates=all_gates(rows), rows=rows, seeds=[], folder=out)


def measured(case: Case, options: argparse.Namespace) -> Iterator[Row]:
    """Everything of one volume, from the store where it is there."""
    if options.ablation_only:
        yield from ablation_rows(case)
        return
    yield from our_rows(case, _QUICK_RATIOS if options.quick else RATIOS)
    if options.peers_kept:
        yield from _kept_peers(case)
    elif not options.ours_only:
        yield from peer_rows(case, quick=options.quick)
    yield from estimate_rows(case)
    yield from quality_rows(case)
    if case.subject.name in ABLATED:
        yield from ablation_rows(case)
    if not options.peers_kept:
        yield from implicit_rows(case, anew=options.fits)


def _kept_peers(case: Case) -> Iterator[Row]:
    """Rows of an earlier run that nothing of ours has a part in, or that are no choice of ours.

    Peers are measured where it had none of this volume.
    """
    kept = json.loads((RESULTS / "compression.json").read_text(encoding="utf-8"))["rows"]
    own = [row for row in kept if row["volume"] == case.subject.name]
    if not own:
        yield from peer_rows(case, quick=False)
    ours = {OURS, OURS_FAST, SELF_CONTAINED}
    for row in own:
        is_peer = row["mode"] in _PEER_MODES and row["codec"] not in ours
        if is_peer and not row["codec"].startswith("only "):
            yield row


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="12 slices of each, three ratios")
    parser.add_argument("--only", nargs="+", help="volumes whose name holds one of these")
    parser.add_argument("--ours-only", action="store_true", help="no peers")
    parser.add_argument(
        "--peers-kept",
        action="store_true",
        help="peers, whose bytes do not change, and the implicit network from the last run",
    )
    parser.add_argument("--ablation-only", action="store_true", help="what each part brings")
    parser.add_argument("--measure-only", action="store_true", help="rows alone")
    parser.add_argument("--large-only", action="store_true", help="time and memory anew")
    parser.add_argument("--ours-anew", nargs="+", help="volumes whose name holds one of these")
    parser.add_argument("--no-large", dest="large_volume", action="store_false")
    parser.add_argument(
        "--fits", action="store_true", help="networks fitted to blocks anew: an hour"
    )
    parser.add_argument("--slices", type=int, help="of the large volume")
    parser.add_argument("--large", help=argparse.SUPPRESS)  # one measurement, in its own process
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.slices = options.slices or (20 if options.quick else _LARGE_SLICES)
    options.out = options.out or (REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS)
    return options


if __name__ == "__main__":
    main()
