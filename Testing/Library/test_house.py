"""The project's own files say the same thing everywhere."""

from __future__ import annotations

import ast
import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from MedEnhanceLib import __version__
from MedEnhanceLib.core.modality import MODALITIES

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_no_name_of_a_class_or_file_stands_for_two_things() -> None:
    library = ROOT / "MedEnhanceLib"
    files = [path for path in library.rglob("*.py") if path.name != "__init__.py"]
    classes = Counter(
        name
        for path in files + list(library.rglob("__init__.py"))
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert not [name for name, count in classes.items() if count > 1]
    # A command and the job that it starts have one name; of each method there are these.
    doors = ({"cli", "kinds"}, {"commands", "jobs"})
    homes: dict[str, set[str]] = {}
    for path in files:
        homes.setdefault(path.name, set()).add(path.parent.name)
    methods = {"config.py", "train.py"}
    twice = {name: folders for name, folders in homes.items() if len(folders) > 1}
    assert not {n: f for n, f in twice.items() if n not in methods and f not in doors}


def _public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield the functions of a module, and the methods of its classes, without a leading _."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def test_docstrings_list_the_arguments_of_public_functions() -> None:
    """Functions of three or more; ruff compares the names of shorter lists that exist."""
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("MedEnhanceLib", "Testing/examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in _unlisted(path.read_text(encoding="utf-8"))
    ]
    assert not missing, "\n".join(missing)


def _unlisted(code: str) -> Iterator[str]:
    """Yield the arguments that docstrings of a module do not list."""
    for function in _public_functions(ast.parse(code).body):
        arguments = function.args
        each = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        names = {argument.arg for argument in each} - {"self", "cls"}
        below = (ast.get_docstring(function) or "").partition("\nArgs:\n")[2]
        listed = re.split(r"^\S", below, maxsplit=1, flags=re.M)[0]
        absent = names - set(re.findall(r"^ {4}(\w+):", listed, re.M))
        if len(names) > 2 and absent:
            yield f"{function.name}: {sorted(absent)}"


def test_modalities_are_compared_by_their_profile() -> None:
    """What a modality decides is a property of `core.modality`; readers of files keep names."""
    files = [*(ROOT / "MedEnhanceLib").rglob("*.py"), *(ROOT / "MedEnhance").rglob("*.py")]
    compared = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(files)
        if path != ROOT / "MedEnhanceLib/core/modality.py"
        for line in _modalities_compared(path.read_text(encoding="utf-8"))
    ]
    assert len(compared) <= 20, "\n".join(compared)


def _modalities_compared(code: str) -> Iterator[int]:
    """Yield the lines that compare something with the name of a modality, or with several."""
    if not re.search(rf"['\"]({'|'.join(MODALITIES)})['\"]", code):  # parsing takes a while
        return
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        values = [value for side in sides for value in getattr(side, "elts", [side])]
        if any(isinstance(each, ast.Constant) and each.value in MODALITIES for each in values):
            yield node.lineno


