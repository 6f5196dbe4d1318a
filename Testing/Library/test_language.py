"""Plain language: docs/glossary.md lists words that are not used, and US spelling is the rule."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_GLOSSARY = ROOT / "docs/glossary.md"
#: Names that are keys of recipes and of saved models.
_KEYS = ("labelled_share", "centre")
#: The commonest British spellings; keys in files that exist keep theirs ("licence").
_BRITISH = (
    "behaviour colour grey neighbour neighbouring neighbourhood normalise normalisation optimiser "
    "quantiser quantise centre labelled labelling millimetre catalogue artefact recognise analyse "
    "initialise summarise distil favour tumour"
)


def _unused_words() -> list[str]:
    rows = _GLOSSARY.read_text(encoding="utf-8").partition("## Words that are not used")[2]
    cells = re.findall(r"^\| (?!not \|)([a-z][^|]*) \|", rows, flags=re.MULTILINE)
    return [word.strip() for cell in cells for word in cell.split(",")]


def _pattern(words: list[str]) -> re.Pattern[str]:
    """Finds the words also as parts of names: told, _told, was_told, isTold, TOLD."""
    lower = "|".join(re.sub(" ", "[ _]", word) for word in words)
    camel = "|".join(word.title().replace(" ", "") for word in words)
    end = r"(?![a-z]|(?<=[A-Z])[A-Z])"
    return re.compile(rf"(?<![A-Za-z])(?i:{lower}){end}|(?<=[a-z])(?:{camel}){end}")


def _files() -> list[Path]:
    found = [
        path
        for folder in ("MedEnhanceLib", "MedEnhance", "Testing", "docs")
        for kind in ("*.py", "*.ui", "*.md")
        for path in sorted((ROOT / folder).rglob(kind))
        if path not in (_GLOSSARY, Path(__file__).resolve())
    ]
    return [*found, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@cache
def _texts() -> dict[Path, tuple[str, str]]:
    """Everything that is checked, without single words in quotes: keys of files and of jobs.

    As it is, and in lower case, in which words are looked for quickly.
    """
    key = re.compile(rf"""(["'`])[\w-]+\1|\b(?:{"|".join(_KEYS)})\b""")
    texts = {path: key.sub("", path.read_text(encoding="utf-8")) for path in _files()}
    return {path: (text, text.lower()) for path, text in texts.items()}


def _places(words: list[str]) -> list[str]:
    """File, line number and line of each match."""
    found = []
    pattern, starts = _pattern(words), [word.split()[0] for word in words]
    for path, (text, lower) in _texts().items():
        if not any(start in lower for start in starts):
            continue
        lines = text.splitlines()
        for number in dict.fromkeys(text[: m.start()].count("\n") for m in pattern.finditer(text)):
            place = f"{path.relative_to(ROOT)}:{number + 1}"
            found.append(f"{place}: {lines[number].strip()[:100]}")
    return found


def test_the_glossary_lists_words_in_order() -> None:
    assert "told" in _unused_words() and "so many" in _unused_words()
    terms = re.findall(r"^\| ([a-z][^|]*) \|", _GLOSSARY.read_text().partition("## Words")[0], re.M)
    terms = [term for term in terms if term != "term"]
    assert terms == sorted(terms, key=str.casefold)


@pytest.mark.parametrize("word", _unused_words())
def test_private_words_are_not_used(word: str) -> None:
    places = _places([word])
    assert not places, f"docs/glossary.md says what to write for {word!r}:\n" + "\n".join(places)


def test_spelling_is_that_of_the_united_states() -> None:
    places = _places(_BRITISH.split())
    assert not places, "\n".join(places)
