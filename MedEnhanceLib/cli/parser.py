"""What the parsers of all commands share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from MedEnhanceLib.errors import ConfigError

#: What `add_subparsers` gives; argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of leaving, and takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """A wrong use of the command line."""
        raise ConfigError(message, f"See: {self.prog} --help")


def new_command(
    subparsers: Subparsers, name: str, *, summary: str, description: str, example: str
) -> Parser:
    """A command's parser; every one has a summary, a description and an example."""
    parser = subparsers.add_parser(
        name, help=summary, description=description, epilog=f"example:\n  {example}"
    )
    add_common(parser, default=argparse.SUPPRESS)
    return parser


def add_common(parser: argparse.ArgumentParser, *, default: Any) -> None:
    """Options that may stand before and after the command's name."""
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON object on stdout"
    )
    parser.add_argument(
        "--debug", action="store_true", default=default, help="show the traceback of an error"
    )


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Options of commands that run a job."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show a progress bar on stderr (default: on a terminal)",
    )
    parser.add_argument(
        "--isolated",
        action="store_true",
        help="run in a process of its own, which can be killed without harm",
    )


def add_input(parser: argparse.ArgumentParser, what: str = "file, DICOM folder or .ucv") -> None:
    """The volume to read, and what its file does not say."""
    parser.add_argument("input", metavar="INPUT", help=f"a volume: {what}")
    parser.add_argument(
        "--series",
        metavar="S",
        help="which series of a DICOM folder that holds several: its UID or number in the list",
    )
    parser.add_argument(
        "--modality",
        metavar="M",
        help="CT, MR, PT, EM or OT, where the file says none or a wrong one",
    )


def input_params(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of a job that the options of `add_input` say."""
    return {"input": args.input, "series": args.series, "modality": args.modality}


def add_force(parser: argparse.ArgumentParser) -> None:
    """Permission to replace outputs."""
    parser.add_argument("--force", action="store_true", help="replace existing outputs")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where the network runs."""
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps"
    )


def read_config(path: str) -> dict[str, Any]:
    """The JSON object in a configuration file; raises ConfigError for anything else."""
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(
            f"{path} cannot be read: {cause.strerror}", "Name a JSON file that exists."
        ) from cause
    except ValueError as cause:
        raise ConfigError(f"{path} is not JSON: {cause}", "Correct that place.") from cause
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} does not hold a JSON object", 'Write {"option": value, …}.')
    return fields
