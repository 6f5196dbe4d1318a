"""Texts by key: each is used, travels as JSON, and can be written in another language."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import MedEnhanceLib
from MedEnhanceLib.runtime.dependencies import has_training
from MedEnhanceLib.runtime.texts import TEMPLATES, Text, text


def test_each_template_is_used_and_each_key_has_one() -> None:
    if has_training():
        import_module("MedEnhanceLib.training.spg")  # which adds its own
    files = Path(MedEnhanceLib.__file__).parent.rglob("*.py")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r'"([a-z][a-z_-]+)"', sources))
    bare = {key: key.removeprefix("error-").removesuffix("-hint") for key in TEMPLATES}
    assert [key for key, name in bare.items() if name not in named] == []
    made = set(re.findall(r'\b(?:text|Text|ModelWarning|frames_warning)\(\s*"([^"]+)"', sources))
    assert made <= TEMPLATES.keys()


def test_a_text_travels_with_the_texts_in_it_and_is_written_by_other_templates() -> None:
    uncertain = text("uncertain", done=text("removed", changed="±3 HU"), reason=text("unsure"))
    read = Text.from_json(json.loads(json.dumps(uncertain.to_json())))
    assert read == uncertain and str(read) == uncertain.to_json()["sentence"]
    german = TEMPLATES | {
        "uncertain": "unsicher ({reason}): {done}",
        "removed": "{changed} fort",
    }
    said = "unsicher (it cannot be measured with certainty): ±3 HU fort"
    assert read.said(german.__getitem__) == said
    assert uncertain.given(done="x").numbers == {"done": "x", "reason": text("unsure")}


@pytest.mark.parametrize(
    "value",
    [
        "as it is",
        {"key": "of a later version", "numbers": {}, "sentence": "as it is"},
        {"key": "frames_apart", "numbers": {"frames": 3}, "sentence": "as it is"},
        {"key": "frames_move", "numbers": {"movement": "much"}, "sentence": "as it is"},
        {"key": "weak", "sentence": "as it is"},
        {"key": ["weak"], "numbers": {}, "sentence": "as it is"},
    ],
)
def test_what_cannot_be_written_by_its_key_is_left_as_it_is(value: Any) -> None:
    assert str(Text.from_json(value)) == "as it is"
