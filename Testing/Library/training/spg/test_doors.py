"""The command and the Python function."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.cli.main import main

Run = Callable[..., tuple[int, dict[str, Any], str]]
OPTIONS = ("--preset", "smoke", "--method", "matching", "--held-out", "0", "--device", "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json: status, its object, what it said."""

    def command(*words: str | Path) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        status = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out), err

    return command


@pytest.mark.slow
def test_the_command_gives_what_the_function_gives(
    people: Path, whole: Path, run: Run, tmp_path: Path
) -> None:
    status, reported, _ = run("distill", people, tmp_path / "a", *OPTIONS)
    assert status == 0
    assert (reported["volumes"], reported["patients"], reported["held_out"]) == (4, 4, 0)
    assert reported["audit"]["alarm"] is None
    assert "warnings" in reported
    status, reported, _ = run("distill", people, tmp_path / "a", *OPTIONS, "--seed", "3")
    assert status == 2
    assert "started with other options (seed)" in reported["error"]["message"]
    for name in ("volumes/0003.nii.gz", "manifest.json", "PRIVACY.md"):
        assert (tmp_path / "a" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("{people}", "{people}/out", "--preset", "smoke"), 1, "among the patients"),
        (("{people}", "{tmp}/o", "--prior", "nowhere.nii"), 2, "nowhere.nii"),
        (("{tmp}", "{tmp}x", "--preset", "smoke"), 3, "{tmp}"),
        (("{people}", "{whole}/more", "--preset", "smoke"), 1, "a distilled set"),
    ],
)
def test_what_cannot_be_distilled_is_said_and_leaves_nothing(
    words: tuple[str, ...],
    status: int,
    says: str,
    run: Run,
    people: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    filled = [word.format(people=people, whole=whole, tmp=tmp_path) for word in words]
    ran, reported, _ = run("distill", *filled)
    assert ran == status
    assert says.format(tmp=tmp_path.name) in reported["error"]["message"]
    assert not [*whole.glob("more*")]


def test_a_finished_set_is_not_said_to_be_written_again(
    people: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(whole, tmp_path / "a")
    for words in ("stated another license in", "nothing changed in"):
        command = ["distill", people, out, *OPTIONS, "--license", "CC0-1.0"]
        assert main([str(word) for word in command]) == 0
        said = capsys.readouterr().out
        assert f"{words} {out}" in said and "wrote" not in said and "**" not in said
