"""What the site shows beyond docs/: README, model cards, changes, notebooks, commands, Python API.

Hooks of MkDocs (mkdocs.yml). Pages are written for GitHub, where links are relative to the
repository; here they lead to the site's page of a file, or, where it has none, to the repository.
"""

from __future__ import annotations

import inspect
import json
import posixpath
import re
import runpy
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

import MedEnhanceLib

ROOT = Path(__file__).resolve().parents[1]
#: File of the repository → its page, for what lies outside docs/.
_ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
} | {
    path.relative_to(ROOT).as_posix(): f"models/{path.parts[-3]}.md"
    for path in sorted((ROOT / "Resources/models").glob("*/docs/README.md"))
}
_NOTEBOOKS = {
    path.relative_to(ROOT).as_posix(): f"notebooks/{path.stem}.md"
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
}
#: What public functions return or pass, besides the public classes.
_RESULTS = (
    "denoise.strength.Enhanced",
    "core.labels.Segmentation",
    "unicompress.encode.CompressResult",
    "unicompress.decode.StoredVolume",
    "unicompress.recovery.RecoverReport",
    "unicompress.recovery.LostBlock",
    "io.dicom.listing.SeriesRow",
    "runtime.progress.Event",
)
_SOURCES = {page: source for source, page in (_ELSEWHERE | _NOTEBOOKS).items()}
_LINK = re.compile(r"(\]\()([^)\s#]*)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_ITEM = re.compile(r"^([-*]|\d+\.) ")
_SENTENCE = re.compile(r"^(?!([-*]|\d+\.) )[^\s#]")


def on_config(config: Any) -> Any:
    """Set the repository's address and version; group model cards and decisions."""
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    link = re.search(r'EXTENSION_HOMEPAGE "([^"]+)"', cmake)[1]  # as repo_url it asks GitHub
    config.extra["social"] = [{"icon": "material/git", "link": link, "name": "Repository"}]
    config.site_name += f" {MedEnhanceLib.__version__}"
    lists = dict(_groups(config.nav))
    cards = [page for page in _SOURCES if page.startswith("models/")]
    lists["Models"] += [{page.split("/")[1].removesuffix(".md"): page} for page in cards]
    lists["Decisions"] += [
        f"decisions/{path.name}" for path in sorted((ROOT / "docs/decisions").glob("0*.md"))
    ]
    return config


def _groups(nav: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each group of the navigation, with those inside, and its list of pages."""
    for name, pages in (pair for entry in nav if isinstance(entry, dict) for pair in entry.items()):
        if isinstance(pages, list):
            yield name, pages
            yield from _groups(pages)


def on_files(files: Any, config: Any) -> Any:
    """Add pages of files outside docs/, and those of commands and of the Python API."""
    for source, page in _ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    logo = str(ROOT / "Resources/MedEnhance.png")
    files.append(File.generated(config, "images/logo.png", abs_src_path=logo))
    for source, page in _NOTEBOOKS.items():
        files.append(File.generated(config, page, content=_notebook(ROOT / source)))
    commands = runpy.run_path(str(ROOT / "docs/commands.py"))["reference"]()
    files.append(File.generated(config, "commands.md", content=commands))
    files.append(File.generated(config, "api.md", content=_api()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turn links of the repository into links of the site, and GitHub's lists into lists.

    Decisions are left out of the search: they answer no question of a user.
    """
    here = page.file.src_uri
    if here.startswith("decisions/"):
        page.meta["search"] = {"exclude": True}
    source = _SOURCES.get(here, f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        link = match[2]
        if not link or "://" in link or link.startswith("mailto:"):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        place = target.removeprefix("docs/") if target.startswith("docs/") else None
        place = (_ELSEWHERE | _NOTEBOOKS).get(target, place)
        if place is None:
            return f"{match[1]}{config.extra['social'][0]['link']}/blob/main/{target}{match[3]}"
        return f"{match[1]}{posixpath.relpath(place, posixpath.dirname(here) or '.')}{match[3]}"

    lines: list[str] = []
    is_code = False
    for line in markdown.split("\n"):
        is_code ^= bool(_FENCE.match(line))
        # GitHub lets a list follow its sentence at once; Python-Markdown wants an empty line.
        if not is_code and _ITEM.match(line) and lines and _SENTENCE.match(lines[-1]):
            lines.append("")
        lines.append(line if is_code else _LINK.sub(moved, line))
    return "\n".join(lines)


class Completed(griffe.Extension):
    """Arguments as `api.takes` completes them when a function is made, and examples."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace the one argument `call` of a declaration by its options."""
        if func.parent.is_module and func.parent.path.startswith("MedEnhanceLib.api"):
            made = getattr(import_module(func.parent.path), func.name)
            if hasattr(made, "__wrapped__"):
                func.docstring.value = inspect.cleandoc(made.__doc__)
                parameters = inspect.signature(made).parameters.values()
                func.parameters = griffe.Parameters(*map(_parameter, parameters))

        self.on_object(obj=func)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Docstrings end in an example, indented as code; here it becomes a block of Python."""
        if obj.docstring is None:
            return
        before, _gap, last = obj.docstring.value.rstrip().rpartition("\n\n")
        if before and all(line.startswith("    ") for line in last.split("\n")):
            code = textwrap.dedent(last)
            obj.docstring.value = f"{before}\n\n```python\n{code}\n```"


def _parameter(one: inspect.Parameter) -> griffe.Parameter:
    kind = griffe.ParameterKind(one.kind.description)
    default = None if one.default is one.empty else repr(one.default)
    annotation = inspect.formatannotation(one.annotation).strip("'\"")
    return griffe.Parameter(one.name, annotation=annotation, kind=kind, default=default)


def _notebook(path: Path) -> str:
    """Its cells as a page; pictures are what running it gives."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    blocks = [
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell, text in zip(cells, texts, strict=True)
    ]
    link = f'<a href="../{path.name}" download>This page as a notebook</a>'
    return "\n\n".join([blocks[0], link, *blocks[1:]])


def _api() -> str:
    """Write a section for each public name, by the module that it is taken from."""
    names = [name for name in MedEnhanceLib.__all__ if not name.startswith("__")]
    functions = [name for name in names if name.islower()]
    classes = [name for name in names if name not in functions and not _is_error(name)]
    errors = [name for name in names if name not in functions and _is_error(name)]
    text = (
        "# Reference\n\n`import MedEnhanceLib as me`: these names, `me.enhance` and so on, are the "
        "whole public interface. Options are declared once, so the texts are those of the command "
        "line. What they return or pass comes last. [How to use it, with examples](python.md).\n"
    )
    for group in (functions, classes, errors):
        for name in group:
            text += f"\n::: {getattr(MedEnhanceLib, name).__module__}.{name}\n"
    return text + "".join(f"\n::: MedEnhanceLib.{name}\n" for name in _RESULTS)


def _is_error(name: str) -> bool:
    return name.endswith("Error") or name == "Cancelled"
