"""What befalls a job never costs the user a file, and is said clearly; fault_kinds.py has what.

Each fault strikes each job at one point here; the long ones a full disk, or nothing. With
the environment variable MEDENHANCE_FAULTS=20 every fault strikes every job at 20 points, which
takes hours. Benchmarks/faults.py writes a page of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from Library.jobs.fault_jobs import JOBS, LONG
from Library.jobs.fault_kinds import FAULTS, applies, place_of
from Library.jobs.faulting import Asked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks"),
]
_TURNS = int(os.environ.get("MEDENHANCE_FAULTS", "0"))
#: Of jobs that take seconds, what no other test does: test_distill.py and test_train.py stop them.
_OF_LONG = {"full disk"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    program = Asked(tmp_path_factory.mktemp("faults"))
    yield program
    program.close()


def _cases() -> Iterator[Any]:
    for job in JOBS:
        for fault in FAULTS:
            is_chosen = job not in LONG or fault in _OF_LONG
            if applies(job, fault) and (_TURNS or is_chosen):
                yield pytest.param(job, fault, id=f"{job}: {fault}")


@pytest.mark.parametrize(("job", "fault"), list(_cases()))
def test_nothing_is_lost_and_the_error_is_clear(job: str, fault: str, asked: Asked) -> None:
    for turn in range(_TURNS or 1):
        row = asked.run(job, fault, place_of(job, fault, turn))
        if row["outcome"] == "not possible here":
            pytest.skip(row["says"])
        assert row["wrong"] == [], row
