"""Compression against the codecs that a user might take instead, on open CT, MR and EM.

    python Testing/Benchmarks/compression.py

Needs the extra `bench`. The peers take hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from _common import QUICK, Part, Row, in_child, run
from _compression_gates import gates_of
from _compression_large import MODES_AND_PEERS, measure_large
from _compression_rows import our_rows, peer_rows
from _compression_volumes import SUBJECTS, load_subject


def large_row(mode: str) -> list[Row]:
    """Time and memory of a mode or a peer, in a process of its own."""
    return [in_child(child, mode)]


def child(mode: str) -> Row:
    return measure_large(mode)


def parts() -> Iterator[Part]:
    for subject in SUBJECTS[1:2] if QUICK else SUBJECTS:
        volume = load_subject(subject)
        yield f"{subject.name} ours", partial(our_rows, subject, volume)
        yield f"{subject.name} peers", partial(peer_rows, subject, volume)
    for mode in MODES_AND_PEERS[1:4:2] if QUICK else MODES_AND_PEERS:
        yield f"large {mode}", partial(large_row, mode)


if __name__ == "__main__":
    run("compression", __doc__, parts, gates_of, child=child)
