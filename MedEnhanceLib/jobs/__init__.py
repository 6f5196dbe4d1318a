"""The only way in which anything long runs: a job, here or in a worker process."""

from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.jobs.run import run_job
from MedEnhanceLib.jobs.spec import JobSpec
from MedEnhanceLib.jobs.worker.client import Client

__all__ = ["Client", "JobSpec", "Result", "run_job"]
