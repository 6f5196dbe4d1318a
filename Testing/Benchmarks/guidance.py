"""What does a guide change? The same input under several guides, in numbers and pictures.

python Testing/Benchmarks/guidance.py                writes docs/benchmarks/guidance.*
python Testing/Benchmarks/guidance.py --modality MR --mr-model FOLDER --out runs/guidance
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from _common import DOCS, SHARED_DATA, table, write

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Blur, Degradation, LowDose, Rician, gaussian_blur
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer
from MedEnhanceLib.hqg.infer import encode_guide
from MedEnhanceLib.hqg.uncertainty import central_slices, kept_reference, raw_estimate
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder

mpl.use("Agg")
import matplotlib.pyplot as plt

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]

DEFAULT = "mean of the bank (default)"
ZERO = "zero cue"
#: Below this share of the correction a guide changes nothing that anybody could see.
INERT = 0.02
TISSUE = {"MR": 0.1, "CT": -0.3}
WINDOW = {"MR": (0.0, 1.1), "CT": (-0.2, 0.25)}
#: σ in pixels: what is finer is high-pass.
COARSE_PX = 2.0
PICTURE_GAIN = 10
GUIDE_SLICES = 32


def main() -> None:
    options = parse()
    rows: list[Row] = []
    for modality in options.modalities:
        name = options.mr_model if modality == "MR" else options.ct_model
        model = open_enhancer(open_bundle(name, kind="enhancer", modality=modality))
        cues = cues_of(model, guides(modality, options.data), modality)
        for case, degraded, truth in inputs(modality, options):
            asked = torch.full((1,), float(case.startswith("blur")))
            images = {
                guide: raw_estimate(
                    model, degraded, Monitor(), samples=0, cue=model.guide.asking(cue, asked)
                ).image
                for guide, cue in cues.items()
            }
            rows += rows_of(modality, case, degraded, truth, images, cues)
        draw(options.out / f"guidance-{modality.lower()}.png", modality, degraded, images)
    write("guidance", report(rows, options), gates=[], rows=rows, seeds=[200], folder=options.out)
    print((options.out / "guidance.md").read_text())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of open volumes")
    parser.add_argument("--modality", choices=("MR", "CT"), help="only this one")
    parser.add_argument("--slices", type=int, default=16, help="central slices of each input")
    parser.add_argument("--mr-model", default="mr-brain", help="bundle name or folder")
    parser.add_argument("--ct-model", default="ct-lowdose", help="bundle name or folder")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    options.modalities = [options.modality] if options.modality else ["MR", "CT"]
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def guides(modality: str, data: Path) -> dict[str, Volume]:
    """Volumes of other subjects than the input's, good ones and bad ones."""
    if modality == "CT":
        sharp = middle_of(data / "ct/sts/STS_012/CT.nii.gz", "CT")
        return {
            "sharp, high quality": sharp,
            "another region, high quality": middle_of(data / "ct/abdomen/CT.nii.gz", "CT"),
            "the sharp one, blurred (σ 1.5 px)": Blur(1.5).apply(sharp),
            "the sharp one at low dose (5e3)": LowDose(5e3, 5.0, 200).apply(sharp),
        }
    sharp = middle_of(data / "mr/open_ms/C07/T1.nii.gz", "MR")
    return {
        "sharp, high quality": sharp,
        "another scanner, high quality": middle_of(data / "mr/studyforrest/T1.nii.gz", "MR"),
        "the sharp one, blurred (σ 1.5 px)": Blur(1.5).apply(sharp),
        "the sharp one with noise (Rician 15 %)": Rician(0.15, 200).apply(sharp),
        "another contrast (FLAIR)": middle_of(data / "mr/open_ms/C19/FLAIR.nii.gz", "MR"),
    }


def middle_of(path: Path, modality: str) -> Volume:
    return central_slices(load(path, modality=modality), GUIDE_SLICES)


def cues_of(
    model: EnhancerModel, chosen: dict[str, Volume], modality: str
) -> dict[str, torch.Tensor]:
    mean = model.bank.mean[None]
    found = {DEFAULT: mean, ZERO: torch.zeros_like(mean)}
    return found | {name: encode_guide(guide, model) for name, guide in chosen.items()}


def inputs(modality: str, options: argparse.Namespace) -> list[tuple[str, Volume, Volume]]:
    """(name, degraded, truth): volumes that no model was trained on."""
    if modality == "CT":
        path = options.data / "ct/sts/STS_013/CT.nii.gz"
        volume = central_slices(load(path, modality="CT"), options.slices)
        damages: dict[str, Degradation] = {"low dose 5e3": LowDose(5e3, 5.0, 201)}
    else:
        volume = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
        volume = central_slices(volume, options.slices)
        damages = {"blur σ 1 px": Blur(1.0), "Rician 10 %": Rician(0.10, 201)}
    return [
        (
            case,
            damage.apply(replace(volume, history=())),
            kept_reference(volume, damage, with_blur=False),
        )
        for case, damage in damages.items()
    ]


