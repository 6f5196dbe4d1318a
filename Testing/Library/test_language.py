"""Plain language: some words are not used, and US spelling is the rule."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Words that this project does not use, and what to write in their place.
_UNUSED = {
    "told": "reports, states, records, warns",
    "tells": "reports, states, records, warns",
    "telling": "reports, states, records, warns",
    "so many": "the number itself, or *that number of*",
    "doubt": "warning, uncertain",
    "doubtful": "warning, uncertain",
    "wish": "request, option",
    "wishes": "request, option",
    "wished": "request, option",
    "hears": "receives, listener",
    "heard": "receives, listener",
    "promise": "error bound, target, compression mode",
    "promises": "error bound, target, compression mode",
    "promised": "error bound, target, compression mode",
    "look twice": "warning",
    "unasked": "without a request, by default",
    "what it is worth": "how well it performs",
    "thin doors": "entry points",
    "goes home": "ends after idle time",
}
#: The commonest British spellings.
_BRITISH = (
    "behaviour colour grey neighbour neighbouring neighbourhood normalise normalisation optimiser "
    "quantiser quantise centre labelled labelling millimetre catalogue artefact recognise analyse "
    "initialise summarise distil favour tumour"
)


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
        if path != Path(__file__).resolve()
    ]
    return [*found, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@cache
def _texts() -> dict[Path, tuple[str, str]]:
    """Everything that is checked, without single words in quotes: keys of files and of jobs.

    As it is, and in lower case, in which words are looked for quickly.
    """
    key = re.compile(r"""(["'`])[\w-]+\1""")
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


def test_the_glossary_is_in_order() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    terms = [term for term in re.findall(r"^\| ([a-z][^|]*) \|", text, re.M) if term != "term"]
    assert terms == sorted(terms, key=str.casefold)


@pytest.mark.parametrize("word", _UNUSED)
def test_private_words_are_not_used(word: str) -> None:
    places = _places([word])
    assert not places, f"in place of {word!r} write {_UNUSED[word]}:\n" + "\n".join(places)


def test_spelling_is_that_of_the_united_states() -> None:
    places = _places(_BRITISH.split())
    assert not places, "\n".join(places)
