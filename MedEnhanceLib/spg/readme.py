"""README.md of a distilled set, for who gets the folder: license, use, limits and the audit.

Numbers, hashes and versions are in manifest.json. It names no patient, file, date or place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.spg.config import TEMPLATE
from MedEnhanceLib.spg.statistics import CLIPPED_FROM, NUMBERS

METHOD = "SPG, structure-preserving personalized generation (arXiv 2511.13106)"
BY_STATISTICS = "statistics of a cohort imposed on a public prior (after Heeger and Bergen, 1995)"
SIGNAL = "Training signal, not anatomy: shapes that look like organs can be invented."
OF_THE_PRIOR = "Their anatomy is the prior's alone; intensities and textures were changed."
NO_LICENSE = "No license is stated: nobody may use this set until its maker states one."
_PURPOSES = {
    "denoise": "removing noise",
    "sr2": "doubling the resolution",
    "sr4": "four times the resolution",
}
_PARAGRAPH = "\n\n"
_PAGE = """# Distilled {modality} images for {purpose}

**{research_only}**

{images} images of {width} × {height} pixels, {spacing} mm, 16 bits, distilled from {patients}, to \
train networks for the task {task!r}. manifest.json has the configuration, the versions and the \
hashes.

**{verdict}**

## License

**{license}**
{notice}
## Load them

In this folder, with PyTorch:

```python
import numpy as np, torch

images = torch.from_numpy(np.load("images.npy") / np.float32(65535))[:, None]
loader = torch.utils.data.DataLoader(images, batch_size=8, shuffle=True)
```

`images/` holds the same images one by one, as PNG of 16 bits.

The images are undamaged: damage them while you train, as `damage` of manifest.json says, \
and let the network undo it. Bring scans that are to be restored to the same scale: pixels of \
{spacing} mm; {scale}. `medenhance train hqg --data . --out ../runs` trains MedEnhance's enhancer \
on them, which adds noise itself and takes scans as they are.

## What they are

{nature}

## What is not proven

- That no information on a patient can be extracted. {attacked}
- That they are better for training than a handful of real images, which is often enough.
- Anything for another task, scanner or part of the body.

## Audit: can the patients be found in them?

{audit}
"""


def readme(manifest: Mapping[str, Any]) -> str:
    """Write the page in Markdown from the manifest of a set."""
    audit, count = manifest.get("audit") or {}, manifest["patients"]
    summary = str(audit.get("summary") or "Not audited: treat the images as the patients' own.")
    width, height = manifest["size"]
    is_attacked = audit.get("alarm") is not None
    scale = "0 is 0, the robust maximum (the 99.5th percentile of the foreground) is 1"
    if "HU" in manifest["window"]:
        scale = "{:g} HU are 0 and {:g} HU are 1".format(*manifest["window"]["HU"])
    return _PAGE.format(
        modality=manifest["modality"],
        purpose=_PURPOSES[manifest["task"]],
        research_only=RESEARCH_ONLY,
        images=manifest["images"],
        width=width,
        height=height,
        spacing=manifest["pixel_spacing_mm"],
        patients=f"{count} {'patient' if count == 1 else 'patients'}",
        task=manifest["task"],
        verdict=summary.partition(_PARAGRAPH)[0],
        license=manifest["license"],
        notice=_notice() if manifest["prior"]["kind"] == TEMPLATE else "",
        scale=scale,
        nature="\n".join(f"- {line}" for line in _nature(manifest)),
        attacked="Attacks were tried, see below; others may find more."
        if is_attacked
        else "No attack was tried.",
        audit=summary,
    )


def _notice() -> str:
    """Quote the template's license, which goes with every copy."""
    path = resource_folder("samples") / "LICENSE-MNI152.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    quoted = "\n".join(f"> {line.strip()}" for line in lines)
    return (
        "\nThe images start from the ICBM 152 template, whose notice goes with every copy:\n\n"
        f"{quoted}\n"
    )


def _nature(manifest: Mapping[str, Any]) -> list[str]:
    """List what the images are, and what of the patients is in them."""
    prior = (
        f"They start from a prior and stay near it. The prior: {manifest['prior']['description']}."
    )
    statistics = manifest.get("statistics")
    if not statistics:
        loop = manifest["config"]["loop"]
        return [
            SIGNAL,
            prior,
            f"The prior was given the patients' intensities and textures: {NUMBERS} numbers, means "
            "over them.",
            f"Each patient's images were matched {loop['outer'] * loop['inner']} times.",
            f"Method: {METHOD}. Its code is not public; this is MedEnhance's reconstruction.",
        ]
    patients = statistics["patients"]
    theirs = [
        f"The patients contribute {NUMBERS} numbers alone, each a mean over {patients} patients: "
        "quantiles of intensity, and of four bands of detail. They are in manifest.json."
    ]
    if patients < CLIPPED_FROM:
        theirs.append("So few patients have their lowest and highest values in the means, too.")
    return [OF_THE_PRIOR, prior, *theirs, f"Method: {BY_STATISTICS}."]
