"""medenhance batch: many volumes through one command, going on where it stopped."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.cli.parser import (
    Command,
    Parser,
    add_flags,
    add_job_options,
    declaration_of,
    params_of,
)
from MedEnhanceLib.cli.text import columns
from MedEnhanceLib.errors import Cancelled, ConfigError, MedEnhanceError, OutputError

if TYPE_CHECKING:
    from MedEnhanceLib.cli.bids import Dataset
    from MedEnhanceLib.jobs.batch_items import Item

_ABOUT = (
    "Put all volumes of folders or a list through one command. OUT gets the results, batch.jsonl\n"
    "with a row for each, and batch.csv. Started again, it leaves out what is done and tries\n"
    "again what failed; one failure does not stop the rest. A table (.csv: patient,path) as INPUT\n"
    "is a cohort: each patient gets a folder, and the rows say whose they are."
)


def _declare_tasks(parser: Parser) -> None:
    tasks = parser.add_subparsers(title="tasks", dest="job", metavar="TASK", required=True)
    for command in (
        Command(
            name="enhance",
            summary="enhance many volumes",
            description=_ABOUT,
            example="medenhance batch enhance scans/ --out better/ --model mr",
            declare=lambda task: _declare(task, "enhance"),
            run=run,
        ),
        Command(
            name="segment",
            summary="label the tissues of many volumes",
            description=f"{_ABOUT}\nbatch.csv has the ml of each label.",
            example="medenhance batch segment patients.csv --out labels/ --workers 2",
            declare=lambda task: _declare(task, "segment"),
            run=run,
        ),
        Command(
            name="compress",
            summary="compress many volumes",
            description=_ABOUT,
            example="medenhance batch compress --list scans.txt --out small/ --lossless "
            "--workers 4",
            declare=lambda task: _declare(task, "compress"),
            run=run,
        ),
    ):
        command.add_to(tasks)


def _declare(parser: Parser, task: str) -> None:
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="volumes, folders of them, and tables of patients (.csv with patient,path); of an "
        "address that ends in / (s3://bucket/scans/) every volume below it",
    )
    parser.add_argument(
        "--list", metavar="FILE", help="a text file with a path or an address on each line"
    )
    job = declaration_of(task)
    add_flags(parser, job, only=["config"])
    if task == "enhance":
        parser.add_argument(
            "--guide",
            choices=["auto"],
            help="enhance each volume with the best other series of its study or folder as guide",
        )
        add_flags(parser, job, only=["look"])
    if task == "compress":
        parser.set_defaults(ending=".ucv", dicom=False, bids=False)
    else:
        parser.add_argument(
            "--bids",
            action="store_true",
            help="INPUT is a BIDS dataset: its anatomical images; without --out the results are "
            "a dataset in its derivatives/medenhance",
        )
        parser.add_argument(
            "--ending", metavar="E", help=".nii.gz, .nii, .nrrd or .mha (default: the source's own)"
        )
        parser.add_argument(
            "--dicom",
            action="store_true",
            help="a folder of derived DICOM for each series, no files",
        )
        add_flags(parser, job, only=["enhanced_multiframe"])
    add_flags(parser, job, only=["modality", "fix_tilt", "fix_spacing"])
    parser.add_argument(
        "--out", metavar="DIR", help="where the results go; an address too (s3://bucket/small)"
    )
    add_flags(parser, declaration_of("batch"), only=["ledger"])
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes at a time (default: 1)"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on a Dask cluster, for example tcp://host:8786"
    )
    add_flags(parser, job, only=["overwrite"])
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run what is not finished yet and report how it went."""
    from MedEnhanceLib.cli.console import cancel_on_interrupt
    from MedEnhanceLib.jobs.addresses import is_remote
    from MedEnhanceLib.jobs.batch_runs import Plan, results_and_ledger
    from MedEnhanceLib.report.page import make_folder
    from MedEnhanceLib.runtime.progress import Event

    if args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}", "Use 1 or more.")
    stated = params_of(args, declaration_of(args.job))
    config, overwrite = stated.pop("config", {}), stated.pop("overwrite", False)
    if "guide" in stated:
        stated["guide"] = [stated["guide"]]
    if "look" in stated:  # a worker elsewhere has a current folder of its own
        stated["look"] = [
            place if is_remote(place) else str(Path(place).absolute()) for place in stated["look"]
        ]
    if not args.dicom:
        stated.pop("dicom", None)
    if args.dicom and args.ending is not None:
        raise ConfigError("--ending with --dicom", "DICOM goes into folders: leave --ending out.")
    dataset = _bids_dataset(args) if args.bids else None
    if dataset is not None:
        out, ledger = results_and_ledger(str(dataset.out), args.ledger)
        items = dataset.items()
        stated.setdefault("modality", "MR")
        make_folder(dataset.out)
        dataset.begin()
    else:
        out, ledger, items = _gathered(args)

    def ended(item: Item, fields: Mapping[str, Any], count: int, total: int) -> None:
        if dataset is not None and fields["status"] == "done":
            dataset.finished(item, fields)
        stage = f"{count} of {total}, {item.source.name}"
        event = Event("progress", {"fraction": count / total, "stage": stage, "eta_s": None})
        args.console.show_event(event)

    plan = Plan(
        task=args.job,
        items=items,
        out=out,
        ledger=ledger,
        config=config,
        stated=stated,
        overwrite=overwrite,
        repeats=bool(args.scheduler),
    )
    with args.console.listening(), cancel_on_interrupt() as cancel:
        found = plan.work_through(lambda *work: _runner(args, len(work[0]))(*work, cancel), ended)
    return _report(args, found, cancel.is_set())


