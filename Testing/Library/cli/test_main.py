"""Statuses, messages and JSON of every command; help and its pages; no early heavy import."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib import errors
from MedEnhanceLib.cli import console, volumes
from MedEnhanceLib.cli.console import Console
from MedEnhanceLib.cli.main import build_parser, main
from MedEnhanceLib.jobs.job import JOBS
from MedEnhanceLib.runtime.progress import Event

ROOT = Path(__file__).resolve().parents[3]
MAKER = runpy.run_path(str(ROOT / "docs/commands.py"))
ALL = dict(MAKER["commands"](build_parser()))


@pytest.fixture
def inspect_by(run: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `medenhance inspect scan.nii` with options, which does something else."""

    def run_inspect(work: Callable, *options: str) -> Any:
        command = replace(volumes.INSPECT, run=work)
        monkeypatch.setattr("MedEnhanceLib.cli.main.COMMANDS", (command,))
        return run("inspect", "scan.nii", *options)

    return run_inspect


def failing(cause: BaseException) -> Callable[[Any], int]:
    def fail(_: Any) -> int:
        raise cause

    return fail


@pytest.mark.parametrize("name", ALL)
def test_help_has_a_description_and_an_example_of_its_own(name: str, run: Callable) -> None:
    words = name.split()[1:]
    ran = run(*words, "--help")
    assert ran.status == 0
    assert ran.out.startswith(f"usage: {name}")
    assert len(ALL[name].description or "") > 30
    program, *example = shlex.split((ALL[name].epilog or "").removeprefix("example:"))
    assert program == "medenhance"
    assert example[: len(words)] == words
    assert build_parser().parse_args(example).command == words[0]


def test_an_error_has_its_status_message_and_hint(inspect_by: Callable) -> None:
    fail = failing(errors.DependencyError("scan.nii: row 3 is odd", "Turn it round."))
    ran = inspect_by(fail)
    assert ran.status == 4
    assert ran.out == ""
    assert ran.err == "error: scan.nii: row 3 is odd\nTurn it round.\n"
    as_json = inspect_by(fail, "--json")
    assert as_json.status == 4
    assert as_json.err == ""
    assert as_json.json == {
        "ok": False,
        "command": "inspect",
        "error": {
            "code": "dependency",
            "message": "scan.nii: row 3 is odd",
            "hint": "Turn it round.",
        },
    }


@pytest.mark.parametrize(
    ("cause", "status", "words"),
    [
        (ValueError("x"), 1, "failed unexpectedly: ValueError: x"),
        (KeyboardInterrupt(), 130, "cancelled"),
        (MemoryError(), 5, "memory ran out"),
    ],
)
def test_what_nobody_foresaw_is_a_sentence(
    cause: BaseException, status: int, words: str, inspect_by: Callable
) -> None:
    ran = inspect_by(failing(cause))
    assert ran.status == status
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert ("--debug" in ran.err) is (status == 1)
    assert "Traceback" in inspect_by(failing(cause), "--debug").err
    assert "\x1b" not in inspect_by(failing(type(cause)("\x1b[2J")), "--debug").err
    assert inspect_by(failing(cause), "--json").json["error"]["message"]


