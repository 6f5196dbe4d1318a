"""What the documentation says of the code is there: paths, the picture, the index of decisions."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from Library.conftest import MR, write_series

import MedEnhanceLib
from MedEnhanceLib.cli.main import build_parser, main
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.imaging import averaged
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.denoisers import DENOISERS
from MedEnhanceLib.gradprom.segmenters import VoxelLabels
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.runtime.progress import Monitor

pytestmark = pytest.mark.training  # which pages describe, too

ROOT = Path(__file__).resolve().parents[2]
_PLACES = (ROOT, ROOT / "MedEnhanceLib", ROOT / "MedEnhance", ROOT / "docs")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_path_of_the_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[A-Za-z_]+/)+[\w.]*)`", text))
    assert len(named) > 10
    missing = [path for path in named if not any((place / path).exists() for place in _PLACES)]
    assert not missing, sorted(missing)


def test_every_command_on_a_page_is_one() -> None:
    """Options that were renamed or removed are found here."""
    parser, count = build_parser(), 0
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
        text = "".join(block for language, block in blocks if language in ("", "sh"))
        lines = text.replace("\\\n", " ").splitlines()
        for line in lines:
            if found := re.match(r"\s*(?:\S*/)?medenhance (.*)$", line):
                count += 1
                try:
                    parser.parse_args(shlex.split(found[1], comments=True))
                except MedEnhanceLib.ConfigError as error:
                    pytest.fail(f"{page.relative_to(ROOT)}: {line}\n{error}")
    assert count > 40


def test_the_faq_quotes_what_the_program_says() -> None:
    page = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    quoted = re.findall(r'"([^"]+)"', " ".join(re.findall(r"^\*\*(.*?)\*\*", page, re.M)))
    places = [
        *(ROOT / "MedEnhanceLib").rglob("*.py"),
        *(ROOT / "MedEnhanceLib").rglob("texts.json"),
    ]
    code = "".join(path.read_text("utf-8") for path in places)
    assert len(quoted) > 7
    assert not [words for words in quoted if words not in code]


def test_one_sentence_introduces_the_software_everywhere() -> None:
    removes = "Removes the noise of MR and CT volumes, and shows what it removed"
    makes = "It also makes thick slices thin, segments, and compresses."
    for name in ("README.md", "CMakeLists.txt", "mkdocs.yml", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert removes in text and makes in text, name


def test_every_model_is_in_its_index() -> None:
    models = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    cards = {path.name for path in (ROOT / "Resources/models").iterdir()}
    assert set(re.findall(r"models/([\w-]+)/docs/README\.md", models)) == cards


@pytest.mark.slow
@pytest.mark.needs("material", "mkdocstrings_handlers")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Links and anchors are checked, and every page is in the table of contents."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "api/index.html").read_text(encoding="utf-8")
    for name in (name for name in MedEnhanceLib.__all__ if not name.startswith("__")):
        assert re.search(rf'id="MedEnhanceLib\.[\w.]+\.{name}"', reference), name
    for name in ("Enhanced", "Segmentation", "CompressResult", "StoredVolume", "Event"):
        assert re.search(rf'id="MedEnhanceLib\.[\w.]+\.{name}"', reference), name
    assert "embed_model" in reference, "the options of compress are not listed"
    assert (tmp_path / "models/brain/index.html").is_file()
    home = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert MedEnhanceLib.__version__ in home
    assert home.count('class="md-tabs__item') <= 7
    searched = json.loads((tmp_path / "search/search_index.json").read_text(encoding="utf-8"))
    places = {entry["location"].partition("#")[0] for entry in searched["docs"]}
    assert "results/" in places
    assert not [place for place in places if re.match("decisions/|.*json$", place)]
    assert "docs/" not in " ".join(re.findall(r'(?:href|src)="([^":]+)"', home))


@pytest.mark.slow
def test_the_picture_is_that_of_the_code() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/architecture.py"))
    assert drawn["PICTURE"].read_text(encoding="utf-8") == drawn["picture"](), (
        "run: python docs/architecture.py"
    )


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(folder.glob("0*.md"))
    assert re.findall(r"\]\((0[\w.-]+\.md)\)", index) == [page.name for page in pages]


#: A block of Python or of commands, and the comment before it that says why it is not run.
_BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```(python|sh)\n(.*?)```", re.S)
#: Voxels of the sample that are averaged along each axis for the examples: a whole brain, which
#: takes seconds.
_AVERAGED = (3, 4, 4)


def run_blocks(page: Path, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run Python and commands of a page from top to bottom, as its reader would.

    Returns the namespace of the Python.
    """
    text = page.read_text(encoding="utf-8")
    names = {"__name__": "__page__"} | (names or {})
    for match in _BLOCK.finditer(text):
        if match[1]:
            continue
        if match[2] == "python":
            lines_before = text.count("\n", 0, match.start(3))
            exec(compile("\n" * lines_before + match[3], str(page), "exec"), names)
            continue
        for line in match[3].splitlines():
            program, *words = shlex.split(line, comments=True)
            assert (program, main(words)) == ("medenhance", 0), f"{page.name}: {line}"
    return names


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder, with the sample in larger voxels as scan.nii.gz."""
    volume = MedEnhanceLib.load(ROOT / "Resources/samples/mni152_t1.nii.gz", modality="MR")
    coarse = averaged(volume, _AVERAGED)
    voxels = coarse.voxels.round().astype(volume.dtype)
    MedEnhanceLib.save(coarse.with_voxels(voxels), tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path / "models"))  # pages import models
    return tmp_path


def _stripes(
    volume: Volume, _placement: Any, model: StructureModel, _device: str, _monitor: Monitor
) -> VoxelLabels:
    """Label slices by turns, in place of the network."""
    labels = list(model.anatomy.labels)
    values = np.array([label.value for label in labels], np.uint8)
    of_slices = values[np.arange(volume.shape[0]) % len(values), None, None]
    quality = dict.fromkeys((label.name for label in labels), 0.8)
    unsure = np.zeros(volume.shape, np.float32)
    return VoxelLabels(np.broadcast_to(of_slices, volume.shape).copy(), unsure, quality, ())


@pytest.fixture
def quick_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of brains is not run, which takes half a minute a volume: .ci/run runs it."""
    module = "MedEnhanceLib.gradprom.structures.segmenting"
    monkeypatch.setattr(f"{module}.place", lambda *_: SimpleNamespace(location=None))
    monkeypatch.setattr(f"{module}.segment_structures", _stripes)
    monkeypatch.setattr(f"{module}.find_unlike", lambda *_: "")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_labels")
