"""README.md of a distilled set, for who gets the folder: use, limits, audit, origin, license.

It names no patient, file, date or place, as everything in the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.spg.config import TAKEN_ON, TEMPLATE
from MedEnhanceLib.spg.statistics import CLIPPED_FROM, PROJECTED

METHOD = "SPG, structure-preserving personalised generation (arXiv 2511.13106)"
BY_STATISTICS = "statistics of a cohort imposed on a public prior (after Heeger and Bergen, 1995)"
SIGNAL = "Training signal, not anatomy: shapes that look like organs can be invented."
OF_THE_PRIOR = "Their anatomy is the prior's alone; intensities and textures were changed."
NO_LICENCE = "No license is stated: nobody may use this set until its maker states one."
#: A distillation with fewer matches of a patient is a test, as the preset smoke.
_FEWEST_MATCHES = 20
_PURPOSES = {
    "denoise": "removing noise",
    "sr2": "doubling the resolution",
    "sr4": "four times the resolution",
    "undersample": "completing MR of which a quarter of the lines was measured",
}
#: Of the template, whose license asks that it goes with every copy.
_NOTICE = "LICENSE-MNI152.txt"
_PARAGRAPH = "\n\n"
_LOADING = """## Load them

In this folder, with PyTorch:

```python
import numpy as np, torch

images = torch.from_numpy(np.load("images.npy") / np.float32(65535))[:, None]
loader = torch.utils.data.DataLoader(images, batch_size=8, shuffle=True)
```

With MONAI:

```python
from monai.data import CacheDataset, DataLoader, load_decathlon_datalist
from monai.transforms import Compose, LoadImaged, SqueezeDimd

load = Compose([LoadImaged("image", ensure_channel_first=True), SqueezeDimd("image", dim=-1)])
dataset = CacheDataset(load_decathlon_datalist("dataset.json"), load)
loader = DataLoader(dataset, batch_size=8, shuffle=True)
```

