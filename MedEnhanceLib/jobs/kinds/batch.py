"""The job that puts all volumes of folders through one task, going on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import Cancelled, ConfigError, OutputError
from MedEnhanceLib.jobs.files import CONTAINER, Result
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.jobs.batch_items import Dataset, Item

#: What a batch names for each volume by itself.
_ITS_OWN = ("input", "output", "series", "overwrite")


@dataclass(frozen=True, kw_only=True)
class BatchParams(Params):
    """Put many volumes through one task, each with a row in a ledger."""

    inputs: Annotated[
        list[str],
        About(help="volumes, addresses of volumes (s3://bucket/scan.nii.gz), and folders"),
    ]
    list_file: str | None = option(
        None,
        help="a text file with a path or an address on each line",
        flag="--list",
        metavar="FILE",
    )
    bids: bool = option(
        False,
        help="process the anatomical images of the BIDS dataset INPUT; the results are a dataset "
        "in --out (default: its derivatives/medenhance)",
    )
    output: str | None = option(
        None,
        help="output folder, also of batch.jsonl and batch.csv",
        flag="--out",
        metavar="DIR",
        place="here",
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
        "enhance", help="the job for each volume", flag=None
    )
    params: dict[str, Any] = option(
        factory=dict, help="parameters of the task but for input and output", flag=None
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
    from MedEnhanceLib.jobs.batch_runs import Batch, Ledger, dask_here, run_here, run_on_dask
    from MedEnhanceLib.report.page import make_folder

    monitor.progress(0.0, "find the volumes")
    stated = dict(params.params)
    dataset = _dataset(params) if params.bids else None
    out = dataset.out if dataset else Path(str(params.output))
    items = dataset.items() if dataset else _gathered(params, out)
    make_folder(out)
    if dataset:
        stated.setdefault("modality", "MR")
        dataset.begin()

    def ended(item: Item, fields: Mapping[str, Any], count: int, total: int) -> None:
        if dataset and fields["status"] == "done":
            dataset.finished(item, fields)
        with suppress(Cancelled):  # raised below, once the rows are written
            monitor.progress(count / total, f"{count} of {total}, {Path(item.name).name}")

    batch = Batch(
        params.task,
        items,
        Ledger(out),
        stated,
        overwrite=params.overwrite,
        repeats=bool(params.scheduler or params.workers),
        ended=ended,
    )
    if params.scheduler:
        run_on_dask(batch, params.scheduler, monitor)
    elif params.workers and batch.todo:
        with dask_here(min(params.workers, len(batch.todo))) as address:
            run_on_dask(batch, address, monitor)
    else:
        run_here(batch, monitor)
    done = batch.result()
    if monitor.cancelled:
        raise Cancelled(
            f"cancelled; {done['done']} of {done['total']} are done",
            "Run the same command again to go on: what is done is left out.",
        )
    return Result(done)


def _dataset(params: BatchParams) -> Dataset:
    from MedEnhanceLib.jobs.batch_items import IMAGES, OF_OUR_HEAD, Dataset

    config = params.params.get("config", {})
    is_ours = config.get("model", "auto") == "auto" and not config.get("segmenter")
    suffixes = OF_OUR_HEAD if params.task == "segment" and is_ours else IMAGES
    out = Path(params.output) if params.output else None
    return Dataset(Path(params.inputs[0]), out, params.task, suffixes)


def _gathered(params: BatchParams, out: Path) -> list[Item]:
    """What was named; raises OutputError for derived series among their originals."""
    from MedEnhanceLib.jobs.batch_items import gather, listed

    places = [*params.inputs, *listed(params.list_file)]
    # Derived series inside the tree of their sources would be sources of the next run.
    for folder in (Path(place).resolve() for place in places if params.makes_folders):
        if folder.is_dir() and out.resolve().is_relative_to(folder):
            raise OutputError(
                f"{out} lies in {folder}, among the originals",
                "Name a folder outside of it with --out.",
            )
    compresses = params.task == "compress"
    ending = CONTAINER if compresses else "" if params.makes_folders else None
    return gather(places, out, containers=not compresses, ending=ending)
