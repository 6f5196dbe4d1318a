"""Texts as people read them, and what is left out for who uses a window."""

from __future__ import annotations

import traceback

import pytest

from MedEnhanceLib.core.manifest import warnings_of
from MedEnhanceLib.runtime.text import without_commands, without_tracebacks


@pytest.mark.parametrize(
    ("hint", "rest"),
    [
        ("Import it again, or remove it: medenhance models remove x.", ""),
        ("Copy it again. Or run: python -P -m MedEnhanceLib.native.build", "Copy it again."),
        ("Install it with: python -m pip install 'x'", ""),
        ("Installed: mr (see: medenhance models list). Or give it.", "Installed: mr. Or give it."),
        ("Choose the CPU as device (--device cpu).", "Choose the CPU as device."),
    ],
)
def test_what_is_said_of_commands_is_left_out(hint: str, rest: str) -> None:
    assert without_commands(hint) == rest


def test_tracebacks_are_left_out_with_those_that_led_to_them() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise ValueError("second") from cause
    except ValueError as error:
        trace = "".join(traceback.format_exception(error))
    assert without_tracebacks(f"reading\n{trace}the end") == "reading\nthe end"
    assert without_tracebacks("reading\nthe end") == "reading\nthe end"


def test_warnings_of_a_manifest_have_their_weight_also_where_it_was_edited() -> None:
    rows = [
        {"code": "already-clean", "message": "clean", "hint": "gain little"},
        {"code": "no-structure", "message": "no structure", "hint": "check it"},
    ]
    manifest = {"results": {"warnings": rows}, "warnings": ["clean: gain little", "more"]}
    assert warnings_of(manifest) == [
        ("severe", "no structure", "check it"),
        ("warning", "clean", "gain little"),
        ("warning", "more", ""),
    ]
    for edited in ({"warnings": ["odd"]}, {"warnings": 7}, {"warnings": {}}, 3):
        assert warnings_of({"results": edited, "warnings": 7}) == []
