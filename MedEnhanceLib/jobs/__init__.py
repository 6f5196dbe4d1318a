"""Jobs: all long work is run as one, in this process or in a worker process."""

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.dependencies import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.jobs.files import Result
    from MedEnhanceLib.jobs.job import JobSpec, run_job

__all__ = ["JobSpec", "Result", "run_job"]

_HOMES = {"files": ["Result"], "job": ["JobSpec", "run_job"]}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
