"""An option is declared once, with its range: everybody else reads its declaration."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import pkgutil
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.api import takes
from MedEnhanceLib.cli.parser import Parser, add_flags, params_of
from MedEnhanceLib.core.options import About, Option, Options, Params, option, option_of, options_of
from MedEnhanceLib.degradation.pipeline import Composite
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.job import JOBS
from MedEnhanceLib.unicompress.config import CompressConfig

#: What writes the page of commands.
MAKER = runpy.run_path(str(Path(__file__).resolve().parents[2] / "docs/commands.py"))


@dataclass(frozen=True, kw_only=True)
class WithGrain(EnhanceConfig):
    """As somebody would add an option to a method."""

    grain: float = option(0.5, help="share of the noise that is kept", low=0, high=1, metavar="G")
    window: tuple[float, float] | None = option(None, help="lowest and highest value")


@dataclass(frozen=True, kw_only=True)
class Smoothing(Options):
    """A number that may also be a word."""

    width: float | Literal["auto"] = option("auto", help="of the kernel", low=0, high=10)


@dataclass(frozen=True, kw_only=True)
class GrainParams(Params):
    """Its job."""

    input: Annotated[str, About(help="a volume", flag="INPUT")]
    config: WithGrain = option(factory=WithGrain, help="how")


@takes(WithGrain)
def enhance_with_grain(call: WithGrain) -> WithGrain:
    """Return what was given.

    Args:
        call: the options.
    """
    return call


def _parser(declaration: type[Options] = GrainParams) -> Parser:
    parser = Parser(prog="grain", description="x", epilog="example:\n  x")
    add_flags(parser, declaration)
    return parser


class TestAnOptionThatIsAdded:
    def test_is_a_flag_with_its_help_range_and_default(self) -> None:
        text = " ".join(_parser().format_help().split())
        assert "--grain G share of the noise that is kept, 0 to 1 (default: 0.5)" in text
        args = _parser().parse_args(["a.nii", "--grain", "0.25", "--window", "-20", "4e2"])
        params = params_of(args, GrainParams)
        assert params == {"input": "a.nii", "config": {"grain": 0.25, "window": [-20, 400]}}
        assert GrainParams.from_json(params).config.window == (-20, 400)

    def test_is_a_row_of_both_pages(self) -> None:
        row = "share of the noise that is kept, 0 to 1 (default: 0.5) |"
        assert ("--grain G", row.removesuffix(" |")) in MAKER["_rows"](_parser())
        assert f"| `config.grain` | a number | {row}" in list(MAKER["_parameter_rows"](GrainParams))

    def test_is_a_keyword_of_the_python_function(self) -> None:
        parameter = inspect.signature(enhance_with_grain).parameters["grain"]
        assert parameter.default == 0.5
        assert "grain: share of the noise that is kept, 0 to 1" in str(enhance_with_grain.__doc__)
        assert enhance_with_grain(model="mine", grain=0.1).grain == 0.1
        with pytest.raises(ConfigError, match="has no option 'grian'"):
            enhance_with_grain(grian=0.1)  # type: ignore[call-arg]


@dataclass(frozen=True, kw_only=True)
class Outer(Options):
    """A declaration in which another one starts at values of its own."""

    inner: WithGrain = option(factory=lambda: WithGrain(grain=0.1, strength=0.5))


def test_a_part_of_an_object_is_on_top_of_the_default_of_its_field() -> None:
    outer = Outer.from_json({"inner": {"strength": 1}})
    assert outer.inner == WithGrain(grain=0.1, strength=1)
    assert Outer.from_json(outer.to_json()) == outer
    with pytest.raises(ConfigError, match="WithGrain has no option 'grian'") as caught:
        Outer.from_json({"inner": {"grian": 0.5}})
    assert "Did you mean grain?" in caught.value.hint


@dataclass(frozen=True, kw_only=True)
class _Kinds(Options):
    whole: int = option(32, low=32, multiple=32, unit="pixels")
    choice: Literal["a", "b", "c"] = "a"
    open: float | None = option(None, above=0, below=1)
    names: tuple[str, ...] = ("x",)
    far: float = option(1.0, low=0)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"whole": 33}, "Use a whole number of 32 or more pixels, a multiple of 32."),
        ({"whole": 32.5}, "Use a whole number of 32 or more pixels, a multiple of 32."),
        ({"choice": "d"}, "Use a, b or c."),
        ({"far": float("inf")}, "Use 0 or more."),
        ({"open": 1}, "Use more than 0 and less than 1."),
        ({"names": "y"}, "Use a list, each text."),
    ],
    ids=str,
)
def test_what_is_allowed_is_said(fields: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _Kinds.from_json(fields)
    assert caught.value.hint == hint


class TestANumberOrAWord:
    def test_takes_both_and_refuses_others_by_name(self) -> None:
        assert Smoothing().width == "auto"
        for number in (2.5, "2.5", np.float64(2.5)):
            assert Smoothing(width=number).width == 2.5  # type: ignore[arg-type]
        for wrong in (11, "automatic", True):
            with pytest.raises(ConfigError) as error:
                Smoothing(width=wrong)  # type: ignore[arg-type]
            assert "Use auto or 0 to 10" in error.value.hint

    def test_is_one_flag(self) -> None:
        parser = _parser(Smoothing)
        for text, value in (("auto", "auto"), ("3", 3.0)):
            args = parser.parse_args(["--width", text])
            assert params_of(args, Smoothing) == {"width": value}
        with pytest.raises(ConfigError):
            parser.parse_args(["--width", "wide"])
        text = " ".join(parser.format_help().split())
        assert "of the kernel, auto or 0 to 10 (default: auto)" in text


@pytest.mark.parametrize("number", [np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)])
def test_a_number_of_numpy_or_pytorch_is_a_number(number: Any) -> None:
    """As `max_error=0.5 * volume.voxels.std()` gives one, which JSON would not take."""
    config = CompressConfig(max_error=number, lossless=np.False_)  # type: ignore[arg-type]
    assert json.dumps(config.to_json())
    assert (config.max_error, config.lossless) == (2, False)


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


@dataclass(frozen=True, kw_only=True)
class _Base(Params):
    place: Annotated[str, About(help="a place", metavar="P", place="input")] = "a"
    count: int = option(3, help="how many", low=1, high=9, metavar="N")


@dataclass(frozen=True, kw_only=True)
class _Anew(_Base):
    place: str = "b"
    count: Annotated[int, About(high=5)] = 4


@dataclass(frozen=True, kw_only=True)
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
