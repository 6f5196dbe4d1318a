"""The page on reading says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from MedEnhanceLib.io.dicom import headers, multiframe, segmentation
from MedEnhanceLib.io.dicom.decoders import _DECODERS, syntax_name
from MedEnhanceLib.io.dicom.structure import NATIVE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "dicom" / "reading.md").read_text(encoding="utf-8")
_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.", "1.2.840.10008.1.2"


def rows(title: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    part = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_transfer_syntax_is_in_the_table_and_no_other() -> None:
    reported = {_SYNTAX + end: name for name, end, _ in rows("How pixels may be stored")}
    assert reported == {syntax: syntax_name(syntax) for syntax in (*NATIVE, *_DECODERS)}


@pytest.mark.parametrize("row", rows("What becomes of an object"), ids=lambda row: row[0])
def test_each_object_is_read_or_refused_as_the_table_says(row: list[str]) -> None:
    name, ends, outcome = row
    phrases = re.findall(r'"([^"]+)"', outcome)
    for end in ends.split(", "):
        sop_class = _CLASS + end
        reason = headers.not_an_image(sop_class)
        if sop_class in segmentation.CLASSES:
            assert reason is not None
            assert any(reason.what.startswith(phrase) for phrase in phrases)
        elif outcome.startswith("refused"):
            what = reason.what if reason else multiframe._clip(sop_class, 2).message
            assert any(phrase in what for phrase in phrases), f"{name}, {end}: {what}"
        else:
            assert reason is None
            place = headers.not_a_plane(sop_class)
            frames = multiframe._clip(sop_class, 2).message
            statement = (place.what if place else "") + frames
            assert outcome.startswith("read only") == bool(phrases)
            assert any(phrase in statement for phrase in phrases) or not phrases, (
                f"{end}: {statement}"
            )


def test_every_error_in_the_table_is_one_that_the_code_has() -> None:
    folder = ROOT / "MedEnhanceLib" / "io" / "dicom"
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
    phrases = [
        phrase
        for row in rows("What a file must keep to")
        for phrase in re.findall(r"`([^`]+)`", row[1])
    ]
    assert len(phrases) > 15
    assert [phrase for phrase in phrases if phrase not in code] == []
