"""The command `medenhance`: chooses the command, and turns errors into messages and statuses.

Nothing heavy is imported here or at the top of a command's file: help must be instant.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence

from MedEnhanceLib._version import __version__
from MedEnhanceLib.cli import (
    batch,
    compress,
    distill,
    doctor,
    enhance,
    models,
    train,
    volumes,
)
from MedEnhanceLib.cli.console import Console, UnexpectedError
from MedEnhanceLib.cli.parser import Parser, add_common
from MedEnhanceLib.cli.streams import run_with_streams
from MedEnhanceLib.errors import (
    Cancelled,
    ConfigError,
    DependencyError,
    DeviceMemoryError,
    MedEnhanceError,
    OutputError,
)
from MedEnhanceLib.runtime.dependencies import PIP_NAMES
from MedEnhanceLib.runtime.device import is_out_of_memory
from MedEnhanceLib.runtime.machine import let_idle_threads_sleep

#: In the order in which help lists them.
COMMANDS = (
    volumes.DEMO,
    volumes.CONVERT,
    volumes.INSPECT,
    enhance.ENHANCE,
    enhance.BLEND,
    enhance.SEGMENT,
    compress.COMPRESS,
    compress.DECOMPRESS,
    compress.RECOVER,
    volumes.DEGRADE,
    train.TRAIN,
    train.EVALUATE,
    distill.COMMAND,
    batch.BATCH,
    models.MODELS,
    doctor.DOCTOR,
    doctor.WORKER,
)
#: What the system answers where what is printed has no room, or no reader from the beginning.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_CLOSED = (errno.EBADF,)
_DESCRIPTION = (
    "Enhance, segment and compress medical volumes.\n"
    "Research software, not a medical device; not for diagnosis."
)
_EXAMPLE = """\
examples:
  medenhance demo
  medenhance enhance scan.nii.gz better.nii.gz --report report
  medenhance compress scan.nii.gz scan.ucv --max-error 2

exit status: 0 done, 1 failed, 2 usage, 3 bad input, 4 missing package or model,
5 out of memory, 6 damaged file, 7 recovered in part, 130 cancelled"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status and never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _replace_closed_streams()
    _survive_narrow_encodings()
    let_idle_threads_sleep()
    console = Console(as_json="--json" in arguments, debug="--debug" in arguments)
    try:
        return _run(arguments, console)
    except SystemExit as stop:  # argparse, after it has printed help or the version
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        return _reader_went_away()


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="medenhance", description=_DESCRIPTION, epilog=_EXAMPLE)
    parser.add_argument("--version", action="version", version=f"medenhance {__version__}")
    add_common(parser, default=False)
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(subparsers)
    return parser


def _run(arguments: Sequence[str], console: Console) -> int:
    try:
        with console.only_results_on_stdout():
            return _dispatch(arguments, console)
    except KeyboardInterrupt as cause:
        return console.fail(Cancelled("cancelled", "Start again when you like."), cause)
    except MedEnhanceError as error:
        return console.fail(error, error)
    except (MemoryError, RuntimeError) as cause:
        if not is_out_of_memory(cause):
            return console.fail(UnexpectedError.of(cause), cause)
        short = DeviceMemoryError("memory ran out", "Close other programs, or crop the volume.")
        return console.fail(short, cause)
    except ModuleNotFoundError as cause:
        return console.fail(_missing_package(cause), cause)
    except (BrokenPipeError, SystemExit):
        raise
    except Exception as cause:  # noqa: BLE001 - the last place: nobody wants a traceback here
        if isinstance(cause, OSError) and cause.errno in _FULL + _CLOSED and not cause.filename:
            console.as_json = False  # what it says goes to stderr alone
            _forget_stdout()
            reason, hint = cause.strerror, "Free some space, or print elsewhere."
            if cause.errno in _CLOSED:
                reason, hint = "standard output is closed", "Lead it somewhere, as > /dev/null."
            said = f"what the command prints cannot be written: {reason}"
            return console.fail(OutputError(said, hint), cause)
        from MedEnhanceLib.jobs.failures import refused

        return console.fail(refused(cause) or UnexpectedError.of(cause), cause)


def _dispatch(arguments: Sequence[str], console: Console) -> int:
    parser = build_parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit:  # help or the version were printed
        sys.stdout.flush()
        raise
    if options.command is None:
        parser.print_help(sys.stderr)
        raise ConfigError("no command was given", "Name one, for example: medenhance demo")
    console.command = options.command
    console.as_json, console.debug = options.json, options.debug
    console.show_progress = getattr(options, "progress", None)
    options.console = console
    run: Callable[[argparse.Namespace], int] = options.run
    return run_with_streams(options, run)


def _missing_package(cause: ModuleNotFoundError) -> MedEnhanceError:
    """A package of ours that is missing is a fault; anybody else's is to be installed."""
    package = str(cause.name or "").partition(".")[0]
    if package in ("", "MedEnhanceLib"):
        return UnexpectedError.of(cause)
    name = PIP_NAMES.get(package, package)
    return DependencyError(
        f"the package {name} is not installed", f"Install it with: python -m pip install {name}"
    )


def _replace_closed_streams() -> None:
    """Where a program starts this one without a stream (`>&-`), nothing is read, and what is
    printed is refused when it is written; else the next file that is opened would take its place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            flags = os.O_RDONLY if name == "stdout" else os.O_RDWR  # writing the former fails
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))


def _survive_narrow_encodings() -> None:
    """A console that cannot show "×" prints a question mark instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _reader_went_away() -> int:
    """`medenhance … | head`: not an error, but Python must not complain when it exits."""
    _forget_stdout()
    return 0


def _forget_stdout() -> None:
    """Lead what is still to be printed nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
