"""The page stands alone, says what it must, and trusts nothing that comes from a file."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.report.page import write_page

HOSTILE = "\"><script>alert('x')</script><img src=http://evil.example/ onerror=alert(1)>&.nii.gz"
_VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects what is on the page and checks that every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(name: str) -> dict[str, Any]:
    """A page where every part that can come from a file is `name`."""
    return {
        "title": name,
        "about": [("Input", name), (name, "value")],
        "summary": [name, "The second sentence."],
        "warnings": [name],
        "facts": [(name, name)],
        "picture": "picture.png",
        "alt": name,
        "caption": name,
        "columns": ("Volume", name),
        "rows": [(name, "1.0"), ("b", name)],
        "provenance": {name: {"input": name, name: [1, 2]}},
    }


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    reader = Reader(write_page(tmp_path, page_of(HOSTILE)).read_text(encoding="utf-8"))
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "iframe", "object", "link"})
    assert all("onerror" not in attributes for _, attributes in reader.tags)
    assert [image["src"] for image in reader.all("img")] == ["picture.png"]
    assert reader.all("img")[0]["alt"] == HOSTILE
    assert reader.text.count(HOSTILE) >= 10


def test_page_says_what_it_is_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = write_page(tmp_path, page_of("caf\udce9.nii.gz")).read_text(encoding="utf-8")
    assert "caf?.nii.gz" in html
    assert not [word for word in ("http", "@import", "url(", "<script") if word in html]
    reader = Reader(html)
    assert reader.text.count(RESEARCH_ONLY) == 2
    assert reader.all("html") == [{"lang": "en"}]
    assert len(reader.all("h1")) == 1
    assert all(image["alt"] for image in reader.all("img"))
    assert all(head["scope"] in ("col", "row") for head in reader.all("th"))


def test_existing_page_is_not_replaced(tmp_path: Path) -> None:
    write_page(tmp_path, page_of("first"))
    with pytest.raises(OutputError, match="exists"):
        write_page(tmp_path, page_of("second"))
    assert "first" in (tmp_path / "index.html").read_text(encoding="utf-8")
    write_page(tmp_path, page_of("second"), overwrite=True)
    assert "second" in (tmp_path / "index.html").read_text(encoding="utf-8")
