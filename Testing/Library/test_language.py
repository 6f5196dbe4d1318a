"""Plain language: docs/glossary.md lists words that are not used, and US spelling is the rule."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_GLOSSARY = ROOT / "docs/glossary.md"
#: Decisions and measured pages are records of their time.
_RECORDS = ("docs/decisions", "docs/benchmarks", "docs/recipes")
#: Names that are keys of recipes and of saved models.
_KEYS = ("labelled_share", "centre")
#: The commonest British spellings; keys in files that exist keep theirs ("licence").
_BRITISH = (
    "behaviour colour grey neighbour neighbouring neighbourhood normalise normalisation optimiser "
    "quantiser quantise centre labelled labelling millimetre catalogue artefact recognise analyse "
    "initialise summarise distil favour"
)


def _unused_words() -> list[str]:
    rows = _GLOSSARY.read_text(encoding="utf-8").partition("## Words that are not used")[2]
    cells = re.findall(r"^\| (?!not \|)([a-z][^|]*) \|", rows, flags=re.MULTILINE)
    return [word.strip() for cell in cells for word in cell.split(",")]


def _pattern(words: list[str]) -> re.Pattern[str]:
    """Finds the words also as parts of names: told, _told, was_told, isTold."""
    lower = "|".join(words)
    camel = "|".join(word.title().replace(" ", "") for word in words)
    return re.compile(rf"(?<![A-Za-z])(?i:{lower})(?![a-z])|(?<=[a-z])(?:{camel})(?![a-z])")


def _files() -> list[Path]:
    places = ("MedEnhanceLib/**/*.py", "MedEnhance/**/*.py", "MedEnhance/**/*.ui", "docs/**/*.md")
    found = [path for place in places for path in sorted(ROOT.glob(place))]
    names = {path: path.relative_to(ROOT).as_posix() for path in found}
    kept = [path for path in found if not names[path].startswith(_RECORDS) and path != _GLOSSARY]
    return [*kept, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@cache
def _lines() -> dict[str, str]:
    """Place (file and line number) → the line, of everything that is checked."""
    return {
        f"{path.relative_to(ROOT)}:{number}": line
        for path in _files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    }


def _places(pattern: re.Pattern[str]) -> list[str]:
    """Where the pattern matches, except single words in quotes: keys of files and of jobs."""
    key = re.compile(rf"""(["'`])[\w-]+\1|\b(?:{"|".join(_KEYS)})\b""")
    found = {place: line for place, line in _lines().items() if pattern.search(key.sub("", line))}
    return [f"{place}: {line.strip()[:100]}" for place, line in found.items()]


def test_the_glossary_lists_words_in_order() -> None:
    assert "told" in _unused_words() and "so many" in _unused_words()
    terms = re.findall(r"^\| ([a-z][^|]*) \|", _GLOSSARY.read_text().partition("## Words")[0], re.M)
    terms = [term for term in terms if term != "term"]
    assert terms == sorted(terms, key=str.casefold)


@pytest.mark.parametrize("word", _unused_words())
def test_private_words_are_not_used(word: str) -> None:
    places = _places(_pattern([word]))
    assert not places, f"docs/glossary.md says what to write for {word!r}:\n" + "\n".join(places)


def test_spelling_is_that_of_the_united_states() -> None:
    places = _places(_pattern(_BRITISH.split()))
    assert not places, "\n".join(places)
