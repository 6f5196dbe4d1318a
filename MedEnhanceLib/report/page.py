"""One HTML page that needs nothing but the files beside it: no network, no scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.style import STYLE


@dataclass(frozen=True)
class Fact:
    """A figure that stands out at the top of the page: "26.1 dB", with what it is."""

    value: str
    label: str


@dataclass(frozen=True)
class Table:
    """A table with one heading a column; the first cell of each row names the row.

    note: a sentence below it: what was measured, how, where.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image file in the page's folder.

    alt: what it shows, for someone who does not see it. caption: printed below it.
    """

    file: str
    title: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class FileEntry:
    """A file in the page's folder, and what it is."""

    file: str
    what: str


@dataclass(frozen=True)
class Page:
    """What the page says, in the order in which it says it.

    about: pairs shown under the title (when, input, model, device).
    summary: plain sentences; the first is the most important one. notes: what a reader must know
    to judge the numbers. pictures: the first one stands above the tables, the others below.
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
    """Write folder/index.html; everything that is said is escaped, whatever it came from.

    Raises OutputError where it cannot be written or exists already.
    """
    target = Path(folder) / "index.html"
    with atomic_write(target, overwrite=overwrite) as temporary:
        temporary.write_text(render(page, Path(folder)), encoding="utf-8", errors="replace")
    return target


def render(page: Page, folder: Path) -> str:
    """The page as HTML; sizes of files are looked up in `folder`."""
    parts = [
        _header(page),
        _facts(page.facts),
        *(_figure(picture) for picture in page.pictures[:1]),
        *(_table(table) for table in page.tables),
        _notes(page.notes),
        _pictures(page.pictures[1:]),
        _files(page.files, folder),
        _provenance(page.provenance),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(page.title)} – MedEnhance</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<footer>{escape(RESEARCH_ONLY)}</footer>\n</body>\n</html>\n"
    )


def size_text(count: int) -> str:
    """Bytes in words: "17.1 MB" (decimal, as file managers count)."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def _header(page: Page) -> str:
    about = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.about
    )
    first, *rest = page.summary or ("",)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in rest)
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in page.warnings)
    return (
        f'<header>\n<p class="mark">MedEnhance <span class="notice">{escape(RESEARCH_ONLY)}</span>'
        f"</p>\n<h1>{escape(page.title)}</h1>\n"
        f'<p class="lead">{escape(first)}</p>\n'
        + (f'<ul class="plain">{sentences}</ul>\n' if sentences else "")
        + (f'<ul class="warnings">{warnings}</ul>\n' if warnings else "")
        + f'<dl class="about">{about}</dl>\n</header>'
    )


def _facts(facts: Sequence[Fact]) -> str:
    cards = "".join(
        f"<div><strong>{escape(fact.value)}</strong><span>{escape(fact.label)}</span></div>"
        for fact in facts
    )
    return f'<section class="facts" aria-label="Key figures">{cards}</section>' if cards else ""


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section>\n<h2>{escape(table.title)}</h2>\n<div class="scroll"><table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n"
        f"{note}\n</section>"
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    sentences = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<section>\n<h2>To keep in mind</h2>\n<ul class="plain">{sentences}</ul>\n</section>'


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "\n".join(_figure(picture) for picture in pictures)
    return f"<section>\n<h2>More pictures</h2>\n{figures}\n</section>"


def _figure(picture: Picture) -> str:
    link = _link(picture.file)
    return (
        f"<figure>\n<h3>{escape(picture.title)}</h3>\n"
        f'<a href="{link}"><img src="{link}" alt="{escape(picture.alt)}"></a>\n'
        f"<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"
    )


def _files(files: Sequence[FileEntry], folder: Path) -> str:
    if not files:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row"><a href="{_link(entry.file)}">{escape(entry.file)}</a></th>'
        f'<td class="words">{escape(entry.what)}</td>'
        f"<td>{_size_of(folder / entry.file)}</td></tr>"
        for entry in files
    )
    return (
        '<section>\n<h2>Files</h2>\n<div class="scroll"><table>\n<thead><tr>'
        '<th scope="col">File</th><th scope="col" class="words">What it is</th>'
        '<th scope="col">Size</th>'
        f"</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n</section>"
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return ""
    folded = "\n".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(_json_text(value))}</pre></details>"
        for name, value in provenance.items()
    )
    return f"<section>\n<h2>Provenance</h2>\n{folded}\n</section>"


def _link(file: str) -> str:
    """A relative link; the leading ./ keeps a name with a colon from becoming a scheme."""
    name = file.replace("\\", "/") if "/" not in file else file
    return escape("./" + quote(name, errors="replace"))


def _size_of(path: Path) -> str:
    try:
        return escape(size_text(path.stat().st_size))
    except OSError:
        return "–"


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
