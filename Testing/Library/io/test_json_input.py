"""JSON of other programs: read where it can be written again, else refused or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedEnhanceLib.cli.parser import read_config
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.json_input import read_json
from MedEnhanceLib.jobs.events import parse_line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'{{"a": {{"b": [1, {number}]}}}}', "a.b is not a finite number")
        for number in ("NaN", "Infinity", "-1e400")
    ]
    + [
        ('{"a": %s}' % ("9" * 5000), "a is .*too many digits"),
        ('{"a": %s}' % ("[" * 500 + "]" * 500), "nested too deeply"),
        ('{"a": %s}' % ("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    ],
)  # fmt: skip
def test_configurations_and_jobs_with_what_json_lacks_are_refused_by_name(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "c.json").write_text(text)
    for read in (lambda: read_config(str(tmp_path / "c.json")), lambda: parse_line(text.encode())):
        with pytest.raises(ConfigError, match=says):
            read()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_encoding_of_json_and_a_name_given_twice_are_read(
    tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "a.json").write_text('{"a": 1, "a": "é", "b": NaN}', encoding=encoding)
    lost: list[str] = []
    assert read_json(tmp_path / "a.json", lost) == {"a": "é", "b": None}
    assert lost == ["b"]
