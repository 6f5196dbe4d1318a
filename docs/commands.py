"""Writes docs/commands.md, and prints the parameters of jobs, from the declarations.

    python docs/commands.py
    python docs/commands.py --jobs

It reads the parsers and not their help's text, whose layout differs between Python versions.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
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

Results go to stdout, everything else to stderr: a progress bar on a terminal, otherwise a line
every 10 s, if the stage or the time left changed. With `--json` a command prints exactly one JSON
object: `{"ok": true, "command": …, …}`, or `{"ok": false, "command": …, "error": {…}}` with `code`,
`message` and `hint`. (`worker` is the exception: it speaks JSON lines, see jobs.md.) An existing
output is not replaced without `--force`; `batch` replaces results of its own where source or
options have changed, see batch.md. Ctrl-C stops at the next safe point; a second one at once.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed, or the output or the name of a model exists already |
| 2 | wrong command line: unknown option, or a value that is not allowed, for this volume \
or at all (a region beyond it, a ratio out of reach) |
| 3 | bad input: a file that cannot be read, or a volume that the command or the model \
does not suit (lossy compression of labels, noise of EM, a model of another modality) |
| 4 | a package or a model is missing, or a model is damaged |
| 5 | out of memory |
| 6 | damaged .ucv |
| 7 | a damaged .ucv was recovered in part: the output is written, and blocks are lost |
| 130 | cancelled |

Arguments of several commands:
"""

_JOBS_INTRODUCTION = """\
# Parameters of jobs

What jobs are, and what they return: jobs.md. A parameter that is left out has its default; of an
object (`config.…`), what is left out has its default too.
"""

#: A row of arguments that that at least this many commands share is described once, at the top.
_SHARED_FROM = 3


def reference() -> str:
    """All commands as Markdown, in the order of the help."""
    parsers = dict(commands(build_parser()))
    uses = Counter(row for parser in parsers.values() for row in _rows(parser))
    shared = [row for row, count in uses.items() if count >= _SHARED_FROM]
    parts = [_INTRODUCTION, _table(shared)]
    parts += [_section(command, parsers, shared) for command in parsers]
    return "\n".join(parts)


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Parser]]:
    """Each command's full name with its parser; a command's own commands follow it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield f"{parser.prog} {name}", below
                yield from commands(below)


def _section(command: str, parsers: dict[str, Parser], shared: list[tuple[str, str]]) -> str:
    parser = parsers[command]
    positional = [action for action in parser._actions if not action.option_strings]
    usage = " ".join([command, *(_name(action) for action in positional)])
    rows = _rows(parser)
    own = [row for row in rows if row not in shared]
    others = [f"`{name}`" for name, text in rows if (name, text) in shared]
    limits = ""
    if command.startswith("medenhance batch "):
        single = command.replace("batch ", "")
        own = [row for row in own if row not in _rows(parsers[single])]
        others = [f"the options of `{single}`", *others]
        taken = parser._option_string_actions
        missing = [
            f"`{name}`" for name in parsers[single]._option_string_actions if name not in taken
        ]
        limits = f"Not taken, as they are for one volume: {', '.join(missing)}.\n\n"
    example = (parser.epilog or "").removeprefix("example:").strip()
    description = (parser.description or "").replace("\n  ", "\n- ")
    return (
        f"## {command}\n\n{description}\n\n```\n{usage} [options]\n```\n\n"
        + (f"{_table(own)}\n" if own else "")
        + f"Also: {', '.join(others)}.\n\n{limits}Example: `{example}`\n"
    )


def _rows(parser: Parser) -> list[tuple[str, str]]:
    """Name and meaning of each argument, positional ones first."""
    actions = [action for action in parser._actions if action.dest != "help" and _help(action)]
    positional = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    return [(_name(action), _help(action)) for action in positional] + [
        (_option(action), _help(action)) for action in options
    ]


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| `{name}` | {text} |" for name, text in rows]
    return "\n".join(["| argument | meaning |", "|---|---|", *lines, ""])


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
    """Write the parameters of all jobs as Markdown."""
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