# MONAI's LoadImage asks for a decoder of DICOM on GPUs.
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
def test_the_examples_of_the_python_page_run(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "Testing/examples/median.py", "mymedian.py")
    monkeypatch.syspath_prepend(desk)
    monkeypatch.setitem(DENOISERS, "median", "")  # which the page overwrites
    names = run_blocks(ROOT / "docs/python.md")
    printed = capsys.readouterr().out
    assert "Left thalamus" in printed
    assert names["filtered"].history[-1].count("median")
    assert "100% removing noise\n" in printed, "events are not shown"
    assert names["image"].shape == (1, 49, 58, 63) and float(names["image"].max()) == 1
    assert {p.name for p in desk.iterdir()} >= {"compare.png", "better.nii.gz", "0.ucv"}


def _compression(desk: Path) -> dict[str, Any]:
    voxels = np.random.default_rng(0).normal(40, 12, (104, 8, 128)).astype(np.int16)
    volume = MedEnhanceLib.Volume(voxels, modality="CT")
    (desk / "scan.nii.gz").unlink()
    MedEnhanceLib.save(volume, "scan.nii.gz")
    return {"me": MedEnhanceLib, "volume": volume}


def _guidance(desk: Path) -> dict[str, Any]:
    volume = _scan().crop(k=slice(18, 30), j=slice(8, 48), i=slice(8, 48))
    (desk / "scan.nii.gz").unlink()
    (desk / "studies").mkdir()
    for number, name in enumerate(("t1", "t2", "flair", "studies/t1", "studies/t2")):
        rng = np.random.default_rng(number)
        voxels = (volume.voxels + rng.normal(0, 8, volume.shape)).clip(0, 255).astype(volume.dtype)
        MedEnhanceLib.save(volume.with_voxels(voxels), f"{name}.nii.gz")
    return {"me": MedEnhanceLib, "volume": MedEnhanceLib.load("t1.nii.gz", modality="MR")}


