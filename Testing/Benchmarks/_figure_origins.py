"""Origins of the numbers on the pages: a path into the results, and the number that it leads to.

An origin is a file in Testing/Benchmarks/results, a path in it and how many values become one:
`.key` takes a value, of each entry of a list too; `[key=value; …]` keeps the entries that have it
(`!=`, `~` for "contains", `<`, `>`, alternatives with ` or `); `:mean`, `:min`, `:max`, `:median`,
`:sum` and `:count` reduce a list; `:off` is the mean distance from 1, `:halved` the share below .5;
`:left` is the share of an error that a mean gain in dB leaves;
`:volumes` counts volumes, and `:low` and `:high` are the ends of the 95 % interval of the mean over
them. `psnr_at(VOLUME; RATIO; CODECS)` is the PSNR of the best of some codecs at the bytes of our
file. Origins and numbers are joined by + - * /, from left to right;
two lists of the same subjects, seeds and cases entry by entry, in parentheses before they are
reduced: `(A - B):min`. `all.gates` are the gates of all files.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from _compression_curves import curve, psnr_at
from _enhancement_statistics import interval

RESULTS = Path(__file__).resolve().parent / "results"
#: What two lists must agree in, where their entries have it, before one is taken from the other.
_SAME = ("subject", "volume", "reference", "scan", "case", "times", "noise", "seed", "budget")
_REDUCERS: dict[str, Callable[[list[float]], float]] = {
    "mean": fmean,
    "min": min,
    "max": max,
    "median": median,
    "sum": sum,
    "count": len,
    "off": lambda values: fmean(abs(value - 1) for value in values),
    "halved": lambda values: fmean(value < 0.5 for value in values),
    "left": lambda values: 10 ** (-fmean(values) / 20),
}
#: Fields that name the volume of an entry.
_VOLUME = ("subject", "volume", "scan", "reference")
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
    "!~": lambda value, text: text not in str(value),
    "<": lambda value, text: float(value) < float(text),
    ">": lambda value, text: float(value) > float(text),
}


class FigureError(Exception):
    """An origin that leads nowhere, or to more than one number."""


@dataclass(frozen=True)
class Cell:
    """A number of a generated table: an origin, and how it is written."""

    path: str
    form: str

    def __str__(self) -> str:
        return written(value_of(self.path), self.form)


def written(value: float, form: str) -> str:
    """A number as the pages write it: U+2212 before what is below 0; no −0."""
    text = format(value, form)
    if not re.search("[1-9]", text):
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", "−")


@cache
def record(name: str) -> Any:
    """The results of one script; `all` has the gates of all."""
    if name == "all":
        files = [record(path.stem) for path in sorted(RESULTS.glob("*.json"))]
        return {"gates": [entry for file in files for entry in file["gates"]]}
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


#: Values, each with the entry that it is from.
_Found = list[tuple[Any, dict[str, Any]]]
#: Entries that fit, by the path that led to them: many numbers are of the same ones.
_KEPT: dict[str, _Found] = {}
#: Numbers with the entries that they are from.
_Values = list[tuple[float, dict[str, Any]]]


def _joined(text: str) -> tuple[_Values, str]:
    values, rest = _term(text.lstrip())
    while match := re.match(r"\s+([+*/-])\s+", rest):
        others, rest = _term(rest[match.end() :])
        values = _combined(values, others, _OPERATORS[match[1]])
    return values, rest.strip() if not rest.startswith(")") else rest


def _combined(values: _Values, others: _Values, join: Callable[[float, float], float]) -> _Values:
    if len(others) == 1 and not others[0][1]:
        others = others * len(values)
    if len(values) != len(others):
        raise FigureError(f"{len(values)} numbers against {len(others)}")
    for (_, entry), (_, other) in zip(values, others, strict=True):
        both = [key for key in _SAME if key in entry and key in other]
        differ = [key for key in both if entry[key] != other[key]]
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
    if match := re.match(r"psnr_at\(([^;)]+); (\d+); ([^;)]+)\)", text):
        return [(_psnr_at(*match.groups()), {})], text[match.end() :]
    match = re.match(r"\w+", text)
    if match is None:
        raise FigureError(f"no origin: {text!r}")
    entries, rest = [(record(match[0]), {})], text[match.end() :]
    while rest.startswith((".", "[")):
        entries, rest = _step(entries, text[: len(text) - len(rest)], rest)
    entries = [entry for value, about in entries for entry in _entries(value, about)]
    return _reduced(entries, rest)


def _psnr_at(volume: str, setting: str, codecs: str) -> float:
    """The best PSNR of some codecs at the bytes of our file, read between their qualities."""
    path = f"compression.rows[volume={volume}; mode=ratio; codec=ours; setting={setting}].bytes"
    rows, size = record("compression")["rows"], value_of(path)
    known = [psnr_at(curve(rows, volume, codec), size) for codec in codecs.split(" or ")]
    reached = [psnr for psnr in known if psnr is not None]
    if not reached:
        raise FigureError(f"no codec of {codecs} reaches {setting} on {volume}")
    return max(reached)


def _entries(value: Any, about: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A value with what is known of it; of a list, each."""
    if isinstance(value, list):
        for member in value:
            yield member, member if isinstance(member, dict) else about
    else:
        yield value, about


