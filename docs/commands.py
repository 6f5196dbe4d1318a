"""Writes docs/commands.md, and prints the parameters of jobs, from the declarations.

    python docs/commands.py
    python docs/commands.py --jobs

It reads the parsers and not their help's text, whose layout differs between Python versions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MedEnhanceLib.cli.main import build_parser
from MedEnhanceLib.cli.parser import Parser
from MedEnhanceLib.core.options import allowed_text, options_of

_INTRODUCTION = """\
# Commands

Made from the commands' own help by `python docs/commands.py`.

Results go to stdout, everything else to stderr: a progress bar on a terminal, elsewhere a line
every 10 s. With `--json` a command prints exactly one JSON object: `{"ok": true, "command": …, …}`,
or `{"ok": false, "command": …, "error": {…}}` with `code`, `message` and `hint`. (`worker` is the
exception: it speaks JSON lines, see jobs.md.) An existing output is not replaced without `--force`.
Ctrl-C stops at the next safe point; a second one at once.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed, or the output is there already |
| 2 | a wrong command line: an option that there is not, or a value that is not allowed, \
be it by this volume alone (a region beyond it, a ratio out of reach) |
| 3 | bad input: a file that cannot be read, or a volume that the command or its mode is not for \
(labels with a loss, the noise of EM) |
| 4 | a package or a model is missing |
| 5 | out of memory |
| 6 | damaged file |
| 7 | a damaged file was recovered in part: the output is written, and blocks are lost |
| 130 | cancelled |

| options of many commands | meaning |
|---|---|
| `--json` | print one JSON object on stdout |
| `--debug` | show the traceback of an error |
| `--force` | replace existing outputs |
"""

_JOBS_INTRODUCTION = """\
# Parameters of jobs

What jobs are, and what they return: jobs.md. A parameter that is left out has its default; of an
object (`config.…`), what is left out has its default too.
"""

#: Described once, at the top.
COMMON = ("json", "debug", "force")


def reference() -> str:
    """All commands as Markdown, in the order of the help."""
    parts = [_INTRODUCTION]
    for command, parser in commands(build_parser()):
        parts.append(_section(command, parser))
    return "\n".join(parts)


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Parser]]:
    """Each command's full name with its parser; a command's own commands follow it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield f"{parser.prog} {name}", below
                yield from commands(below)


def _section(command: str, parser: Parser) -> str:
    positional = [action for action in parser._actions if not action.option_strings]
    options = [
        action
        for action in parser._actions
        if action.option_strings and action.dest not in ("help", *COMMON)
    ]
    common = [f"`{_option(action)}`" for action in parser._actions if action.dest in COMMON]
    usage = " ".join([command, *(_name(action) for action in positional)])
    rows = [(_name(action), _help(action)) for action in positional if _help(action)]
    rows += [(_option(action), _help(action)) for action in options]
    table = "\n".join(f"| `{name}` | {text} |" for name, text in rows)
    example = (parser.epilog or "").removeprefix("example:").strip()
    description = (parser.description or "").replace("\n  ", "\n- ")
    return (
        f"## {command}\n\n{description}\n\n```\n{usage} [options]\n```\n\n"
        + (f"| argument | meaning |\n|---|---|\n{table}\n\n" if rows else "")
        + f"And {', '.join(common)}.\n\nExample: `{example}`\n"
    )


def _name(action: argparse.Action) -> str:
    name = _value(action)
    many = f"{name} …" if action.nargs in ("*", "+") else name
    return f"[{many}]" if action.nargs in ("?", "*") else many


def _option(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {_value(action)}"
    value += " …" if action.nargs == "+" else ""
    return f"{', '.join(action.option_strings)}{value}"


def _value(action: argparse.Action) -> str:
    choices = f"{{{', '.join(map(str, action.choices))}}}" if action.choices else ""
    return str(action.metavar or choices or action.dest.upper())


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%")
    return f"{text} (required)" if action.required and action.option_strings else text


def job_parameters() -> str:
    """The parameters of all jobs as Markdown."""
    from MedEnhanceLib.jobs.job import JOBS

    parts = [_JOBS_INTRODUCTION]
    parts += [_declared(kind, job.params) for kind, job in JOBS.items()]
    return "\n".join(parts)


def _declared(title: str, declaration: Any) -> str:
    summary = (declaration.__doc__ or "").partition("\n")[0]
    rows = "\n".join(_parameter_rows(declaration))
    return f"## {title}\n\n{summary}\n\n| parameter | type | meaning |\n|---|---|---|\n{rows}\n"


def _parameter_rows(declaration: Any, prefix: str = "") -> Iterator[str]:
    for option in options_of(declaration):
        name = f"{prefix}{option.name}"
        literals = [f"`{text}`" for text in (*option.choices, *option.words)]
        kind = " or ".join(literals + ([] if option.choices else [allowed_text(option.hint)]))
        text = option.description + (" (required)" if option.is_required else "")
        yield f"| `{name}` | {kind.replace('|', ' or ')} | {text} |"
        if option.is_object:
            yield from _parameter_rows(option.kind, f"{name}.")


if __name__ == "__main__":
    if sys.argv[1:] == ["--jobs"]:
        print(job_parameters())
    else:
        Path(__file__).with_suffix(".md").write_text(reference(), encoding="utf-8")
