"""The measured numbers of README and the pages, each beside the result that it is taken from.

    python Testing/Benchmarks/figures.py --check    every number against its JSON; exit status 1
    python Testing/Benchmarks/figures.py --write    put the present values into the pages
    python Testing/Benchmarks/figures.py --list     every number: page, line, value, file, path

A number in running text has its origin behind it, in a comment that no reader sees:

    35.83<!-- = enhancement.rows[case=Rician 5 %; arm=ours].psnr_image:mean -->

The origin is a file in Testing/Benchmarks/results, a path in it and how many values become one:
`.key` takes a value, of each entry of a list too; `[key=value; …]` keeps the entries that have it
(`!=`, `~` for "contains", `<`, `>`, alternatives with ` or `); `:mean`, `:min`, `:max`, `:median`,
`:sum` and `:count` reduce a list. Origins and numbers are joined by + - * /, from left to right;
two lists of the same subjects, seeds and cases entry by entry, in parentheses before they are
reduced: `(A - B):min`. `all.gates` are the gates of all files. A value is compared at the digits that the page states.

A table between `<!-- figures: NAME -->` and `<!-- /figures -->` is made by results_page.py.

A number with a measured unit that has no origin is an error, unless definitions.toml names it with
the reason: formats, defaults, limits and sizes are defined, not measured.
"""

from __future__ import annotations

import argparse
import json
import operator
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
DEFINITIONS = Path(__file__).resolve().parent / "definitions.toml"
#: Decisions tell what was measured when they were taken; commands.md is made from the parser.
_NOT_CHECKED = ("docs/decisions/", "docs/commands.md")
#: What two lists must agree in, where their entries have it, before one is taken from the other.
_SAME = ("subject", "volume", "reference", "scan", "case", "times", "noise", "seed", "budget")
_REDUCERS: dict[str, Callable[[list[float]], float]] = {
    "mean": fmean,
    "min": min,
    "max": max,
    "median": median,
    "sum": sum,
    "count": len,
}
_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_COMPARISONS: dict[str, Callable[[Any, str], bool]] = {
    "!=": lambda value, text: not _equal(value, text),
    "=": lambda value, text: _equal(value, text),
    "~": lambda value, text: text in str(value),
    "<": lambda value, text: float(value) < float(text),
    ">": lambda value, text: float(value) > float(text),
}

