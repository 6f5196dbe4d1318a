"""medenhance train and evaluate: training of a model, and its measurement."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from MedEnhanceLib.cli.parser import (
    Command,
    Parser,
    add_flags,
    declaration_of,
    params_of,
    read_config,
    reader,
)
from MedEnhanceLib.cli.terminal import table, wrote
from MedEnhanceLib.core.options import option_of
from MedEnhanceLib.errors import ConfigError

#: Figures of an evaluation → their headings in its table.
_HEADS = {
    "group": "mean of",
    "input_psnr_db": "PSNR, dB: degraded",
    "inversion_psnr_db": "inversion alone",
    "enhanced_psnr_db": "model",
    "gain_over_inversion_db": "model − inversion",
    "input_ssim": "SSIM: degraded",
    "inversion_ssim": "inversion alone",
    "enhanced_ssim": "model",
    "dice": "Dice",
}
#: Options that are copied into the configuration.
_FIELDS = (
    *("modality", "anatomy", "name", "seed", "steps", "device", "part", "preset"),
    *("images", "low_quality", "scanner"),
)


def _declare_train(parser: Parser) -> None:
    from MedEnhanceLib.training.config import NetworkTrainingConfig
    from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
    from MedEnhanceLib.training.hqg.config import TrainConfig

    job = declaration_of("train")
    add_flags(parser, job, only=["method", "out"])
    parser.add_argument(
        "--high-quality",
        metavar="DIR",
        help="high-quality images: files, or a folder for each DICOM series",
    )
    add_flags(parser, TrainConfig, only=["low_quality", "scanner"])
    parser.add_argument("--modality", choices=("MR", "CT", "EM"), help="modality of the images")
    parser.add_argument(
        "--preset",
        choices=tuple(TrainConfig.PRESETS),
        help="smoke: for tests; quick: minutes, thin slices from the shipped model on; cpu: an "
        "hour or more on two cores; full: for a GPU (default: what --config says, else cpu)",
    )
    parser.add_argument(
        "--part",
        choices=("implicit", "predictor"),
        help="part of the codec, for the method codec (default: implicit)",
    )
    parser.add_argument(
        "--steps",
        type=reader(option_of(TrainHeadConfig, "steps")),
        metavar="N",
        help="number of steps, instead of the preset's",
    )
    add_flags(parser, NetworkTrainingConfig, only=["name", "anatomy", "seed", "device"])
    parser.add_argument(
        "--segmenter",
        metavar="NAME",
        help="hqg: segmentation model (head) that teaches the network through a gate, on the "
        "high-quality images, by its own labels of them; brain on images of heads",
    )
    parser.add_argument(
        "--gate",
        choices=("ema", "binary"),
        help="hqg: rule by which the gradient of the segmentation loss is used (default: ema)",
    )
    add_flags(parser, TrainHeadConfig, only=["images"])
    parser.add_argument(
        "--from-labels",
        metavar="DIR",
        help="head: label maps to learn from; structures are named in --config",
    )
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="the folder that patterns in --config are relative to; for hqg and slices also a "
        "distilled set, alone or beside --high-quality",
    )


def _train(args: argparse.Namespace) -> int:
    """Run the job and report where the model is."""
    from MedEnhanceLib.training.spg.dataset import find_set

    config = read_config(args.config)
    data, distilled = args.data, None
    if data is not None and find_set(Path(data)):
        distilled = data
    if args.from_labels and args.method != "head":
        raise ConfigError(f"{args.method} does not learn from label maps", "They are for head.")
    if args.method == "head":
        if data or args.high_quality or not args.from_labels:
            raise ConfigError(
                "a head is trained on label maps", "Give these alone (--from-labels DIR)."
            )
        data = args.from_labels
    elif args.high_quality:
        data, config = _with_cohort(args, config)
    elif data is None:
        raise ConfigError(
            "no training data",
            "Name images of high quality (--high-quality DIR), or a folder (--data DIR).",
        )
    stated = {name: getattr(args, name) for name in _FIELDS}
    config |= {name: value for name, value in stated.items() if value is not None}
    task = {name: getattr(args, name) for name in ("segmenter", "gate") if getattr(args, name)}
    if task:
        config["task"] = (config.get("task") or {}) | task
    if args.config:
        _check_file(args, config, distilled)
    params = params_of(args, declaration_of("train")) | {
        "config": config,
        "data": str(data),
        "distilled": distilled,
    }
    fields = args.console.run("train", params)
    return int(args.console.report(fields, "\n".join(_lines(fields))))


def _check_file(args: argparse.Namespace, config: Mapping[str, Any], distilled: str | None) -> None:
    """Raise ConfigError, with the file's name, for a configuration that the job would refuse."""
    from MedEnhanceLib.training.jobs.train import set_of, training_config

    try:
        training_config(args.method, config, set_of(Path(), distilled))
    except ConfigError as error:
        raise ConfigError(f"{args.config}: {error.message}", error.hint) from error


