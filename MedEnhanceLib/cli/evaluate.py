"""medenhance evaluate: how good a model is on given volumes."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_device,
    add_force,
    add_job_options,
    new_command,
)
from MedEnhanceLib.cli.words import columns, inline


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "evaluate",
        summary="measure a model on volumes of good quality",
        description="Damage each volume, enhance it, and measure both against the original; for a\n"
        "head, measure Dice against labels beside each volume (NAME-labels.nii.gz).",
        example="medenhance evaluate mr-brain volumes/ --out table.json",
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name or folder")
    parser.add_argument("data", metavar="DATA", help="a volume, or a folder of volumes")
    parser.add_argument("--out", metavar="FILE", help="write the table as JSON")
    add_device(parser)
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and print the means."""
    params = {
        "bundle": args.model,
        "data": args.data,
        "out": args.out,
        "device": args.device,
        "overwrite": args.force,
    }
    fields = args.console.run("evaluate", params, isolated=args.isolated)
    means = fields["means"]
    names = list(dict.fromkeys(name for row in means.values() for name in row))
    heads = ["mean of", *(name.replace("_", " ") for name in names)]
    rows = [
        [group, *(inline(round(row[name], 3)) if name in row else "–" for name in names)]
        for group, row in means.items()
    ]
    return int(args.console.done(fields, columns(heads, rows)))
