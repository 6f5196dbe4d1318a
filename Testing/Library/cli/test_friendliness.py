"""What makes the command line kind: misspelled words, long silences, odd zeros."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from MedEnhanceLib.cli import console
from MedEnhanceLib.cli.console import Console
from MedEnhanceLib.runtime.progress import Event


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("enhance", "a", "b", "--modalty", "CT"), "--modality"),
        (("enhance", "a", "--modalty=CT"), "--modality"),
        (("compress", "a", "b", "--loosless"), "--lossless"),
        (("batch", "compress", "x", "--out", "y", "--max-eror", "2"), "--max-error"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(
    words: tuple[str, ...], meant: str, run: Callable
) -> None:
    ran = run(*words)
    assert ran.status == 2
    assert f"Did you mean {meant}?" in ran.err


def test_a_word_like_no_other_gets_no_guess(run: Callable) -> None:
    ran = run("enhance", "a", "b", "--zzzzzz")
    assert "there is no option --zzzzzz" in ran.err
    assert "Did you mean" not in ran.err
    assert "too much was given: c" in run("enhance", "a", "b", "c").err


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def _progress(fraction: float, eta: float | None) -> Event:
    return Event("progress", {"fraction": fraction, "stage": "compress", "eta_s": eta})


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    speaker = Console()
    with speaker.listening():
        for second in range(31):
            clock[0] = 100.0 + second
            speaker.show_event(_progress(second / 100, None if second < 15 else 200.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "10% compress",
        "20% compress, about 3 min left",
        "30% compress, about 3 min left",
    ]


def test_a_warning_is_said_once_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    speaker = Console()
    for message in ("a.nii: looks like MR", "a.nii: looks like MR", "b.nii: looks like CT"):
        speaker.show_event(Event("warning", {"message": message}))
    assert speaker.warnings == ["a.nii: looks like MR", "b.nii: looks like CT"]
    assert capsys.readouterr().err.count("looks like MR") == 1
