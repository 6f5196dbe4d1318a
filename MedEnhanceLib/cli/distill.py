"""medenhance distill: a small set of images to train on in place of a cohort."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import (
    Command,
    Parser,
    add_flags,
    add_job_options,
    declaration_of,
    params_of,
    read_config,
)
from MedEnhanceLib.cli.text import pairs, wrote
from MedEnhanceLib.errors import ConfigError


def _add_config(parser: Parser, only: tuple[str, ...]) -> None:
    """Fields of DistillConfig, and the file that they are on top of."""
    from MedEnhanceLib.spg.config import DistillConfig

    add_flags(parser, DistillConfig, only=only)
    parser.add_argument(
        "--preset",
        choices=tuple(DistillConfig.PRESETS),
        help="smoke: seconds, for tests; cpu: minutes a patient; full: for a GPU (default: "
        "what --config says, else cpu)",
    )
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")


def _config_of(args: argparse.Namespace) -> dict[str, Any]:
    from MedEnhanceLib.spg.config import DistillConfig

    preset = {"preset": args.preset} if args.preset else {}
    return read_config(args.config) | params_of(args, DistillConfig) | preset


def _declare_distill(parser: Parser) -> None:
    from MedEnhanceLib.spg.config import DPConfig

    parser.add_argument("cohort", nargs="?", metavar="COHORT", help="the patients")
    parser.add_argument("out", nargs="?", metavar="OUT", help="a folder for the result")
    parser.add_argument(
        "--status", metavar="OUT", help="report how far the distillation in that folder is"
    )
    parser.add_argument(
        "--room",
        action="store_true",
        help="only estimate what a distillation of COHORT can gain, in a minute or two; no OUT",
    )
    fields = (
        "task",
        "method",
        "images_per_patient",
        "prior",
        "held_out",
        "shadows",
        "seed",
        "device",
    )
    _add_config(parser, (*fields, "licence"))
    add_flags(parser, DPConfig)
    add_flags(parser, declaration_of("distill"), without=["cohort", "out", "config"])
    add_job_options(parser)


def _distill(args: argparse.Namespace) -> int:
    """Run the job, or report how far one is."""
    from MedEnhanceLib.spg.config import DPConfig

    if args.status is not None:
        if args.cohort is not None:
            raise ConfigError("--status with a cohort", "Give --status OUT alone.")
        fields = args.console.run("distill-status", {"out": args.status})
        return int(args.console.done(fields, pairs(_status_fields(fields))))
    if args.room and args.cohort is not None and args.out is None:
        return _room(args)
    if args.out is None or args.room:
        what = "OUT with --room" if args.room and args.out else "COHORT or OUT is missing"
        if args.room and args.cohort is None:
            what = "COHORT is missing"
        raise ConfigError(what, "See: medenhance distill --help")
    config = _config_of(args)
    if private := params_of(args, DPConfig):
        config["dp"] = (config.get("dp") or {}) | private
    params = params_of(args, declaration_of("distill")) | {"config": config}
    fields = args.console.run("distill", params)
    return int(args.console.done(fields, "\n".join(_lines(fields))))


def _room(args: argparse.Namespace) -> int:
    params = params_of(args, declaration_of("distill-room")) | {"config": _config_of(args)}
    fields = args.console.run("distill-room", params)
    return int(args.console.done(fields, fields["sentence"]))


def _lines(fields: Mapping[str, Any]) -> list[str]:
    audit = fields.get("audit") or {}
    secret = fields["outputs"].get("confidential")
    return [
        *wrote(fields),
        *(["the confidential folder shows and names patients: do not share it"] if secret else []),
        f"{fields['images']} images from {fields['patients']} patients; "
        f"{fields['held_out']} patients were held out",
        *([fields["room"]["sentence"]] if fields.get("room") else []),
        *([str(fields["privacy"]["statement"])] if fields.get("privacy") else []),
        f"audit: {audit.get('summary', 'none')}",
    ]


def _status_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(fields)
    shown["fraction"] = f"{fields['fraction']:.0%}"
    if "steps" in shown:
        shown["steps of each patient"] = shown.pop("steps")
    if "under_way" in shown:
        shown["under_way"] = (
            "; ".join(
                f"patient {row['patient']} at step {row['step']}" for row in shown["under_way"]
            )
            or "none"
        )
    return shown


COMMAND = Command(
    name="distill",
    summary="distill a cohort into a few images to train on",
    description="Distill the CT or MR of a cohort into a small set of images, on which an\n"
    "enhancer learns (medenhance train hqg --data OUT). COHORT is a folder with a\n"
    "folder for each patient (or a file each), a folder of DICOM, or a table with the\n"
    "columns patient and path.\n"
    "A distillation that was stopped goes on when the same line is given again.\n"
    "The images are audited, not proved to be free of the patients: docs/distillation.md.",
    example="medenhance distill patients/ distilled/ --task denoise --images-per-patient 10",
    declare=_declare_distill,
    run=_distill,
)
