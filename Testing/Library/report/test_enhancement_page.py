"""The page stands alone, says what changed, and trusts nothing that comes from a file."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.manifest import RESEARCH_ONLY, make_manifest
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.report.enhancement_page import Table, enhancement_report
from MedEnhanceLib.report.figures import Pane, comparison

HOSTILE = "\"><script>alert('x')</script><img src=http://evil.example/ onerror=alert(1)>&.nii.gz"
_VOID = {"meta", "img", "input"}
pytestmark = pytest.mark.usefixtures("coarse_pictures")


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


@pytest.fixture
def enhanced(head: Volume) -> Volume:
    return head.with_voxels(head.voxels + np.int16(3), did="enhanced with mr")


def report(folder: Path, volume: Volume, enhanced: Volume, **options: Any) -> str:
    model = {"name": "knee", "sha256": "ab" * 32} | options.pop("model", {})
    manifest = make_manifest(
        "enhanced", config={}, inputs={"input": HOSTILE}, seconds=1.25, model=model
    )
    manifest |= {"warnings": options.pop("warnings", ())}
    picture = comparison([Pane("Input", volume), Pane("Enhanced", enhanced)])
    page = enhancement_report(
        folder,
        name=HOSTILE,
        volume=volume,
        enhanced=enhanced,
        picture=picture,
        manifest=manifest | {"results": options.pop("results", {})},
        **options,
    )
    files = ["comparison.png", *["frames"] * volume.is_sequence, "index.html"]
    assert sorted(path.name for path in folder.iterdir()) == files
    return page.read_text(encoding="utf-8")


def test_report_says_what_changed_was_measured_and_done(
    tmp_path: Path, head: Volume, enhanced: Volume
) -> None:
    noise = {"sigma": 12.5, "units": "HU", "confidence": 0.4, "share_removed": 0.8, "reason": "few"}
    measured = {"noise": noise, "bias_field": {"corrected": True}}
    facts = {"samples": 8, "calibration": {"fitted_on": "held-out <heads>", "sha256": "ab"}}
    results = {"measured": measured, "uncertainty": facts, "segmentation_limits": ["A tool."]}
    results["segmentation_warning"] = "head: No T2; head: No fluid"
    table = [{"label": "white matter", "voxels": 12345, "volume_ml": 6.7891}]
    tissue = head.voxels > head.voxels.mean()
    in_tissue = enhanced.with_voxels(np.where(tissue, enhanced.voxels, head.voxels))
    html = report(
        tmp_path, head, in_tissue, results=results, table=table, warnings=["head: No T2", "Odd"]
    )
    text = " ".join(html.split())
    changed = f"±{3 * np.sqrt(tissue.mean()):.3g} units of the input, and none by more than 3."
    assert f"The enhancement changed all voxels by {changed}" in text
    assert "direction) is unchanged" in text
    assert "knee abababababab" in text
    assert "1.2 s" in text
    assert "Noise found: ±12.5 HU (1 SD); filtered: 80 %, because few" in text
    assert "Bias field corrected (N4)." in text
    assert "calibrated on held-out &lt;heads&gt;" in text
    above, _, beneath = text.partition("12,345")
    assert "No T2" not in above and "Odd." in above
    assert "head: No T2. head: No fluid. A tool." in beneath
    for part in ("12,345", "6.789", "Volume, ml"):
        assert part in text


def test_thin_slices_are_compared_with_an_interpolation(tmp_path: Path, head: Volume) -> None:
    slices = {"before": 6, "after": 12, "spacing_before_mm": 3.0, "spacing_after_mm": 1.5}
    slices |= {"thickness_mm": 3.0, "profile": "box"}
    better, same = (
        " ".join(
            report(
                tmp_path / str(change),
                head,
                head.with_voxels(head.voxels + np.int16(change), did="slices restored"),
                results={"measured": {"slices": slices}},
            ).split()
        )
        for change in (3, 0)
    )
    assert "interpolated to the new grid, are compared with the result" in better
    assert "new grid covers the space" in better and "unchanged" not in better
    assert "every voxel is that of the interpolation" in same
    assert "that of the input" not in same and "this is corrected" not in same


def test_a_sequence_that_begins_with_an_empty_frame_is_drawn_by_another(
    tmp_path: Path, head: Volume
) -> None:
    frames = np.stack([np.zeros_like(head.voxels), head.voxels])
    sequence = replace(head, voxels=frames)
    drawn, alone = (comparison([Pane("Input", each)]) for each in (sequence, head))
    pages = []
    for picture, name in ((drawn, "a.png"), (alone, "b.png")):
        picture.save(tmp_path / name, overwrite=False)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_the_page_of_a_diffusion_series_says_which_frame_it_shows_and_why(
    tmp_path: Path, head: Volume
) -> None:
    series = replace(head, voxels=np.stack([head.voxels, head.voxels // 2]))
    series = replace(series, gradients=(Gradient(0.0), Gradient(1000.0)))
    page = " ".join(report(tmp_path, series, series).split())
    assert "One of 2 frames is shown, the first with b = 1000 s/mm²" in page
    assert f"2 frames of {head.shape[2]} × {head.shape[1]} × {head.shape[0]} (columns" in page
    assert "A line along an edge" in page


def test_the_page_names_its_input_and_says_where_nothing_changed(
    tmp_path: Path, head: Volume
) -> None:
    fine = replace(head, geometry=Geometry((0.9765620231, 0.9765620231, 3.0)))
    rows = [{"name": "after", "psnr": 25.0}]
    table = Table("Against the truth", {"name": "volume", "psnr": "PSNR"}, rows, "Good.")
    noise = {"sigma": 5.0, "confidence": 1.0, "share_removed": 1.0}
    results = {"strength": 0.0, "measured": {"noise": noise}}
    options = {
        "results": results,
        "comparisons": [table],
        "reference": "The truth is known.",
        "warnings": ["odd."],
    }
    html = report(tmp_path, fine, fine.with_voxels(fine.voxels, did="enhanced"), **options)
    text = " ".join(html.split())
    assert "Nothing was changed: every voxel is that of the input." in text
    assert "changed all" not in text and "filtered: 0 %, because the strength is 0." in text
    assert "0.9766 × 0.9766 × 3 mm" in text and "0.97656" not in text.partition("Provenance")[0]
    assert HOSTILE in Reader(html).text
    assert "The truth is known." in text and "no reference" not in text
    assert "<h2>Against the truth</h2>" in text and "<td>25</td>" in text and "<p>Good.</p>" in text
    assert "<li>odd.</li>" in text


def test_hostile_texts_stay_text_and_nothing_comes_from_elsewhere(
    tmp_path: Path, head: Volume, enhanced: Volume
) -> None:
    row = {"label": HOSTILE, "voxels": 1, "volume_ml": 1.0}
    name = "caf\udce9"
    html = report(
        tmp_path,
        head,
        enhanced.with_voxels(enhanced.voxels, did=HOSTILE),
        model={"name": HOSTILE},
        table=[row],
        warnings=[HOSTILE, name],
    )
    assert "caf?" in html
    reader = Reader(html)
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "iframe", "object", "link"})
    assert all("onerror" not in attributes for _, attributes in reader.tags)
    assert reader.text.count(HOSTILE) >= 5
    assert reader.text.count(RESEARCH_ONLY) >= 2
    ((_, image),) = [entry for entry in reader.tags if entry[0] == "img"]
    assert image["src"] == "comparison.png"
    assert "Axial" in str(image["alt"])
    plain = html.replace("http://evil.example/", "")
    assert not [word for word in ("http", "@import", "url(", "<script") if word in plain]


def test_change_of_integers_does_not_wrap_around(tmp_path: Path, head: Volume) -> None:
    low = head.with_voxels(np.full(head.shape, -32768, np.int16))
    high = head.with_voxels(np.full(head.shape, 32767, np.int16))
    assert "none by more than 6.55e+04" in report(tmp_path, low, high)


def test_an_existing_page_is_not_replaced(tmp_path: Path, head: Volume, enhanced: Volume) -> None:
    before = report(tmp_path, head, enhanced)
    with pytest.raises(OutputError, match="exists"):
        report(tmp_path, head, head)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == before
    assert report(tmp_path, head, head, overwrite=True) != before
