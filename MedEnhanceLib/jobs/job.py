"""A job: what it is to do, the kinds there are, and how one runs in this process."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from MedEnhanceLib.core.options import config_from_json, did_you_mean
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.failures import job_errors
from MedEnhanceLib.jobs.files import KeptVolumes, Result
from MedEnhanceLib.jobs.worker.events import check_version
from MedEnhanceLib.runtime.device import release_memory
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor


@dataclass(frozen=True)
class JobKind:
    """A kind of job in jobs/kinds, which is imported when it is needed.

    file: of jobs/kinds; `<name>Params` and `run_<name>` stand in it. keeps_volumes: whether the
    function takes the `KeptVolumes` of its worker as well. is_question: whether it writes nothing
    and answers whoever asks at once: no list of jobs shows it.
    """

    file: str
    name: str
    keeps_volumes: bool = False
    is_question: bool = False

    @property
    def params(self) -> Any:
        """The dataclass of the parameters."""
        return self._member(f"{self.name}Params")

    @property
    def run(self) -> Callable[..., Result]:
        """The function that does the job."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower()
        run: Callable[..., Result] = self._member(f"run_{words}")
        return run

    def _member(self, name: str) -> Any:
        return getattr(import_module(f"MedEnhanceLib.jobs.kinds.{self.file}"), name)


JOBS: dict[str, JobKind] = {
    "enhance": JobKind("enhance", "Enhance", keeps_volumes=True),
    "prepare": JobKind("enhance", "Prepare", keeps_volumes=True, is_question=True),
    "blend": JobKind("volumes", "Blend"),
    "segment": JobKind("enhance", "Segment"),
    "compress": JobKind("compress", "Compress", keeps_volumes=True),
    "estimate": JobKind("compress", "Estimate", keeps_volumes=True, is_question=True),
    "decompress": JobKind("compress", "Decompress"),
    "recover": JobKind("compress", "Recover"),
    "degrade": JobKind("volumes", "Degrade"),
    "convert": JobKind("volumes", "Convert"),
    "inspect": JobKind("volumes", "Inspect", is_question=True),
    "series": JobKind("volumes", "Series"),
    "export": JobKind("volumes", "Export"),
    "batch": JobKind("batch", "Batch"),
    "train": JobKind("train", "Train"),
    "distill": JobKind("distill", "Distill"),
    "distill-estimate": JobKind("distill", "DistillEstimate"),
    "evaluate": JobKind("evaluate", "Evaluate"),
    "demo": JobKind("demo", "Demo"),
    "models": JobKind("installation", "Models", is_question=True),
    "doctor": JobKind("installation", "Doctor", is_question=True),
    "install": JobKind("installation", "Install"),
    "ping": JobKind("installation", "Ping", is_question=True),
}


@dataclass(frozen=True)
class JobSpec:
    """An order: a kind of job and its parameters.

    kind: one of `JOBS`. params: that kind's parameters as a JSON object, paths as text.
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
        """Read the job of a line to the worker; ConfigError on whatever is not exactly that."""
        check_version(fields)
        given = {name: value for name, value in fields.items() if name != "v"}
        return config_from_json(cls, given, "the job")


def run_job(
    spec: JobSpec,
    progress: Listener | None = None,
    cancel: Cancel | None = None,
    kept: KeptVolumes | None = None,
) -> Result:
    """Do the job in this process.

    progress: is called with every Event, `started` first and `result` last.
    cancel: see `Monitor`.
    kept: volumes that stay in memory from job to job; None keeps none.
    Raises MedEnhanceErrors only: InternalError for a fault of MedEnhance (its cause is chained),
    DeviceMemoryError where memory ran out, Cancelled also for Ctrl-C.
    """
    kind = JOBS[spec.kind]
    report = progress or (lambda _event: None)
    with job_errors(spec.kind):
        report(Event("started", {"kind": spec.kind}))
        monitor = Monitor(progress, cancel)
        try:
            volumes = [kept or KeptVolumes()] if kind.keeps_volumes else []
            result = kind.run(spec.typed_params(), monitor, *volumes)
        finally:
            # A worker stays for minutes after its job: the card is shared with other programs.
            for device in ("cuda", "mps"):
                release_memory(device)
        report(Event("result", result.fields))
    return result
