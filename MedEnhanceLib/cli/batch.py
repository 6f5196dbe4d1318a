"""medenhance batch: one command for many volumes, which continues after a stop."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from MedEnhanceLib.cli.compress import PartLostError
from MedEnhanceLib.cli.parser import Command, Parser, add_flags, declaration_of, params_of
from MedEnhanceLib.core.findings import CLEAN, REMOVED, UNCERTAIN
from MedEnhanceLib.errors import MedEnhanceError

#: Columns of the text about what failed.
_WIDTH = 100
_ABOUT = (
    "Run one command on all volumes of folders. OUT gets the results, batch.jsonl with a row\n"
    "for each volume, and batch.csv. A second run skips finished volumes and repeats failed\n"
    "ones; one failure does not stop the others."
)


def _declare_tasks(parser: Parser) -> None:
    tasks = parser.add_subparsers(title="tasks", dest="job", metavar="TASK", required=True)
    for task, (summary, example) in _TASKS.items():
        Command(
            name=task,
            summary=summary,
            description=_ABOUT,
            example=example,
            declare=partial(_declare, task=task),
            run=_run,
        ).add_to(tasks)


#: Each task's summary for help, and an example.
_TASKS = {
    "enhance": (
        "enhance many volumes",
        "medenhance batch enhance scans/ --out better/ --strength full",
    ),
    "segment": (
        "label the tissues of many volumes; batch.csv has the ml of each label",
        "medenhance batch segment scans/ --out labels/ --workers 2",
    ),
    "compress": (
        "compress many volumes",
        "medenhance batch compress scans/ --out small/ --lossless --workers 4",
    ),
}


def _declare(parser: Parser, task: str) -> None:
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="volumes and folders of volumes",
    )
    job, batch = declaration_of(task), declaration_of("batch")
    add_flags(parser, job, only=["config"])
    if task == "segment":
        add_flags(parser, job, only=["volumes"])
    if task != "compress":
        add_flags(parser, batch, only=["bids"])
        add_flags(parser, job, only=["dicom"])
    add_flags(parser, batch, only=["only"])
    add_flags(parser, job, only=["modality", "resample", "complete_frames"])
    where = ["output", "workers", "scheduler", "shard"]
    add_flags(parser, batch, only=[*where, "retry_failed", "join", "overwrite"])


def _run(args: argparse.Namespace) -> int:
    """Run the job and report the numbers of finished, skipped and failed volumes."""
    batch_fields = params_of(args, declaration_of("batch"))
    stated = params_of(args, declaration_of(args.job))
    stated = {name: value for name, value in stated.items() if name not in batch_fields}
    fields = args.console.run("batch", batch_fields | {"task": args.job, "params": stated})
    total, table = fields["total"], fields["table"]
    failed = [row for row in fields["rows"] if row["status"] == "failed"]
    done, before = fields["done"], fields["already_done"]
    text = f"shard {fields['shard']}: " if "shard" in fields else ""
    text += f"{done} of {total} done ({before} of them before)"
    text += f"{_verdicts(fields['rows'])}, {len(failed)} failed"
    unfinished = total - done - len(failed)
    text += f", {unfinished} unfinished; " if unfinished else "; "
    if few := fields["hardly_changed"]:
        text += f"{few} hardly changed (the result is the input, or nearly); "
    text += f"see {table}"
    if shards := fields.get("open_shards"):
        text += f"\nshards to run (again): {', '.join(shards)}"
    fault = None
    if failed:
        text = "\n".join(["failed:", *map(_failure, failed), "", text])
        fault = MedEnhanceError(
            f"{len(failed)} of {total} failed; see {table}",
            "Follow their hints, then run the same command again: finished volumes are skipped. "
            "With --retry-failed and the same options nothing else is looked at.",
        )
    elif unfinished or shards:
        text_left = f"{unfinished} of {total} unfinished" if unfinished else "shards never ran"
        how = f" with --shard {shards[0]} and its inputs" if shards else ""
        fault = MedEnhanceError(text_left, f"Run the same command again{how}, without --join.")
    elif left_out := [row for row in fields["rows"] if row.get("left_out")]:
        text += "".join(f"\n  {row['left_out']}" for row in left_out)
        fault = PartLostError(
            f"{len(left_out)} of {total} results leave slices of their series out; see {table}",
            "Look at the list of the series (medenhance inspect FOLDER).",
        )
    elif warned := sum(bool(row.get("warnings")) for row in fields["rows"]):
        text += f" ({warned} with warnings)"
    return int(args.console.report(fields, text, fault))


def _failure(row: Mapping[str, Any]) -> str:
    """Return the name of a volume, and below it why its job failed and what to do."""
    from MedEnhanceLib.jobs.batch_items import label_of

    name = Path(row["source"]).name
    why = f"{row['message'].removeprefix(f'{name}: ')}. {row['hint']}"
    label = label_of(row["source"], row.get("series", ""), row.get("number", 0))
    indent = "    "
    lines = textwrap.wrap(
        why, _WIDTH, initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join([f"  {label}", *lines])


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count the verdicts on the noise, ": 3 removed, 1 clean, 0 uncertain"; "" for none."""
    measured = (row.get("measured") or {} for row in rows if row["status"] == "done")
    found = Counter(each.get("noise", {}).get("verdict") for each in measured)
    counts = [f"{found[verdict]} {verdict}" for verdict in (REMOVED, CLEAN, UNCERTAIN)]
    return f": {', '.join(counts)}" if found.total() > found[None] else ""


BATCH = Command(
    name="batch",
    summary="enhance, segment or compress many volumes, restartable",
    description=_ABOUT,
    example="medenhance batch compress scans/ --out small/ --max-error 2",
    declare=_declare_tasks,
)
