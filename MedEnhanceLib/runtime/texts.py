"""Sentences that users read, by key: one template for each, with its numbers as arguments.

    str(text("clean", level="SNR 85"))  # "clean (SNR 85): hardly anything to do"

Manifests and events hold key and numbers beside the sentence, so that a program such as the panel
can write it in another language: `Text.said` takes the templates from there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any


def read_templates(path: Path) -> dict[str, str]:
    """Read templates: key → sentence, without full stop; {…}: a number, a name, or another text."""
    templates: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return templates


#: In English; folders that nothing else needs add their own.
TEMPLATES = read_templates(Path(__file__).with_suffix(".json"))


@dataclass(frozen=True)
class Text:
    """A sentence by its key, with its numbers; `str` writes it in English.

    Attributes:
        numbers: arguments of the template: plain JSON values, or other texts.
    """

    key: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.said(TEMPLATES.__getitem__)

    def said(self, template_of: Callable[[str], str]) -> str:
        """Write the sentence; template_of: returns the template of a key, in any language."""
        numbers = {
            name: value.said(template_of) if isinstance(value, Text) else value
            for name, value in self.numbers.items()
        }
        return template_of(self.key).format(**numbers)

    def given(self, **numbers: Any) -> Text:
        """Return the text with other numbers, where it has them."""
        return replace(self, numbers={n: numbers.get(n, old) for n, old in self.numbers.items()})

    def to_json(self) -> dict[str, Any]:
        """Return key, numbers and sentence."""
        numbers = {
            name: value.to_json() if isinstance(value, Text) else value
            for name, value in self.numbers.items()
        }
        return {"key": self.key, "numbers": numbers, "sentence": str(self)}

    @classmethod
    def from_json(cls, value: Any) -> Text:
        """Read what `to_json` returned; of a later version, or edited, the sentence as it is."""
        if not isinstance(value, Mapping):
            return text("as_is", sentence=str(value))
        try:
            numbers = {
                name: cls.from_json(number) if isinstance(number, Mapping) else number
                for name, number in value["numbers"].items()
            }
            read = cls(value["key"], numbers)
            str(read)
        except (AttributeError, LookupError, TypeError, ValueError):
            return text("as_is", sentence=str(value.get("sentence", "")))
        return read


def all_of(texts: Sequence[Text]) -> Text | None:
    """Join clauses by "and"; None for none."""
    if not texts:
        return None
    return reduce(lambda first, second: text("and", first=first, second=second), texts)


def text(key: str, **numbers: Any) -> Text:
    """Return the text of a key, with its numbers."""
    return Text(key, numbers)
