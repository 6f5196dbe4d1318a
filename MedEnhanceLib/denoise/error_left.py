"""Measures the error that an enhancement leaves, by a second measurement that it did not see.

    x = t + n₁   s = t + n₂   ⇒   E (x − s)² = 2 σ²,   E (x̂ − s)² = E (x̂ − t)² + σ²

The input x and the second measurement s have the same noise σ, which is independent; x̂ is the
result. Of several repeats the mean is taken, and the variance of its noise from their spread. What
else differs, by movement, pulsation or scale, counts as error of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, Voxels, robust_max
from MedEnhanceLib.core.findings import errors_left
from MedEnhanceLib.core.imaging import gaussian_blur, mean_frame
from MedEnhanceLib.core.labels import Segmentation
from MedEnhanceLib.core.manifest import ENHANCED
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.runtime.text import sentence, sides_text
from MedEnhanceLib.runtime.texts import Text, text

if TYPE_CHECKING:
    from MedEnhanceLib.report.enhancement_page import Table
    from MedEnhanceLib.report.figures import Picture

# Chosen by hand.
#: Signal of tissue over the bright end of an image, and in CT the lowest HU of a body.
_TISSUE, _BODY_HU = 0.15, -500.0
#: σ in pixels of the blur of images by which voxels are sorted: noise must not sort them.
_BLUR_PX = 1.0
_PARTS = ("background", *(f"{each} third of tissue" for each in ("darkest", "middle", "brightest")))
#: Effect of movement or scale, over the error of the input, from which it is warned of, and the
#: fewest and most voxels of tissue in which they are measured.
_SEEN, _FEWEST, _COMPARED = 0.3, 1000, 200_000
#: Error of a frame over that of most, and of all over the measured noise, which is warned of.
_ODD = 2.0
#: Tolerance of positions in voxels.
_SAME_PLACE = 1e-2


@dataclass(frozen=True, eq=False)
class ErrorLeft:
    """The error of a volume and of its result, by a second measurement.

    Attributes:
        before: the volume.
        after: the result.
        reference: the second measurement, or the mean of several.
        table: a row for each part of the image, {"part", "voxels", "before", "after", "left"}: root
            mean square errors in the volume's units, of a sequence the median of its frames, and
            the second over the first; all tissue first.
        warnings: how the second measurement differs by more than noise.
        frame: of a sequence, one with the typical error, which `picture` shows.
    """

    before: Volume
    after: Volume
    reference: Volume
    table: list[dict[str, Any]]
    warnings: tuple[Text, ...] = ()
    frame: int | None = None

    def __repr__(self) -> str:
        return f"<ErrorLeft: {self.findings[0]}>"

    @property
    def left(self) -> float:
        """The share of the error of tissue that is left: 0 for none, 1 for all."""
        return float(self.table[0]["left"])

    @property
    def facts(self) -> dict[str, Any]:
        """What manifests record."""
        return {"units": self.before.units, "table": self.table}

    @property
    def findings(self) -> list[str]:
        """The result in sentences, that on all tissue first."""
        return [*map(str, errors_left(self.facts)), *map(str, self.warnings)]

    def picture(self) -> Picture:
        """Draw input, result, their difference, and the second measurement."""
        titles = "Input", "Enhanced", "Enhanced − input", "Second measurement"
        volumes = self.before, self.after, self.reference
        return beside_reference(*volumes, titles, frame=self.frame)


def beside_reference(
    before: Volume,
    after: Volume,
    reference: Volume,
    titles: Sequence[str],
    *,
    window: tuple[float, float] | None = None,
    frame: int | None = None,
) -> Picture:
    """Draw a volume, its result, their difference, and what they are compared with.

    Args:
        before: the volume.
        after: its result.
        reference: on the same grid.
        titles: of the four.
        window: lowest and highest intensity shown; None: by `before`.
        frame: of sequences, from 0; None: as `shown_frame` chooses.
    """
    from MedEnhanceLib.report.figures import Pane, comparison

    shown = (before, after, after, reference)
    panes = [Pane(title, volume) for title, volume in zip(titles, shown, strict=True)]
    panes[2] = Pane(titles[2], after, minus=before)
    return comparison(panes, window=window, frame=frame)


def table_of(compared: ErrorLeft) -> Table:
    """Make the table of a page."""
    from MedEnhanceLib.report.enhancement_page import Table

    units = f", {compared.before.units}" if compared.before.units else ""
    heads = {"part": "part", "before": f"error of the input{units}", "after": "of the result"}
    note = (
        "Errors are root mean squares (of a sequence the median of its frames), by a second "
        "measurement that the enhancement did not see. It is taken to have the noise of the input."
    )
    if compared.before.profile.is_magnitude:
        note = f"{note} {sentence(str(text('air_raised')))}"
    rows = [row | {"left": f"{100 * row['left']:.0f} %"} for row in compared.table]
    heads |= {"left": "of it left"}
    return Table("Against the second measurement", heads, rows, note)


def check_second(volume: Volume, second: Volume) -> None:
    """Raise InputError unless `second` is another measurement of the volume on its grid."""
    name, frames = second.source or "the second measurement", len(second.frames())
    refuse_not_finite(second)
    if second.shape[-3:] != volume.shape[-3:] or not second.geometry.is_close(
        volume.geometry, _SAME_PLACE, shape=volume.shape
    ):
        raise InputError(
            f"{name}: its grid is not that of the volume ({sides_text(second.shape)} and "
            f"{sides_text(volume.shape)} columns × rows × slices, or another spacing, origin or "
            "direction)",
            "Give a second scan with the same protocol and position. One that was resampled has "
            "less noise, and errors by interpolation.",
        )
    if len(volume.frames()) not in (1, frames):
        raise InputError(
            f"{name}: {frames} frames, and the volume has {len(volume.frames())}",
            "Give the same frames, measured again.",
        )
    # Empty frames are alike in any two measurements, as are sides of an image in other axes.
    shown = (frame.voxels for frame in volume.frames() if np.ptp(frame.voxels))
    first = next(shown, volume.frame(0).voxels)
    if any(np.array_equal(frame.voxels, first) for frame in second.frames()):
        raise InputError(
            f"{name}: the same voxels as the volume, not a second measurement",
            "Give another scan of the same, made in the same way.",
        )
    if any(step.startswith(ENHANCED) for step in second.history):
        raise InputError(f"{name}: was enhanced", "Give it as it was measured.")


def compare(
    before: Volume,
    after: Volume,
    second: Volume,
    labels: Segmentation | None = None,
    sigma: float | None = None,
) -> ErrorLeft:
    """Measure the error of a volume and of its result, by tissue.

    Args:
        before: the volume.
        after: its result, on its grid.
        second: the same measured again: as many frames, or repeats of one.
        labels: parts of the image; None: background, and thirds of tissue by intensity.
        sigma: of the noise as the enhancement measured it; None if it is not known.
    Raises InputError as `check_second` does, and for a result that is not of the volume.
    """
    check_second(before, second)
    if after.shape != before.shape:
        raise InputError(
            f"the result has the shape {after.shape}, and the volume {before.shape}",
            "Compare a volume with its own result.",
        )
    if np.array_equal(after.voxels, second.voxels):
        raise InputError(
            "the second measurement has the voxels of the result, so nothing can be compared",
            "Give a second scan, which was not enhanced.",
        )
    frames, again = ([each.voxels for each in volume.frames()] for volume in (before, second))
    images = [gaussian_blur(mean_frame(v.frames()).voxels, _BLUR_PX) for v in (before, second)]
    level = np.float32(0.5) * (images[0] + images[1])
    parts, names = _by_intensity(level, before)
    if labels is not None and labels.volume.voxels.any():
        parts = labels.volume.voxels
        names = {0: _PARTS[0]} | {label.value: label.name for label in labels.labels}
    reference = second
    if len(frames) == len(again):
        own = squares_by_part(frames, again, parts) / 2
    else:
        reference = mean_frame(second.frames())
        spread = squares_by_part(again, [reference.voxels] * len(again), parts)
        own, again = spread.mean(0) / (len(again) - 1), [reference.voxels]
    results = [each.voxels for each in after.frames()]
    squares = [squares_by_part(each, again, parts) - own for each in (frames, results)]
    counts = np.bincount(parts.reshape(-1))
    present = [value for value in names if value < len(counts) and counts[value]]
    groups = {"tissue": [value for value in present if value]}
    groups |= {names[value]: [value] for value in present}
    table: list[dict[str, Any]] = [
        {"part": name, "voxels": int(counts[of].sum())} | _errors(squares, counts, of)
        for name, of in groups.items()
    ]
    error = table[0]["before"]
    warnings = _differences(level, images, parts > 0, error, before)
    if sigma is not None and error > _ODD * sigma:
        warnings.append(text("second_unlike", times=error / sigma))
    by_frame = _error_of(squares[0], counts, groups["tissue"])
    if odd := np.flatnonzero(by_frame > _ODD * error).tolist():
        warnings.append(text("second_frames", frames=", ".join(map(str, odd))))
    typical = int(np.argmin(np.abs(by_frame - error))) if before.is_sequence else None
    return ErrorLeft(before, after, reference, table, tuple(warnings), typical)


def squares_by_part(frames: Sequence[Array], truths: Sequence[Array], parts: Array) -> Doubles:
    """Average the squared differences of frames from their truths in each part, [frame, part].

    Args:
        frames: [K, J, I] each.
        truths: likewise.
        parts: number of the part of each voxel.
    """
    places, sums = parts.reshape(-1), []
    for frame, truth in zip(frames, truths, strict=True):
        square = np.square(np.subtract(frame, truth, dtype=np.float64))
        sums.append(np.bincount(places, square.reshape(-1)))
    return np.stack(sums) / np.maximum(np.bincount(places), 1)


def _error_of(squares: Doubles, counts: Array, of: Sequence[int]) -> Doubles:
    """Return the error of each frame in some parts."""
    return np.sqrt(np.maximum(np.average(squares[:, of], axis=1, weights=counts[of]), 0.0))


def _errors(squares: Sequence[Doubles], counts: Array, of: Sequence[int]) -> dict[str, Any]:
    """Return the error before and after in some parts, and the share that is left."""
    before, after = (float(np.median(_error_of(each, counts, of))) for each in squares)
    return {
        "before": float(f"{before:.4g}"),
        "after": float(f"{after:.4g}"),
        "left": round(after / before, 3) if before else 1.0,
    }


def _by_intensity(level: Floats, volume: Volume) -> tuple[Voxels, dict[int, str]]:
    """Return the number of the part of each voxel of a smoothed image, and the names of parts."""
    is_ct = volume.profile.is_absolute
    tissue: Mask = level > (_BODY_HU if is_ct else _TISSUE * robust_max(level))
    if not tissue.any():
        tissue = np.ones_like(tissue)
    ends = np.percentile(level[tissue], (100 / 3, 200 / 3))
    parts = np.where(tissue, 1 + np.searchsorted(ends, level), 0)
    return parts.astype(np.uint8), dict(enumerate(_PARTS))


def _differences(
    level: Floats, images: Sequence[Floats], tissue: Mask, error: float, volume: Volume
) -> list[Text]:
    """Return warnings that the second measurement is moved or scaled.

    To first order it differs from the first one by −d · gradient, and by a line over the level.

    Args:
        level: mean of both images.
        images: both, smoothed.
        tissue: where they are compared.
        error: of the volume there.
        volume: the first measurement.
    """
    if np.count_nonzero(tissue) < _FEWEST:
        return []
    axes = [axis for axis, size in enumerate(level.shape) if size > 1]
    places = np.flatnonzero(tissue)
    places = places[:: max(1, places.size // _COMPARED)]
    slopes = [np.gradient(level, axis=axis).reshape(-1)[places] for axis in axes]
    inside, change = (each.reshape(-1)[places] for each in (level, images[1] - images[0]))
    terms = np.stack([np.ones_like(inside), inside - inside.mean(), *slopes], 1)
    fit = np.linalg.lstsq(terms, change, rcond=None)[0]
    scaled, moved = terms[:, :2] @ fit[:2], terms[:, 2:] @ fit[2:]
    warnings = []
    if np.sqrt(np.mean(moved**2)) > _SEEN * error:
        spacing = np.array(volume.spacing)[::-1][axes]
        warnings.append(text("second_moved", mm=float(np.linalg.norm(fit[2:] * spacing))))
    if np.sqrt(np.mean(scaled**2)) > _SEEN * error:
        mean = f"{fit[0]:+.3g} {volume.units}".rstrip()
        warnings.append(text("second_scaled", change=mean, level=f"{inside.mean():.3g}"))
    return warnings