def test_a_package_that_is_missing_or_broken_is_named_whoever_imports_it(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('libopenblas.so: none')")
    missing = "not installed\nInstall it with: python -m pip install 'numpy'\n"
    broken = "installed, but cannot be loaded: libopenblas.so: none\n"
    for spoil, says in (
        ("sys.modules['numpy'] = None", missing),
        (f"sys.path.insert(0, {str(tmp_path)!r})", broken),
    ):
        program = f"import sys\n{spoil}\nfrom MedEnhanceLib.cli.main import main\n"
        command = [sys.executable, "-c", f"{program}sys.exit(main(['inspect', 'a']))"]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 4
        assert ran.stderr.startswith(f"error: the package numpy is {says}")


def test_what_libraries_print_stays_out_of_the_json(inspect_by: Callable) -> None:
    def chatty(args: Any) -> int:
        print("a library says hello")
        return int(args.console.report({"value": float("inf")}, "text"))

    ran = inspect_by(chatty, "--json")
    assert ran.json == {"ok": True, "command": "inspect", "value": None}
    assert "hello" in ran.err


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from MedEnhanceLib.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'numpy', 'torch', 'SimpleITK', 'matplotlib', 'monai', 'tqdm'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    began = os.times()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    ended = os.times()
    if os.name != "nt":  # seconds of the processor: other processes may be busy
        spent = ended.children_user - began.children_user
        assert spent + ended.children_system - began.children_system < 0.3


#: `medenhance inspect` that does other work, which never ends by itself.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a run in the background lacks
from dataclasses import replace
from MedEnhanceLib import __main__
from MedEnhanceLib.cli import main, volumes
WORK
main.COMMANDS = (replace(volumes.INSPECT, run=run),)
__main__.console()
"""
_LISTENING = """
def listen(event):
    if event.kind == "started":
        print("ready", file=sys.stderr, flush=True)
def run(args):
    args.console.show_event = listen
    args.console.run("ping", {"count": 1, "seconds": 600.0})
"""
#: A job whose work does not let Python answer signals, as compiled code may.
_DEAF = """
import hashlib
from MedEnhanceLib.cli.console import interruptible
def work(cancel):
    print("ready", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
def run(args):
    interruptible(work)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(
    ("work", "numbers"),
    [
        (_LISTENING, (signal.SIGINT,)),
        (_LISTENING, (signal.SIGTERM,)),
        pytest.param(_DEAF, (signal.SIGINT, signal.SIGINT), marks=pytest.mark.slow),
        pytest.param(_DEAF, (signal.SIGTERM,), marks=pytest.mark.slow),
    ],
)
def test_interrupt_stops_with_status_130(work: str, numbers: tuple[signal.Signals, ...]) -> None:
    command = [sys.executable, "-c", _PROGRAM.replace("WORK", work), "inspect", "x.nii", "--json"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert process.stderr.readline() == "ready\n"
    process.send_signal(numbers[0])
    said = ""
    for number in numbers[1:]:
        while not said.endswith("at once)\n"):  # which answers the first one
            assert process.poll() is None, said
            said += process.stderr.readline()
        process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert ("Ctrl-C again" in said + err) == (numbers[0] == signal.SIGINT)
    assert "Traceback" not in said + err
    if work is _LISTENING:
        assert json.loads(out)["error"]["code"] == "cancelled"
    else:
        assert "stopping" in said + err


def test_main_never_raises_for_any_arguments() -> None:
    for arguments in (["--"], ["inspect", ""], ["\udce9"], ["convert", "a", "a"], ["-h", "x"]):
        assert main(arguments) in (0, 1, 2, 3)


def test_the_page_of_commands_has_each_with_its_options() -> None:
    page = MAKER["reference"]()
    named = [name for name in ALL if not name.startswith("medenhance batch ")]
    assert [name for name in named if f"\n## {name}" not in page] == []
    assert "- `--max-error E`: " in page and "- `--sequence {auto, joint, each, repeats}`: " in page


def test_the_parameters_of_every_job_are_printed() -> None:
    """The page of jobs leads to them; programs that send jobs read them there."""
    text = MAKER["job_parameters"]()
    assert all(f"\n## {kind}\n" in text for kind in JOBS)
    assert "| `config.max_error` |" in text


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("enhance", "a", "b", "--modalty", "CT"), "--modality"),
        (("enhance", "a", "--modalty=CT"), "--modality"),
        (("enhence", "a", "b"), "enhance"),
        (("denoise", "a", "b"), "enhance"),
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


@pytest.mark.parametrize(
    "option", ["report", "series", "segment", "noise-map", "segmenter"]
)
def test_an_option_for_one_volume_is_no_misspelt_one_of_a_batch(option: str, run: Callable) -> None:
    ran = run("batch", "enhance", "scans", "--out", "better", f"--{option}", "x")
    assert ran.status == 2
    assert f"there is no option --{option}\nSee: medenhance batch enhance --help" in ran.err
    section = MAKER["reference"]().partition("\n## medenhance batch ")[2].partition("\n## ")[0]
    assert f"`--{option}`" in section.partition("\n- `enhance`: ")[2].partition("\n")[0]


@pytest.mark.parametrize("words", [("enhence", "inspect"), ()])
@pytest.mark.parametrize("command", ["batch", "segment", ""])
def test_a_wrong_command_line_names_its_command(
    command: str, words: tuple[str, ...], run: Callable
) -> None:
    ran = run(*filter(None, (command, *words, "--json", "--no-such-option")))
    assert (ran.status, ran.json["command"]) == (2, command)


def test_without_a_terminal_a_line_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.LINE_SECONDS == 10  # as the page of commands says
    monkeypatch.setattr(console, "LINE_SECONDS", 0.05)
    speaker, lines = Console(), list[str]()
    with speaker.listening():
        for fraction, stage, eta_s in ((0.3, "read", 200.0), (0.31, "read", 199.0), (0.4, "go", 9)):
            fields = {"fraction": fraction, "stage": stage, "eta_s": eta_s}
            speaker.show_event(Event("progress", fields))
            time.sleep(0.2)
            lines += re.findall(r"\d+:\d\d: (\d+% .*)", capsys.readouterr().err)
    assert [line for line in lines if "loading" not in line] == [
        "30% read, about 3 min left",
        "40% go, about 9 s left",
    ]


def test_a_file_that_is_named_like_a_command_keeps_its_case(
    run: Callable,
) -> None:
    asked = run("inspect", "Demo")
    assert (asked.status, "Demo does not exist" in asked.err) == (3, True)


def test_a_warning_is_said_once_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    speaker = Console()
    for message in ("a.nii: looks like MR", "a.nii: looks like MR", "b.nii: looks like CT"):
        speaker.show_event(Event("warning", {"message": message}))
    assert speaker.warnings == ["a.nii: looks like MR", "b.nii: looks like CT"]
    assert capsys.readouterr().err.count("looks like MR") == 1
