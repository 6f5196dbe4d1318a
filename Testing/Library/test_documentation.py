"""What the documentation says of the code is there: paths, the picture, the index of decisions."""

from __future__ import annotations

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from MedEnhanceLib.unicompress import CompressConfig

ROOT = Path(__file__).resolve().parents[2]
_PLACES = (ROOT, ROOT / "MedEnhanceLib", ROOT / "MedEnhance", ROOT / "docs")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_path_of_the_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[A-Za-z_]+/)+[\w.]*)`", text))
    assert len(named) > 10
    missing = [path for path in named if not any((place / path).exists() for place in _PLACES)]
    assert not missing, sorted(missing)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


@pytest.mark.slow
def test_the_picture_is_that_of_the_code() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/architecture.py"))
    assert drawn["PICTURE"].read_text(encoding="utf-8") == drawn["picture"](), (
        "run: python docs/architecture.py"
    )


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(path.name for path in folder.glob("0*.md"))
    assert re.findall(r"\]\((0[\w.-]+\.md)\)", index) == pages


def test_the_help_of_speed_says_what_the_page_says() -> None:
    help_text = next(one.metadata for one in fields(CompressConfig) if one.name == "speed")
    page = (ROOT / "docs/compression.md").read_text(encoding="utf-8")
    for words in (
        "three to eight times as fast, 5 to 31 % larger",
        "half the time",
        "some tenths of a dB",
        "for three times as long",
        "many times the time to write",
        "some thirty times to read",
    ):
        assert words in str(help_text)
        assert words in page
