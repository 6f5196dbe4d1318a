"""Lines over pipes."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.worker.events import LineWriter, read_lines
from MedEnhanceLib.jobs.worker.worker import parse_line


def _lines_of(data: bytes, longest: int) -> list[bytes | None]:
    reading, writing = os.pipe()

    def write() -> None:
        os.write(writing, data)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    lines = list(read_lines(reading, longest))
    writer.join()
    os.close(reading)
    return lines


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8))
def test_lines_come_out_as_they_went_in(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    expected = [line.rstrip(b"\r") if len(line) <= 8 else None for line in lines]
    assert _lines_of(data, longest=8) == expected


def test_a_long_line_is_reported_once_and_the_next_one_is_received() -> None:
    assert _lines_of(b"x" * 300_000 + b"\nok\n", longest=1000) == [None, b"ok"]


def test_a_reader_that_went_away_is_reported_once_and_nothing_raises() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    calls: list[int] = []
    writer = LineWriter(writing, lambda: calls.append(1))
    writer.write(b"a\n")
    writer.write(b"b\n")
    os.close(writing)
    assert calls == [1]


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_no_line_gets_another_error_than_ours(line: bytes) -> None:
    try:
        fields = parse_line(line)
    except ConfigError as error:
        assert error.hint
    else:
        assert fields is None or isinstance(fields, dict)


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b"9" * 10_000, b'{"v": NaN}', b'"text"', b"\xff\xfe", b"null", None],
)
def test_hostile_lines_are_refused(line: bytes | None) -> None:
    with pytest.raises(ConfigError):
        parse_line(line)