def rows_of(
    modality: str,
    case: str,
    degraded: Volume,
    truth: Volume,
    images: dict[str, Floats],
    cues: dict[str, torch.Tensor],
) -> list[Row]:
    scaling = scaling_for(degraded)
    true, given = scaling.apply(truth.voxels), scaling.apply(degraded.voxels)
    inside = true > TISSUE[modality]
    default = images[DEFAULT]
    correction = float(np.abs(default - given)[inside].mean())
    rows = []
    for guide, image in images.items():
        change = float(np.abs(image - default)[inside].mean())
        rows.append(
            {
                "modality": modality,
                "case": case,
                "guide": guide,
                "cue_distance": float((cues[guide] - cues[DEFAULT]).norm()),
                "change": change,
                "change_of_correction": change / correction,
                "brightness": float((image - default)[inside].mean()),
                "sharpness": fine(image, inside) / fine(default, inside),
                "psnr": metrics.psnr(true, image, 1.0, mask=inside),
            }
        )
    return rows


def fine(image: Floats, inside: npt.NDArray[np.bool_]) -> float:
    """Standard deviation of what is finer than 2 pixels."""
    return float((image - gaussian_blur(image, COARSE_PX))[inside].std())


def draw(path: Path, modality: str, degraded: Volume, images: dict[str, Floats]) -> None:
    """The middle slice under each guide, and its difference from the default, magnified."""
    low, high = WINDOW[modality]
    middle = degraded.shape[0] // 2
    default = images[DEFAULT][middle]
    figure, axes = plt.subplots(2, len(images), figsize=(2.6 * len(images), 6))
    for column, (guide, image) in enumerate(images.items()):
        axes[0, column].imshow(image[middle], cmap="gray", vmin=low, vmax=high)
        axes[0, column].set_title(guide.replace(", ", ",\n").replace(" (", "\n("), fontsize=8)
        difference = PICTURE_GAIN * (image[middle] - default)
        axes[1, column].imshow(difference, cmap="RdBu_r", vmin=low - high, vmax=high - low)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def report(rows: list[Row], options: argparse.Namespace) -> str:
    lines = table(
        ("input", "guide", "cue's distance", "change, share of the correction", "brightness",
         "fine detail, of the default's", "PSNR dB"),
        ((f"{r['modality']}, {r['case']}", r["guide"], f"{r['cue_distance']:.2f}",
          f"{r['change_of_correction']:.1%}", f"{r['brightness']:+.4f}", f"{r['sharpness']:.3f}",
          f"{r['psnr']:.2f}") for r in rows),
    )  # fmt: skip
    pictures = "\n\n".join(
        f"![{m}: enhanced under each guide, and the difference from the default, "
        f"{PICTURE_GAIN} times](guidance-{m.lower()}.png)"
        for m in options.modalities
    )
    return f"""# What a guide changes

Central {options.slices} slices, damaged here, enhanced under each guide. The change is the mean
absolute difference from the result under the default cue, in tissue, as a share of the mean
correction. Brightness: the mean difference, on the network's scale. Fine detail: the standard
deviation of what is finer than {COARSE_PX:g} pixels, against the default's. PSNR is against the
undamaged volume, with the span of the network's unit. Blur is undone where it is the damage.

{verdicts(rows, options)}

{lines}
{pictures}
"""


def verdicts(rows: list[Row], options: argparse.Namespace) -> str:
    """In words: does anything change, and is a good guide better than none?"""
    words = []
    for modality in options.modalities:
        ours = [row for row in rows if row["modality"] == modality]
        real = [row for row in ours if row["guide"] != ZERO]
        most = max(row["change_of_correction"] for row in real)
        of_zero = max(row["change_of_correction"] for row in ours if row["guide"] == ZERO)
        sharp = [row["psnr"] for row in ours if row["guide"].startswith("sharp")]
        without = [row["psnr"] for row in ours if row["guide"] == ZERO]
        gain = float(np.mean(sharp) - np.mean(without))
        judged = (
            "the guide is inert: whichever is chosen, the result is the same to the eye"
            if most < INERT
            else "guides differ in what they give"
        )
        words.append(
            f"- {modality}: the largest change by any volume as guide is {most:.1%} of the "
            f"correction, that of a zero cue, which no volume has, {of_zero:.1%}; a sharp guide "
            f"gives {gain:+.2f} dB against the zero cue. So {judged}."
        )
    return "\n".join(words)


if __name__ == "__main__":
    main()
