"""The measured numbers of README and the pages, each beside the result that it is taken from.

    python Testing/Benchmarks/figures.py --check    every number against its JSON; exit status 1
    python Testing/Benchmarks/figures.py --write    put the present values into the pages
    python Testing/Benchmarks/figures.py --list     every number: page, line, value, file, path

A number in running text has its origin behind it, in a comment that no reader sees:

    35.83<!-- = enhancement.rows[case=Rician 5 %; arm=ours].psnr_image:mean -->

In the template of the report it is a comment of Jinja, {# = … #}.

How an origin is written: _figure_origins.py. A value is compared at the digits that the page has.

A table between `<!-- figures: NAME -->` and `<!-- /figures -->` is made by results_page.py.

A number with a measured unit that has no origin is an error, unless definitions.toml names it with
the reason: formats, defaults, limits and sizes are defined, not measured.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

from _figure_origins import Cell, FigureError, file_of, value_of
from results_page import TABLES, Table

REPOSITORY = Path(__file__).resolve().parents[2]
DEFINITIONS = Path(__file__).resolve().parent / "definitions.toml"
#: Decisions tell what was measured when they were taken.
_NOT_CHECKED = ("docs/decisions/",)
_NUMBER = r"[+−-]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_ORIGIN = re.compile(
    rf"(?P<value>{_NUMBER})(?P<between>[^\d\s<]{{0,2}})(?:<!--|{{#) = (?P<path>.*?) (?:-->|#}})"
)
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- /figures -->)", re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_CODE = re.compile(r"^(```|~~~).*?^\1", re.S | re.M)
_INLINE = re.compile(r"`[^`\n]*`")
_WORD = r"(?:two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|forty|fifty|hundred)"
_AMOUNT = rf"(?:{_NUMBER}|\b{_WORD}\b|\b[Hh]alf\b|\b[Tt]wice\b)"
_UNIT = (
    r"(?:dB|%(?! interval)|×(?!\s*\d)|times|fold|HU|AUC|Dice|SSIM|PSNR|CPU s|CPU seconds|s|ms|min|"
    r"h|seconds?|minutes?|hours?|days?|[kKMG]i?B|GB|[kmg]igabytes?|bytes of|bits (?:a|per) voxel)"
)
#: An amount and its unit; a bound of the pattern "half the time"; a name and its value.
_MEASURED = (
    re.compile(rf"{_AMOUNT}(?:\s(?:to|and|or|–)\s{_AMOUNT}|–{_NUMBER})?[  ]?{_UNIT}(?![\w/])"),
    re.compile(r"\b(?:[Hh]alf|[Tt]wice|a third|a quarter|a tenth|two thirds) (?:the|as|of the)\b"),
    re.compile(r"(?:seconds|minutes|hours) on (?:a|one) (?:graphics card|card|GPU)"),
    re.compile(rf"(?:PSNR|SSIM|Dice|AUC|d′|F1)(?: of| is| =|:)? {_NUMBER}"),
    re.compile(r"(?<=\|)[\s*(±+−]*\d*\.\d+(?:[\s*/()±+−–,]|\d|\.\d|%|dB|to)*(?=\|)"),
)


@dataclass(frozen=True)
class Figure:
    """One number of a page."""

    page: str
    line: int
    shown: str
    path: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}\t{self.shown}\t{file_of(self.path)}\t{self.path}"


# --- pages


def pages() -> list[Path]:
    """README, the release notes and the pages whose numbers are checked."""
    pages = [
        REPOSITORY / "README.md",
        REPOSITORY / "CHANGELOG.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
        REPOSITORY / "MedEnhanceLib" / "report" / "page.html",
    ]
    return [path for path in pages if not _name(path).startswith(_NOT_CHECKED)]


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def figures_of(page: str, text: str) -> Iterator[Figure]:
    """Numbers of running text that have an origin."""
    for match in _ORIGIN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Figure(page, line, match["value"], match["path"])


def _blocks(text: str) -> Iterator[tuple[re.Match[str], Table]]:
    for match in _BLOCK.finditer(text):
        if match[2] not in TABLES:
            raise FigureError(f"no table {match[2]!r} in results_page.py")
        yield match, TABLES[match[2]]()


def table_figures(page: str, text: str) -> Iterator[Figure]:
    """Numbers of generated tables."""
    for match, table in _blocks(text):
        first = text.count("\n", 0, match.start(3)) + 1
        for number, row in enumerate(table.rows):
            for cell in row:
                for figure in cell:
                    if isinstance(figure, Cell):
                        yield Figure(page, first + 2 + number, str(figure), figure.path)


def rounded(value: float, shown: str) -> str:
    """The value, with the digits, sign and separators that a page states it with."""
    places = len(shown.partition(".")[2])
    exact = Decimal(repr(value)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
    text = f"{exact:{'+' if shown[0] in '+' else ''}{',' if ',' in shown else ''}.{places}f}"
    if not exact:
        text = text.lstrip("-")
    if "." in shown and not shown.lstrip("+−-")[0].isdigit():
        text = text.replace("0.", ".", 1)
    return text if shown.startswith("-") else text.replace("-", "−")


def wrong(page: str, text: str) -> Iterator[str]:
    """What a page states otherwise than its results do, and what has no origin."""
    for figure in figures_of(page, text):
        try:
            value = rounded(value_of(figure.path), figure.shown)
        except FigureError as error:
            yield f"{page}:{figure.line}: {figure.shown}: {error}"
            continue
        if value != figure.shown:
            yield f"{page}:{figure.line}: {figure.shown} is {value} ({figure.path})"
    for match, table in _blocks(text):
        if match[3].strip() != str(table).strip():
            yield f"{page}: the table {match[2]} is another now: figures.py --write"
    yield from _without_origin(page, text)


def definitions() -> list[dict[str, Any]]:
    """Phrases and patterns with numbers that are defined: page, phrases, patterns, reason."""
    entries: list[dict[str, Any]] = tomllib.loads(DEFINITIONS.read_text("utf-8"))["number"]
    return entries


def _without_origin(page: str, text: str) -> Iterator[str]:
    """Measured numbers that neither have an origin nor are defined."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    rest = _CODE.sub(blank, _BLOCK.sub(blank, text))
    rest = _INLINE.sub(blank, _COMMENT.sub(blank, _ORIGIN.sub(blank, rest)))
    for entry in definitions():
        if entry["page"] == page:
            for pattern in (*map(re.escape, entry.get("phrases", ())), *entry.get("patterns", ())):
                rest, count = re.subn(pattern, blank, rest)
                if not count:
                    yield f"{page}: definitions.toml names {pattern!r}, which is not there"
    for pattern in _MEASURED:
        for match in pattern.finditer(rest):
            line = rest.count("\n", 0, match.start()) + 1
            yield f"{page}:{line}: {match[0].strip()!r} has no origin"


def refreshed(text: str) -> str:
    """A page with the present values."""
    text = _ORIGIN.sub(
        lambda m: m[0].replace(m["value"], rounded(value_of(m["path"]), m["value"]), 1), text
    )
    for match, table in list(_blocks(text)):
        text = text.replace(match[0], f"{match[1]}{table}{match[4]}")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="compare all numbers with their JSON")
    what.add_argument("--write", action="store_true", help="put the present values into the pages")
    what.add_argument("--list", action="store_true", help="every number with its origin")
    options = parser.parse_args()
    count = 0
    for path in pages():
        page, text = _name(path), path.read_text(encoding="utf-8")
        if options.write:
            path.write_text(refreshed(text), encoding="utf-8")
        elif options.list:
            for figure in (*figures_of(page, text), *table_figures(page, text)):
                print(figure)
                count += 1
        else:
            for problem in wrong(page, text):
                print(problem)
                count += 1
    if options.list:
        print(f"{count} numbers")
    return 1 if options.check and count else 0


if __name__ == "__main__":
    sys.exit(main())
