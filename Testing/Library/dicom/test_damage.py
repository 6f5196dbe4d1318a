"""20,000 damaged files: each an error, the original, or what the damaged file plainly says.

The fast part tries the first 300 of them.

What counts as right, and why: docs/decisions/0007-verified-reading.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from Library.dicom.images import Image, enhanced_mr, of_every_syntax, written
from Library.dicom.oracle import planes_of

_TESTING = Path(__file__).resolve().parents[2]
_SECONDS = 280


@pytest.mark.timeout(_SECONDS + 15)
@pytest.mark.parametrize(
    ("seeds", "cases"), [((1,), 300), pytest.param((1, 2), 3_000, marks=pytest.mark.slow)]
)
def test_no_damage_gives_a_wrong_volume_a_crash_or_a_hang(
    seeds: tuple[int, ...], cases: int
) -> None:
    """Processes of their own read the files, so that one that dies is seen."""
    environment = os.environ | {"PYTHONPATH": str(_TESTING), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "Library.dicom.damage", str(seed), str(cases)],
            cwd=_TESTING.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]
    try:
        ended = [process.communicate(timeout=_SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, complaints) in zip(running, ended, strict=True):
        assert process.returncode == 0, complaints[-3000:]
    found = [json.loads(said) for said, _ in ended]
    assert [one["wrong"] for one in found] == [[] for _ in seeds]
    counts = [
        {kind: one["counts"][kind] for kind in ("error", "original", "stated")} for one in found
    ]
    assert sum(sum(one.values()) for one in counts) == len(seeds) * cases
    assert all(min(one.values()) > cases // 20 for one in counts)


@pytest.mark.parametrize("image", of_every_syntax(), ids=lambda image: image.name)
def test_the_second_reading_reads_what_is_whole(image: Image) -> None:
    """The judge of the damaged files must itself be right, and read all of them."""
    planes = planes_of(image.content)
    assert planes is not None
    assert len(planes) == len(image.stored)
    if image.name.startswith(("MR_small", "JPEG lossless", "HTJ2K lossless")):
        assert np.array_equal(planes[0].values, image.stored[0])


def test_the_second_reading_refuses_what_contradicts_itself() -> None:
    whole = written(enhanced_mr(np.zeros((2, 4, 4), np.uint16), [0.0, 2.0]))
    assert planes_of(whole) is not None
    assert planes_of(whole[:-10]) is None
    at = whole.index(b"\x28\x00\x10\x00US")
    assert planes_of(whole[:at] + whole[at : at + 10] + whole[at:]) is None
