"""Compression against the codecs that a user might take instead, on open CT, MR and EM.

    python Testing/Benchmarks/compression.py

Needs the extra `bench`. The peers take hours.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial

from _common import QUICK, Part, measure, parser_of
from _compression_gates import gates_of
from _compression_large import MODES_AND_PEERS, large_row, measure_large
from _compression_rows import our_rows, peer_rows
from _compression_volumes import SUBJECTS, load_subject


def main() -> None:
    """Measure, then write what was found; or, in a child, measure one mode on a large volume."""
    parser = parser_of(__doc__)
    parser.add_argument("--large", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.large:
        print(json.dumps(measure_large(options.large)))
    else:
        measure("compression", options, parts, gates_of)


def parts() -> Iterator[Part]:
    for subject in SUBJECTS[1:2] if QUICK else SUBJECTS:
        volume = load_subject(subject)
        yield f"{subject.name} ours", partial(our_rows, subject, volume)
        yield f"{subject.name} peers", partial(peer_rows, subject, volume)
    for mode in MODES_AND_PEERS[1:4:2] if QUICK else MODES_AND_PEERS:
        yield f"large {mode}", partial(large_row, __file__, mode)


if __name__ == "__main__":
    main()
