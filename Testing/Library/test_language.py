"""Plain language: some words are not used, and US spelling is the rule."""

from __future__ import annotations

import re
from pathlib import Path

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


def _places(words: list[str]) -> list[str]:
    """File, line number and line of each match; single words in quotes are keys, and left out."""
    pattern, key = _pattern(words), re.compile(r"""(["'`])[\w-]+\1""")
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in _files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(key.sub("", line))
    ]


def test_private_words_are_not_used() -> None:
    places = _places(list(_UNUSED))
    assert not places, f"write instead, of {_UNUSED}:\n" + "\n".join(places)


def test_spelling_is_that_of_the_united_states() -> None:
    places = _places(_BRITISH.split())
    assert not places, "\n".join(places)