def _slices(desk: Path) -> dict[str, Any]:
    volume = _scan().crop(k=slice(20, 36), j=slice(12, 36), i=slice(12, 36))
    volume = dataclasses.replace(volume, geometry=MedEnhanceLib.Geometry((1, 1, 4)))
    MedEnhanceLib.save(volume, "thick.nii.gz")
    return {"volume": volume}


def _series(desk: Path) -> dict[str, Any]:
    """Diffusion twice, with its tables, and echoes of which nothing says that they are."""
    head, rng = (
        _scan().crop(k=slice(20, 28), j=slice(8, 48), i=slice(8, 48)),
        np.random.default_rng(0),
    )
    weighted = np.repeat((0.0, 1.0), (2, 6))
    scans = {"dwi": weighted, "second": weighted, "echoes": np.linspace(0, 1, 6)}
    directions = rng.normal(size=(len(weighted), 3))
    for name, decays in scans.items():
        signal = head.voxels * np.exp(-decays * head.voxels.mean() / 200)[:, None, None, None]
        noise = rng.normal(0, 8, (2, *signal.shape))
        voxels = np.hypot(signal + noise[0], noise[1]).astype(np.float32)
        gradients = [
            Gradient(1000.0 * decay, tuple(decay * axis / np.linalg.norm(axis)))
            for decay, axis in zip(decays, directions, strict=False)
        ]
        given = tuple(gradients) if name != "echoes" else ()
        MedEnhanceLib.save(
            dataclasses.replace(head, voxels=voxels, gradients=given), f"{name}.nii.gz"
        )
    return {}


def _ct(desk: Path) -> dict[str, Any]:
    even = np.random.default_rng(0).normal(40, 12, (8, 24, 24)).astype(np.float32)
    MedEnhanceLib.save(Volume(even, modality="CT"), "ct.nii.gz")
    return {}


def _dicom(desk: Path) -> dict[str, Any]:
    from pydicom import dcmread
    from pydicom.uid import generate_uid

    slab = _scan().voxels[18:34].astype(np.uint16)
    about = MR | {"PatientID": "P1", "PatientName": "Doe^Jane", "PixelSpacing": [4.0, 4.0]}
    about |= {"StudyInstanceUID": generate_uid(), "StudyDate": "20260102", "PatientSex": "O"}
    about["positions"] = [(0.0, 0.0, 3.0 * k) for k in range(len(slab))]
    folders = ("CD/a", 1), ("CD/b", 2), ("SERIES", 1), ("study", 1), ("ARCHIVE/a", 3)
    for folder, number in folders:
        uid = generate_uid()[:50]
        write_series(desk / folder, slab, **(about | {"uid": uid, "number": number}))
    names = sorted(str(path) for path in (desk / "SERIES").iterdir())
    (desk / "files.txt").write_text("\n".join(names))
    MedEnhanceLib.save(MedEnhanceLib.load("SERIES"), "better.nii.gz")
    MedEnhanceLib.save(_scan(), "phantom.nii.gz")
    return {"dataset": dcmread(next((desk / "study").iterdir()))}


def _readme(desk: Path) -> dict[str, Any]:
    """A noisy scan, one in a folder, and a series."""
    _dicom(desk)
    clean = (desk / "scan.nii.gz").rename(desk / "clean.nii.gz")
    (desk / "better.nii.gz").unlink()
    volume = MedEnhanceLib.load(clean, modality="MR")
    noisy = MedEnhanceLib.degrade(volume, rician=0.1)
    MedEnhanceLib.save(noisy, "scan.nii.gz")
    return _folder(desk)


