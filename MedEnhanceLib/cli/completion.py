"""medenhance completion: what a shell needs to complete commands, options, choices and files."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import Command, Parser
from MedEnhanceLib.runtime.dependencies import require

_SHELLS = ("bash", "zsh", "tcsh")
#: Arguments whose value is a file or a folder, by what help calls it.
_FILES = ("INPUT", "OUTPUT", "OUT", "FILE", "DIR", "FOLDER", "SOURCE", "VOLUME", "PATH", "COHORT")


def _declare(parser: Parser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="the shell that reads the script")


def run(args: argparse.Namespace) -> int:
    """Print the script for one shell."""
    from MedEnhanceLib.cli.main import build_parser

    shtab = require("shtab", purpose="Completing commands in a shell")
    parser = build_parser()
    _prepare(parser, shtab.FILE)
    script = shtab.complete(parser, shell=args.shell)
    return int(args.console.done({"shell": args.shell, "script": script}, script))


def _prepare(parser: argparse.ArgumentParser, files: object) -> None:
    """Declare the options of all commands, and mark what is a file."""
    if isinstance(parser, Parser):
        parser.declared()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _prepare(below, files)
        elif str(action.metavar or action.dest).upper() in _FILES:
            action.complete = files  # type: ignore[attr-defined]


COMPLETION = Command(
    name="completion",
    summary="print a script that completes commands and options in a shell",
    description="Print a script for a shell, which completes commands, options, choices and files\n"
    "at a press of Tab. bash reads it from the file medenhance in\n"
    "~/.local/share/bash-completion/completions. Needs the package shtab.",
    example="medenhance completion bash",
    declare=_declare,
    run=run,
)
