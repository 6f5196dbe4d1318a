"""The report of a sequence: frames to choose, the mean of all of them, the diffusion tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.report.test_enhancement_page import Reader
from Library.report.test_enhancement_page import report as page_of

from MedEnhanceLib import io
from MedEnhanceLib.core.diffusion_gradients import Gradient, tensor_equations
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report import figures

#: Diffusivities along x, y and z, µm²/ms, and their anisotropy.
_AXES, _FA = np.array([1.7, 0.3, 0.3]), 0.7990
_VECTORS = np.random.default_rng(3).normal(size=(12, 3))
_ALONG = [tuple((each / np.linalg.norm(each)).tolist()) for each in _VECTORS]


def frames_of(volume: Volume, count: int) -> Volume:
    return replace(volume, voxels=np.stack([volume.voxels + np.int16(n) for n in range(count)]))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[np.ndarray]]:
    """Gray levels of the images of each picture; what is written instead is quick to make."""
    pictures: list[list[np.ndarray]] = []

    def as_png(picture: figures.Picture) -> bytes:
        images = [image for axes in picture.figure.axes for image in axes.images]
        pictures.append([np.asarray(image.get_array()) for image in images])
        return b"Software\0MedEnhance"

    monkeypatch.setattr(figures.Picture, "_repr_png_", as_png)
    return pictures


@pytest.fixture
def report(run: Any, networks: Any, drawn: Any, tmp_path: Path) -> Callable[..., str]:
    def enhance(volume: Volume, *options: str) -> str:
        scan, page = tmp_path / "scan.nii.gz", tmp_path / "report"
        io.save(volume, scan, overwrite=True)
        ran = run("enhance", scan, tmp_path / "out.nii.gz", "--report", page, *options)
        return (page / "index.html").read_text(encoding="utf-8") if ran.status == 0 else ran.err

    return enhance


def test_frames_can_be_chosen_without_a_script(report: Any, head: Volume, tmp_path: Path) -> None:
    page = report(replace(frames_of(head.crop(k=slice(5, 7)), 25), frame_interval_s=2.0))
    tags = Reader(page).tags
    numbers = [0, 2, 4, 7, 9, 11, 13, 15, 17, 20, 22, 24]
    parts = [(tag, each) for tag, each in tags if tag in ("input", "label", "figure")][1:-1]
    # The style shows the figure that follows the label of the checked input.
    assert [tag for tag, _ in parts] == ["input", "label", "figure"] * 12
    assert [each["id"] for _, each in parts[::3]] == [f"frame-{n}" for n in numbers]
    assert [each["for"] for _, each in parts[1::3]] == [f"frame-{n}" for n in numbers]
    assert [n for n, (_, each) in enumerate(parts) if "checked" in each] == [0]
    shown = {each["src"] for tag, each in tags if tag == "img"} - {"comparison.png"}
    written = {f"frames/{path.name}" for path in (tmp_path / "report/frames").iterdir()}
    assert shown == written == {f"frames/{n:03d}.png" for n in numbers} | {"frames/mean.png"}
    assert "12 of 25 frames" in page and "Frame 24: 48 s after frame 0." in page


def test_a_report_replaces_its_own_pictures_on_request_and_no_others(
    report: Callable[..., str], head: Volume, tmp_path: Path
) -> None:
    report(frames_of(head, 3))
    frames = tmp_path / "report/frames"
    for name in ("report/index.html", "report/comparison.png", "out.nii.gz", "out.nii.gz.json"):
        (tmp_path / name).unlink()
    assert "mean.png exists already" in report(frames_of(head, 2))
    assert not (tmp_path / "out.nii.gz").exists()
    report(frames_of(head, 2), "--force")
    assert sorted(path.name for path in frames.iterdir()) == ["000.png", "001.png", "mean.png"]
    (frames / "007.png").write_bytes(b"another program's")
    assert "007.png, which MedEnhance did not write" in report(frames_of(head, 2), "--force")
    assert (frames / "007.png").read_bytes() == b"another program's"


def test_the_mean_shows_what_all_frames_lost(drawn: Any, head: Volume, tmp_path: Path) -> None:
    before = replace(head, voxels=np.stack([head.voxels] * 4))
    change = np.array([9, -9, 20, -20], np.int16).reshape(4, 1, 1, 1) * np.ones_like(head.voxels)
    change[:, :, 20:, :] -= 5
    noise = {"sigma": 15.5, "share_removed": 1.0, "mean_changed": 3.5, "mean_changed_by_noise": 7.8}
    after = before.with_voxels(before.voxels + change)
    page = page_of(tmp_path, before, after, results={"measured": {"noise": noise}})
    one, mean = drawn[3][2], drawn[5][2]
    assert set(np.unique(one)) == {15, 20} and set(np.unique(mean)) == {-5, 0}
    sentence = "The mean of all frames changed by ±3.5 in tissue; noise alone explains about ±7.8."
    assert sentence in page.partition("frames/mean.png")[2]


def test_anisotropy_is_stated_before_and_after(report: Any, drawn: Any) -> None:
    gradients = (Gradient(0.0), *(Gradient(1000.0, each) for each in _ALONG[:6]))
    decay = [np.exp(-each.b_value / 1000 * _AXES @ np.square(each.direction)) for each in gradients]
    inside = np.pad(np.full((3, 9, 10), 1000), ((0, 0), (5, 6), (6, 4)))
    voxels = np.float32(np.multiply.outer(decay, inside))
    page = " ".join(report(Volume(voxels, modality="MR", gradients=gradients)).split())
    assert "median 0.80 before, 0.80 after. Noise raises FA." in page
    assert "median 0.77 µm²/ms before, 0.77 after" in page
    assert "Frame 0: b = 0 s/mm²." in page and "Frame 6: b = 1000 s/mm² along (" in page
    before, after = (image.max() for image in drawn[-1])
    assert before == pytest.approx(_FA, abs=1e-4) and before - 0.01 < after < before


def test_a_tensor_takes_six_directions_and_a_frame_without_weighting() -> None:
    plain, trace = [Gradient(0.0)], [Gradient(1000.0)] * 8
    weak, strong, two = (
        [Gradient(b, each) for b in shells for each in _ALONG]
        for shells in ([1000.0], [3000.0], [500.0, 1000.0])
    )
    assert not any(map(tensor_equations, (plain + weak[:5] * 2, two, plain + strong)))
    numbers, equations = tensor_equations(plain + trace + weak) or ([], np.array([]))
    assert [*numbers] == [0, *range(9, 21)] and equations.shape == (13, 7)