_NUMBER = r"[+−-]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_ORIGIN = re.compile(rf"(?P<value>{_NUMBER})(?P<between>[^\d\s<]{{0,2}})<!-- = (?P<path>.*?) -->")
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- /figures -->)", re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_CODE = re.compile(r"^(```|~~~).*?^\1", re.S | re.M)
_INLINE = re.compile(r"`[^`\n]*`")
_WORD = r"(?:two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|forty|fifty|hundred)"
_AMOUNT = rf"(?:{_NUMBER}|\b{_WORD}\b|\b[Hh]alf\b|\b[Tt]wice\b)"
_UNIT = (
    r"(?:dB|%|×(?!\s*\d)|times|fold|HU|AUC|Dice|SSIM|PSNR|CPU s|CPU seconds|s|ms|min|h|seconds?|minutes?|"
    r"hours?|days?|[kKMG]i?B|GB|[kmg]igabytes?|bytes of|bits (?:a|per) voxel|bit/voxel)"
)
#: An amount and its unit; a bound of the pattern "half the time"; a name and its value.
_MEASURED = (
    re.compile(rf"{_AMOUNT}(?:\s(?:to|and|or|–)\s{_AMOUNT}|–{_NUMBER})?[  ]?{_UNIT}(?![\w/])"),
    re.compile(r"\b(?:[Hh]alf|[Tt]wice|a third|a quarter|a tenth|two thirds) (?:the|as|of the)\b"),
    re.compile(rf"(?:PSNR|SSIM|Dice|AUC|d′|F1)(?: of| is| =|:)? {_NUMBER}"),
    re.compile(r"(?<=\|)[\s*(±+−]*\d*\.\d+(?:[\s*/()±+−–,]|\d|\.\d|%|dB|to)*(?=\|)"),
)


class FigureError(Exception):
    """An origin that leads nowhere, or to more than one number."""


@dataclass(frozen=True)
class Figure:
    """One number of a page."""

    page: str
    line: int
    shown: str
    path: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}\t{self.shown}\t{file_of(self.path)}\t{self.path}"


@dataclass(frozen=True)
class Cell:
    """A number of a generated table: an origin, and how it is written."""

    path: str
    form: str = ".2f"
    around: str = "{}"

    def __str__(self) -> str:
        return self.around.format(written(value_of(self.path), self.form))


def written(value: float, form: str) -> str:
    """A number as the pages write it: U+2212 before what is below 0; no −0."""
    text = format(value, form)
    if not re.search("[1-9]", text):
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", "−")


# --- origins


@cache
def _record(name: str) -> Any:
    if name == "all":
        found = [_record(path.stem) for path in sorted(RESULTS.glob("*.json"))]
        return {"gates": [entry for record in found for entry in record["gates"]]}
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise FigureError(f"no result {path.name}")
    return json.loads(path.read_text(encoding="utf-8"))


def file_of(path: str) -> str:
    """The results that an origin names."""
    names = re.findall(r"(?<![\w.\[])([a-z]\w*)(?=[.\[])", re.sub(r"\[[^\]]*\]", "[]", path))
    return ", ".join(f"{name}.json" for name in dict.fromkeys(names))


@cache
def value_of(path: str) -> float:
    """The number that an origin leads to."""
    values, rest = _joined(path)
    if rest:
        raise FigureError(f"what is {rest!r} in {path!r}?")
    if len(values) != 1:
        raise FigureError(f"{len(values)} numbers at {path!r}")
    return float(values[0][0])


#: Numbers with the entries that they are from.
_Values = list[tuple[float, dict[str, Any]]]


def _joined(text: str) -> tuple[_Values, str]:
    values, rest = _term(text.lstrip())
    while match := re.match(r"\s+([+*/-])\s+", rest):
        others, rest = _term(rest[match.end() :])
        values = _combined(values, others, _OPERATORS[match[1]])
    return values, rest.strip() if not rest.startswith(")") else rest


def _combined(
    values: _Values, others: _Values, join: Callable[[float, float], float]
) -> _Values:
    if len(others) == 1 and not others[0][1]:
        others = others * len(values)
    if len(values) != len(others):
        raise FigureError(f"{len(values)} numbers against {len(others)}")
    for (_, entry), (_, other) in zip(values, others, strict=True):
        differ = [key for key in _SAME if key in entry and key in other and entry[key] != other[key]]
        if differ:
            raise FigureError(f"entries differ in {', '.join(differ)}")
    return [
        (join(value, other), entry)
        for (value, entry), (other, _) in zip(values, others, strict=True)
    ]


def _term(text: str) -> tuple[_Values, str]:
    if text.startswith("("):
        values, rest = _joined(text[1:])
        if not rest.startswith(")"):
            raise FigureError(f"no ) in {text!r}")
        return _reduced(values, rest[1:])
    if match := re.match(r"\d+(?:\.\d+)?(?:e\d+)?", text):
        return [(float(match[0]), {})], text[match.end() :]
    match = re.match(r"\w+", text)
    if match is None:
        raise FigureError(f"no origin: {text!r}")
    found, rest = [(_record(match[0]), {})], text[match.end() :]
    while rest.startswith((".", "[")):
        found, rest = _step(found, rest)
    found = [entry for value, about in found for entry in _entries(value, about)]
    return _reduced(found, rest)


def _entries(value: Any, about: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A value with what is known of it; of a list, each."""
    if isinstance(value, list):
        for one in value:
            yield one, one if isinstance(one, dict) else about
    else:
        yield value, about


def _step(found: list[tuple[Any, dict[str, Any]]], text: str) -> tuple[Any, str]:
    """Take a key of each entry, or keep those that fit."""
    every = [entry for value, about in found for entry in _entries(value, about)]
    if text.startswith("["):
        filters, _, rest = text[1:].partition("]")
        kept = [
            (value, about) for value, about in every if all(_fits(value, f) for f in filters.split("; "))
        ]
        return kept, rest
    match = re.match(r'\.(?:"([^"]+)"|(\w+))', text)
    if match is None:
        raise FigureError(f"no key: {text!r}")
    key = match[1] or match[2]
    taken = [
        (value[key], about or value)
        for value, about in every
        if isinstance(value, dict) and value.get(key) is not None
    ]
    if not taken:
        raise FigureError(f"nothing has {key!r}")
    return taken, text[match.end() :]


def _fits(value: Any, condition: str) -> bool:
    match = re.match(r"([^=!~<>]+?)(!=|=|~|<|>)(.*)$", condition)
    if match is None:
        raise FigureError(f"no condition: {condition!r}")
    key, sign, text = match.groups()
    if not isinstance(value, dict) or key not in value:
        return False
    compare = _COMPARISONS[sign]
    choices = [text, *text.split(" or ")] if " or " in text else [text]
    wanted = [compare(value[key], one) for one in choices]
    return all(wanted) if sign == "!=" else any(wanted)


def _equal(value: Any, text: str) -> bool:
    if isinstance(value, bool) or value is None:
        return json.dumps(value) == text
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return bool(value == text)


def _reduced(values: _Values, rest: str) -> tuple[_Values, str]:
    if match := re.match(r":(\w+)", rest):
        if match[1] not in _REDUCERS:
            raise FigureError(f"no way to reduce: {match[1]!r}")
        if not values:
            raise FigureError("no entry fits")
        return [(_REDUCERS[match[1]]([value for value, _ in values]), {})], rest[match.end() :]
    return values, rest


# --- pages


def pages() -> list[Path]:
    """README and the pages whose numbers are checked."""
    found = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [path for path in found if not _name(path).startswith(_NOT_CHECKED)]


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def figures_of(page: str, text: str) -> Iterator[Figure]:
    """Numbers of running text that have an origin."""
    for match in _ORIGIN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Figure(page, line, match["value"], match["path"])


def _blocks(text: str) -> Iterator[tuple[re.Match[str], Any]]:
    from results_page import TABLES

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
                for one in cell if isinstance(cell, tuple) else (cell,):
                    if isinstance(one, Cell):
                        yield Figure(page, first + 2 + number, str(one), one.path)


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


def definitions() -> list[dict[str, str]]:
    """Phrases or patterns of numbers that are defined: page, phrase or pattern, reason."""
    entries: list[dict[str, str]] = tomllib.loads(DEFINITIONS.read_text("utf-8"))["number"]
    return entries


def _without_origin(page: str, text: str) -> Iterator[str]:
    """Measured numbers that neither have an origin nor are defined."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    rest = _CODE.sub(blank, _BLOCK.sub(blank, text))
    rest = _INLINE.sub(blank, _COMMENT.sub(blank, _ORIGIN.sub(blank, rest)))
    for entry in definitions():
        if entry["page"] == page:
            pattern = entry.get("pattern") or re.escape(entry["phrase"])
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
