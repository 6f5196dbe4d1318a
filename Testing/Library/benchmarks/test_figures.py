"""Every number of README and the pages is that of its result in JSON, or defined with a reason."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = ["README.md", *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return import_module("figures")


@pytest.fixture(scope="module")
def origins() -> ModuleType:
    return import_module("_figure_origins")


def test_every_number_of_the_pages_is_that_of_its_result(figures: ModuleType) -> None:
    problems = [
        problem
        for path in figures.pages()
        for problem in figures.wrong(
            path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        )
    ]
    assert not problems, "\n".join(problems)


def test_all_pages_but_decisions_are_checked(figures: ModuleType) -> None:
    checked = {path.relative_to(ROOT).as_posix() for path in figures.pages()}
    left_out = {page for page in PAGES if page not in checked}
    assert all(page.startswith("docs/decisions/") for page in left_out)
    assert len(checked) > 25


_INPUT = "enhancement.rows[modality=MR; case=Rician 5 %; arm=input].psnr_image"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"0.28<!-- = {_INPUT}:mean --> dB", "0.28 is "),
        ("3 dB above the spline", "'3 dB' has no origin"),
        ("three times as fast", "'three times' has no origin"),
        (f"19.41<!-- = {_INPUT} -->", " numbers at"),
    ],
)
def test_a_number_that_is_wrong_or_has_no_origin_is_found(
    figures: ModuleType, line: str, problem: str
) -> None:
    (found,) = figures.wrong("page.md", f"Text.\n{line}\n")
    assert problem in found
    assert found.startswith("page.md:2: ")


def test_a_generated_table_that_was_changed_by_hand_is_found(figures: ModuleType) -> None:
    written = figures.refreshed("<!-- figures: exact -->\n<!-- /figures -->\n")
    assert not list(figures.wrong("page.md", written))
    (found,) = figures.wrong("page.md", re.sub(r"\d", "9", written, count=1))
    assert "the table exact is another now" in found


def test_volumes_are_compared_with_themselves_alone(origins: ModuleType) -> None:
    rows = "enhancement.rows[case=Rician 5 %; arm="
    assert origins.value_of(f"({rows}ours].psnr_image - {rows}input].psnr_image):min") > 5
    with pytest.raises(origins.FigureError, match="differ in subject"):
        origins.value_of(
            f"({rows}ours; subject=sample template].psnr_image - "
            f"{rows}input; subject~C07].psnr_image):min"
        )


def stated(name: str) -> list[dict[str, object]]:
    """The measured table of a shipped model."""
    path = ROOT / "Resources/models" / name / "configs/metadata.json"
    measured: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["measured"]
    return measured


@pytest.mark.parametrize(
    ("name", "benchmark", "rows_of", "chosen"),
    [
        ("brain", "segmentation", "brain_rows", ""),
        ("codec-ct", "compression", "codec_rows", "CT "),
        ("codec-mr", "compression", "codec_rows", "MR "),
        ("codec-em", "compression", "codec_rows", "EM "),
        ("mr-slices", "slices", "slice_rows", "MR"),
        ("ct-slices", "slices", "slice_rows", "CT"),
    ],
)
def test_the_cards_of_models_state_what_was_measured(
    origins: ModuleType, name: str, benchmark: str, rows_of: str, chosen: str
) -> None:
    cards = import_module("record_in_cards")
    arguments = [chosen] if chosen else []
    rows = getattr(cards, rows_of)(origins.record(benchmark)["rows"], *arguments)
    assert rows
    both = [
        sorted(json.dumps(row, sort_keys=True) for row in each) for each in (stated(name), rows)
    ]
    assert both[0] == both[1], "run: python Testing/Benchmarks/record_in_cards.py"
    card = (ROOT / "Resources/models" / name / "docs/README.md").read_text(encoding="utf-8")
    assert all(str(value) in card for row in rows for value in row.values())


def test_constants_that_the_page_lists_are_in_the_code() -> None:
    page = (ROOT / "docs/how-it-works.md").read_text("utf-8").partition("## Constants")[2]
    places = {
        path.stem: path
        for folder in ("denoise", "filters", "noise")
        for path in (ROOT / "MedEnhanceLib" / folder).glob("*.py")
    }
    count = 0
    for row in re.findall(r"^\| (`.*?) \|", page, re.M):
        module = places[row[1:].partition(".")[0]].read_text("utf-8")
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", row):
            assert re.search(rf"^[A-Z_, ]*\b{name}\b.* = ", module, re.M), name
            count += 1
    assert count > 50
