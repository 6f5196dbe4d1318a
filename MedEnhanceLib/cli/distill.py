"""medenhance distill: a small set of images to train on in place of a cohort."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_background_options,
    add_force,
    add_job_options,
    background_params,
    new_command,
    read_config,
)
from MedEnhanceLib.cli.words import pairs, wrote
from MedEnhanceLib.errors import ConfigError

TASKS = ("denoise", "sr2", "sr4", "undersample")
PRESETS = ("smoke", "cpu", "full")
#: Options that are fields of the configuration as they are.
_FIELDS = ("task", "images_per_patient", "prior", "held_out", "shadows", "seed", "device", "preset")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "distill",
        summary="distil a cohort into a few images to train small networks on",
        description="Distil the CT or MR of a cohort into a small set of images, on which small\n"
        "networks learn one task. COHORT is a folder with a folder for each patient (or\n"
        "a file each), a folder of DICOM, or a table with the columns patient and path.\n"
        "A distillation that was stopped goes on when the same line is given again.\n"
        "The images are audited, not proved to be free of the patients: docs/distillation.md.",
        example="medenhance distill patients/ distilled/ --task denoise --images-per-patient 10",
    )
    parser.add_argument("cohort", nargs="?", metavar="COHORT", help="the patients")
    parser.add_argument("out", nargs="?", metavar="OUT", help="a folder for the result")
    parser.add_argument(
        "--status", metavar="OUT", help="tell how far the distillation in that folder is"
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        help="denoise: low dose in CT, Rician noise in MR; sr2, sr4: resolution; undersample: MR "
        "from a quarter of its lines (default: what --config says, else denoise)",
    )
    parser.add_argument(
        "--images-per-patient", type=int, metavar="N", help="in the result (default: 10)"
    )
    parser.add_argument(
        "--prior",
        metavar="P",
        help="what the images start from and stay near: template (a public average brain; MR "
        "alone), a volume's file, or patient:ID or representative, which expose a patient of the "
        "cohort (default: template)",
    )
    parser.add_argument(
        "--held-out",
        type=float,
        metavar="S",
        help="share of the patients kept for the audit and not distilled (default: 0.2)",
    )
    parser.add_argument(
        "--shadows",
        type=int,
        metavar="N",
        help="further distillations for the audit to compare with, each as long as the first "
        "(default: 0; else an even number from 4 on)",
    )
    parser.add_argument(
        "--epsilon",
        type=float,
        metavar="E",
        help="differential privacy: add the noise that keeps this ε for each patient, which costs "
        "quality (default: none; see docs/distillation.md)",
    )
    parser.add_argument("--delta", type=float, metavar="D", help="of --epsilon (default: 1e-5)")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="smoke: seconds, for tests; cpu: minutes a patient; full: hours on a GPU (default: "
        "what --config says, else cpu)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of everything that is drawn")
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")
    parser.add_argument(
        "--pattern", default="*", metavar="G", help="of the names of files that are images"
    )
    parser.add_argument(
        "--modality", choices=("CT", "MR"), help="where the files state none; of DICOM, which"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="distil patients on a Dask cluster, tcp://host:8786"
    )
    add_background_options(parser, nice=True)
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job, or tell how far one is."""
    if args.status is not None:
        if args.cohort is not None:
            raise ConfigError("--status with a cohort", "Give --status OUT alone.")
        fields = args.console.run("distill-status", {"out": args.status}, isolated=False)
        return int(args.console.done(fields, pairs(_status_words(fields))))
    if args.out is None:
        raise ConfigError("COHORT or OUT is missing", "See: medenhance distill --help")
    config = read_config(args.config) if args.config else {}
    given = {name: getattr(args, name) for name in _FIELDS}
    config |= {name: value for name, value in given.items() if value is not None}
    wish = {"epsilon": args.epsilon, "delta": args.delta}
    if wish := {name: value for name, value in wish.items() if value is not None}:
        config["dp"] = (config.get("dp") or {}) | wish
    params = {
        "cohort": args.cohort,
        "out": args.out,
        "config": config,
        "pattern": args.pattern,
        "modality": args.modality,
        "scheduler": args.scheduler,
        "overwrite": args.force,
        **background_params(args),
    }
    fields = args.console.run("distill", params, isolated=args.isolated)
    return int(args.console.done(fields, "\n".join(_told(fields))))


def _told(fields: Mapping[str, Any]) -> list[str]:
    audit = fields.get("audit") or {}
    secret = fields["outputs"].get("confidential")
    return [
        *wrote(fields),
        *(["the confidential folder shows and names patients: do not share it"] if secret else []),
        f"{fields['images']} images of {fields['patients']} patients; "
        f"{fields['held_out']} patients were held out",
        *([str(fields["privacy"]["statement"])] if fields.get("privacy") else []),
        f"audit: {audit.get('summary', 'none')}",
    ]


def _status_words(fields: Mapping[str, Any]) -> dict[str, Any]:
    words = dict(fields)
    words["fraction"] = f"{fields['fraction']:.0%}"
    if "steps" in words:
        words["steps of each patient"] = words.pop("steps")
    if "under_way" in words:
        words["under_way"] = (
            "; ".join(
                f"patient {row['patient']} at step {row['step']}" for row in words["under_way"]
            )
            or "none"
        )
    return words
