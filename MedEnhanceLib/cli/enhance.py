"""medenhance enhance: a better volume, with uncertainty, segmentation and a report if wished."""

from __future__ import annotations

import argparse
from typing import Any

from MedEnhanceLib.cli.dicom import OUTPUT, add_dicom_options, dicom_params, object_lines
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
from MedEnhanceLib.cli.words import columns, wrote
from MedEnhanceLib.errors import ConfigError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "enhance",
        summary="reduce noise, blur and shading of a volume",
        description="Enhance a volume with a trained model. The grid stays bit for bit; a manifest"
        "\n(OUTPUT.json) tells what was done with what. With --dicom the folder OUTPUT gets a"
        "\nderived series, and segmentation, measurements and uncertainty as DICOM objects too.",
        example="medenhance enhance scan.nii.gz better.nii.gz --bias-correction n4 --report report",
    )
    add_input(parser)
    parser.add_argument("output", metavar="OUTPUT", help=OUTPUT)
    add_enhance_options(parser)
    parser.add_argument(
        "--guide", metavar="FILE", help="a high-quality volume whose look is taken over"
    )
    parser.add_argument(
        "--uncertainty-output",
        metavar="FILE",
        help="where the uncertainty volume goes (default: beside OUTPUT)",
    )
    parser.add_argument(
        "--segment",
        metavar="FILE",
        nargs="?",
        const="",
        help="segment the enhanced volume as well, into this file (default: beside OUTPUT)",
    )
    parser.add_argument(
        "--head",
        default="auto",
        metavar="NAME",
        help="the model that segments with --segment, by name or folder (default: auto)",
    )
    parser.add_argument(
        "--report", metavar="FOLDER", help="write a page with pictures into this folder"
    )
    add_dicom_options(parser)
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def add_enhance_options(parser: argparse.ArgumentParser) -> None:
    """Those that make up the configuration; `batch` takes them too."""
    parser.add_argument(
        "--model", default="auto", metavar="NAME", help="a model's name or folder (default: auto)"
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="S",
        help="share of the correction that is applied, 0 to 1.5 (default: 1)",
    )
    parser.add_argument(
        "--deblur",
        action="store_true",
        help="undo blur as well, with a model that has learned to (default: only noise is removed)",
    )
    parser.add_argument(
        "--uncertainty",
        type=int,
        default=0,
        metavar="N",
        help="an uncertainty volume: 1 from the expected error alone, 2 to 64 with so many samples,"
        " a run each (8 is usual; default: 0, none)",
    )
    parser.add_argument(
        "--bias-correction",
        choices=("none", "n4"),
        default="none",
        help="n4 removes shading first, MR only (default: none)",
    )
    parser.add_argument(
        "--orientations",
        type=int,
        choices=(1, 3),
        default=1,
        help="3 enhances along every axis and averages, in about twice the time: for MR with voxels"
        " about as thick as wide (default: 1, along the slices)",
    )
    add_device(parser)


def enhance_config(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of EnhanceConfig that the options say."""
    return {
        "model": args.model,
        "strength": args.strength,
        "deblur": args.deblur,
        "uncertainty": args.uncertainty,
        "bias_correction": args.bias_correction,
        "orientations": args.orientations,
        "device": args.device,
    }


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what came out."""
    if args.uncertainty_output and not args.uncertainty:
        raise ConfigError(
            "--uncertainty-output without --uncertainty", "Say how many samples: --uncertainty 8"
        )
    params = {
        **input_params(args),
        "output": args.output,
        "guide": args.guide,
        "config": enhance_config(args),
        "segment": args.segment is not None,
        "head": args.head,
        "segmentation_output": args.segment or None,
        "uncertainty_output": args.uncertainty_output,
        "report": args.report,
        **dicom_params(args),
        "overwrite": args.force,
    }
    fields = run_on_series(args, "enhance", params)
    lines = [*wrote(fields), *object_lines(fields), *label_lines(fields)]
    return int(args.console.done(fields, "\n".join(lines)))


def label_lines(fields: dict[str, Any]) -> list[str]:
    """The table of labels of a segmentation, where there is one."""
    rows = [
        (
            str(row["label"]),
            f"{row['voxels']:,}",
            f"{row['volume_ml']:.2f}",
            f"{row['surface_mm2']:,.0f}",
        )
        for row in fields.get("table") or ()
    ]
    return ["", columns(("label", "voxels", "ml", "mm² of surface"), rows)] if rows else []
