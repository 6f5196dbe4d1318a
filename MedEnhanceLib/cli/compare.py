"""medenhance compare: what a distillation is worth on a cohort, against simpler ways."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.distill import PRESETS, TASKS
from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_force,
    add_job_options,
    new_command,
    read_config,
)
from MedEnhanceLib.cli.words import wrote

BUDGETS = ("small", "ordinary")
#: Options that are fields of the distillation's configuration as they are.
_FIELDS = ("task", "prior", "held_out", "preset")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "compare",
        summary="measure what distilled images are worth on a cohort",
        description="Train small networks on what each way to a small training set gives (raw\n"
        "images by lot, k-centre, the prior alone, three ways of matching pixels, SPG, all\n"
        "images) and measure them on patients who are held out. A comparison that was\n"
        "stopped goes on when the same line is given again. OUT holds no image, and no\n"
        "name of a patient.",
        example="medenhance compare patients/ comparison/ --task denoise --seeds 3",
    )
    parser.add_argument("cohort", metavar="COHORT", help="the patients, as for distill")
    parser.add_argument("out", metavar="OUT", help="a folder for tables, curve and page")
    parser.add_argument("--task", choices=TASKS, help="(default: what --config says, else denoise)")
    parser.add_argument(
        "--budget",
        choices=BUDGETS,
        default="small",
        help="small: one and four crops, and one image, in all; ordinary: images of each patient "
        "besides, which takes as long as a distillation for each seed (default: small)",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="of each way (default: 3)"
    )
    parser.add_argument(
        "--draws", type=int, default=10, metavar="N", help="of raw images by lot (default: 10)"
    )
    parser.add_argument(
        "--steps", type=int, default=600, metavar="N", help="of each training (default: 600)"
    )
    parser.add_argument("--prior", metavar="P", help="as for distill (default: template)")
    parser.add_argument(
        "--held-out", type=float, metavar="S", help="share of the patients to measure on"
    )
    parser.add_argument("--preset", choices=PRESETS, help="as for distill (default: cpu)")
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")
    parser.add_argument(
        "--pattern", default="*", metavar="G", help="of the names of files that are images"
    )
    parser.add_argument(
        "--modality", choices=("CT", "MR"), help="where the files state none; of DICOM, which"
    )
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and print what it says."""
    config = read_config(args.config) if args.config else {}
    given = {name: getattr(args, name) for name in _FIELDS}
    config |= {name: value for name, value in given.items() if value is not None}
    params = {
        "cohort": args.cohort,
        "out": args.out,
        "config": config,
        "budget": args.budget,
        "seeds": args.seeds,
        "draws": args.draws,
        "steps": args.steps,
        "pattern": args.pattern,
        "modality": args.modality,
        "overwrite": args.force,
    }
    fields = args.console.run("compare", params, isolated=args.isolated)
    return int(args.console.done(fields, "\n".join([*wrote(fields), *fields["summary"]])))
