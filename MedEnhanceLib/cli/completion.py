"""medenhance completion: what a shell needs to complete commands, options, choices and files."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import Command, Parser
from MedEnhanceLib.runtime.dependencies import require

_SHELLS = ("bash", "zsh", "tcsh")
#: In place of a shell: the names of the models, a line each, which the scripts ask for.
_NAMES = "models"
#: Options and arguments whose value is the name of a model.
_MODELS = ("model", "head", "bundle", "segmenter")
_ASK = "medenhance completion models 2>/dev/null"
_PREAMBLE = {
    "bash": f'_medenhance_models() {{ compgen -W "$({_ASK})" -f -- "$1"; }}',
    "zsh": f'_medenhance_models() {{ compadd -- ${{(f)"$({_ASK})"}}; _files; }}',
}
_COMPLETE = {"bash": "_medenhance_models", "zsh": "_medenhance_models", "tcsh": f"`{_ASK}`"}
#: Arguments whose value is a file or a folder, by what help calls it.
_FILES = ("INPUT", "OUTPUT", "OUT", "FILE", "DIR", "FOLDER", "SOURCE", "VOLUME", "PATH", "COHORT")


def _declare(parser: Parser) -> None:
    parser.add_argument(
        "shell",
        choices=(*_SHELLS, _NAMES),
        help="the shell that reads the script; models: print their names, which scripts ask for",
    )


def run(args: argparse.Namespace) -> int:
    """Print the script for one shell."""
    from MedEnhanceLib.cli.main import build_parser

    if args.shell == _NAMES:
        from MedEnhanceLib.bundles import list_bundles

        names = [bundle.name for bundle in list_bundles()]
        return int(args.console.done({"models": names}, "\n".join(names)))
    shtab = require("shtab", purpose="Completing commands in a shell")
    parser = build_parser()
    _prepare(parser, shtab.FILE)
    script = shtab.complete(parser, shell=args.shell, preamble=_PREAMBLE)
    return int(args.console.done({"shell": args.shell, "script": script}, script))


def _prepare(parser: argparse.ArgumentParser, files: object) -> None:
    """Declare the options of all commands, and mark what is a file."""
    if isinstance(parser, Parser):
        parser.declared()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _prepare(below, files)
        elif action.dest in _MODELS or (action.dest == "name" and not action.option_strings):
            action.complete = _COMPLETE  # type: ignore[attr-defined]
        elif str(action.metavar or action.dest).upper() in _FILES:
            action.complete = files  # type: ignore[attr-defined]


COMPLETION = Command(
    name="completion",
    summary="print a script that completes commands and options in a shell",
    description="Print a script for a shell, which completes commands, options, choices, models\n"
    "and files at a press of Tab. bash reads it from the file medenhance in\n"
    "~/.local/share/bash-completion/completions. Needs the package shtab.",
    example="medenhance completion bash",
    declare=_declare,
    run=run,
)