def _archive(desk: Path) -> dict[str, Any]:
    _dicom(desk)
    return _folder(desk)


def _folder(desk: Path) -> dict[str, Any]:
    (desk / "scans").mkdir()
    shutil.copy("scan.nii.gz", "scans")
    return {}


def _plain(desk: Path) -> dict[str, Any]:
    return {"me": MedEnhanceLib, "volume": _scan()}


def _scan() -> Volume:
    return MedEnhanceLib.load("scan.nii.gz", modality="MR")


#: Page → what its reader has before its first example, beside scan.nii.gz.
_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "README.md": _readme,
    "docs/batch.md": _archive,
    "docs/compression.md": _compression,
    "docs/dicom/reading.md": _dicom,
    "docs/dicom/writing.md": _dicom,
    "docs/ct.md": _ct,
    "docs/from-dwidenoise.md": _series,
    "docs/enhancement.md": _guidance,
    "docs/noise.md": _plain,
    "docs/segmenters.md": _plain,
    "docs/sequences.md": _series,
    "docs/slices.md": _slices,
    "docs/start.md": _plain,
}
#: Run by tests of their subjects.
_RUN_ELSEWHERE = {
    "docs/python.md",
    "docs/slicer/console.md",
}
#: They install, publish and test: .ci/run does, by Testing/Packaging/walk_page.py.
_OF_DEVELOPERS = {
    "CONTRIBUTING.md",
    "docs/release.md",
}


@pytest.mark.slow
@pytest.mark.parametrize("page", _READERS)
def test_the_examples_of_a_page_run(
    page: str,
    desk: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quick_labels: None,
) -> None:
    # What is learned from the slices of a volume is tested in slices/test_slices.py.
    monkeypatch.setattr("MedEnhanceLib.slices.steps.TUNING_STEPS", 4)
    names = run_blocks(ROOT / page, _READERS[page](desk))
    if page != "README.md":
        return
    assert len(names["array"]) == 10
    assert "Left thalamus" in capfd.readouterr().out
    assert (desk / "report/index.html").is_file()
    load = MedEnhanceLib.load
    files = ("clean.nii.gz", "scan.nii.gz", "better.nii.gz", "scan.ucv", "enhanced/scan.nii.gz")
    clean, noisy, better, stored, again = (load(name) for name in files)
    assert psnr(clean.voxels, better.voxels) > psnr(clean.voxels, noisy.voxels) + 5
    assert np.array_equal(stored.voxels, noisy.voxels)
    assert np.array_equal(again.voxels, better.voxels)


def _last_code(text: str | None) -> str:
    """The example that a docstring ends in, indented as code."""
    before, _gap, last = inspect.cleandoc(text or "").rpartition("\n\n")
    indented = before and all(line.startswith("    ") for line in last.split("\n"))
    return textwrap.dedent(last) if indented else ""


