"""Texts as people read them, and what is left out for who uses a window."""

from __future__ import annotations

import traceback

import pytest

from MedEnhanceLib.core.manifest import warnings_of
from MedEnhanceLib.runtime.text import csv_cell, reason_of, without_commands, without_tracebacks


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


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        (" +cmd|'/c calc'!A1", "' +cmd|'/c calc'!A1"),
        ("\t=1", "'\t=1"),
        ("-", "'-"),
        ("＝1", "'＝1"),
        ("-3.2", "-3.2"),
        ("+1e-5", "+1e-5"),
        (-3.2, -3.2),
        (None, None),
        ("", ""),
        ("a=b, c", "a=b, c"),
        ("two\nlines\r\x1b[2J", "two\\nlines\\x0d\\x1b[2J"),
    ],
)
def test_a_cell_of_a_table_is_no_formula_and_one_line(value: object, cell: object) -> None:
    assert csv_cell(value) == cell


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("It is cut short. Use force=True to force reading."), "It is cut short"),
        (
            ValueError("It is pickled. If you trust it; You can set allow_pickle=True"),
            "It is pickled",
        ),
        (ValueError("Specific Character Set is 3"), "Specific Character Set is 3"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (RuntimeError("\n"), "RuntimeError"),
    ],
)
def test_advice_of_other_libraries_is_not_passed_on(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


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
    assert [(level, *map(str, texts)) for level, *texts in warnings_of(manifest)] == [
        ("severe", "no structure", "check it"),
        ("warning", "clean", "gain little"),
        ("warning", "more", ""),
    ]
    for edited in ({"warnings": ["odd"]}, {"warnings": 7}, {"warnings": {}}, 3):
        assert warnings_of({"results": edited, "warnings": 7}) == []
