"""What Slicer's extension manager shows, and what the catalogue's reviewers look for."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from sources import ROOT

CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
FIELDS = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', CMAKE))
#: The repository's files as the catalogue reads them.
RAW = "https://raw.githubusercontent.com/medenhance/SlicerMedEnhance/main/"


def size_of(picture: Path) -> tuple[int, int]:
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", f"{picture.name} is no PNG"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_every_field_is_one_quoted_text() -> None:
    assert len(FIELDS) == CMAKE.count("set(EXTENSION_")
    assert FIELDS["CATEGORY"] == "Filtering"
    assert FIELDS["DEPENDS"] == "NA"
    assert FIELDS["HOMEPAGE"].endswith("/SlicerMedEnhance")
    assert "not a medical device" in FIELDS["DESCRIPTION"]


def test_the_addresses_lead_to_files_of_this_repository() -> None:
    for address in [FIELDS["ICONURL"], *FIELDS["SCREENSHOTURLS"].split()]:
        assert address.startswith(RAW)
        assert (ROOT / address.removeprefix(RAW)).is_file(), address


@pytest.mark.parametrize(
    "icon", ["Resources/MedEnhance.png", "MedEnhance/Resources/Icons/MedEnhance.png"]
)
def test_icons_have_the_size_that_slicer_asks_for(icon: str) -> None:
    assert size_of(ROOT / icon) == (128, 128)


def test_the_address_stands_in_one_file() -> None:
    """It is provisional: moving the repository means to edit CMakeLists.txt alone."""
    texts = [ROOT / "README.md"]
    texts += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "MedEnhance").rglob("*.py")]
    named = [p.name for p in texts if "github.com/medenhance" in p.read_text(encoding="utf-8")]
    assert named == []
