"""medenhance deidentify: DICOM without the people in it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import Subparsers, add_force, add_job_options, new_command
from MedEnhanceLib.cli.words import columns, wrote
from MedEnhanceLib.errors import InputError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "deidentify",
        summary="take names, dates, UIDs and private elements out of DICOM",
        description="De-identify DICOM after the Basic Profile of PS3.15. Pixels are not touched:\n"
        "text in them and faces stay. Reports and documents are left out.",
        example="medenhance deidentify study/ clean/ --mapping secret.json",
    )
    parser.add_argument(
        "input", metavar="INPUT", help="DICOM: a folder, zip, DICOMDIR, list of files, or a file"
    )
    parser.add_argument("output", metavar="OUTPUT", help="the folder, new or empty")
    parser.add_argument(
        "--mapping",
        metavar="FILE",
        help="secret file that keeps names and UIDs the same over several runs, made where it is "
        "not there; whoever has it can find the patients (default: nothing is kept)",
    )
    parser.add_argument(
        "--keep-intervals",
        action="store_true",
        help="move all dates of a patient by the same secret number of days instead of removing "
        "them; times of day stay",
    )
    parser.add_argument(
        "--keep-characteristics",
        action="store_true",
        help="keep sex, age, size and weight; SUV of PET needs the weight, and --keep-intervals",
    )
    parser.add_argument(
        "--patient-id",
        metavar="ID",
        help="what the one patient of INPUT is called (default: ANON-0001, …)",
    )
    parser.add_argument("--prefix", metavar="P", help="before the number (default: ANON)")
    parser.add_argument(
        "--allow-burned-in",
        action="store_true",
        help="write images too that carry text, or likely do, after you have looked at them",
    )
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job; a file that failed decides the exit status, the others are written."""
    params = {
        "input": args.input,
        "output": args.output,
        "mapping": args.mapping,
        "keep_intervals": args.keep_intervals,
        "keep_characteristics": args.keep_characteristics,
        "patient_id": args.patient_id,
        "prefix": args.prefix,
        "allow_burned_in": args.allow_burned_in,
        "overwrite": args.force,
    }
    fields = args.console.run("deidentify", params, isolated=args.isolated)
    text = "\n".join([_table(fields), "", *_told(fields, args.mapping), *wrote(fields)])
    if not fields["failed"]:
        return int(args.console.done(fields, text))
    if not args.console.as_json:
        args.console.note(text)
    error = InputError(
        f"{fields['failed']} of {len(fields['files'])} files were not de-identified",
        f"The others are written; see {fields['outputs']['report']}.",
    )
    return int(args.console.fail(error, None, fields))


def _table(fields: Mapping[str, Any]) -> str:
    rows = [
        (row["tag"], row["name"], row["action"], str(row["files"])) for row in fields["attributes"]
    ]
    return columns(("tag", "attribute", "what was done", "files"), rows, left=3)


def _told(fields: Mapping[str, Any], mapping: str | None) -> list[str]:
    counts = f"{fields['written']} files of {fields['patients']} patients written"
    lines = [f"{counts}, {fields['left_out']} left out, {fields['failed']} failed"]
    lines += fields["limits"]
    if mapping:
        lines.append(f"{mapping} re-identifies everybody: keep it secret, apart from the images")
    lines.append(f"{fields['outputs']['report']} names source files: not for passing on")
    return lines
