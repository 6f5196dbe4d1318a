"""MedEnhance as a command line module of Slicer: its description, and a run of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from sources import ROOT, commands

from MedEnhanceLib import __version__, io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.jobs.kinds.enhance import EnhanceParams

SCRIPT, XML = commands()
#: What the schema of Slicer's execution model asks of an executable, in its order.
_HEAD = [
    "category",
    "title",
    "description",
    "version",
    "documentation-url",
    "license",
    "contributor",
]
#: What it allows in a parameter of each kind that is used here.
_FIELDS = {"name", "flag", "longflag", "description", "label", "default"}
_ALLOWED = {
    "image": {"name", "label", "description", "channel", "index"},
    "string": _FIELDS,
    "string-enumeration": _FIELDS | {"element"},
}


def run(*arguments: object, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-P", str(script), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def test_the_description_is_what_slicer_reads() -> None:
    said = run("--xml")
    assert (said.returncode, said.stderr) == (0, "")
    root = ElementTree.fromstring(said.stdout)
    heads = [each.tag for each in root if each.tag != "parameters"]
    assert (root.tag, heads) == ("executable", _HEAD)
    assert root.findtext("version") == __version__, "state the version of the library"
    parameters = root.findall("parameters/*[name]")
    for each in parameters:
        found = [field.tag for field in each]
        assert set(found) <= _ALLOWED[each.tag], each.findtext("name")
        assert len({*found}) == len([tag for tag in found if tag != "element"]) + (
            "element" in found
        )
        if each.tag == "string-enumeration":
            assert each.findtext("default") in [one.text for one in each.findall("element")]
    places = {each.findtext("index"): each.findtext("channel") for each in parameters}
    assert places == {"0": "input", "1": "output", None: None}


def test_its_options_are_those_of_the_job() -> None:
    from MedEnhanceLib.core.options import options_of
    from MedEnhanceLib.hqg.config import EnhanceConfig

    declared = {
        one.name: one for each in (EnhanceParams, EnhanceConfig) for one in options_of(each)
    }
    for each in ElementTree.parse(XML).iterfind("parameters/*[longflag]"):
        option = declared[each.findtext("name")]
        choices = {one.text for one in each.findall("element")}
        if option.choices:
            assert choices == set(option.choices)
        assert each.findtext("default") in ("auto", str(option.default))


@pytest.mark.slow
def test_it_enhances_a_small_volume(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).normal(200, 30, (6, 48, 48))
    source, output = tmp_path / "scan.nrrd", tmp_path / "better.nrrd"
    io.save(Volume(noise.astype(np.int16), Geometry((1.0, 1.0, 2.0)), modality="MR"), source)
    said = run("--modality", "MR", "--device", "cpu", source, output)
    assert said.returncode == 0, said.stderr
    fractions = re.findall(r"<filter-progress>([0-9.]+)</filter-progress>", said.stdout)
    assert float(fractions[-1]) == 1.0
    assert said.stdout.startswith("<filter-start>")
    assert said.stdout.rstrip().endswith("</filter-end>")
    result = io.load(output)
    assert result.shape == (6, 48, 48)
    assert result.voxels.std() < noise.std()
    assert result.history
    before = result.voxels
    io.save(Volume((noise + 500).astype(np.int16), result.geometry), tmp_path / "other.nrrd")
    again = run("--modality", "MR", "--device", "cpu", tmp_path / "other.nrrd", output)
    assert again.returncode == 0, again.stderr  # Slicer gives the next run the same name
    assert io.load(output).voxels.mean() > before.mean() + 400
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"scan.nrrd", "other.nrrd", "better.nrrd"}, "nothing is left beside it"
    onto_itself = run(output, output)
    assert onto_itself.returncode != 0
    assert "is the input itself" in onto_itself.stderr


@pytest.mark.slow
def test_as_installed_it_finds_the_library(tmp_path: Path) -> None:
    """Beside the scripted modules, and in a build tree with a folder for each configuration."""
    (tmp_path / "qt-scripted-modules").mkdir()
    (tmp_path / "qt-scripted-modules/MedEnhanceLib").symlink_to(ROOT / "MedEnhanceLib")
    for folder in (tmp_path / "cli-modules", tmp_path / "cli-modules/Release"):
        folder.mkdir()
        for file in commands():
            shutil.copy(file, folder)
        said = run("missing.nrrd", tmp_path / "x.nrrd", script=folder / SCRIPT.name)
        assert "missing.nrrd" in said.stderr and "Traceback" not in said.stderr
        assert said.returncode == 3
