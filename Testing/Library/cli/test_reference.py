"""docs/commands.md is what the parsers say."""

from __future__ import annotations

from pathlib import Path

from MedEnhanceLib.cli.main import build_parser
from MedEnhanceLib.cli.reference import commands, job_parameters, reference

PAGE = Path(__file__).resolve().parents[3] / "docs" / "commands.md"


def test_page_of_commands_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "Run: python -m MedEnhanceLib.cli.reference docs/commands.md"
    )


def test_page_of_job_parameters_is_up_to_date() -> None:
    page = PAGE.with_name("job-parameters.md")
    assert page.read_text(encoding="utf-8") == job_parameters(), (
        "Run: python -m MedEnhanceLib.cli.reference docs/commands.md"
    )


def test_page_lists_every_command_and_option() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, parser in commands(build_parser()):
        assert f"\n## {name}\n" in text
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for action in parser._actions:
            for option in action.option_strings:
                assert option in section or option in ("-h", "--help")
