"""The job that puts all volumes of folders through one task, going on where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.files import CONTAINER, Result
from MedEnhanceLib.runtime.progress import Event, Listener, Monitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from MedEnhanceLib.jobs.batch_runs import Finished, Starting, Work

#: What a batch names for each volume by itself.
_ITS_OWN = ("input", "output", "series", "overwrite")


@dataclass(frozen=True, kw_only=True)
class BatchParams(Params):
    """Put many volumes through one task, as `medenhance batch` does, with the same ledger."""

    inputs: Annotated[
        list[str], About(help="volumes, folders of them, tables of patients (.csv: patient,path)")
    ]
    output: Annotated[
        str, About(help="the folder of the results, or its address (s3://bucket/small)")
    ]
    ledger: str | None = option(
        None,
        help="the folder of batch.jsonl and batch.csv, on this machine (default: that of the "
        "results; needed where they go to an address)",
        metavar="DIR",
    )
    task: Literal["enhance", "segment", "compress"] = option("enhance", help="what is done")
    params: dict[str, Any] = option(
        factory=dict, help="of the task, for every volume, without input and output"
    )
    ending: str | None = option(
        None, help=".nii.gz, .nii, .nrrd or .mha; None keeps a source's own", metavar="E"
    )
    overwrite: bool = option(False, help="make anew what is done", flag="--force")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _ITS_OWN:
            if name in self.params:
                raise ConfigError(
                    f"params has {name}", "A batch names it for each volume: leave it out."
                )


def run_batch(params: BatchParams, monitor: Monitor) -> Result:
    """Find the volumes → each through the task, with a row → batch.csv.

    A volume that fails has a row that says why, and the others go on.
    Raises Cancelled where the user asked to stop; what is done by then is left out the next time.
    """
    from MedEnhanceLib.jobs.batch_items import gather
    from MedEnhanceLib.jobs.batch_runs import Plan, results_and_ledger

    compresses = params.task == "compress"
    monitor.progress(0.0, "find the volumes")
    out, ledger = results_and_ledger(params.output, params.ledger)
    items = gather(
        params.inputs,
        None,
        out,
        containers=not compresses,
        ending=CONTAINER if compresses else params.ending,
    )
    stated = dict(params.params)
    plan = Plan(
        task=params.task,
        items=items,
        out=out,
        ledger=ledger,
        config=stated.pop("config", {}),
        stated=stated,
        overwrite=params.overwrite,
    )

    def run(work: Sequence[Work], starting: Starting, finished: Finished) -> None:
        for index, (kind, job) in enumerate(work):
            if monitor.cancelled:
                return
            starting([index])
            finished({index: _outcome(kind, job, monitor, index, len(work))})

    found = plan.work_through(run, lambda *_item: None)
    monitor.check()
    return Result(found)


def _outcome(kind: str, job: Any, monitor: Monitor, index: int, count: int) -> dict[str, Any]:
    """The row of one volume; its events are passed on as those of a share of the batch."""
    from MedEnhanceLib.jobs.addresses import is_remote, name_at
    from MedEnhanceLib.jobs.batch_runs import timed
    from MedEnhanceLib.jobs.job import JobSpec, run_job

    part, given = monitor.part(index / count, (index + 1) / count), job["input"]
    name = name_at(given) if is_remote(given) else Path(given).name

    def show(event: Event) -> None:
        if event.kind == "progress":
            stage = f"{index + 1} of {count}, {name}: {event.fields['stage']}"
            part.progress(event.fields["fraction"], stage)
        elif event.kind == "log":
            part.log(event.fields["message"])
        elif event.kind == "warning":
            part.warn(f"{name}: {event.fields['message']}")

    def run(note: Listener) -> Mapping[str, Any]:
        def listen(event: Event) -> None:
            note(event)
            show(event)

        return run_job(JobSpec(kind, job), listen, lambda: monitor.cancelled).fields

    return timed(run)
