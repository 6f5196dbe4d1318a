"""medenhance batch: many volumes through one command, going on where it stopped."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.cli.batch_items import CONTAINER, Item, gather
from MedEnhanceLib.cli.batch_layouts import layout_of
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
            example="medenhance batch enhance scans/ --out better/ --model mr-brain",
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
        help="volumes, folders of them, and tables of patients (.csv with patient,path)",
    )
    parser.add_argument("--list", metavar="FILE", help="a text file with a path on each line")
    job = declaration_of(task)
    add_flags(parser, job, only=["config"])
    if task == "compress":
        parser.set_defaults(
            ending=CONTAINER, dicom=False, bids=False, nnunet=False, participant_label=None
        )
    else:
        parser.add_argument(
            "--bids",
            action="store_true",
            help="INPUT is a BIDS dataset: its anatomical images; without --out the results are "
            "a dataset in its derivatives/medenhance",
        )
        parser.add_argument(
            "--participant-label",
            nargs="+",
            action="extend",
            metavar="LABEL",
            help="with --bids: these subjects alone (01 or sub-01), separated by blanks",
        )
        parser.add_argument(
            "--nnunet",
            action="store_true",
            help="INPUT is a folder as nnU-Net has it, CASE_0000.nii.gz; labels become CASE.nii.gz",
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
    parser.add_argument("--out", metavar="DIR", help="where the results go")
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
    from MedEnhanceLib.cli.batch_runs import Ledger
    from MedEnhanceLib.cli.console import cancel_on_interrupt

    if args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}", "Use 1 or more.")
    stated = params_of(args, declaration_of(args.job))
    config, overwrite = stated.pop("config", {}), stated.pop("overwrite", False)
    if not args.dicom:
        stated.pop("dicom", None)
    if args.dicom and args.ending is not None:
        raise ConfigError("--ending with --dicom", "DICOM goes into folders: leave --ending out.")
    layout = layout_of(args)
    if layout is not None:
        out, items = layout.out, layout.items()
        for note in layout.notes:
            args.console.note(f"warning: {note}")
        if layout.modality:
            stated.setdefault("modality", layout.modality)
    else:
        out, items = _gathered(args)
    options = {"task": args.job, "config": config, **stated}
    _make(out)
    if layout is not None:
        layout.begin()
    ledger = Ledger(out)
    todo = [item for item in items if overwrite or not ledger.is_finished(item, options)]
    work = [
        (args.job, _params(item, config, overwrite or ledger.is_ours(item)) | stated)
        for item in todo
    ]

    ended: list[int] = []

    def starting(index: int) -> None:
        ledger.add(todo[index], options, {"status": "started"})

    def finished(index: int, fields: Mapping[str, Any]) -> None:
        if layout is not None and fields["status"] == "done":
            layout.finished(todo[index], fields)
        ledger.add(todo[index], options, {**fields, **_label_volumes(fields)})
        ended.append(index)
        args.console.show_event(_progress(len(ended), len(todo), todo[index]))

    with args.console.listening(), cancel_on_interrupt() as cancel:
        _runner(args, len(todo))(work, starting, finished, cancel)
    table = ledger.write_table(items)
    rows = [row for row in map(ledger.row_of, items) if row is not None]
    return _report(args, len(items), len(items) - len(todo), rows, table, cancel.is_set())


def _gathered(args: argparse.Namespace) -> tuple[Path, list[Item]]:
    """The folder of the results, and what was named on the command line."""
    if args.out is None:
        raise ConfigError("no folder for the results was named", "Give one: --out DIR.")
    out = Path(args.out)
    if args.dicom:
        _refuse_among_originals(out, [Path(entry) for entry in args.inputs])
    items = gather(
        args.inputs,
        args.list,
        out,
        containers=args.job != "compress",
        ending="" if args.dicom else args.ending,
    )
    if args.dicom:
        _refuse_among_originals(out, [item.source for item in items])  # tables name some
    return out, items


def _label_volumes(fields: Mapping[str, Any]) -> dict[str, float]:
    """A column for each label of a segmentation: lists of the row have none."""
    return {f"{row['label']} ml": row["volume_ml"] for row in fields.get("table") or ()}


def _runner(args: argparse.Namespace, count: int) -> Callable[..., None]:
    from MedEnhanceLib.cli import batch_runs

    if args.scheduler:
        return lambda work, *rest: batch_runs.run_on_dask(work, args.scheduler, *rest)
    if args.workers > 1 or args.isolated:
        return lambda work, *rest: batch_runs.run_in_processes(
            work, max(1, min(args.workers, count)), *rest
        )
    return batch_runs.run_here


def _params(item: Item, config: Mapping[str, Any], overwrite: bool) -> dict[str, Any]:
    _make(item.output.parent)
    return {
        "input": item.place,
        "output": str(item.output.absolute()),
        "config": dict(config),
        "overwrite": overwrite,
    } | ({"series": item.series} if item.series else {})


def _refuse_among_originals(out: Path, originals: Sequence[Path]) -> None:
    """Derived series inside the tree of their sources would be sources of the next run."""
    for entry in originals:
        if entry.is_dir() and out.resolve().is_relative_to(entry.resolve()):
            raise OutputError(
                f"{out} lies in {entry}, among the originals",
                "Name a folder outside of it: --out elsewhere.",
            )


def _make(folder: Path) -> None:
    from MedEnhanceLib.report.page import make_folder

    make_folder(folder)


def _progress(ended: int, count: int, item: Item) -> Any:
    from MedEnhanceLib.runtime.progress import Event

    stage = f"{ended} of {count}, {item.source.name}"
    return Event("progress", {"fraction": ended / count, "stage": stage, "eta_s": None})


def _short(source: str) -> str:
    path, series, uid = source.partition(" (series ")
    return Path(path).name + series + uid


def _report(
    args: argparse.Namespace,
    total: int,
    skipped: int,
    rows: Sequence[Mapping[str, Any]],
    table: Path,
    was_cancelled: bool,
) -> int:
    done = sum(row["status"] == "done" for row in rows)
    failed = [row for row in rows if row["status"] == "failed"]
    fields = {
        "total": total,
        "done": done,
        "already_done": skipped,
        "failed": len(failed),
        "table": str(table),
        "rows": list(rows),
    }
    if failed and not args.console.as_json:
        names = [(_short(str(row["source"])), str(row["message"])) for row in failed]
        args.console.note(columns(("failed", "why"), names, left=2))
    again = "Run the same command again to go on: what is done is left out."
    if was_cancelled:
        error: MedEnhanceError = Cancelled(f"cancelled; {done} of {total} are done", again)
        return int(args.console.fail(error, None, fields))
    if failed:
        error = MedEnhanceError(f"{len(failed)} of {total} failed; see {table}", again)
        return int(args.console.fail(error, None, fields))
    text = f"{done} of {total} done, {skipped} of them before; see {table}"
    return int(args.console.done(fields, text))


BATCH = Command(
    name="batch",
    summary="enhance, segment or compress many volumes, restartable",
    description=_ABOUT,
    example="medenhance batch compress scans/ --out small/ --max-error 2",
    declare=_declare_tasks,
)
