"""What a job on paper may say, and the errors that leave a job."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedEnhanceLib import errors
from MedEnhanceLib.errors import ConfigError, DeviceMemoryError, InputError, OutputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.failures import InternalError, device_errors, job_errors
from MedEnhanceLib.jobs.job import JOBS

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "ping"}, "version None"),
        ({"v": True, "kind": "ping"}, "version True"),
        ({"v": 1}, "lacks kind"),
        ({"v": 1, "kind": "enhence"}, "Did you mean enhance"),
        ({"v": 1, "kind": ["ping"]}, "kind is"),
        ({"v": 1, "kind": "ping", "prams": {}}, "prams"),
        ({"v": 1, "kind": "ping", "params": []}, "params is"),
        ({"v": 1, "kind": "ping", "id": 7}, "id is 7"),
        ({"v": 1, "kind": "ping", "params": {"cuont": 1}}, "Did you mean count"),
        ({"v": 1, "kind": "convert", "params": {"input": "a.nii"}}, "lacks output"),
        ({"v": 1, "kind": "convert", "params": {"input": "", "output": "b"}}, "input is empty"),
        ({"v": 1, "kind": "convert", "params": {"input": "\ud800", "output": "b"}}, "invalid path"),
    ],
)
def test_what_is_not_exactly_a_job_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        JobSpec.from_json(fields)
    assert caught.value.hint


@pytest.mark.training
def test_what_can_be_resumed_states_its_cohort() -> None:
    cohorts = {kind: job.cohort for kind, job in JOBS.items() if job.is_resumable}
    assert cohorts == {"train": "data", "distill": "cohort"}
    for kind, name in cohorts.items():
        assert name in JOBS[kind].params.__dataclass_fields__


def test_paths_with_colons_are_paths(tmp_path: Path) -> None:
    for name in ("sub-01::T1w.nii", "C:/scan.nii", "C:\\scan.nii", "scans//a.nii", "a:b/c.nii"):
        JobSpec("convert", {"input": name, "output": "b.nii"})


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from(["v", "id", "kind", "params", "x"]), _json),
    st.sampled_from(sorted(JOBS)),
    st.dictionaries(st.text(), _json),
)
def test_no_json_object_gets_another_error_than_ours(
    fields: dict[str, Any], kind: str, params: dict[str, Any]
) -> None:
    for job in (fields, {"kind": kind, "params": params}):
        try:
            JobSpec.from_json({"v": 1, **job})
        except ConfigError as error:
            assert error.message


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError("Unable to allocate 3 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: out of memory\nmore lines"),
        RuntimeError("Failed to allocate memory for image."),
    ],
)
def test_memory_that_runs_out_has_one_name(cause: Exception) -> None:
    with pytest.raises(DeviceMemoryError, match="memory ran out") as caught, device_errors():
        raise cause
    assert ("--device cpu" in caught.value.hint) == ("CUDA" in str(cause)), "the host has no other"
    assert "\n" not in caught.value.message


def test_what_the_system_refuses_is_no_fault_of_ours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Permission denied") as caught, job_errors("train"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "a"))
    assert "who may read" in caught.value.hint
    with pytest.raises(OutputError, match="No space left"), job_errors("train"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "a"))
    ours = Path(errors.__file__).with_name("lost.py")
    with pytest.raises(InternalError), job_errors("train"):
        ours.read_bytes()


def test_what_is_no_job_is_refused_by_the_words_for_it() -> None:
    with pytest.raises(ConfigError, match="the job is 'estimate'") as caught:
        run_job("estimate", {"input": "scan.nii.gz"})  # type: ignore[arg-type]
    assert "JobSpec(kind, params)" in caught.value.hint
