"""medenhance models: the trained models on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from MedEnhanceLib.cli.parser import Command, Parser
from MedEnhanceLib.cli.text import columns, pairs, size
from MedEnhanceLib.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from MedEnhanceLib.bundles import Bundle


def _declare(parser: Parser) -> None:
    parser.add_argument("action", choices=tuple(ACTIONS), help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a model's name; a path for import")


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    if args.action in ("show", "import", "remove") and args.name is None:
        raise ConfigError(f"models {args.action} needs a name", "See: medenhance models --help")
    if args.action == "list" and args.name is not None:
        raise ConfigError("models list takes no name", f"Try: medenhance models show {args.name}")
    do, _ = ACTIONS[args.action]
    return do(args)


def _list(args: argparse.Namespace) -> int:
    from MedEnhanceLib.bundles import list_bundles
    from MedEnhanceLib.bundles.store import folder_bytes, summary, unreadable_rows

    bundles = list_bundles()
    rows = [
        (
            bundle.name,
            bundle.kind,
            bundle.modality,
            "shipped" if bundle.shipped else bundle.origin,
            size(folder_bytes(bundle.folder)),
        )
        for bundle in bundles
    ]
    heads = ("name", "kind", "for", "origin", "size")
    about = [
        fill(
            f"{bundle.name}: {bundle.metadata['description']}{_license_of(bundle)}",
            100,
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
        for bundle in bundles
    ]
    text = "\n".join([columns(heads, rows, left=len(heads)), "", *about])
    text = text if bundles else "no models are installed"
    broken = unreadable_rows()
    for row in broken:
        args.console.note(f"not usable: {row['message']}. {row['hint']}")
    fields = {"models": [summary(bundle) for bundle in bundles], "unreadable": broken}
    return int(args.console.done(fields, text))


def _license_of(bundle: Bundle) -> str:
    """What a MONAI bundle says of its license, to be added to its description."""
    if not bundle.is_foreign:
        return ""
    from MedEnhanceLib.gradprom.foreign import NO_LICENSE

    stated = bundle.metadata["licence"]
    return f" ({stated if stated == NO_LICENSE else f'license: {stated}'})"


def _show(args: argparse.Namespace) -> int:
    from MedEnhanceLib.bundles.store import card_of, find_bundle, summary

    bundle = find_bundle(args.name)
    text = card_of(bundle)
    fields = {"model": summary(bundle), "metadata": bundle.metadata, "card": text}
    shown = pairs(summary(bundle)) + (f"\n\n{text.strip()}" if text else "")
    return int(args.console.done(fields, shown))


def _verify(args: argparse.Namespace) -> int:
    from MedEnhanceLib.bundles import list_bundles, verify_bundle
    from MedEnhanceLib.bundles.store import find_bundle, unreadable_bundles

    bundles = list_bundles() if args.name is None else [find_bundle(args.name)]
    rows: list[dict[str, object]] = []
    first = None
    for bundle in bundles:
        try:
            verify_bundle(bundle)
            rows.append({"name": bundle.name, "verified": True, "message": "all files match"})
        except ModelError as error:
            first = first or error
            rows.append({"name": bundle.name, "verified": False, "message": error.message})
    for folder, reason in unreadable_bundles().items() if args.name is None else ():
        first = first or reason
        rows.append({"name": folder.name, "verified": False, "message": reason.message})
    if first is not None:
        for row in rows:
            args.console.note(f"{row['name']}: {row['message']}")
        return int(args.console.fail(first, first, {"models": rows}))
    text = "\n".join(f"{row['name']}: {row['message']}" for row in rows)
    return int(args.console.done({"models": rows}, text or "no models are installed"))


def _import(args: argparse.Namespace) -> int:
    from MedEnhanceLib.bundles.store import summary
    from MedEnhanceLib.gradprom.foreign import import_model

    bundle = import_model(Path(args.name))
    text = f"imported {bundle.name} into {bundle.folder}{_license_of(bundle)}"
    return int(args.console.done({"model": summary(bundle)}, text))


def _remove(args: argparse.Namespace) -> int:
    from MedEnhanceLib.bundles import remove_bundle

    remove_bundle(args.name)
    return int(args.console.done({"removed": args.name}, f"removed {args.name}"))


ACTIONS = {
    "list": (_list, "all models"),
    "show": (_show, "the metadata and card of one"),
    "verify": (_verify, "check the files of one, or of all, against their hashes"),
    "import": (_import, "take in a model or a MONAI bundle: a folder, or a zip of one"),
    "remove": (_remove, "delete one that was imported"),
}
MODELS = Command(
    name="models",
    summary="list, show, verify, import or remove trained models, or set the default",
    description="Manage the trained models on this machine.\n\n"
    + "\n".join(f"  {action:7} {what}" for action, (_, what) in ACTIONS.items()),
    example="medenhance models show mr",
    declare=_declare,
    run=run,
)
