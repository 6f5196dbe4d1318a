"""The kinds of jobs, the specification of one, and its run in this process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from MedEnhanceLib.core.options import config_from_json, did_you_mean, shown
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.events import check_version
from MedEnhanceLib.jobs.failures import job_errors
from MedEnhanceLib.jobs.files import KeptVolumes, Result
from MedEnhanceLib.runtime.dependencies import has_training
from MedEnhanceLib.runtime.device import release_memory
from MedEnhanceLib.runtime.progress import Cancel, Listener, Monitor
from MedEnhanceLib.runtime.registry import member_at


@dataclass(frozen=True)
class Job:
    """A kind of job, whose module in jobs/kinds is imported when it is needed.

    Attributes:
        params_at, run_at: module and name of the parameters' dataclass, and of the function that
            does the job.
        keeps_volumes: whether the function takes the `KeptVolumes` of its worker as well.
        is_question: whether it writes nothing and answers whoever asks at once: no list of jobs
            shows it.
        cohort: the parameter that names the images a long job learns from; empty for other jobs.
    """

    params_at: str
    run_at: str
    keeps_volumes: bool = False
    is_question: bool = False
    cohort: str = ""

    @property
    def is_resumable(self) -> bool:
        """Whether it may take hours, and goes on from its last checkpoint."""
        return bool(self.cohort)

    @property
    def params(self) -> Any:
        """The dataclass of the parameters."""
        return member_at(_place(self.params_at))

    @property
    def run(self) -> Callable[..., Result]:
        """The function that does the job."""
        run: Callable[..., Result] = member_at(_place(self.run_at))
        return run


def _place(name: str) -> str:
    """Return the full name of a member: names without a package are of `jobs.kinds`."""
    return name if name.startswith("MedEnhanceLib.") else f"MedEnhanceLib.jobs.kinds.{name}"


_IN_TRAINING = "MedEnhanceLib.training.jobs."
_TRAINING = {
    "train": Job(
        f"{_IN_TRAINING}train:TrainParams", f"{_IN_TRAINING}train:run_train", cohort="data"
    ),
    "distill": Job(
        f"{_IN_TRAINING}distill:DistillParams", f"{_IN_TRAINING}distill:run_distill",
        cohort="cohort",
    ),
    "evaluate": Job(
        f"{_IN_TRAINING}evaluate:EvaluateParams", f"{_IN_TRAINING}evaluate:run_evaluate"
    ),
}  # fmt: skip
JOBS: dict[str, Job] = {
    "enhance": Job("enhance:EnhanceParams", "enhance:run_enhance", keeps_volumes=True),
    "noise": Job("enhance:NoiseParams", "enhance:run_noise", keeps_volumes=True, is_question=True),
    "segment": Job("enhance:SegmentParams", "enhance:run_segment"),
    "compress": Job("compress:CompressParams", "compress:run_compress", keeps_volumes=True),
    "estimate": Job(
        "compress:EstimateParams", "compress:run_estimate", keeps_volumes=True, is_question=True
    ),
    "decompress": Job("compress:DecompressParams", "compress:run_decompress"),
    "recover": Job("compress:RecoverParams", "compress:run_recover"),
    "degrade": Job("volumes:DegradeParams", "volumes:run_degrade"),
    "convert": Job("volumes:ConvertParams", "volumes:run_convert"),
    "inspect": Job("volumes:InspectParams", "volumes:run_inspect", is_question=True),
    "scanner": Job("measure_scanner:ScannerParams", "measure_scanner:run_scanner"),
    "series": Job("volumes:SeriesParams", "volumes:run_series"),
    "export": Job("volumes:ExportParams", "volumes:run_export"),
    "batch": Job("batch:BatchParams", "batch:run_batch"),
    "demo": Job("demo:DemoParams", "demo:run_demo"),
    "models": Job("installation:ModelsParams", "installation:run_models", is_question=True),
    "doctor": Job("installation:DoctorParams", "installation:run_doctor", is_question=True),
    "install": Job("installation:InstallParams", "installation:run_install"),
    "ping": Job("installation:PingParams", "installation:run_ping", is_question=True),
    **(_TRAINING if has_training() else {}),
}


@dataclass(frozen=True)
class JobSpec:
    """An order: a kind of job and its parameters.

    Attributes:
        kind: one of `JOBS`.
        params: that kind's parameters as a JSON object, paths as text.
        id: names the job in its events; made up where none is given.
    Raises ConfigError for an unknown kind and for parameters that the kind does not take.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        if self.kind not in JOBS:
            hint = f"{did_you_mean(self.kind, JOBS)}Known: {', '.join(JOBS)}."
            raise ConfigError(f"unknown job {self.kind!r}", hint)
        object.__setattr__(self, "params", dict(self.params))
        self.typed_params()

    def typed_params(self) -> Any:
        """Return the parameters as the dataclass of the kind."""
        return config_from_json(JOBS[self.kind].params, self.params, f"the job {self.kind!r}")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> JobSpec:
        """Read a job from a line to the worker; ConfigError for anything else."""
        check_version(fields)
        members = {name: value for name, value in fields.items() if name != "v"}
        return config_from_json(cls, members, "the job")


def run_job(
    spec: JobSpec,
    progress: Listener | None = None,
    cancel: Cancel | None = None,
    kept: KeptVolumes | None = None,
) -> Result:
    """Run the job in this process.

    Args:
        spec: the job.
        progress: called with every Event, `started` first and `result` last.
        cancel: see `Monitor`.
        kept: volumes that stay in memory from job to job; None keeps none.
    Raises MedEnhanceErrors only: InternalError for an error in MedEnhance (its cause is chained),
    DeviceMemoryError if memory runs out, Cancelled also for Ctrl-C.
    """
    kind = JOBS.get(getattr(spec, "kind", ""))
    if kind is None:
        hint = "Give a JobSpec: run_job(JobSpec(kind, params))."
        raise ConfigError(f"the job is {shown(spec)}", hint)
    monitor = Monitor(progress, cancel)
    with job_errors(spec.kind):
        monitor.emit("started", kind=spec.kind)
        try:
            volumes = [kept or KeptVolumes()] if kind.keeps_volumes else []
            result = kind.run(spec.typed_params(), monitor, *volumes)
        finally:
            # A worker lives on for minutes after its job, and other programs use the card too.
            for device in ("cuda", "mps"):
                release_memory(device)
        monitor.emit("result", **result.fields)
    return result
