"""medenhance segment: labels for a volume."""

from __future__ import annotations

import argparse
from typing import Any

from MedEnhanceLib.cli.dicom import OUTPUT, add_dicom_options, dicom_params, object_lines
from MedEnhanceLib.cli.enhance import label_lines
from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_device,
    add_force,
    add_input,
    add_job_options,
    input_params,
    new_command,
)
from MedEnhanceLib.cli.series import run_on_series
from MedEnhanceLib.cli.words import wrote


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "segment",
        summary="label the tissues of a volume",
        description="Segment a volume with a trained head, on the volume's own grid. With --dicom\n"
        "the labels become a DICOM segmentation, and their table a structured report.",
        example="medenhance segment better.nii.gz labels.nii.gz",
    )
    add_input(parser)
    parser.add_argument("output", metavar="OUTPUT", help=OUTPUT)
    add_segment_options(parser)
    add_dicom_options(parser)
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def add_segment_options(parser: argparse.ArgumentParser) -> None:
    """Those that make up the configuration; `batch` takes them too."""
    parser.add_argument(
        "--model", default="auto", metavar="NAME", help="a head's name or folder (default: auto)"
    )
    add_device(parser)


def segment_config(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of SegmentConfig that the options say."""
    return {"model": args.model, "device": args.device}


def run(args: argparse.Namespace) -> int:
    """Run the job and tell the volume of each label."""
    params = {
        **input_params(args),
        "output": args.output,
        "config": segment_config(args),
        **dicom_params(args),
        "overwrite": args.force,
    }
    fields = run_on_series(args, "segment", params)
    lines = [*wrote(fields), *object_lines(fields), *label_lines(fields)]
    return int(args.console.done(fields, "\n".join(lines)))
