"""An option is declared once: everybody else reads its declaration."""

from __future__ import annotations

import inspect
import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from MedEnhanceLib.api import takes
from MedEnhanceLib.cli.parser import Parser, add_flags, params_of
from MedEnhanceLib.core.options import About, Options, Params, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.config import EnhanceConfig
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
        assert enhance_with_grain(model="mr", grain=0.1).grain == 0.1
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
