"""The pictures of README and the pages, from open volumes beside the project.

    python Testing/Benchmarks/pictures.py [NAME …]    writes docs/images/NAME.png; without: all

Only pictures enter the repository. Their licenses allow that with the name of the source, which the
page states: sct_testing_data (MIT), studyforrest (PDDL), STS (CC BY 3.0), open_ms (CC BY). The
sheet of the audit shows random shapes, nobody's anatomy.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _common import REPOSITORY, SHARED_DATA
from _enhancement_data import CASES, CT_SUBJECTS, Floats, sample_volume, subject
from _enhancement_lesions import damaged_with_lesions, plant
from _enhancement_peers import nlm_mr
from _slices_references import along, references, thickened
from real import sequences, still_frames
from scipy import ndimage

from MedEnhanceLib import compress, decompress, enhance, load
from MedEnhanceLib.bundles.store import shipped_bundle
from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report.orthogonal import cut
from MedEnhanceLib.slices.slice_network import open_network
from MedEnhanceLib.synthetic import synthetic_volume
from MedEnhanceLib.training.spg.audit import Audited, audit

FOLDER = REPOSITORY / "docs" / "images"
#: Frame of the diffusion scan that is shown.
_DIRECTION = 5
#: The clean scan that is shown.
_CLEAN = "siem_contin"
#: Pixels of an inch, of the title above a row, and of a letter.
_DPI, _TITLE, _LETTER = 100, 60, 8
_RING = "#ffb000"
#: Folders with more scans, as of the benchmark of real scans.
_MORE: list[Path] = []


@dataclass(frozen=True)
class Panel:
    """A picture and what it is.

    pixels: [rows, columns], drawn from black (low) to white (high); or [rows, columns, 3], colors.
    ring: (row, column, radius) of a circle around what to look at.
    """

    title: str
    pixels: Floats
    low: float
    high: float
    ring: tuple[float, float, float] | None = None


def difference(title: str, pixels: Floats, reach: float) -> Panel:
    """Gray is zero."""
    return Panel(title, pixels, -reach, reach)


def sheet(name: str, rows: Sequence[Sequence[Panel]], factor: int, points: int = 9) -> None:
    """Draw panels in rows, titles of `points` above, a pixel `factor` wide, and write the PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"font.size": points, "axes.titlesize": points * 1.2})
    widest = max(sum(panel.pixels.shape[1] for panel in row) for row in rows) * factor
    highest = sum(max(panel.pixels.shape[0] for panel in row) for row in rows) * factor
    size = widest / _DPI, (highest + _TITLE * len(rows)) / _DPI
    figure = Figure(size, dpi=_DPI, layout="constrained")
    axes = figure.subplots(len(rows), max(map(len, rows)), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        for axis, panel in zip(line, row, strict=False):
            axis.imshow(
                panel.pixels, "gray", vmin=panel.low, vmax=panel.high, interpolation="nearest"
            )
            letters = panel.pixels.shape[1] * factor * 9 // (_LETTER * points)
            axis.set_title(textwrap.fill(panel.title, letters), loc="left")
            if panel.ring:
                row_at, column, radius = panel.ring
                ring = matplotlib.patches.Circle((column, row_at), radius, fill=False, color=_RING)
                axis.add_patch(ring)
    path = FOLDER / f"{name}.png"
    figure.savefig(path)
    print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size / 1000:.0f} kB")


