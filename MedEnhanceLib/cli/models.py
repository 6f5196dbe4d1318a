"""medenhance models: the trained models on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from MedEnhanceLib.cli.parser import Command, Parser
from MedEnhanceLib.cli.terminal import pairs, size, table
from MedEnhanceLib.errors import ConfigError

_ACTIONS = {
    "list": "all models",
    "show": "metadata and card of a model",
    "import": "import a model: a folder or its zip",
    "default": "make a model, imported or shipped, the default of its kind and modality",
    "remove": "delete an imported model",
}


def _declare(parser: Parser) -> None:
    parser.add_argument(
        "action", nargs="?", default="list", choices=tuple(_ACTIONS), help="what to do"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a model's name; a path for import")
    parser.add_argument(
        "--name", metavar="NEW", dest="new_name", help="import: the model's name from then on"
    )


def _run(args: argparse.Namespace) -> int:
    """Perform the action."""
    action, name, console = args.action, args.name, args.console
    if action != "list" and name is None:
        raise ConfigError(f"models {action} needs a name", "See: medenhance models --help")
    if action == "list" and name is not None:
        raise ConfigError("models list takes no name", f"Try: medenhance models show {name}")
    if args.new_name and action != "import":
        raise ConfigError(f"models {action} takes no --name", "It names a model to be imported.")
    if action == "show":
        return _show(args)
    params = {"path": name, "name": args.new_name} if action == "import" else {"name": name}
    fields = console.run("models", {"action": action, **params})
    rows = fields["models"]
    if action == "list":
        damaged = [row for row in rows if not row["ok"]]
        for row in [*damaged, *fields["unreadable"]]:
            hint = row.get("hint", f"Remove it: medenhance models remove {row['name']}")
            console.note(f"not usable: {row['message']}. {hint}")
        return int(console.report(fields, _table(rows) if rows else "no models are installed"))
    text = f"removed {name}"
    if action == "default":
        (row,) = [row for row in rows if row["name"] == name]
        text = f"{name} is now the default {row['kind']} for {row['modality']} (--model auto)"
    elif action == "import":
        (row,) = [row for row in rows if row["name"] == fields["imported"]]
        text = f"imported {row['name']} into {row['folder']} (license: {row['license']})"
    return int(console.report(fields, text))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each model, and their descriptions below."""
    heads = {name: name for name in ("name", "kind", "for", "default", "origin", "size")}
    lines = [{**row, "for": row["modality"], "size": size(row["bytes"])} for row in rows]
    about = [f"{row['name']}: {row['description']}" for row in rows]
    about = [fill(text, 100, subsequent_indent="  ", break_on_hyphens=False) for text in about]
    return "\n".join([table(lines, heads, left_aligned=len(heads)), "", *about])


def _show(args: argparse.Namespace) -> int:
    from MedEnhanceLib.bundles.store import details, find_bundle

    bundle = find_bundle(args.name)
    row = details(bundle)
    card = row.pop("card")
    fields = {"model": row, "metadata": bundle.metadata, "card": card}
    return int(args.console.report(fields, f"{pairs(row)}\n\n{card.strip()}".strip()))


MODELS = Command(
    name="models",
    summary="list, show, import or remove trained models, or set the default",
    description="Manage the trained models on this machine.\n\n"
    + "\n".join(f"  {action:7} {what}" for action, what in _ACTIONS.items()),
    example="medenhance models show brain",
    declare=_declare,
    run=_run,
)
