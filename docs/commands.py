"""Prints the page of commands, which the site has, or the parameters of jobs.

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

For work in a shell: every command with an example and all of its options, as
`medenhance COMMAND --help` prints them.

- Results go to stdout, everything else to stderr: a progress bar on a terminal, else a line
  every 10 s where something changed. Ctrl-C stops at the next safe point; a second one at once.
- An existing output is not replaced without `--force`; `batch` replaces results of its own where
  source or options have changed ([how](batch.md)).
- Every command takes `--debug`, which shows the traceback of an error, and `--json`: it then prints
  one JSON object, `{"ok": true, "command": …, …}`, or `{"ok": false, "command": …, "error": {…}}`
  with `code`, `message` and `hint`. `worker` speaks [lines of JSON](jobs.md).

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
"""

_JOBS_INTRODUCTION = """\
# Parameters of jobs

What jobs are, and what they return: jobs.md. A parameter that is left out has its default; of an
object (`config.…`), what is left out has its default too.
"""

#: A row of arguments that at least this many commands share is described once, at the top.
_SHARED_FROM = 3
_SEVERAL = "Arguments of several commands"
#: Of every command: the introduction has them.
_EVERY = ("--json", "--debug")
#: Arguments that commands have together, by the title of their list.
_GROUPS = {
    "Reading a volume": ("INPUT", "--series", "--modality", "--resample", "--complete-frames"),
    "Writing DICOM": ("--dicom", "--dicom-source", "--dicom-source-series",
                      "--series-description", "--patient-id", "--patient-name"),
}  # fmt: skip
_BATCH = "medenhance batch"
_Row = tuple[str, str]


def reference() -> str:
    """All commands as Markdown, in the order of the help."""
    parsers = dict(commands(build_parser()))
    tasks = {name.split()[-1]: parsers.pop(name) for name in [*parsers] if f"{_BATCH} " in name}
    uses = Counter(row for parser in parsers.values() for row in _rows(parser))
    shared = [row for row, count in uses.items() if count >= _SHARED_FROM]
    lists: dict[str, list[_Row]] = {title: [] for title in (*_GROUPS, _SEVERAL)}
    for row in shared:
        titles = (title for title, names in _GROUPS.items() if row[0].split()[0] in names)
        members = lists[next(titles, _SEVERAL)]
        if row[0] not in (name for name, _text in members):
            members.append(row)
    parts = [_INTRODUCTION]
    parts += [f"## {title}\n\n{_list(rows)}" for title, rows in lists.items()]
    for command, parser in parsers.items():
        if command == _BATCH:
            parts.append(_batch_section(parser, tasks, parsers))
            continue
        own = [row for row in _rows(parser) if row not in shared]
        parts.append(_section(command, parser, own, _rest(parser, lists)))
    return "\n".join(parts)


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Parser]]:
    """Each command's full name with its parser; a command's own commands follow it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield f"{parser.prog} {name}", below
                yield from commands(below)


def _section(command: str, parser: Parser, own: list[_Row], rest: str) -> str:
    positional = [action for action in parser._actions if not action.option_strings]
    usage = " ".join([command, *(_name(action) for action in positional)]).replace("[", r"\[")
    example = (parser.epilog or "").removeprefix("example:").strip()
    description = (parser.description or "").replace("\n  ", "\n- ")
    parts = [f"## {usage}", description, f"Example: `{example}`"]
    parts += [_list(own).rstrip()] if own else []
    parts += [rest] if rest else []
    return "\n\n".join(parts) + "\n"


def _rest(parser: Parser, lists: dict[str, list[_Row]]) -> str:
    """Name the shared options of a command: whole lists by their titles, others one by one."""
    has, named = set(_rows(parser)), []
    for title, rows in lists.items():
        if title != _SEVERAL and has >= set(rows):
            named.append(f"[{title[0].lower()}{title[1:]}](#{title.lower().replace(' ', '-')})")
        else:
            named += [f"`{name}`" for name, text in rows if (name, text) in has and name[0] == "-"]
    return f"Also: {', '.join(named)}." if named else ""


def _batch_section(parser: Parser, tasks: dict[str, Parser], parsers: dict[str, Parser]) -> str:
    """Describe what batches of all tasks take, and which options of the task they do not."""
    single = {task: parsers[f"medenhance {task}"] for task in tasks}
    added: dict[_Row, list[str]] = {}
    for task, batch in tasks.items():
        for row in (row for row in _rows(batch) if row not in _rows(single[task])):
            added.setdefault(row, []).append(task)
    own = [
        (name, text if len(named) == len(tasks) else f"{text} ({', '.join(named)})")
        for (name, text), named in added.items()
    ]
    rest = "A batch takes the options of its task, except those for one volume:\n\n" + "\n".join(
        f"- `{task}`: "
        + ", ".join(
            f"`{name}`"
            for name in single[task]._option_string_actions
            if name not in batch._option_string_actions
        )
        for task, batch in tasks.items()
    )
    return _section(_BATCH, parser, own, rest)


def _rows(parser: Parser) -> list[tuple[str, str]]:
    """Name and meaning of each argument, positional ones first."""
    actions = [
        action
        for action in parser._actions
        if action.dest != "help" and _help(action) and not {*_EVERY} & {*action.option_strings}
    ]
    positional = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    return [(_name(action), _help(action)) for action in positional] + [
        (_option(action), _help(action)) for action in options
    ]


def _list(rows: list[tuple[str, str]]) -> str:
    """Make a list; a table of such texts is too wide for a small window."""
    return "".join(f"- `{name}`: {text}\n" for name, text in rows)


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
    print(job_parameters() if sys.argv[1:] == ["--jobs"] else reference())
