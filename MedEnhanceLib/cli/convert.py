"""medenhance convert: any volume we read, into any we write."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.dicom import OUTPUT, add_dicom_options, dicom_params, object_lines
from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_force,
    add_input,
    add_job_options,
    input_params,
    new_command,
)
from MedEnhanceLib.cli.series import run_on_series
from MedEnhanceLib.cli.words import inline, wrote


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "convert",
        summary="read any volume, DICOM folders too, and write it as OUTPUT's ending says",
        description="Convert a volume. Voxels and geometry are kept. With --dicom it becomes a\n"
        "series that says it is derived, in the study of --like, or in one of its own.",
        example="medenhance convert dicom-folder/ scan.nii.gz",
    )
    add_input(parser)
    parser.add_argument("output", metavar="OUTPUT", help=OUTPUT)
    add_dicom_options(parser)
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what came out."""
    params = {
        **input_params(args),
        "output": args.output,
        **dicom_params(args),
        "overwrite": args.force,
    }
    fields = run_on_series(args, "convert", params)
    shape = f"shape {inline(fields['shape'])}, {fields['dtype']}"
    return int(args.console.done(fields, "\n".join([*wrote(fields), *object_lines(fields), shape])))
