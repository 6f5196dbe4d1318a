"""Texts for people: sizes, durations, text that is safe for a terminal."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from MedEnhanceLib.errors import MedEnhanceError

#: Control characters except tab and line feed, characters that change the direction of writing, and
#: the lone surrogates that stand for bytes of file names which are not UTF-8.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: In errors of other libraries: a number, and advice for programmers, which may let code in.
_NO_REASON = re.compile(r"^\[Errno \d+\] |[.;]\s+(?:Consider|If|Please|Set|To|Try|Use|You)\s.*")
#: Text that a spreadsheet computes when it opens a CSV file, and may send out; but for numbers.
_FORMULA = re.compile(r"(?![+-]?\d*\.?\d+(?:[eE][+-]?\d+)?$)\s*[=+@＝＋－＠-]|\t")

#: Parts of a hint that concern the command line: " (--device cpu, …)", " (medenhance doctor)".
_FOR_COMMAND_LINES = re.compile(r" \((?:[^()]*\s)?(?:--[a-z]|medenhance [a-z]|python -)[^()]*\)")
#: A sentence about an option or a command: " To have it resampled: --resample, resample=True."
_ABOUT_COMMANDS = re.compile(
    r"(?:(?<=[.!?])\s+|^)(?:(?![.!?]\s).)*(?:\s--[a-z]|\bmedenhance [a-z]|\bpip install|python -)"
    r"(?:(?![.!?]\s).)*[.!?]?",
    re.DOTALL,
)
#: A traceback up to the line that names the exception, and the sentence before a chained one.
_TRACEBACK = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*.*\n?"
    r"(?:\n(?:The above exception|During handling).*\n\n)?",
    re.MULTILINE,
)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 file", "2 files"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    r"""Escape characters that control a terminal or cannot be encoded: ESC becomes "\x1b"."""
    return CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def reason_of(error: BaseException) -> str:
    """Return the reason in the error of another library: its first line, without advice."""
    reason = _NO_REASON.sub("", str(error).strip().partition("\n")[0])
    return reason[:300] or type(error).__name__


def traceback_text(error: BaseException) -> str:
    """Format the traceback of an error, escaped by `printable`."""
    return printable("".join(traceback.format_exception(error)))


def csv_cell(value: Any) -> Any:
    """Return a value for a CSV file: text on one line, a formula behind an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value).replace("\n", "\\n")
    return f"'{text}" if _FORMULA.match(text) else text


@contextmanager
def renamed_in_errors(path: object, name: str) -> Iterator[None]:
    """Replace the temporary file `path` by `name` in the errors that pass through."""
    try:
        yield
    except MedEnhanceError as error:
        error.message = error.message.replace(str(path), name)
        error.hint = error.hint.replace(str(path), name)
        raise


def without_commands(text: str) -> str:
    """Remove options and commands from a message or hint, for users of the panel."""
    return _ABOUT_COMMANDS.sub("", _FOR_COMMAND_LINES.sub("", text)).strip()


def without_tracebacks(text: str) -> str:
    """Remove Python's tracebacks from a log, for users who do not program."""
    return _TRACEBACK.sub("", text).strip()


def sentence(text: str) -> str:
    """Begin a message with a capital letter, unless a name begins it, and end it with a period."""
    # "scan.ucv is damaged": names stay as they are.
    is_name = re.match(r"\S*(_|-|:\s|\.\S)", text)
    begin = text[:1] if is_name else text[:1].upper()
    return f"{begin}{text[1:].rstrip('. ')}."


def cell_text(value: Any) -> str:
    """Format a value for a table: numbers with four digits, None as a dash."""
    if isinstance(value, int | float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "–" if value is None else str(value)


def sides_text(shape: Sequence[int]) -> str:
    """Format the sides of a grid [K, J, I] as columns × rows × slices: "102 × 102 × 18"."""
    return " × ".join(f"{side:.5g}" for side in shape[:-4:-1])


def grid_text(shape: Sequence[int]) -> str:
    """Describe a grid, [K, J, I] or [T, K, J, I], with the names of its sides."""
    frames = f"{shape[0]} frames of " if len(shape) > 3 and shape[0] > 1 else ""
    return f"{frames}{sides_text(shape)} (columns × rows × slices)"


def size_text(count: int) -> str:
    """Format a number of bytes: "17.1 MB" (decimal, as in file managers)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.{0 if count >= 100 * size else 1}f} {unit}"
    return f"{count} bytes"


def loss_text(figures: Mapping[str, Any]) -> str:
    """Describe the loss of a compression: "largest error 3, PSNR 51.2 dB".

    figures: max_error in the units of the volume and, if known, psnr in dB.
    """
    if not figures.get("max_error"):
        return "every voxel is equal"
    text = f"largest error {cell_text(figures['max_error'])}"
    return text + (f", PSNR {figures['psnr']:.1f} dB" if figures.get("psnr") else "")


def duration_text(seconds: float) -> str:
    """Format a duration: "40 s", "3 min", "2 h 5 min", "3 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes >= 2880:
        return f"{minutes / 1440:.0f} days"
    return (
        f"{minutes} min"
        if minutes < 90
        else f"{minutes // 60} h {minutes % 60} min".replace(" 0 min", "")
    )
