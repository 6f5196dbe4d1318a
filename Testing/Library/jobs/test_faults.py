"""What befalls a job never costs the user a file, and is said clearly: faulting.py has the faults.

Each fault strikes each kind of job at one point here; the long ones a full disk, or nothing. With
the environment variable MEDENHANCE_FAULTS=20 every fault strikes every job at 20 points, which
takes hours. Benchmarks/faults.py writes a page of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from Library.jobs.fault_jobs import JOBS, LONGEST
from Library.jobs.faulting import FAULTS, applies

from MedEnhanceLib.jobs.job import JOBS as KINDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks"),
]
_POINTS = int(os.environ.get("MEDENHANCE_FAULTS", "0"))
#: Of jobs that take seconds, what no other test does: test_distill.py and test_train.py stop them.
_LONG = {"enhance with a report", "export with labels", "distill statistics", "demo", "train"}
_OF_LONG = {"full disk"}
Strike = Callable[[str, str, float], dict[str, Any]]


@pytest.fixture(scope="module")
def strike(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strike]:
    """Asks one process, which has imported all that jobs need, for one case after another."""
    folder = tmp_path_factory.mktemp("faults")
    repository = Path(__file__).resolve().parents[3]
    search = os.pathsep.join((str(repository), str(repository / "Testing")))
    environment = {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("faulting.py")), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:

        def ask(job: str, fault: str, point: float) -> dict[str, Any]:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps({"job": job, "fault": fault, "point": point}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, "the program of the cases has ended"
            row: dict[str, Any] = json.loads(answer)
            return row

        yield ask


def _cases() -> Iterator[Any]:
    for job in JOBS:
        for fault in FAULTS:
            is_chosen = job not in LONGEST and (job not in _LONG or fault in _OF_LONG)
            if applies(job, fault) and (_POINTS or is_chosen):
                yield pytest.param(job, fault, id=f"{job}: {fault}")


@pytest.mark.parametrize(("job", "fault"), list(_cases()))
def test_nothing_is_lost_and_the_error_is_clear(job: str, fault: str, strike: Strike) -> None:
    one = zlib.crc32(f"{job} {fault}".encode()) / 2**32
    points = [(number + one) / _POINTS for number in range(_POINTS)] or [one]
    for point in points:
        row = strike(job, fault, point)
        if row["outcome"] == "not possible here":
            pytest.skip(row["says"])
        assert row["wrong"] == [], row


def test_every_kind_of_job_is_there() -> None:
    assert {work.kind for work in JOBS.values()} == set(KINDS)
