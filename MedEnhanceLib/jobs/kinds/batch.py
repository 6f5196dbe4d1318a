"""The job that runs one task on all volumes of folders, and continues after a stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from MedEnhanceLib.core.labels import volume_rows
from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.options import About, Params, check_fields, option
from MedEnhanceLib.errors import Cancelled, ConfigError, DependencyError, OutputError
from MedEnhanceLib.io.atomic import PREFIX, make_folder, output_error, refuse_unwritable, resolved
from MedEnhanceLib.io.csv_tables import write_table
from MedEnhanceLib.io.formats import CONTAINER, READABLE, ending_of
from MedEnhanceLib.jobs.files import Result, check_outputs
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.locks import hold, remove_owned
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import text

if TYPE_CHECKING:
    from filelock import FileLock

    from MedEnhanceLib.jobs.batch_items import Item, Shard

#: Parameters that a batch sets for each volume.
_ITS_OWN = ("input", "output", "series", "overwrite")


@dataclass(frozen=True, kw_only=True)
class BatchParams(Params):
    """Put many volumes through one task, each with a row in a ledger."""

    inputs: Annotated[
        list[str],
        About(help="volumes and folders of volumes", place="input"),
    ]
    bids: bool = option(
        False,
        help="process the anatomical and, to enhance, the diffusion images of the BIDS dataset "
        "INPUT; the results are a dataset in --out (default: its derivatives/medenhance)",
    )
    output: str | None = option(
        None,
        help="output folder, also of batch.jsonl and batch.csv",
        flag="--out",
        metavar="DIR",
        place="folder",
    )
    workers: int | None = option(
        None,
        help="number of processes that run side by side here (default: only this one)",
        low=1,
        high=1024,
        metavar="N",
    )
    scheduler: str | None = option(
        None, help="run on a Dask cluster, for example tcp://host:8786", metavar="ADDRESS"
    )
    task: Literal["enhance", "segment", "compress"] = option(
        "enhance", help="the job for each volume", flag=None
    )
    params: dict[str, Any] = option(
        factory=dict, help="parameters of the task, without input and output", flag=None
    )
    shard: str | None = option(
        None,
        help="process the I-th of N parts of the volumes; other commands, with the same INPUT and "
        "--out, process the others",
        metavar="I/N",
    )
    only: str | None = option(
        None,
        help="process only DICOM series of these modalities (CT,MR); a warning counts the others",
        metavar="M,…",
    )
    retry_failed: bool = option(
        False,
        help="process only volumes in the rows of --out whose last job failed or was interrupted; "
        "INPUT is not searched",
    )
    join: bool = option(
        False,
        help="run nothing: join the rows of all shards in --out to batch.csv, and count them",
    )
    overwrite: bool = option(False, help="replace existing outputs", flag="--force")

    def __post_init__(self) -> None:
        from MedEnhanceLib.jobs.batch_items import Shard
        from MedEnhanceLib.jobs.job import JOBS

        super().__post_init__()
        for name in _ITS_OWN:
            if name in self.params:
                raise ConfigError(
                    f"params has {name}", "The batch sets it for each volume: leave it out."
                )
        check_fields(JOBS[self.task].params, self.params)
        if self.params.get("config", {}).get("for_viewing"):
            raise ConfigError(
                "for_viewing removes small faint lesions in CT, and is not for a batch",
                "Leave it out. Volumes to look at: one by one, with enhance.",
            )
        if not {*self.modalities} <= {*get_args(ModalityName)}:
            raise ConfigError(f"only is {self.only}", "Join names of DICOM by commas: CT,MR.")
        if self.shard is not None:
            Shard.of(self.shard)
            if self.params.get("volumes"):
                raise ConfigError(
                    "a shard writes no table of volumes", "Name it with --join, after all shards."
                )
        if self.bids:
            if len(self.inputs) != 1 or self.makes_folders:
                raise ConfigError(
                    "--bids takes one folder, and names the results itself",
                    "Leave out --dicom and other inputs.",
                )
            if self.output is None:
                output = Path(self.inputs[0], "derivatives", "medenhance")
                object.__setattr__(self, "output", str(output))
        elif self.output is None:
            raise ConfigError("no folder for the results was named", "Give one: --out DIR.")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of `only`; empty: all."""
        return tuple(self.only.upper().split(",")) if self.only else ()

    @property
    def makes_folders(self) -> bool:
        """Whether each result is a folder of DICOM."""
        return self.task != "compress" and bool(self.params.get("dicom"))