def test_scripts_and_decisions_that_the_library_names_exist() -> None:
    """A tuned constant names what measures it again, or the decision about it."""
    decisions = {page.name[:4] for page in (ROOT / "docs/decisions").glob("[0-9]*.md")}
    missing = []
    for path in sorted((ROOT / "MedEnhanceLib").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = " ".join(line.lstrip(" #:") for line in text.splitlines())
        scripts = set(re.findall(r"\b(?:Benchmarks|Library)/[\w/]+\.py", lines))
        pairs = re.findall(r"\bdecisions?[ /](\d{4})(?:(?:, | and )(\d{4}))?", lines)
        cited = {number for pair in pairs for number in pair if number}
        absent = [name for name in scripts if not (ROOT / "Testing" / name).is_file()]
        absent += [f"decision {number}" for number in cited - decisions]
        if "\n# Tuned" in text and not scripts | cited:
            absent.append("what a constant was tuned on")
        missing += [f"{path.relative_to(ROOT)}: {name}" for name in sorted(absent)]
    assert not missing, "\n".join(missing)


def test_slicer_gets_the_same_requirements() -> None:
    lines = (ROOT / "MedEnhance/Resources/requirements.txt").read_text().splitlines()
    extras = PROJECT["optional-dependencies"]
    extra = [line for name in ("reports", "dicom", "training") for line in extras[name]]
    wanted = [*PROJECT["dependencies"], *extra]
    assert [line for line in lines if line and not line.startswith("#")] == wanted


def test_every_dependency_is_pinned_for_tests() -> None:
    pins = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    names = {
        re.split(r"[\[>=<~ ]", requirement)[0].lower()
        for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for requirement in group
    }
    assert names - {PROJECT["name"]} <= pins


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.training
@pytest.mark.parametrize("recipe", sorted((ROOT / "docs/recipes").glob("*.json")), ids=str)
def test_recipes_are_valid_configurations(recipe: Path) -> None:
    from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
    from MedEnhanceLib.training.jobs.train import training_config
    from MedEnhanceLib.training.slices.config import TrainSlicesConfig

    fields = json.loads(recipe.read_text(encoding="utf-8"))
    if "part" in fields:
        modality = training_config("codec", fields).modality
        assert recipe.stem == f"codec-{modality.lower()}-{fields['part']}"
        return
    made = (TrainHeadConfig if "structures" in fields else TrainSlicesConfig).from_json(fields)
    assert made.name == recipe.stem


def test_one_version_stands_wherever_a_reader_looks() -> None:
    newest = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    versions = {
        "CHANGELOG.md": newest and newest[1],
        "CITATION.cff": yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"],
        "codemeta.json": json.loads((ROOT / "codemeta.json").read_text("utf-8"))["version"],
    }
    assert versions == dict.fromkeys(versions, __version__)
    cmake = (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert "project(MedEnhance)\n" in cmake, "CMake has no version of its own"
    address = re.search(r'EXTENSION_HOMEPAGE "([^"]+)"', cmake)
    stated = (ROOT / "CITATION.cff", ROOT / "codemeta.json", ROOT / "pyproject.toml")
    assert address and all(address[1] in path.read_text("utf-8") for path in stated)


def test_citations_name_the_four_papers_and_no_version() -> None:
    page = (ROOT / "docs/trust.md").read_text(encoding="utf-8").partition("## The four papers")[2]
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    codemeta = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    titles = [one["title"] for one in cff["references"]]
    assert len(titles) == 4 and all(one["authors"] for one in cff["references"])
    assert [one["name"] for one in codemeta["referencePublication"]] == titles
    known = json.dumps([cff, codemeta])
    papers = re.findall(r"(?:arxiv.org/abs/|doi.org/)([\d./A-Z]+\d)", page)
    assert len(papers) == 4 and not [paper for paper in papers if paper not in known]
    assert {"softwareVersion", "date-released"}.isdisjoint({*cff, *codemeta})
    assert cff["license"] == PROJECT["license"]
    assert codemeta["license"].endswith(f"/{cff['license']}")
    address = cff["repository-code"]
    assert codemeta["codeRepository"] == address == PROJECT["urls"]["Repository"]
    assert f'EXTENSION_HOMEPAGE "{address}"' in (ROOT / "CMakeLists.txt").read_text("utf-8")
    people = [[one["name"] for one in file] for file in (cff["authors"], codemeta["author"])]
    assert people == [[one["name"] for one in PROJECT["authors"]]] * 2


@pytest.mark.parametrize("path", sorted((ROOT / "MedEnhance/Resources/UI").glob("*.ui")), ids=str)
def test_a_label_of_a_form_leads_to_its_field(path: Path) -> None:
    """A screen reader goes by it. Mnemonics would take the keys of Slicer's menus."""
    assert "&amp;" not in path.read_text(encoding="utf-8")
    for form in ElementTree.parse(path).iter("layout"):
        rows: dict[str, dict[str, ElementTree.Element]] = {}
        for item in form.findall("item") if form.get("class") == "QFormLayout" else ():
            rows.setdefault(item.get("row", ""), {})[item.get("column", "")] = item
        for row in rows.values():
            assert len(row) == 2 or any(item.get("colspan") for item in row.values())
            label = row["0"].find("widget") if len(row) == 2 else None
            if label is None or label.get("class") != "QLabel":
                continue
            fields = [each for each in row["1"].iter("widget") if each.get("class") != "QLabel"]
            names = [each.get("name") for each in fields if each.get("class") != "QWidget"]
            if names:
                assert label.findtext("property[@name='buddy']/cstring") in names, label.get("name")
