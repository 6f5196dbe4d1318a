"""Every number that an option takes has a range, which is checked before a file is read."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.cli.parser import Parser, add_flags
from MedEnhanceLib.core.options import About, Option, Options, Params, option, option_of, options_of
from MedEnhanceLib.degradation.pipeline import Composite
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec
from MedEnhanceLib.jobs.job import JOBS

for module in pkgutil.walk_packages(me.__path__, "MedEnhanceLib."):
    if not module.name.endswith(("__main__", ".medenhance_native")):
        importlib.import_module(module.name)


def _subclasses(cls: type) -> Iterator[type]:
    for below in cls.__subclasses__():
        if below.__module__.startswith("MedEnhanceLib."):
            yield below
            yield from _subclasses(below)


#: All declarations; of a degradation in steps each step is one itself.
DECLARATIONS = sorted(
    {cls for cls in _subclasses(Options) if cls is not Composite}, key=lambda cls: cls.__qualname__
)
ODD = [-1, 0, 2.0, math.nan, math.inf, -math.inf, "", "nan", "-inf", "a\0b", None, 10**400, True,
       object(), [], [-1], (), ("",), (math.nan, 1), {}, b"1", 1j]  # fmt: skip

ODD_BUT_OBJECTS = [odd for odd in ODD if odd != {}]


def _kinds(hint: Any) -> set[Any]:
    """Plain types in a type; those of the values of an object are not checked by it."""
    if get_origin(hint) in (dict, Callable) or dataclasses.is_dataclass(hint):
        return set()
    return set().union(*map(_kinds, get_args(hint))) if get_args(hint) else {hint}


def _numbers(value: Any) -> Iterator[Real]:
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, list | tuple):
            yield from _numbers(each)
        elif isinstance(each, Real) and not isinstance(each, bool):
            yield each


@pytest.mark.parametrize("cls", DECLARATIONS)
def test_a_number_has_both_ends_and_help_states_them(cls: type) -> None:
    for declared in options_of(cls):
        if _kinds(declared.hint) & {int, float} and not declared.choices:
            about = declared.about
            assert (about.low, about.above) != (None, None), declared.name
            assert (about.high, about.below) != (None, None), declared.name
            assert declared.range_text in declared.description
            assert declared.range_text in declared.allowed


@pytest.mark.parametrize("cls", DECLARATIONS)
def test_an_odd_value_is_allowed_by_the_range_or_refused_by_name(cls: type) -> None:
    for declared in options_of(cls):
        is_plain = _kinds(declared.hint) <= {int, float, bool, str, type(None), ...}
        if declared.hint is not Any and is_plain and not declared.choices:
            for odd in ODD if not declared.is_object else ODD_BUT_OBJECTS:
                _check_odd(declared, odd)


def _check_odd(declared: Option, odd: Any) -> None:
    try:
        value = declared.converted(odd)
        declared.check(value)
    except ConfigError as error:
        assert declared.name in error.message
        assert declared.range_text in error.hint
        assert error.hint
        return
    about = declared.about
    assert value is not None or declared.is_optional
    assert not isinstance(odd, bool) or bool in _kinds(declared.hint)
    assert odd != "" or declared.default == ""
    assert not isinstance(value, str) or "\0" not in value
    for number in _numbers(value):
        assert math.isfinite(number)
        assert about.low is None or number >= about.low
        assert about.above is None or number > about.above
        assert about.high is None or number <= about.high
        assert about.below is None or number < about.below


#: Valid parameters of jobs; none of the files exists.
VALID: dict[str, dict[str, Any]] = {
    "enhance": {"input": "no.nii.gz", "output": "o.nii.gz"},
    "segment": {"input": "no.nii.gz", "output": "o.nii.gz"},
    "compress": {"input": "no.nii.gz", "output": "o.ucv", "config": {"lossless": True}},
    "estimate": {"input": "no.nii.gz", "config": {"lossless": True}},
    "noise": {"input": "no.nii.gz"},
    "decompress": {"input": "no.ucv", "output": "o.nii.gz"},
    "degrade": {"input": "no.nii.gz", "output": "o.nii.gz"},
    "batch": {"inputs": ["no"], "output": "o"},
    "train": {"method": "hqg", "data": "no", "out": "o"},
    "distill": {"cohort": "no", "out": "o"},
    "install": {"requirements": ["a"]},
    "ping": {},
}


def _numbers_of(cls: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Option]]:
    for each in options_of(cls):
        if dataclasses.is_dataclass(each.kind):
            yield from _numbers_of(each.kind, (*path, each.name))
        elif _kinds(each.hint) & {int, float} and not each.choices:
            yield (*path, each.name), each


def _with(fields: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = path
    inner = _with(fields.get(head) or {}, tuple(rest), value) if rest else value
    return {**fields, head: inner}


@pytest.mark.parametrize(
    ("kind", "path", "declared"),
    [
        pytest.param(kind, path, declared, id=f"{kind}.{'.'.join(path)}")
        for kind in JOBS
        for path, declared in _numbers_of(JOBS[kind].params)
    ],
)
def test_a_job_with_a_number_out_of_range_is_refused_before_it_runs(
    kind: str, path: tuple[str, ...], declared: Option
) -> None:
    for number in (math.nan, math.inf, -1e300, True, "x" if declared.name != "noise" else "-1"):
        value = [number, 1] if declared.kind in (list, tuple) else number
        with pytest.raises(ConfigError) as caught:
            JobSpec(kind, _with(VALID[kind], path, value))
        assert declared.name in caught.value.message
        assert declared.range_text in caught.value.hint


@pytest.mark.parametrize("value", ["-1", "nan", "x"])
@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("enhance no.nii o.nii", "--strength"),
        ("enhance no.nii o.nii --task slices", "--slice-spacing"),
        ("batch enhance no --out o", "--workers"),
        ("compress no.nii o.ucv", "--max-error"),
        ("compress no.nii o.ucv --lossless", "--threads"),
        ("degrade no.nii o.nii", "--rician"),
        ("degrade no.nii o.nii --bias 0.1", "--seed"),
        ("distill no o", "--volumes"),
        ("train hqg --data no --out o", "--seed"),
        ("worker", "--idle-seconds"),
    ],
)
def test_a_command_refuses_a_number_out_of_range_by_name_with_status_2(
    words: str, flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), f"{flag}={value}", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "config"
    assert flag.strip("-").replace("-", "_") in error["message"].replace("-", "_")
    assert " to " in error["hint"] or "less than" in error["hint"] or "at most" in error["hint"]


@pytest.mark.parametrize("noise", ["-4", "nan", "-inf", "0", ""])
def test_noise_that_is_stated_is_above_0_or_a_file(
    noise: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["enhance", "no.nii", "o.nii"], ["batch", "enhance", "no", "--out", "o"]):
        assert main([*command, f"--noise={noise}", "--json"]) == 2
        assert "noise is " in json.loads(capsys.readouterr().out)["error"]["message"]
    with pytest.raises(ConfigError, match="noise is "):
        me.enhance("no.nii", noise=noise)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, "x", True, 10**400])
def test_python_refuses_a_number_out_of_range_before_it_reads(wrong: Any, tmp_path: Path) -> None:
    volume, out = tmp_path / "no.nii", tmp_path / "out"
    for call in (
        lambda: me.enhance(volume, strength=wrong),
        lambda: me.compress(volume, out, ratio=wrong),
        lambda: me.degrade(volume, scanner="2d", seed=wrong),
        lambda: me.degrade(volume, rician=wrong if wrong is not True else 2),
        lambda: me.train("hqg", {"learning_rate": wrong if wrong is not True else 2}, volume, out),
        lambda: me.train("head", {"widths": [8, wrong]}, volume, out),
        lambda: me.train("slices", {"seed": wrong}, volume, out, distilled=tmp_path / "no set"),
        lambda: JobSpec("train", VALID["train"] | {"config": {"seed": wrong}}),
        lambda: JobSpec("train", VALID["train"] | {"method": "codec", "config": {"blocks": wrong}}),
        lambda: me.train("codec", {"blocks": wrong}, volume, out),
        lambda: me.distill(volume, out, volumes=wrong),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert " to " in caught.value.hint


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Base(Params):
    place: Annotated[str, About(help="a place", metavar="P", place="input")] = "a"
    count: int = option(3, help="how many", low=1, high=9, metavar="N")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Anew(_Base):
    place: str = "b"
    count: Annotated[int, About(high=5)] = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AnewAgain(_Anew):
    place: str | None = option(None, help="another place")
    count: int = 2


def test_an_option_declared_anew_keeps_what_it_does_not_state_anew() -> None:
    for cls, most, help_text in ((_Anew, 5, "a place"), (_AnewAgain, 5, "another place")):
        count, place = option_of(cls, "count").about, option_of(cls, "place").about
        assert (count.help, count.low, count.high, count.metavar) == ("how many", 1, most, "N")
        assert (place.help, place.metavar, place.place) == (help_text, "P", "input")
        parser = Parser(prog="x", description="x", epilog="example:\n  x")
        add_flags(parser, cls)
        assert "--count N how many, 1 to 5" in " ".join(parser.format_help().split())
        with pytest.raises(ConfigError, match="count is 6"):
            cls(count=6)
        with pytest.raises(me.InputError, match="place is an address"):
            cls(place="https://host/a")
    assert option_of(_Base, "count").about.high == 9


def test_every_option_of_a_job_is_described() -> None:
    lacking = [
        f"{kind}: {each.name}"
        for kind in JOBS
        for each in options_of(JOBS[kind].params)
        if not each.about.help
    ]
    assert lacking == []
