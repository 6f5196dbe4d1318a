"""Runs a job in this process; the worker, the command line and tests come through here."""

from __future__ import annotations

from MedEnhanceLib.jobs.failures import job_errors
from MedEnhanceLib.jobs.params import params_from_json
from MedEnhanceLib.jobs.registry import JOBS
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.jobs.spec import JobSpec
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor


def run_job(
    spec: JobSpec, progress: Listener | None = None, cancel: Cancel | None = None
) -> Result:
    """Do the job here and now.

    progress: hears every Event, `started` first and `result` last; cancel: see `Monitor`.
    Raises MedEnhanceErrors only: InternalError for a fault of ours (its cause is chained),
    DeviceMemoryError where memory ran out, Cancelled also for Ctrl-C.
    """
    kind = JOBS[spec.kind]
    tell = progress or _hear_nothing
    with job_errors(spec.kind):
        tell(Event("started", {"kind": spec.kind}))
        params = params_from_json(spec.kind, kind.params, spec.params)
        result = kind.run(params, Monitor(progress, cancel))
        tell(Event("result", result.fields))
    return result


def _hear_nothing(event: Event) -> None:
    """Nobody listens."""
