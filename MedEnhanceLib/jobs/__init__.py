"""The only way in which anything long runs: a job, here or in a worker process."""

from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.job import JobSpec, run_job
from MedEnhanceLib.jobs.worker.client import Client

__all__ = ["Client", "JobSpec", "Result", "run_job"]
