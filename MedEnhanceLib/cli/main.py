"""The command `medenhance`: runs its subcommands, and converts errors to messages and statuses.

Nothing heavy is imported here or at the top of a command's file: help must be instant.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TextIO, cast

from MedEnhanceLib._version import __version__
from MedEnhanceLib.cli import batch, compress, doctor, enhance, models, volumes
from MedEnhanceLib.cli.console import Console
from MedEnhanceLib.cli.parser import LateCommand, Parser, add_common
from MedEnhanceLib.errors import ConfigError, MedEnhanceError
from MedEnhanceLib.jobs.failures import job_errors
from MedEnhanceLib.runtime.dependencies import has_training
from MedEnhanceLib.runtime.tolerance import Messages

_TRAINING = (
    LateCommand(
        "train",
        "train a scanner model without pairs, a head, thin slices, or a model of the codec",
        "MedEnhanceLib.training.commands.train:TRAIN",
    ),
    LateCommand(
        "evaluate",
        "measure a model on volumes of good quality",
        "MedEnhanceLib.training.commands.train:EVALUATE",
    ),
    LateCommand(
        "distill",
        "distill a cohort into a set of volumes to train on",
        "MedEnhanceLib.training.commands.distill:COMMAND",
    ),
)
#: In the order in which help lists them.
COMMANDS = (
    volumes.DEMO,
    volumes.CONVERT,
    volumes.INSPECT,
    volumes.NOISE,
    volumes.SCANNER,
    enhance.ENHANCE,
    enhance.SEGMENT,
    compress.COMPRESS,
    compress.DECOMPRESS,
    compress.RECOVER,
    volumes.DEGRADE,
    *(_TRAINING if has_training() else ()),
    batch.BATCH,
    models.MODELS,
    doctor.DOCTOR,
    doctor.WORKER,
)
_DESCRIPTION = (
    "Removes the noise of MR and CT volumes, and shows what it removed.\n"
    "It also makes thick slices thin, segments, and compresses.\n"
    "Research software, not a medical device; not for diagnosis."
)
_EXAMPLE = """\
examples:
  medenhance demo
  medenhance enhance scan.nii.gz better.nii.gz --report report
  medenhance compress scan.nii.gz scan.ucv --max-error 2

exit status: 0 done, 1 failed, 2 usage, 3 bad input, 4 missing package or model,
5 out of memory, 6 damaged .ucv, 7 recovered in part, 130 cancelled"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status and never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A console that cannot show "×" prints a question mark instead of failing.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(as_json="--json" in arguments, debug="--debug" in arguments)
    with contextlib.redirect_stderr(cast(TextIO, Messages(sys.stderr))):
        try:
            with console.only_results_on_stdout(), job_errors("the command"):
                with contextlib.suppress(BrokenPipeError):  # `medenhance … | head`
                    return _dispatch(arguments, console)
                return 0
        except SystemExit as stop:  # argparse, after it has printed help or the version
            return stop.code if isinstance(stop.code, int) else 0
        except MedEnhanceError as error:
            return console.fail(error, error)


def build_parser(arguments: Sequence[str] | None = None) -> Parser:
    """Build the parser of all commands, with options for those among `arguments` (None: all)."""
    parser = Parser(prog="medenhance", description=_DESCRIPTION, epilog=_EXAMPLE)
    parser.add_argument("--version", action="version", version=f"medenhance {__version__}")
    add_common(parser, default=False)
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for command in COMMANDS:
        is_asked_for = arguments is None or command.name in arguments
        command.add_to(subparsers, with_options=is_asked_for)
    return parser


def _dispatch(arguments: Sequence[str], console: Console) -> int:
    # The options before the command take no values.
    first = next((word for word in arguments if not word.startswith("-")), "")
    console.command = first if first in {command.name for command in COMMANDS} else ""
    parser = build_parser(arguments)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        raise ConfigError("no command was given", "Name a command, for example: medenhance demo")
    console.as_json, console.debug = options.json, options.debug
    options.console, options.words = console, arguments
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)