def _lines(fields: dict[str, Any]) -> list[str]:
    """List what was written, a head's figures in held-out patients, and the next step."""
    from MedEnhanceLib.bundles.schema import METADATA
    from MedEnhanceLib.bundles.store import is_taken

    rows, model = fields.get("held_out") or [], Path(fields["outputs"]["model"])
    lines = [*wrote(fields), *([fields["sentence"]] if fields.get("sentence") else [])]
    lines += ["", table(rows, {name: name for name in rows[0]})] if rows else []
    for folder in [path.parents[1] for path in sorted(model.glob(f"*/{METADATA}"))] or [model]:
        rename = " --name NAME" if is_taken(folder.name) else ""
        lines.append(
            f"To install {folder.name}: medenhance models import {quote(str(folder))}{rename}"
        )
    return lines


def _with_cohort(args: argparse.Namespace, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Return the common folder of the images, and the configuration with their patterns."""
    from MedEnhanceLib.training.spg.dataset import find_set

    is_set = args.data is not None and find_set(Path(args.data))
    if (args.data and not is_set) or args.method not in ("hqg", "slices"):
        raise ConfigError(
            "--high-quality is for hqg and slices, beside a distilled set or alone",
            "Leave out --data or --high-quality.",
        )
    if not (is_set or args.modality or config.get("modality")):
        raise ConfigError("the modality is not stated", "Add --modality MR or --modality CT.")
    from MedEnhanceLib.training.jobs.train import cohort

    data, fields = cohort(Path(args.high_quality), args.method)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(args.out).resolve().name).strip("-")[:64] or "own"
    return data, {"name": name} | config | fields | {"data": config.get("data", fields["data"])}


def _means_lines(fields: Mapping[str, Any]) -> list[str]:
    rows = [
        {"group": group, **{n: f"{mean:.{2 if 'db' in n else 3}f}" for n, mean in means.items()}}
        for group, means in fields["means"].items()
    ]
    heads = {name: head for name, head in _HEADS.items() if any(name in row for row in rows)}
    return [table(rows, heads), "", f"{fields['seconds']:.1f} s", fields["notice"]]


TRAIN = Command(
    name="train",
    description="Train a model on your own volumes. hqg: a network that makes images of one\n"
    "scanner (--low-quality) like those of another (--high-quality, or a distilled set), without\n"
    "pairs. head: a segmentation model, from label maps (--from-labels). slices: a network for\n"
    "thin slices, on high-quality images, a distilled set, or the volumes below --data that\n"
    "--config names; codec: models of the codec, on those.\n"
    "The same command continues a training that was stopped. How to: docs/training.md.",
    example="medenhance train hqg --low-quality old/ --high-quality good/ --modality MR --out old",
    declare=_declare_train,
    run=_train,
)

EVALUATE = Command(
    name="evaluate",
    description="Measure a model on volumes of good quality. One of a scanner: each volume is put\n"
    "behind the scanner and enhanced, by the inversion alone and by the model, and all are\n"
    "measured against the original. A head: Dice against labels beside each volume\n"
    "(NAME-labels.nii.gz).",
    example="medenhance evaluate brain volumes/",
    lines=_means_lines,
)
