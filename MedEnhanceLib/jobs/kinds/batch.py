"""The job that puts all volumes of folders through one task, going on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import Cancelled, ConfigError, OutputError
from MedEnhanceLib.jobs.addresses import is_remote
from MedEnhanceLib.jobs.files import CONTAINER, Result
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.jobs.batch_items import Item
    from MedEnhanceLib.jobs.batch_runs import Finished, Runner, Starting
    from MedEnhanceLib.jobs.bids import Dataset

#: What a batch names for each volume by itself.
_ITS_OWN = ("input", "output", "series", "overwrite")


@dataclass(frozen=True, kw_only=True)
class BatchParams(Params):
    """Put many volumes through one task, each with a row in a ledger."""

    inputs: Annotated[
        list[str],
        About(help="volumes, folders of them, addresses that end in / (s3://bucket/scans/)"),
    ]
    list_file: str | None = option(
        None,
        help="a text file with a path or an address on each line",
        flag="--list",
        metavar="FILE",
    )
    bids: bool = option(
        False,
        help="INPUT is a BIDS dataset: its anatomical images; without --out the results are a "
        "dataset in its derivatives/medenhance",
    )
    output: str | None = option(
        None,
        help="where the results go; an address too (s3://bucket/small)",
        flag="--out",
        metavar="DIR",
    )
    ledger: str | None = option(
        None,
        help="the folder of batch.jsonl and batch.csv, on this machine (default: that of the "
        "results; needed where they go to an address)",
        metavar="DIR",
    )
    workers: int | None = option(
        None,
        help="processes at a time, by Dask (default: this one alone)",
        low=1,
        metavar="N",
        ranged=False,
    )
    scheduler: str | None = option(
        None, help="run on a Dask cluster, for example tcp://host:8786", metavar="ADDRESS"
    )
    task: Literal["enhance", "segment", "compress"] = option(
        "enhance", help="what is done", flag=None
    )
    params: dict[str, Any] = option(
        factory=dict, help="of the task, for every volume, without input and output", flag=None
    )
    overwrite: bool = option(False, help="replace existing outputs", flag="--force")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _ITS_OWN:
            if name in self.params:
                raise ConfigError(
                    f"params has {name}", "A batch names it for each volume: leave it out."
                )
        if self.bids:
            if len(self.inputs) != 1 or self.list_file or self.makes_folders:
                raise ConfigError(
                    "--bids takes one folder, and names the results itself",
                    "Leave out --list, --dicom and other inputs.",
                )
            if is_remote(self.output):
                raise ConfigError(
                    "--bids with --out at an address", "Name a folder on this machine."
                )
        elif self.output is None:
            raise ConfigError("no folder for the results was named", "Give one: --out DIR.")

    @property
    def makes_folders(self) -> bool:
        """Whether each result is a folder of DICOM."""
        return self.task != "compress" and bool(self.params.get("dicom"))


def run_batch(params: BatchParams, monitor: Monitor) -> Result:
    """Find the volumes → each through the task, with a row → batch.csv.

    A volume that fails has a row that says why, and the others go on.
    Raises Cancelled where the user asked to stop; what is done by then is left out the next time.
    """
    from MedEnhanceLib.jobs.batch_runs import Plan, folder_of_ledger
    from MedEnhanceLib.report.page import make_folder

    monitor.progress(0.0, "find the volumes")
    stated = dict(params.params)
    dataset = _dataset(params) if params.bids else None
    out = str(dataset.out if dataset else params.output)
    ledger = folder_of_ledger(out, params.ledger)
    if dataset:
        items = dataset.items()
        stated.setdefault("modality", "MR")
        make_folder(dataset.out)
        dataset.begin()
    else:
        items = _gathered(params, out)
    plan = Plan(
        task=params.task,
        items=items,
        ledger=ledger,
        stated=stated,
        overwrite=params.overwrite,
        repeats=bool(params.scheduler or params.workers),
    )

    def ended(item: Item, fields: Mapping[str, Any], count: int, total: int) -> None:
        if dataset and fields["status"] == "done":
            dataset.finished(item, fields)
        with suppress(Cancelled):  # raised below, once the rows are written
            monitor.progress(count / total, f"{count} of {total}, {Path(item.name).name}")

    done = plan.work_through(_runner(params, monitor), ended)
    if monitor.cancelled:
        raise Cancelled(
            f"cancelled; {done['done']} of {done['total']} are done",
            "Run the same command again to go on: what is done is left out.",
        )
    return Result(done)


def _dataset(params: BatchParams) -> Dataset:
    from MedEnhanceLib.jobs.bids import IMAGES, OF_OUR_HEAD, Dataset

    config = params.params.get("config", {})
    is_ours = config.get("model", "auto") == "auto" and not config.get("segmenter")
    suffixes = OF_OUR_HEAD if params.task == "segment" and is_ours else IMAGES
    out = Path(params.output) if params.output else None
    return Dataset(Path(params.inputs[0]), out, params.task, suffixes)


def _gathered(params: BatchParams, out: str) -> list[Item]:
    """What was named; raises OutputError for derived series among their originals."""
    from MedEnhanceLib.jobs.batch_items import gather

    compresses = params.task == "compress"
    ending = "" if params.makes_folders else None
    if params.makes_folders:
        _refuse_among_originals(out, params.inputs)
    items = gather(
        params.inputs,
        params.list_file,
        out,
        containers=not compresses,
        ending=CONTAINER if compresses else ending,
    )
    if params.makes_folders:
        _refuse_among_originals(out, [item.source for item in items])  # a list names some
    return items


def _refuse_among_originals(out: str, originals: Sequence[str]) -> None:
    """Derived series inside the tree of their sources would be sources of the next run."""
    for entry in originals:
        place = Path(entry).resolve()
        if not is_remote(out) and place.is_dir() and Path(out).resolve().is_relative_to(place):
            raise OutputError(
                f"{out} lies in {entry}, among the originals",
                "Name a folder outside of it: --out elsewhere.",
            )


def _runner(params: BatchParams, monitor: Monitor) -> Runner:
    from MedEnhanceLib.jobs.batch_runs import dask_here, run_here, run_on_dask

    def run(count: int, starting: Starting, finished: Finished) -> None:
        work = (count, starting, finished, monitor)
        if params.scheduler:
            run_on_dask(params.task, params.scheduler, *work)
        elif params.workers and count:
            with dask_here(min(params.workers, count)) as address:
                run_on_dask(params.task, address, *work)
        else:
            run_here(params.task, *work)

    return run
