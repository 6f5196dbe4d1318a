"""One HTML page that needs nothing but the files beside it: no network, no scripts.

Its template is page.html, its look page.css; Jinja2 escapes all text, whatever it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import atomic_write, output_error
from MedEnhanceLib.runtime.dependencies import require


@dataclass(frozen=True)
class Fact:
    """A key figure at the top of the page: "26.1 dB" and its label."""

    value: str
    label: str


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is the row's heading.

    note: a sentence below it: what was measured, how, where.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image file in the page's folder.

    alt: what it shows, for screen readers. caption: printed below it.
    """

    file: str
    title: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class FileEntry:
    """A file in the page's folder, and a description."""

    file: str
    what: str


@dataclass(frozen=True)
class Page:
    """The content of a page.

    about: names and values under the title (when, input, model, device).
    summary: plain sentences; the first is the most important one. notes: what a reader must know
    to judge the numbers. pictures: the first is above the tables, the others below.
    provenance: JSON objects by name, shown folded.
    """

    title: str
    about: Sequence[tuple[str, str]]
    summary: Sequence[str]
    facts: Sequence[Fact] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    files: Sequence[FileEntry] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


def write_page(folder: str | Path, page: Page, *, overwrite: bool = False) -> Path:
    """Write folder/index.html.

    Args:
        folder: exists; the page's pictures and files are in it.
        page: its content; sizes of its files are looked up in the folder.
        overwrite: whether an existing page is replaced.
    Returns:
        The path of the page.
    Raises:
        OutputError: it cannot be written, or exists.
        DependencyError: Jinja2 is missing.
    """
    target = Path(folder) / "index.html"
    with atomic_write(target, overwrite=overwrite) as temporary:
        temporary.write_text(render(page, Path(folder)), encoding="utf-8", errors="replace")
    return target


def render(page: Page, folder: Path) -> str:
    """The page as HTML; sizes of files are looked up in `folder`."""
    jinja2 = require("jinja2", purpose="Writing a report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "link": _link,
        "json": _json_text,
        "size": lambda file: _size_of(folder / file),
    }
    summary = page.summary or ("",)
    template = environment.get_template("page.html")
    return str(template.render(page=replace(page, summary=summary), notice=RESEARCH_ONLY))


def make_folder(folder: str | Path) -> Path:
    """Make a folder unless it exists; raises OutputError where it cannot be made."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except FileExistsError as cause:
        raise OutputError(f"{target} is a file, not a folder", "Choose another name.") from cause
    except OSError as cause:
        raise output_error(target, cause) from cause
    return target


def size_text(count: int) -> str:
    """A number of bytes as text: "17.1 MB" (decimal, as file managers count)."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def duration_text(seconds: float) -> str:
    """A time as a person says it: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _link(file: str) -> str:
    """A relative link; the leading ./ keeps a name with a colon from becoming a scheme."""
    name = file.replace("\\", "/") if "/" not in file else file
    return "./" + quote(name, errors="replace")


def _size_of(path: Path) -> str:
    try:
        return size_text(path.stat().st_size)
    except OSError:
        return "–"


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
