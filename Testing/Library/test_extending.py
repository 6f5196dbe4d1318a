"""What contributors copy works at once: the examples keep the contracts, behind every door."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts import CoderTests, DenoiserTests, FormatTests
from examples import bzip2, npy
from numpy.lib.stride_tricks import sliding_window_view

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core import manifest
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.denoisers import DENOISERS
from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.io import formats
from MedEnhanceLib.runtime import registry
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.codecs.lossless import Coder

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def _stated(pattern: str) -> str:
    """The entry of a registry that CONTRIBUTING.md states."""
    (entry,) = re.findall(pattern, PAGE.read_text(encoding="utf-8"))
    return str(entry)


@pytest.fixture
def median(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the example's denoiser, which is registered."""
    name, place = re.findall(r'"(.+?)"', _stated(r'`DENOISERS` is `("\w+": "[\w.:]+")`'))
    assert place == "MedEnhanceLib.denoise.median:MedianFilter"
    monkeypatch.setitem(DENOISERS, name, "examples.median:MedianFilter")
    return str(name)


class TestMedian(DenoiserTests):
    name, options = "median", {"radius": 2}

    @pytest.fixture(autouse=True)
    def _registered(self, median: str) -> None:
        pass


def _noise() -> Volume:
    voxels = np.random.default_rng(0).normal(40, 12, (8, 16, 16)).astype(np.float32)
    return Volume(voxels, modality="CT")  # no Rician bias


def test_a_denoiser_runs_from_python_and_the_command_with_its_option(
    median: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = _noise()
    result = me.enhance(volume, denoiser=median, noise=12, for_viewing=True)
    windows = sliding_window_view(np.pad(volume.voxels, 1, mode="edge"), (3, 3, 3))
    assert np.array_equal(result.volume.voxels, np.median(windows, axis=(3, 4, 5)))
    result = me.enhance(volume, denoiser=median, denoiser_options={"radius": 2})
    assert result.report["config"]["denoiser_options"] == {"radius": 2}
    me.save(volume, tmp_path / "a.nrrd")
    enhance = ["enhance", str(tmp_path / "a.nrrd"), str(tmp_path / "b.nrrd"), "--denoiser"]
    assert main([*enhance, median, "--denoiser-options", "radius=2"]) == 0
    assert np.array_equal(me.load(tmp_path / "b.nrrd").voxels, result.volume.voxels)
    for denoiser, option, says in (
        (median, "radius=9", "radius is 9"),
        (median, "width=2", "no option 'width'"),
        ("block-matching", "radius=2", "block-matching has no option 'radius'"),
        ("auto", "radius=2", "require a named denoiser"),
        (median, "radius", "radius is not NAME=VALUE"),
    ):
        assert main([*enhance, denoiser, "--denoiser-options", option]) == ConfigError.exit_status
        assert says in capsys.readouterr().err


def test_a_denoiser_of_another_package_is_known_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = EntryPoint("theirs", "examples.median:MedianFilter", "medenhance.denoisers")

    def entry_points(**asked: str) -> EntryPoints:
        return EntryPoints([entry]).select(**asked)

    monkeypatch.setattr(registry, "entry_points", entry_points)
    volume = _noise()
    result = me.enhance(volume, denoiser="theirs", noise=12, for_viewing=True)
    assert result.volume.voxels.std() < 0.5 * volume.voxels.std()
    with pytest.raises(ConfigError) as caught:
        me.enhance(volume, denoiser="hers")
    assert "theirs" in caught.value.hint


@pytest.fixture
def numpy_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's format is registered, as the page says."""
    names: dict[str, Any] = {}
    entry = _stated(r"`FORMATS` is `(Format\(.+?\))`")
    exec(f"added = {entry}", vars(npy) | {"Format": formats.Format}, names)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, names["added"]))
    monkeypatch.setattr(manifest, "_BESIDE", (*manifest._BESIDE, npy.SIDECAR))


class TestNpy(FormatTests):
    ending = ".npy"

    @pytest.fixture(autouse=True)
    def _registered(self, numpy_format: None) -> None:
        pass


@pytest.mark.usefixtures("numpy_format")
def test_a_format_is_converted_listed_and_kept_safe(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(40, 12, (5, 6, 7)).astype(np.float32)
    volume = Volume(voxels, Geometry((1, 1, 3)), modality="EM", history=("DERIVED: a",))
    me.save(volume, tmp_path / "a.npy")
    assert main(["convert", str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]) == 0
    again = me.load(tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "b.npy"), voxels)
    assert again.is_equal(volume) and again.history == volume.history
    facts = json.loads((tmp_path / "b.npy.json").read_text(encoding="utf-8"))
    assert facts["action"] == "converted"
    assert "NumPy (*.npy)" in formats.dialog_filter(".nrrd")
    (tmp_path / "a.npy").unlink()
    with pytest.raises(OutputError, match=r"a\.geometry\.json exists already"):
        me.save(volume, tmp_path / "a.npy")
    (tmp_path / "b.geometry.json").unlink()
    with pytest.raises(InputError, match=r"b\.geometry\.json does not exist"):
        me.load(tmp_path / "b.npy")


class TestBzip2(CoderTests):
    name = "bzip2"

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names: dict[str, Any] = {}
        entry = _stated(r"`CODERS` is `(Coder\(.+?\))`")
        exec(f"added = {entry}", vars(bzip2) | {"Coder": Coder}, names)
        monkeypatch.setattr(lossless, "CODERS", (*lossless.CODERS, names["added"]))