def axial(volume: Volume, k: int) -> Floats:
    """A slice as radiologists see it."""
    point = (k, volume.shape[1] // 2, volume.shape[2] // 2)
    return cut(volume, "axial", point).pixels.astype(np.float32)


# --- the pictures ---------------------------------------------------------------------------------


def real() -> None:
    """A real spinal scan, repeated 30 times."""
    scan = next(volume for name, volume in sequences() if name == "spinal_fmri")
    frames = scan.voxels.astype(np.float32)
    mean = frames.mean(axis=0)
    _, _, number = still_frames(frames, mean > 0.35 * np.percentile(mean, 99))
    single = scan.frame(number)
    enhanced = enhance(single).volume
    others = np.delete(frames, number, axis=0).mean(axis=0)
    shown = {
        "a real noisy scan": single.voxels, "enhanced": enhanced.voxels,
        "enhanced − noisy": enhanced.voxels.astype(np.float32) - single.voxels,
        "mean of 29 other repeats": others,
    }  # fmt: skip
    window = slice(9, 53), slice(12, 56)
    planes = {
        title: axial(single.with_voxels(voxels.astype(np.float32)), 3)[window]
        for title, voxels in shown.items()
    }
    high = 0.75 * float(np.percentile(planes["mean of 29 other repeats"], 99))
    sheet("real", [[
        difference(title, plane, high / 3) if "−" in title else Panel(title, plane, 0, high)
        for title, plane in planes.items()
    ]], factor=5)  # fmt: skip


def clean() -> None:
    """A real scan with next to no noise, and what non-local means take for noise in it."""
    scan = next(volume for name, volume in sequences(_MORE) if name == _CLEAN)
    single = scan.frame(scan.shape[0] // 2)
    given = single.voxels.astype(np.float32)
    shown = {
        "removed by MedEnhance": enhance(single).volume,
        "by non-local means": nlm_mr(single, rician=False),
    }
    k = len(given) // 2
    high = 1.2 * float(np.percentile(given[k], 99))
    row = [Panel("a real clean scan", axial(single, k), 0, high)]
    for title, result in shown.items():
        plane = axial(result.with_voxels(result.voxels - given), k)
        row.append(difference(title, plane, high / 8))
    sheet("clean", [row], factor=4)


def diffusion() -> None:
    """A real diffusion scan of two averages: a direction, the FA of all 20, what was removed."""
    from _sequence_data import at_zero, mp_pca, tensors

    scan = load(SHARED_DATA / "repeated" / "dwi_two_averages.nii.gz", modality="MR")
    half = len(scan.voxels) // 2
    first, second = (
        replace(scan, voxels=scan.voxels[part], gradients=scan.gradients[part])
        for part in (slice(half), slice(half, None))
    )
    images = {
        "a real scan": first.voxels,
        "MedEnhance": enhance(first).volume.voxels,
        "MP-PCA": mp_pca(first),
        "measured again": second.voxels,
    }
    number, k, window = _DIRECTION, 9, (slice(4, 98), slice(10, 92))
    high = 1.2 * float(np.percentile(first.voxels[number], 99))
    tissue = ndimage.binary_fill_holes(first.voxels[at_zero(first.gradients)][0] > 0.3 * high)

    def plane(voxels: Floats) -> Floats:
        return axial(first.frame(0).with_voxels(voxels.astype(np.float32)), k)[window]

    rows: list[list[Panel]] = [[], [], []]
    for title, voxels in images.items():
        frames = np.asarray(voxels, np.float32)
        colors = tensors(frames, first.gradients).color_fa * tissue[..., None]
        shown = np.stack([plane(part) for part in np.moveaxis(colors, -1, 0)], axis=-1)
        rows[0].append(Panel(title, plane(frames[number]), 0, high))
        rows[1].append(Panel("FA", shown.clip(0, 1), 0, 1))
        changed = plane(first.voxels[number] - frames[number])
        name = "difference" if title == "measured again" else "removed"
        rows[2].append(difference(name, changed, high / 2))
    both = (first.voxels[number].astype(np.float32) + second.voxels[number]) / 2
    rows[2][0] = Panel("mean of both", plane(both), 0, high)
    sheet("diffusion", rows, factor=4, points=18)


def thin() -> None:
    """Slices of 4 mm made of those of 1 mm, a plane across them: studyforrest."""
    from slices import restored

    reference = next(each for each in references() if each.name == "studyforrest")
    stack, slices, truth = thickened(reference, 4, 0.0, 0)
    network = open_network(shipped_bundle("mr-slices"))
    images = {
        "slices of 4 mm, seen from the side": np.repeat(slices, 4, axis=0),
        "cubic B-spline": along(stack.interpolate(), slices),
        "thin slices": restored(network, reference, stack, slices),
    }
    tissue = reference.tissue[: len(truth)]
    row = []
    for title, image in images.items():
        gain = metrics.psnr(truth, image, data_range=1.0, mask=tissue)
        label = title if "side" in title else f"{title}, {gain:.1f} dB"
        row.append(Panel(label, _side(image), 0, 1.0))
    sheet("thin-slices", [[*row, Panel("slices of 1 mm", _side(truth), 0, 1.0)]], factor=2)


def _side(voxels: Floats) -> Floats:
    """A plane across the slices, head up."""
    middle = voxels.shape[2] // 2
    first = max(0, len(voxels) // 2 - 60)
    return voxels[first : first + 120, 8:118, middle][::-1]


def compression() -> None:
    """A CT at a ratio of 32: STS_013."""
    volume = load(SHARED_DATA / "ct/sts/STS_013/CT.nii.gz", modality="CT")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.ucv"
        compress(volume, path, ratio=32)
        decoded = decompress(path)
    k = volume.shape[0] // 2
    before, after = axial(volume, k), axial(decoded, k)
    rows, columns = (slice(max(0, n // 2 - 73), n // 2 + 73) for n in before.shape)
    sheet("compression", [[
        Panel("CT, −160 to 240 HU", before[rows, columns], -160, 240),
        Panel("a 32nd of the size", after[rows, columns], -160, 240),
        difference("error, black −20 HU, white +20 HU", (after - before)[rows, columns], 20),
    ]], factor=2)  # fmt: skip


def uncertainty() -> None:
    """What the map states, and the error: the sample, which has no noise of its own."""
    sample = sample_volume().crop(slice(69, 93), slice(54, 164), slice(43, 153))
    scaled = sample.with_voxels(sample.voxels * np.float32(1000 / robust_max(sample.voxels)))
    noise = np.random.default_rng(0).normal(0, 100, scaled.shape).astype(np.float32)
    noisy = scaled.with_voxels(scaled.voxels + noise)
    result = enhance(noisy, uncertainty=True)
    error = np.abs(result.volume.voxels - scaled.voxels)
    assert result.uncertainty is not None
    k = 12
    sheet("uncertainty", [[
        Panel("noisy (simulated)", axial(noisy, k), 0, 1000),
        Panel("enhanced", axial(result.volume, k), 0, 1000),
        Panel("uncertainty, 1 SD: white 60", axial(result.uncertainty, k), 0, 60),
        Panel("the error itself: white 60", axial(scaled.with_voxels(error), k), 0, 60),
    ]], factor=2)  # fmt: skip


def ct() -> None:
    """A planted lesion in a simulated low-dose CT: STS_037."""
    case = next(case for case in CASES["CT"] if case.planted)
    scan = subject(CT_SUBJECTS[2], SHARED_DATA, 12)
    added, lesions = plant(scan, 0)
    noisy = damaged_with_lesions(scan, case, 0, scan.damaged(case, 0), added)
    clean = scan.volume.with_voxels(scan.volume.voxels + added)
    default, viewing = (enhance(noisy, for_viewing=each).volume for each in (False, True))
    lesion = max(lesions, key=lambda each: abs(each.contrast) * (each.share.max() > 0.95))
    k, j, i = ((where.start + where.stop) // 2 for where in lesion.where)
    marked = np.zeros(clean.shape, np.float32)
    marked[k, j, i] = 1
    row, column = np.argwhere(axial(clean.with_voxels(marked), k))[0]
    side = 110
    first = [int(np.clip(at - side // 2, 0, n - side))
             for at, n in zip((row, column), axial(clean, k).shape, strict=True)]  # fmt: skip
    window = tuple(slice(at, at + side) for at in first)
    ring = float(row - first[0]), float(column - first[1]), 8.0
    shown = (
        (f"full dose; ring: a planted lesion of {lesion.contrast:+.0f} HU", clean),
        ("simulated low dose", noisy),
        ("default: half of the filter's correction", default),
        ("for viewing: noise and most of the lesion are gone", viewing),
    )
    sheet("ct", [[Panel(title, axial(volume, k)[window], -160, 240, ring)
                  for title, volume in shown]], factor=2)  # fmt: skip


def audit_sheet() -> None:
    """The nearest pairs of a set that holds one copy; random shapes stand for patients."""
    names = [*(f"used {n}" for n in range(5)), *(f"held out {n}" for n in range(5))]
    people = {
        name: synthetic_volume("MR", 40 + number, shape=(10, 96, 96), spacing=(4, 1.5, 1.5))
        for number, name in enumerate(names)
    }
    slices = {name: _unit(volume.voxels) for name, volume in people.items()}
    images = np.stack([
        _unit(synthetic_volume("MR", 90 + n, shape=(8, 96, 96), spacing=(4, 1.5, 1.5)).voxels[4])
        for n in range(12)
    ])  # fmt: skip
    images[3] = np.roll(slices["used 3"][5], 3, axis=1) * 0.9
    training = {name: each for name, each in slices.items() if name.startswith("used")}
    held_out = {name: each for name, each in slices.items() if name not in training}
    report = audit(Audited(images, training, held_out))
    assert report.alarm
    rows = [[
        Panel(f"image {pair.image} of the set", pair.laid, 0, 1),
        Panel(f"nearest slice of a patient ({report.aliases[pair.patient]})", pair.onto, 0, 1),
        difference(f"difference; likeness {pair.score:.2f}", pair.laid - pair.onto, 0.5),
    ] for pair in report.pairs[:2]]  # fmt: skip
    rows[0][2] = replace(rows[0][2], title=f"{rows[0][2].title}: a copy")
    sheet("audit", rows, factor=2)


def _unit(voxels: Floats) -> Floats:
    return np.clip(voxels, 0, 1).astype(np.float32)


PICTURES: dict[str, Callable[[], None]] = {
    "clean": clean, "diffusion": diffusion, "real": real, "ct": ct, "thin-slices": thin,
    "compression": compression, "uncertainty": uncertainty, "audit": audit_sheet,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    parser.add_argument("--more", type=Path, nargs="+", default=[], help="folders of more scans")
    options = parser.parse_args()
    _MORE.extend(options.more)
    torch.set_num_threads(1)
    names = options.names or list(PICTURES)
    for name in names:
        PICTURES[name]()


if __name__ == "__main__":
    main()
