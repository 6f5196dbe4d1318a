"""Patients on a cluster whose workers die: what is lost, what is reported, and what comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from MedEnhanceLib.errors import Cancelled, InputError, MedEnhanceError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.jobs import cluster
from MedEnhanceLib.jobs.kinds.distill import distill_into
from MedEnhanceLib.runtime.locks import hold
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import RunFolder

from .conftest import PEOPLE
from .test_distill import hashes

distributed = pytest.importorskip("distributed", reason="dask is an optional package")
LIBRARY = Path(__file__).resolve().parents[3]


@pytest.fixture
def two_workers() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cluster with one worker in this process and one in another, which can be killed."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        protocol="tcp",
        host="127.0.0.1",
    ) as started:
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
        command = [sys.executable, "-m", "distributed.cli.dask_worker", *options]
        process = subprocess.Popen(
            [*command, started.scheduler_address],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(LIBRARY), *sys.path])},
            stderr=subprocess.DEVNULL,
        )
        try:
            with distributed.Client(started, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            yield started.scheduler_address, process
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_byte(
    people: Path,
    smoke: DistillConfig,
    tmp_path: Path,
    two_workers: tuple[str, subprocess.Popen[bytes]],
) -> None:
    config = replace(smoke, checkpoint_s=0.0, loop=replace(smoke.loop, outer=6))
    patients = Cohort.from_folder(people).only(lambda patient: patient.id != PEOPLE[0])
    folder = RunFolder(tmp_path / "out")
    address, process = two_workers

    def kill_it(event: Event) -> None:
        if str(event.fields.get("stage")).endswith("of 3 patients"):
            status = folder.status()
            # Busy are both of them, or the other one with the patient who is left.
            if len(status["under_way"]) == min(2, status["patients"] - status["done"]):
                process.kill()

    distill_into(patients, folder.out, config, Monitor(kill_it), scheduler=address)
    assert process.poll() is not None
    alone = distill_into(patients, tmp_path / "alone", config, Monitor())
    assert hashes(folder.out) == hashes(alone)


@pytest.mark.slow
def test_a_cancel_reaches_the_workers_and_the_same_call_resumes(
    people: Path, smoke: DistillConfig, tmp_path: Path, two_workers: tuple[str, Any]
) -> None:
    config = replace(smoke, checkpoint_s=0.0, loop=replace(smoke.loop, outer=6))
    patients, folder = Cohort.from_folder(people), RunFolder(tmp_path / "out")
    address, _ = two_workers

    def is_under_way() -> bool:
        return folder.out.exists() and bool(folder.status().get("under_way"))

    with pytest.raises(Cancelled):
        distill_into(patients, folder.out, config, Monitor(cancel=is_under_way), scheduler=address)
    distill_into(patients, folder.out, config, Monitor(), scheduler=address)
    alone = distill_into(patients, tmp_path / "alone", config, Monitor())
    assert hashes(folder.out) == hashes(alone)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("all black"), "all black"),
        (ZeroDivisionError("0"), "failed at patient 5: ZeroDivisionError"),
    ],
)
def test_a_patient_who_cannot_be_distilled_is_named(error: Exception, words: str) -> None:
    def result() -> None:
        raise error

    with pytest.raises(MedEnhanceError, match=words):
        cluster._images_of(SimpleNamespace(result=result), 5, Monitor())


def test_two_workers_never_write_into_one_patients_folder(tmp_path: Path) -> None:
    """One that the scheduler gave up may still be alive behind a cut cable."""
    (tmp_path / "p").mkdir()
    other = hold(tmp_path / "p")
    assert other is not None
    asked = []

    def free_it() -> bool:
        asked.append(True)
        other.release()
        return False

    with cluster._alone_in(tmp_path / "p", Monitor(cancel=free_it)):
        assert asked
        assert hold(tmp_path / "p") is None