#: Public function → the example of its docstring, which the site shows.
_DOCSTRINGS = {
    name: code
    for name in dir(MedEnhanceLib)
    if name.islower() and (code := _last_code(getattr(MedEnhanceLib, name).__doc__))
}
#: They take minutes, or a cohort; that they fit the function is checked with all others.
_LONG = {"distill", "evaluate", "measure_scanner", "train"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_labels")
def test_the_examples_of_the_docstrings_run(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = _scan()
    names = {"me": MedEnhanceLib, "volume": volume}
    names["result"] = MedEnhanceLib.enhance(volume)
    MedEnhanceLib.save(MedEnhanceLib.degrade(volume, rician=0.02), "second.nii.gz")
    MedEnhanceLib.compress(volume, "scan.ucv", lossless=True)
    # No block spans two frames: some stay intact.
    frames = dataclasses.replace(volume, voxels=np.stack([volume.voxels] * 4))
    MedEnhanceLib.compress(frames, "damaged.ucv", lossless=True)
    whole = Path("damaged.ucv").read_bytes()
    Path("damaged.ucv").write_bytes(whole[: len(whole) * 3 // 4])
    _dicom(desk)
    (desk / "CD").rename("cd")
    (desk / "better.nii.gz").unlink()
    assert set(_DOCSTRINGS) > _LONG
    for name, code in _DOCSTRINGS.items():
        if name in _LONG:
            continue
        if name == "compress":
            Path("scan.ucv").unlink()
        whose = {"volume": MedEnhanceLib.load("SERIES")} if name == "save_dicom" else {}
        exec(compile(code, name, "exec"), names | whose)
    assert "Left thalamus" in capsys.readouterr().out


@pytest.mark.parametrize("name", [n for n in dir(MedEnhanceLib) if n.islower() and n[0] != "_"])
def test_the_docstring_of_a_public_function_is_complete(name: str) -> None:
    text = inspect.getdoc(getattr(MedEnhanceLib, name)) or ""
    parts = ["Args:", "Raises:", *(["Returns:"] if name != "save" else [])]
    assert [part for part in parts if part not in text] == []


def test_every_call_of_me_on_a_page_fits_the_function() -> None:
    """Also where a block is not run: options that were renamed or removed are found here."""
    blocks = [("docstring", code) for code in _DOCSTRINGS.values()]
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        blocks += [(page.name, m[3]) for m in _BLOCK.finditer(text) if m[2] == "python"]
    count = 0
    for place, code in blocks:
        for node in ast.walk(ast.parse(code)):
            called = getattr(node, "func", None)
            if isinstance(called, ast.Attribute) and ast.unparse(called.value) == "me":
                count += 1
                words = {one.arg: one for one in node.keywords if one.arg}
                function = getattr(MedEnhanceLib, called.attr)
                try:
                    inspect.signature(function).bind(*node.args, **words)
                except TypeError as wrong:
                    pytest.fail(f"{place}: {ast.unparse(node)}: {wrong}")
    assert count > 50


@pytest.mark.parametrize(
    ("page", "methods"), [("training", ["hqg", "head"]), ("slices", ["slices"])]
)
def test_the_configurations_of_a_page_are_valid(page: str, methods: list[str]) -> None:
    train = import_module("MedEnhanceLib.training.jobs.train")
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```json\n(.*?)^```", text, re.S | re.M)
    for method, block in zip(methods, found, strict=True):
        train.training_config(method, json.loads(block))


NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_what_they_print(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and not [c for c in code if c["outputs"] or c["execution_count"]]


@pytest.mark.slow
@pytest.mark.needs("ipykernel", "nbclient")
@pytest.mark.filterwarnings("default")  # of the packages that run the notebook, in this process
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, nbformat = import_module("nbclient"), import_module("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    if path.stem == "enhance":
        for cell in notebook.cells:
            cell.source = cell.source.replace("slice(70, 110)", "slice(80, 96)")
    resources = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=250, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [set(output.get("data", {})) for output in outputs]
    assert any("image/png" in kinds for kinds in shown), "no picture is shown"
    printed = "".join(output.get("text", "") for output in outputs)
    if path.stem == "enhance":
        noisy, enhanced = (float(found) for found in re.findall(r"([\d.]+) dB", printed))
        assert enhanced > noisy + 10
    else:
        smaller = [float(found) for found in re.findall(r"([\d.]+) times smaller", printed)]
        assert smaller == sorted(smaller) and smaller[0] > 4 and smaller[2] >= 32


def test_no_page_has_examples_that_nothing_runs() -> None:
    pages = {
        page.relative_to(ROOT).as_posix()
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        if any(match[1] is None for match in _BLOCK.finditer(page.read_text(encoding="utf-8")))
    }
    assert pages == {*_READERS, *_RUN_ELSEWHERE, *_OF_DEVELOPERS}


def test_every_picture_of_a_panel_is_there_and_none_without_a_page() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    shown = set(re.findall(r"images/panels/([\w-]+)\.png", text))
    assert shown == {path.stem for path in (ROOT / "docs/images/panels").glob("*.png")}
