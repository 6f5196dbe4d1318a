"""medenhance demo: the main job on the sample that ships."""

from __future__ import annotations

import argparse
from typing import Any

from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_device,
    add_job_options,
    new_command,
)
from MedEnhanceLib.cli.words import columns


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "demo",
        summary="degrade, enhance, segment, compress and read back a sample brain",
        description="Run the main job on the bundled sample (a group-average brain) and leave a\n"
        "folder with volumes, a table, pictures and index.html. Takes a minute or two.",
        example="medenhance demo my-demo",
    )
    parser.add_argument(
        "out",
        nargs="?",
        default="medenhance-demo",
        metavar="OUT",
        help="the folder, new or empty (default: ./medenhance-demo)",
    )
    add_device(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace the files of an earlier demo in OUT"
    )
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job, print the tables and where the page is."""
    params = {"out": args.out, "device": args.device, "overwrite": args.force}
    fields = args.console.run("demo", params, isolated=args.isolated)
    return int(args.console.done(fields, demo_text(fields)))


def demo_text(fields: dict[str, Any]) -> str:
    """The page's tables in plain text."""
    from MedEnhanceLib.report.demo import (
        compression_table,
        findings_from_json,
        quality_table,
        summary,
    )

    findings = findings_from_json(fields["findings"])
    tables = [
        f"{table.title}\n{columns(table.columns, table.rows)}\n"
        for table in (quality_table(findings), compression_table(findings))
    ]
    return "\n".join(
        [
            *tables,
            *summary(findings),
            f"{findings.seconds:.0f} s on {fields['device']}",
            f"Look at it: {fields['outputs']['page']}",
        ]
    )
