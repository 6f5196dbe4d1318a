"""Comparison sheets: right proportions, one window, closed contours; as a notebook shows them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import color_of
from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.core.modality import SOFT_TISSUE
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.report.figures import Pane, choose_window, comparison

PNG = b"\x89PNG"
TISSUE = {1: "gray matter", 2: "white matter"}


def images_of(figure: Any) -> list[Any]:
    return [image for axes in figure.axes for image in axes.images]


def ball(spacing: tuple[float, float, float]) -> Volume:
    """A bright ball of 20 mm radius, whatever the spacing is."""
    shape = [int(60 / size) for size in reversed(spacing)]
    centered = np.indices(shape).T - (np.array(shape) - 1) / 2
    inside = np.linalg.norm(centered * spacing[::-1], axis=-1).T <= 20
    return Volume(inside * np.int16(1000), Geometry(spacing), modality="MR")


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 5.0), (2.0, 0.8, 1.0)])
def test_a_ball_is_round_in_every_plane_whatever_the_spacing(
    spacing: tuple[float, float, float],
) -> None:
    picture = comparison([Pane("", ball(spacing))])
    picture._repr_png_()
    for image in images_of(picture.figure)[:3]:
        bright = np.argwhere(np.asarray(image.get_array()) > 500)
        rows, columns = np.ptp(bright, axis=0) + 1
        box, shape = image.get_window_extent(), image.get_array().shape
        height, width = box.height * rows / shape[0], box.width * columns / shape[1]
        assert height / width == pytest.approx(1.0, abs=0.15)


def test_all_gray_images_have_one_window(head: Volume) -> None:
    brighter = head.with_voxels(head.voxels * 3)
    figure = comparison([Pane("Input", head), Pane("Enhanced", brighter)]).figure
    limits = {image.get_clim() for image in images_of(figure) if image.get_cmap().name == "gray"}
    assert limits == {choose_window(head)}


def test_difference_is_drawn_around_zero_with_units(head: Volume) -> None:
    ct = Volume(head.voxels % 200, head.geometry, modality="CT", units="HU")
    warmer = ct.with_voxels(ct.voxels + 5)
    figure = comparison([Pane("CT", ct), Pane("Change", warmer, minus=ct)]).figure
    scales = {image.get_clim() for image in images_of(figure)}
    assert SOFT_TISSUE in scales
    ((low, high),) = scales - {SOFT_TISSUE}
    assert -low == high == 5
    assert "difference, HU" in [axes.get_xlabel() for axes in figure.axes]
    assert np.all(images_of(figure)[3].get_array() == 5)


def _chest(tissue: float, inside: float, share: float) -> Volume:
    """A body of `tissue` HU in air, with noise, of which a share shows something else."""
    voxels = np.full((6, 64, 64), -1000.0)
    voxels[:, 8:56, 8:56] = tissue
    voxels[:, 8:56, 8 : 8 + round(48 * share)] = inside
    noise = np.random.default_rng(0).normal(0, 60, voxels.shape)
    return Volume((voxels + noise).astype(np.float32), modality="CT", units="HU")


def _windows(picture: Any) -> list[tuple[float, float]]:
    return [axes.images[0].get_clim() for axes in picture.figure.axes if axes.get_title()]


@pytest.mark.parametrize(
    ("inside", "share", "low", "high"), [(450, 0.4, 0, 450), (-800, 0.4, -800, 50)]
)
def test_a_ct_that_soft_tissue_does_not_show_gets_a_second_window(
    inside: float, share: float, low: float, high: float
) -> None:
    """Blood with a contrast agent, and lungs; each image beside itself, the difference once."""
    scan = _chest(50, inside, share)
    panes = [Pane("Input", scan), Pane("Enhanced", scan), Pane("Change", scan, minus=scan)]
    picture = comparison(panes)
    windows = _windows(picture)
    assert windows[:2] == [SOFT_TISSUE] * 2 and windows[2] == windows[3]
    assert windows[2] == pytest.approx((low, high), abs=80)
    assert "input, all content, enhanced, all content, change." in picture.alt
    assert picture.is_wide and not comparison(panes[:2], window=(0, 80)).is_wide
    assert _windows(comparison(panes, window=(0, 80)))[:2] == [(0, 80)] * 2
    assert len(_windows(comparison(panes, window=(0, 80)))) == 3


def test_a_ct_of_soft_tissue_and_some_bone_or_foam_has_one_window() -> None:
    for scan in (_chest(50, 700, 0.17), _chest(50, -850, 0.25)):
        assert _windows(comparison([Pane("Input", scan)])) == [SOFT_TISSUE]


def test_labels_become_contours_with_a_legend(head: Volume) -> None:
    labels = head.with_voxels((head.voxels > 300).astype(np.uint8) + (head.voxels > 600))
    figure = comparison([Pane("", head, labels=labels)], legend=TISSUE).figure
    assert len(figure.axes[0].collections) == len(TISSUE)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["gray matter", "white matter"]
    # Of two neighbors, the line of one hides the other: each area has a tint too.
    _image, tints = figure.axes[0].images
    seen = {tuple(color) for row in np.asarray(tints.get_array()) for color in row}
    assert len(seen) == 1 + len(TISSUE)


def test_the_colors_of_twenty_labels_are_far_from_each_other() -> None:
    colors = np.array([to_rgb(color_of(number)) for number in range(20)])
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distances[np.triu_indices(20, 1)].min() > 0.25


def test_diffusion_is_drawn_by_its_first_image_of_the_highest_b_value(head: Volume) -> None:
    frames = [head.voxels, 0 * head.voxels, head.voxels // 2, head.voxels // 3]
    gradients = tuple(map(Gradient, (0.0, 1000.0, 1000.0, 1000.0)))
    series = replace(head, voxels=np.stack(frames), gradients=gradients)
    drawn, third = (
        images_of(comparison([Pane("Input", series)], frame=frame).figure)[0].get_array()
        for frame in (None, 2)
    )
    assert np.array_equal(drawn, third) and drawn.any()


def test_single_slice_has_one_row() -> None:
    volume = Volume(np.random.default_rng(0).normal(size=(1, 30, 40)), modality="MR")
    figure = comparison([Pane("Input", volume)]).figure
    assert len(images_of(figure)) == 1
    assert figure.axes[0].get_ylabel() == "axial\nK 0 of 0–0\n40 mm wide"


def test_rounding_is_not_drawn_as_a_strong_change(head: Volume) -> None:
    rounded = head.with_voxels(head.voxels + np.int16(1))
    figure = comparison([Pane("Input", head), Pane("Difference", rounded, minus=head)]).figure
    (limits,) = {i.get_clim() for i in images_of(figure) if i.get_cmap().name != "gray"}
    low, high = choose_window(head)
    assert limits[1] == pytest.approx(0.01 * (high - low))


@pytest.mark.parametrize("direction", [(1, 1), (-1, 1), (1, -1)])
def test_ticks_and_places_state_voxel_indices_from_0(direction: tuple[int, int]) -> None:
    voxels = np.zeros((3, 40, 40), np.float32)
    voxels[1, 20, 10] = 1
    turned = Geometry((0.5, 2.0, 1.0), direction=np.diag([*direction, 1]))
    axial = comparison(
        [Pane("", Volume(voxels, turned, modality="MR"))], point=(1, 20, 10), ticks=True
    ).figure.axes[0]
    assert axial.get_ylabel().splitlines()[1] == "K 1 of 0–2"
    row, column = np.argwhere(np.asarray(axial.images[0].get_array()) == 1)[0]
    rows = dict(
        zip((t.get_text() for t in axial.get_yticklabels()), axial.get_yticks(), strict=True)
    )
    columns = dict(
        zip((t.get_text() for t in axial.get_xticklabels()), axial.get_xticks(), strict=True)
    )
    assert {"J 0", "20"} <= set(rows)
    assert {"I 0", "10"} <= set(columns)
    assert (rows["20"], columns["10"]) == ((row + 0.5) * 2.0, (column + 0.5) * 0.5)


@pytest.mark.parametrize("ticks", [False, True])
def test_no_text_lies_on_another_or_on_an_image_and_a_notice_stands_above(
    head: Volume, ticks: bool
) -> None:
    """Also of few slices, whose rows are low."""
    flat = Volume(np.tile(head.voxels[:4], (1, 3, 3)), modality="MR", history=("x",))
    picture = comparison([Pane("Input", flat), Pane("Enhanced", flat)], ticks=ticks)
    picture._repr_png_()
    figure = picture.figure
    texts = [*figure.texts, *(label for axes in figure.axes for label in axes.texts)]
    texts += [label for axes in figure.axes for label in (axes.title, axes.yaxis.label)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    boxes += [image.get_window_extent() for image in images_of(figure)[:6]]
    for index, box in enumerate(boxes):
        assert not [other for other in boxes[:index] if box.overlaps(other)]
    assert figure.get_suptitle() == f"DERIVED · {RESEARCH_ONLY}"


def test_volumes_of_two_grids_are_refused(head: Volume) -> None:
    other = Volume(head.voxels, Geometry(), modality="MR")
    with pytest.raises(InputError, match="grid"):
        comparison([Pane("Input", head), Pane("Enhanced", other)])


def test_a_volume_plots_itself(head: Volume, tmp_path: Path) -> None:
    picture = head.plot(point=(5, 10, 10), window=(0, 900))
    assert picture._repr_png_().startswith(PNG)
    picture.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == picture._repr_png_()
    with pytest.raises(me.OutputError):
        picture.save(tmp_path / "a.png")
    with pytest.raises(me.OutputError, match="PNG"):
        picture.save(tmp_path / "a.jpg")
    assert "planes in columns: MR." in repr(picture)


def test_labels_plot_themselves_in_color_and_not_as_intensities(head: Volume) -> None:
    labels = np.digitize(head.voxels, [300, 600]).astype(np.uint8)
    picture = replace(head, voxels=labels, modality="SEG").plot()
    assert picture.figure.axes[0].get_title() == "Labels"
    (name,) = filter(None, (axes.get_xlabel() for axes in picture.figure.axes))
    assert name == "value of the label"
    assert len({tuple(images_of(picture.figure)[0].to_rgba(value)) for value in range(3)}) == 3
    assert images_of(picture.figure)[0].cmap.name != "gray"


@pytest.mark.slow
def test_a_result_is_one_line_and_compares_itself(head: Volume) -> None:
    result = me.enhance(head, uncertainty=True)
    line = repr(result)
    assert re.fullmatch(r"<Enhanced by \S+ in [\d.]+ s: <Volume .*>, uncertainty>", line)
    picture = result.compare()
    assert picture._repr_png_().startswith(PNG)
    assert "input, enhanced, enhanced − input, uncertainty" in picture.alt


def test_the_frame_of_a_picture_can_be_chosen(head: Volume) -> None:
    frames = replace(head, voxels=np.stack([head.voxels + np.int16(n) for n in range(3)]))
    result = Enhanced(original=frames, volume=frames, model={}, device="cpu", seconds=0.0)
    for draw in (result.compare, frames.plot):
        first, last = (images_of(draw(**options).figure)[0] for options in ({}, {"frame": 2}))
        assert np.all(last.get_array() - first.get_array() == 2)
        with pytest.raises(InputError, match="frame 3 of a volume that has 3"):
            draw(frame=3)
