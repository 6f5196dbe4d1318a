"""The worker process."""

#: How long a worker waits for a job.
IDLE_SECONDS = 600.0
