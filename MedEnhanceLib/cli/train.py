"""medenhance train: a model of one's own."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_background_options,
    add_job_options,
    background_params,
    new_command,
    read_config,
)
from MedEnhanceLib.cli.words import columns, inline, wrote
from MedEnhanceLib.errors import ConfigError

METHODS = ("hqg", "denoiser", "gradprom", "head", "unicompress")
TASKS = ("denoise", "sr2", "sr4", "undersample")
NETWORKS = ("srcnn", "edsr", "unet")
#: Options of the small restorer alone: other methods use these names for other things.
_OF_DENOISER = ("task", "network", "pattern")
PRESETS = ("smoke", "cpu", "full", "published")
#: Options that are fields of the configuration as they are.
_FIELDS = ("modality", "anatomy", "name", "seed", "steps", "device", "part")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "train",
        summary="train an enhancer, a small restorer, a segmentation head, or a model of the codec",
        description="Train a model on volumes of your own: an enhancer on a folder of good images\n"
        "and, where there are some, a folder of bad ones, which need not belong together.\n"
        "With labels an enhancer and a segmentation head can learn from each other\n"
        "(gradprom), or a head alone (head): these take --data and --config.\n"
        "unicompress trains the codec's models on --data.\n"
        "denoiser, and hqg too, learn from a distilled set (medenhance distill): --data SET.\n"
        "A training that was stopped goes on from its checkpoint when it is started\n"
        "again with the same OUT. How to: docs/training.md.",
        example="medenhance train hqg --hq good/ --lq bad/ --modality MR --out runs/mine",
    )
    parser.add_argument(
        "method",
        choices=METHODS,
        help="hqg: an enhancer; denoiser: a small network for one task, from a distilled set or a "
        "cohort; head: segmentation; gradprom: enhancer and head, learning from each other; "
        "unicompress: a model of the codec (--part)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="checkpoint and model go here")
    parser.add_argument("--hq", metavar="DIR", help="good images: files, or a folder of DICOM each")
    parser.add_argument("--lq", metavar="DIR", help="bad images, of other people (optional)")
    parser.add_argument("--modality", choices=("MR", "CT", "EM"), help="what the images are")
    parser.add_argument("--anatomy", metavar="A", help="what of the body they show; users are told")
    parser.add_argument(
        "--name",
        metavar="N",
        help="of the model (default: with --hq that of OUT, else by the method)",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="smoke: seconds, for tests; cpu: within an hour on two cores; full: hours on one GPU;"
        " published: the publication's losses alone (default: what --config says, else cpu)",
    )
    parser.add_argument(
        "--part",
        choices=("implicit", "predictor", "restoration"),
        help="of the codec, for unicompress (default: implicit)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="how many, instead of the preset's")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything that is drawn")
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="the folder that patterns in --config are relative to; for hqg and denoiser also a "
        "distilled set, for denoiser a cohort (a folder of patients, a table, DICOM)",
    )
    parser.add_argument(
        "--task", choices=TASKS, help="of a denoiser from a cohort; a distilled set has its own"
    )
    parser.add_argument(
        "--network", choices=NETWORKS, help="of a denoiser (default: by the preset)"
    )
    parser.add_argument(
        "--pattern",
        metavar="G",
        help="of a denoiser's cohort: of the names of files that are images",
    )
    add_background_options(parser, nice=False)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell where the model is; of several processes, the first one tells."""
    config = read_config(args.config) if args.config else {}
    data = args.data
    if args.hq:
        data, config = _with_cohort(args, config)
    elif args.lq or data is None:
        raise ConfigError(
            "there is nothing to learn from",
            "Name good images (--hq DIR), or a folder (--data DIR).",
        )
    typed = [f"--{name}" for name in _OF_DENOISER if getattr(args, name) is not None]
    if typed and args.method != "denoiser":
        raise ConfigError(f"{' and '.join(typed)} is for denoisers", "Leave it out.")
    given = {name: getattr(args, name) for name in (*_FIELDS, *_OF_DENOISER, "preset")}
    given = {name: value for name, value in given.items() if value is not None}
    section = config.get("enhancement")  # what is typed counts more than a section of the file
    if isinstance(section, dict):
        config["enhancement"] = {name: v for name, v in section.items() if name not in given}
    config |= given
    params = {
        "method": args.method,
        "config": config,
        "config_name": _config_name(args, given),
        "data": str(data),
        "out": args.out,
        **background_params(args),
    }
    is_first = os.environ.get("RANK", "0") == "0"
    if not is_first:
        args.console.show_progress = False
    fields = args.console.run("train", params, isolated=args.isolated)
    return int(args.console.done(fields, "\n".join(_told(fields)))) if is_first else 0


def _config_name(args: argparse.Namespace, given: Iterable[str]) -> str | None:
    """The file, and the options that count more than it."""
    options = ", ".join(f"--{name}" for name in given)
    return args.config and (f"{args.config} with {options}" if options else args.config)


def _told(fields: dict[str, Any]) -> list[str]:
    """What was written, and what a head reached in patients that were held out."""
    rows = fields.get("held_out") or []
    if not rows:
        return wrote(fields)
    heads = list(rows[0])
    table = columns(heads, [[inline(row.get(head)) for head in heads] for row in rows], left=3)
    return [*wrote(fields), "", table]


def _with_cohort(args: argparse.Namespace, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of both pools, and the configuration with them; what it says itself stays."""
    if args.data or args.method != "hqg":
        raise ConfigError("--hq is for enhancers, and instead of --data", "Leave one of them out.")
    if not (args.modality or config.get("modality")):
        raise ConfigError("the modality is not stated", "Add --modality MR or --modality CT.")
    from MedEnhanceLib.jobs.kinds.train import cohort

    data, fields = cohort(Path(args.hq), Path(args.lq) if args.lq else None)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(args.out).resolve().name).strip("-") or "own"
    pools = {pool: fields[pool] for pool in ("high_quality", "low_quality")}
    return data, {"name": name} | fields | config | pools