def _step(entries: _Found, before: str, text: str) -> tuple[_Found, str]:
    """Take a key of each entry, or keep those that fit; before: the path that led to them."""
    if text.startswith("["):
        conditions, _, rest = text[1:].partition("]")
        for condition in conditions.split("; "):
            before = f"{before}[{condition}]"
            if before not in _KEPT:
                every = [entry for value, about in entries for entry in _entries(value, about)]
                fits = _condition(condition)
                _KEPT[before] = [
                    entry for entry in every if isinstance(entry[0], dict) and fits(entry[0])
                ]
            entries = _KEPT[before]
        return entries, rest
    match = re.match(r'\.(?:"([^"]+)"|(\w+))', text)
    if match is None:
        raise FigureError(f"no key: {text!r}")
    key = match[1] or match[2]
    taken = [
        (value[key], about or value)
        for value, about in (entry for value, about in entries for entry in _entries(value, about))
        if isinstance(value, dict) and value.get(key) is not None
    ]
    if not taken:
        raise FigureError(f"nothing has {key!r}")
    return taken, text[match.end() :]


def _condition(text: str) -> Callable[[dict[str, Any]], bool]:
    match = re.match(r"([^=!~<>]+?)(!=|!~|=|~|<|>)(.*)$", text)
    if match is None:
        raise FigureError(f"no condition: {text!r}")
    key, compare, stated = match[1], _COMPARISONS[match[2]], match[3]
    choices = [stated, *stated.split(" or ")] if " or " in stated else [stated]
    reduce = all if match[2] == "!=" else any
    return lambda entry: key in entry and reduce(compare(entry[key], one) for one in choices)


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
        if match[1] not in (*_REDUCERS, "volumes", "low", "high"):
            raise FigureError(f"no way to reduce: {match[1]!r}")
        if not values:
            raise FigureError("no entry fits")
        if match[1] not in _REDUCERS:
            return [(_over_volumes(match[1], values), {})], rest[match.end() :]
        return [(_REDUCERS[match[1]]([value for value, _ in values]), {})], rest[match.end() :]
    return values, rest


def _over_volumes(what: str, values: _Values) -> float:
    """How many volumes the values are of, or an end of the interval of their mean."""
    groups: dict[Any, list[float]] = {}
    for value, entry in values:
        name = next((entry[key] for key in _VOLUME if key in entry), None)
        groups.setdefault(name, []).append(value)
    if what == "volumes":
        return len(groups)
    return interval([np.array(group) for group in groups.values()])[what == "high"]