Both give batches [B, 1, side, side] in [0, 1]. ITK-SNAP and 3D Slicer open each file of `nifti/`; \
nnU-Net's programs accept their names, but there are no labels to learn a segmentation from.
"""


def headline(manifest: Mapping[str, Any]) -> str:
    """The set in one line."""
    return f"Distilled {manifest['modality']} images for {_PURPOSES[manifest['task']]}"


def _kept_lines(kept: Mapping[str, Any]) -> list[str]:
    if not kept.get("psnr_db"):
        return []
    found = ", ".join(f"{float(n):.0%}: {psnr:.2f} dB" for n, psnr in kept["psnr_db"].items())
    return [
        f"- Of the change from the prior, {kept['share']:.0%} is kept: the least that trains "
        "networks as well as any share, measured on patients of the cohort whose own images had no "
        f"part in the training ({found})."
    ]


def _alignment_lines(measured: Mapping[str, float], kept: Mapping[str, Any]) -> list[str]:
    if not measured or kept.get("share", 1.0) < 1:  # measured with all of the change
        return []
    ours, theirs = measured["alignment"], measured["alignment_of_prior"]
    nearer = "nearer to" if ours < theirs else "no nearer to"
    return [
        f"- The gradients of small networks on them are {nearer} those on the patients' images "
        f"than the prior's are: the distance is {ours:.3g}, the prior's is {theirs:.3g}."
    ]


def _loop_line(loop: Mapping[str, Any]) -> str:
    steps = int(loop["outer"]) * int(loop["inner"])
    networks = "1 network" if loop["outer"] == 1 else f"{loop['outer']} networks"
    few = ": a test only, of no other use" if steps < _FEWEST_MATCHES else ""
    return f"- Each patient's images were matched {steps} times, on {networks}{few}."


def _prior_lines(manifest: Mapping[str, Any]) -> list[str]:
    lines = [f"- They start from a prior and stay near it. The prior: {manifest['prior']['told']}."]
    taken = TAKEN_ON.get(manifest["config"].get("intensities"))
    if taken and not manifest.get("statistics"):
        what, numbers = taken
        lines.append(
            f"- The prior was given the patients' {what}: {numbers} numbers, means over them."
        )
    return lines


def _privacy_lines(privacy: Mapping[str, Any]) -> list[str]:
    return [
        "",
        "## Differential privacy",
        "",
        str(privacy["statement"]),
        "",
        _noise_line(privacy),
        f"- What ε compares: {privacy['neighbours']}.",
        "- It holds for this set alone: with several sets of the same patients the ε add up.",
        "- It covers neither settings that were chosen after looking at the patients' images, nor "
        "attacks on floating-point rounding.",
    ]


def _noise_line(privacy: Mapping[str, Any]) -> str:
    if "matches" in privacy:
        return (
            f"- In each of {privacy['matches']} matches the gradient of a patient was cut to "
            f"{privacy['clip']:g} times the norm of the distilled images' own, and Gaussian noise "
            f"of {privacy['noise_multiplier']:.4g} times that norm added "
            f"(δ = {privacy['delta']:g})."
        )
    return (
        f"- The numbers of a patient were cut to a norm of {privacy['clip']:g}, and Gaussian noise "
        f"of {privacy['noise_multiplier']:.4g} times that norm was added to each sum over the "
        f"patients (δ = {privacy['delta']:g}). That somebody was left out, and not replaced by "
        f"another, is hidden with ε = {privacy['epsilon_left_out']:.3g}."
    )


def readme(manifest: Mapping[str, Any], images_sha256: str) -> str:
    """The page in Markdown.

    Args:
        manifest: of the set.
        images_sha256: hash of images.npy.
    """
    statistics = manifest.get("statistics")
    measured = manifest.get("measured") or {}
    privacy, kept = manifest.get("privacy"), manifest.get("kept") or {}
    audit = manifest.get("audit") or {}
    attacked = (
        "No attack was tried."
        if audit.get("alarm") is None and not privacy
        else "Attacks were tried, see below; others may find more."
    )
    lines = [
        f"# {headline(manifest)}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        f"{manifest['images']} images of {manifest['size'][0]} × {manifest['size'][1]} pixels, "
        f"{manifest['pixel_spacing_mm']} mm, 16 bits, distilled from {_patients(manifest)} "
        f"({_made(manifest)}), to train networks for the task {manifest['task']!r}.",
        "",
        *([f"**{audit['summary'].partition(_PARAGRAPH)[0]}**", ""] if audit.get("alarm") else []),
        *_licence_lines(manifest),
        _LOADING,
        *_use_lines(manifest),
        "## What they are",
        "",
        f"- {OF_THE_PRIOR if statistics else SIGNAL}",
        *_prior_lines(manifest),
        *(_statistics_lines(manifest) if statistics else []),
        *(_privacy_lines(privacy) if privacy else _alignment_lines(measured, kept)),
        *_kept_lines(kept),
        *([] if statistics else [_loop_line(manifest["config"]["loop"])]),
        "",
        "## What is not proven",
        "",
        f"- That no information on a patient can be extracted. {attacked}",
        "- That they are better for training than a handful of real images, which is often enough.",
        "- Anything for another task, scanner or part of the body.",
        "",
        "## Audit: can the patients be found in them?",
        "",
        str(audit.get("summary") or "Not audited: treat the images as the patients' own."),
        "",
        *_origin_lines(manifest, images_sha256),
    ]
    return "\n".join(lines)


def _made(manifest: Mapping[str, Any]) -> str:
    if manifest.get("statistics"):
        return "by statistics over all of them"
    return f"{manifest['images_per_patient']} for each"


def _statistics_lines(manifest: Mapping[str, Any]) -> list[str]:
    statistics = manifest["statistics"]
    if manifest.get("privacy"):
        return [
            f"- All that comes from the patients are {PROJECTED} numbers, each a sum over "
            f"{statistics['patients']} patients with noise: how far brightness, contrast and skew "
            "of intensities, and the strength of detail, are from the prior's. The quantiles in "
            "manifest.json were rebuilt from them and the prior alone.",
        ]
    numbers = len(statistics["intensities"]) + sum(map(len, statistics["bands"]))
    few = (
        " With so few patients the lowest and highest values among them are in the means, too."
        if statistics["patients"] < CLIPPED_FROM
        else ""
    )
    return [
        f"- All that comes from the patients are {numbers} numbers, each a mean over "
        f"{statistics['patients']} patients: quantiles of intensity, and of four bands of detail. "
        "They stand in manifest.json. No gradient and no image of a patient was used otherwise."
        + few,
    ]


def _patients(manifest: Mapping[str, Any]) -> str:
    count = manifest["patients"]
    return f"{count} {'patient' if count == 1 else 'patients'}"


def _licence_lines(manifest: Mapping[str, Any]) -> list[str]:
    lines = ["## License", "", f"**{manifest['licence']}**", ""]
    if manifest["prior"]["kind"] == TEMPLATE:
        notice = (resource_folder("samples") / _NOTICE).read_text(encoding="utf-8").splitlines()
        lines += [
            "The images start from the ICBM 152 template, whose notice goes with every copy:",
            "",
            *(f"> {line.strip()}" for line in notice),
            "",
        ]
    return lines


def _use_lines(manifest: Mapping[str, Any]) -> list[str]:
    window = manifest["window"]
    scale = (
        "{:g} HU are 0 and {:g} HU are 1".format(*window["HU"])
        if "HU" in window
        else f"an intensity of 0 is 0, {window['share of the robust maximum'][1]:g} times the "
        "robust maximum (the 99.5th percentile of the foreground) is 1"
    )
    return [
        "The images are undamaged: damage them while you train, as `config.damage` of "
        "manifest.json says, and let the network undo it. Bring scans that are to be restored to "
        f"the same scale: pixels of {manifest['pixel_spacing_mm']} mm; {scale}. "
        "`medenhance train hqg --data . --out ../runs` trains MedEnhance's enhancer on them, which "
        "adds noise itself and takes scans as they are.",
        "",
    ]


def _origin_lines(manifest: Mapping[str, Any], images_sha256: str) -> list[str]:
    config, software = manifest["config"], manifest["software"]
    hashes = {
        "images.npy": images_sha256,
        "the prior's images": manifest["prior_sha256"],
        "all the patients' images together": manifest.get("data_sha256"),
        "the configuration": manifest["config_sha256"],
    }
    return [
        "## Where they come from",
        "",
        f"- Method: {BY_STATISTICS}."
        if manifest.get("statistics")
        else f"- Method: {METHOD}. Its code is not public; this is MedEnhance's reconstruction.",
        f"- Patients: {manifest['patients']} distilled, {manifest['held_out']} held out for the "
        "audit.",
        f"- Configuration: in manifest.json; seed {config['seed']}.",
        f"- Software: {', '.join(f'{name} {version}' for name, version in software.items())}.",
        *(f"- SHA-256 of {what}: `{found}`" for what, found in hashes.items() if found),
        "- A SHA-256 shows that something is the same, bit for bit, to who has it already; no "
        "image can be made from it.",
        "",
        "## Files",
        "",
        "| file | content |",
        "|---|---|",
        "| `images.npy` | all images, 16 bits [N, H, W]; 65535 is 1 |",
        "| `images/` | the same as PNG, 16 bits |",
        "| `nifti/` | the same as NIfTI of one slice each, in [0, 1], with the pixel spacing |",
        "| `dataset.json` | the list of them in the form of the Medical Segmentation Decathlon |",
        "| `prior/` | what the images started from, as a set of its own; missing where it shows a "
        "patient |",
        "| `manifest.json` | all of this for programs |",
        "| `audit/` | the audit's report and figures, where there was one to publish |",
        "",
    ]
