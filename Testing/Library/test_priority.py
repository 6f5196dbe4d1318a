"""Long jobs let others go first: which ones, in which doors, and whose process stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import distill, train

LIBRARY = Path(__file__).resolve().parents[2]
unix = pytest.mark.skipif(not hasattr(os, "getpriority"), reason="Windows has classes")


def asked(code: str) -> Any:
    """What a process prints, as JSON; not this one, whose priority may never rise again."""
    imports = "import json, os, threading\nfrom MedEnhanceLib.runtime.priority import low_priority"
    program = f"{imports}\n{code}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@unix
def test_all_threads_are_lowered_also_those_that_were_there() -> None:
    nice = asked("""
stop = threading.Event()
old = threading.Thread(target=stop.wait)
old.start()
with low_priority():
    new = threading.Thread(target=stop.wait)
    new.start()
    threads = [0] if not os.path.isdir("/proc") else [0, old.native_id, new.native_id]
    print(json.dumps([os.getpriority(os.PRIO_PROCESS, one) for one in threads]))
    stop.set()
""")
    assert nice
    assert min(nice) >= 10


@unix
def test_who_is_low_already_and_who_does_not_want_it_stays() -> None:
    lowest = asked("""
os.nice(max(0, 15 - os.nice(0)))
with low_priority():
    print(os.nice(0))
""")
    assert lowest >= 15
    before, meanwhile = asked("""
before = os.nice(0)
with low_priority(wanted=False):
    print(json.dumps([before, os.nice(0)]))
""")
    assert before == meanwhile


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a job wanted a low priority; it ends there."""
    heard: list[bool] = []

    def low_priority(*, wanted: bool) -> Any:
        heard.append(wanted)
        raise ConfigError("enough")

    for job in (distill, train):
        monkeypatch.setattr(job, "low_priority", low_priority)
    return heard


@pytest.mark.parametrize(
    ("words", "low"),
    [
        (("distill", "a", "b"), True),
        (("distill", "a", "b", "--no-nice"), False),
        (("train", "hqg", "--data", "a", "--out", "b"), False),
        (("train", "hqg", "--data", "a", "--out", "b", "--nice"), True),
    ],
)
def test_distilling_is_background_work_and_training_where_asked(
    words: tuple[str, ...], low: bool, wishes: list[bool]
) -> None:
    assert main([*words]) == 2
    assert wishes == [low]


def test_jobs_of_a_worker_are_background_work(wishes: list[bool]) -> None:
    for kind, params in (
        ("distill", {"cohort": "a", "out": "b"}),
        ("train", {"method": "hqg", "data": "a", "out": "b"}),
    ):
        with pytest.raises(ConfigError, match="enough"):
            run_job(JobSpec(kind, params))
    assert wishes == [True, True]
