"""One HTML page that needs nothing but the files beside it: no network, no scripts.

Its template is page.html, its look page.css; Jinja2 escapes all text, whatever it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import atomic_write, output_error
from MedEnhanceLib.runtime.dependencies import require


def write_page(folder: str | Path, page: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write folder/index.html.

    Args:
        folder: exists; the page's files are in it.
        page: its content, by the names of the template.
        overwrite: whether an existing page is replaced.
    Returns:
        The path of the page.
    Raises:
        OutputError: it cannot be written, or exists.
        DependencyError: Jinja2 is missing.
    """
    jinja2 = require("jinja2", purpose="Writing a report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["json"] = _json_text
    text = environment.get_template("page.html").render(page=page, notice=RESEARCH_ONLY)
    target = Path(folder) / "index.html"
    with atomic_write(target, overwrite=overwrite) as temporary:
        # Names of files that are not UTF-8 hold lone surrogates: a "?" for people.
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return target


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


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