def run_batch(params: BatchParams, monitor: Monitor) -> Result:
    """Find the volumes → run the task on each, with a row → batch.csv.

    The row of a volume that fails has the reason; the others continue.
    Raises Cancelled after a cancel (the next run skips finished volumes), OutputError while another
    batch writes to the folder.
    """
    from MedEnhanceLib.jobs.batch_items import Shard, describe_derivatives
    from MedEnhanceLib.jobs.batch_ledger import Ledger
    from MedEnhanceLib.jobs.batch_runs import run_here, run_in_processes, run_on_dask

    if params.scheduler:
        require("dask.distributed", purpose="batch --scheduler")
    monitor.progress(0.0, "finding the volumes")
    out, stated = Path(str(params.output)), dict(params.params)
    shard = Shard.of(params.shard) if params.shard is not None else None
    volumes = Path(path) if (path := stated.pop("volumes", None)) else None
    if volumes:
        check_outputs({"volumes": volumes}, ending=".csv", overwrite=params.overwrite)
    items = _items_of(params, resolved(out), shard, monitor)
    if params.join:
        ledger = Ledger(out, items, params.task, stated, overwrite=True)
        fields = ledger.finish() | {"open_shards": ledger.open_shards()}
        _write_volumes(volumes, fields["rows"], params.overwrite)
        return Result(fields)
    if params.task == "compress" and any(
        ending_of(Path(item.source)) not in READABLE for item in items
    ):
        monitor.warn(text("keep_originals"))
    refuse_unwritable(out)
    make_folder(out)
    with _locked(out, shard):
        if params.bids:
            stated.setdefault("modality", "MR")
            describe_derivatives(out)
        overwrite = params.overwrite
        ledger = Ledger(out, items, params.task, stated, overwrite=overwrite, shard=shard)
        if params.scheduler:
            run_on_dask(ledger, params.scheduler, monitor)
        elif params.workers:
            run_in_processes(ledger, params.workers, monitor)
        else:
            run_here(ledger, monitor)
        fields = ledger.finish()
    if monitor.cancelled:
        raise Cancelled(
            f"cancelled; {fields['done']} of {fields['total']} are done, "
            f"{fields['failed']} failed; see {fields['table']}",
            "Run the same command again to continue: finished volumes are skipped.",
        )
    _write_volumes(volumes, fields["rows"], params.overwrite)
    return Result(fields)


def _write_volumes(path: Path | None, rows: Sequence[Mapping[str, Any]], overwrite: bool) -> None:
    """Write one table of volumes for all labeled ones of a run, if one was named."""
    if path is not None:
        labeled = (row for row in rows if row.get("table"))
        tables = (volume_rows(r["source"], r["table"], r.get("intracranial")) for r in labeled)
        write_table(path, [row for table in tables for row in table], overwrite=overwrite)


@contextmanager
def _locked(out: Path, shard: Shard | None) -> Iterator[None]:
    """Refuse other batches in a folder: each would do the same volumes, and fail at the others'.

    Other shards of the same number are let in. On a disk without locks, or without filelock,
    others are not noticed.
    """
    place, lock = make_folder(out / f"{PREFIX}{shard.prefix if shard else ''}batch"), None
    try:
        lock = _hold_alone(place, shard)
        if lock is None:
            raise OutputError(
                f"another batch is writing to {out}",
                "Wait until it ends, or name another folder with --out. Only shards of one number "
                "run at the same time.",
            )
    except DependencyError:
        pass
    except OSError as cause:
        raise output_error(out, cause) from cause
    try:
        yield
    finally:
        remove_owned(place, lock if lock and lock.is_locked else None)


def _hold_alone(place: Path, shard: Shard | None) -> FileLock | None:
    """Own a folder as `hold` does; None also while a batch runs that is divided otherwise."""
    lock = hold(place)
    for other in place.parent.glob(f"{PREFIX}*batch") if lock else ():
        is_of_division = shard is not None and other.name.endswith(f"-of-{shard.count}.batch")
        if other != place and not is_of_division:
            abandoned = hold(other)
            if abandoned is None:
                remove_owned(place, lock)
                return None
            remove_owned(other, abandoned)
    return lock


def _items_of(params: BatchParams, out: Path, shard: Shard | None, monitor: Monitor) -> list[Item]:
    """List the volumes; raises OutputError if derived series would lie among their originals."""
    from MedEnhanceLib.jobs.batch_items import bids_items, gather
    from MedEnhanceLib.jobs.batch_ledger import earlier_names, items_in

    if params.retry_failed or params.join:
        return items_in(out, params.task, shard, every=params.join)
    if params.bids:
        return bids_items(resolved(Path(params.inputs[0])), out, params.task, shard)
    # Derived series inside the tree of their sources would be sources of the next run.
    for folder in (resolved(Path(place)) for place in params.inputs if params.makes_folders):
        if folder.is_dir() and out.is_relative_to(folder):
            raise OutputError(
                f"{out} lies in {folder}, among the originals",
                "Name a folder outside of it with --out.",
            )
    compresses = params.task == "compress"
    return gather(
        params.inputs,
        out,
        containers=not compresses,
        ending=CONTAINER if compresses else "" if params.makes_folders else None,
        monitor=monitor,
        shard=shard,
        modalities=params.modalities,
        earlier=partial(earlier_names, out, params.task),
    )