def _bids_dataset(args: argparse.Namespace) -> Dataset:
    """The dataset that the command line names."""
    from MedEnhanceLib.cli.bids import IMAGES, OF_OUR_HEAD, Dataset
    from MedEnhanceLib.jobs.addresses import is_remote

    if len(args.inputs) != 1 or args.list or args.dicom or args.ending:
        raise ConfigError(
            "--bids takes one folder, and names the results itself",
            "Leave out --list, --dicom, --ending and other inputs.",
        )
    if is_remote(args.out):
        raise ConfigError("--bids with --out at an address", "Name a folder on this machine.")
    is_ours = args.job == "segment" and not (args.model or args.segmenter)
    return Dataset(
        Path(args.inputs[0]),
        Path(args.out) if args.out else None,
        args.job,
        OF_OUR_HEAD if is_ours else IMAGES,
    )


def _gathered(args: argparse.Namespace) -> tuple[Path | str, Path, list[Item]]:
    """The folders of results and ledger, and what was named on the command line."""
    from MedEnhanceLib.jobs.batch_items import gather
    from MedEnhanceLib.jobs.batch_runs import results_and_ledger

    if args.out is None:
        raise ConfigError("no folder for the results was named", "Give one: --out DIR.")
    out, ledger = results_and_ledger(args.out, args.ledger)
    folder = out if args.dicom and isinstance(out, Path) else None
    if folder:
        _refuse_among_originals(folder, [Path(entry) for entry in args.inputs])
    items = gather(
        args.inputs,
        args.list,
        out,
        containers=args.job != "compress",
        ending="" if args.dicom else args.ending,
    )
    if folder:
        _refuse_among_originals(folder, [item.source for item in items])  # tables name some
    return out, ledger, items


def _runner(args: argparse.Namespace, count: int) -> Callable[..., None]:
    from MedEnhanceLib.jobs import batch_runs

    if args.scheduler:
        return lambda work, *rest: batch_runs.run_on_dask(work, args.scheduler, *rest)
    if args.workers > 1 or args.isolated:
        return lambda work, *rest: batch_runs.run_in_processes(
            work, max(1, min(args.workers, count)), *rest
        )
    return batch_runs.run_here


def _refuse_among_originals(out: Path, originals: Sequence[Path]) -> None:
    """Derived series inside the tree of their sources would be sources of the next run."""
    for entry in originals:
        if entry.is_dir() and out.resolve().is_relative_to(entry.resolve()):
            raise OutputError(
                f"{out} lies in {entry}, among the originals",
                "Name a folder outside of it: --out elsewhere.",
            )


def _short(source: str) -> str:
    path, series, uid = source.partition(" (series ")
    return Path(path).name + series + uid


def _report(args: argparse.Namespace, found: dict[str, Any], was_cancelled: bool) -> int:
    from MedEnhanceLib.jobs.ledger import FOREIGN

    total, done, table = found["total"], found["done"], found["table"]
    failed = [row for row in found["rows"] if row["status"] == "failed"]
    if failed and not args.console.as_json:
        names = [(_short(str(row["source"])), str(row["message"])) for row in failed]
        args.console.note(columns(("failed", "why"), names, left=2))
    again = "Run the same command again to go on: what is done is left out."
    if was_cancelled:
        error: MedEnhanceError = Cancelled(f"cancelled; {done} of {total} are done", again)
        return int(args.console.fail(error, None, found))
    if failed:
        if any(row.get(FOREIGN) for row in failed):
            again += (
                " What lay there before this batch stays: name another folder, or allow to "
                "replace it (--force)."
            )
        error = MedEnhanceError(f"{len(failed)} of {total} failed; see {table}", again)
        return int(args.console.fail(error, None, found))
    text = f"{done} of {total} done, {found['already_done']} of them before; see {table}"
    if warned := sum(bool(row.get("warnings")) for row in found["rows"]):
        text += f" ({warned} with warnings)"
    return int(args.console.done(found, text))


BATCH = Command(
    name="batch",
    summary="enhance, segment or compress many volumes, restartable",
    description=_ABOUT,
    example="medenhance batch compress scans/ --out small/ --max-error 2",
    declare=_declare_tasks,
)
