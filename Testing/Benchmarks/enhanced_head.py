"""What a segmentation head gains where it also learns from what an enhancer makes.

    python Testing/Benchmarks/enhanced_head.py --data FOLDER

The head `brain` goes on learning from its label maps, beside the project: on painted scans alone,
or with an enhancer, on half of them with noise that the enhancer removed. FOLDER has the heads of
heads.json with labels that people drew, from which no arm learned. They are segmented as they are
and with Rician noise, through the same door as a user's scan; Dice to these labels, and to those of
the shipped head in the clean scan.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import QUICK, REPOSITORY, SHARED_DATA, Part, Row, folder_of, run
from _heads_data import Heads, agreement

from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.gradprom.structures.model import open_structures
from MedEnhanceLib.gradprom.structures.space import make_space
from MedEnhanceLib.noise.rician import rician_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.head_export import export_structures
from MedEnhanceLib.training.gradprom.heads import train_corrector
from MedEnhanceLib.training.gradprom.label_maps import read_maps, split_maps, tissue_map
from MedEnhanceLib.training.gradprom.painting import Painter
from MedEnhanceLib.training.jobs.segmenter import enhancer_of

HEAD, ENHANCER = "brain", "mr"
SHIPPED, PAINTED, ENHANCED = "as shipped", "painted scans", "painted and enhanced scans"
#: Noise over the brightest tissue.
SIGMAS = (0.0, 0.05, 0.15)
#: Steps that go on from the shipped weights, at a rate as late in its training.
_STEPS, _RATE, _SHARE = 600, 3e-4, 0.5


def parts(options: Namespace) -> Iterator[Part]:
    heads = Heads(options.data)
    persons = [entries[0] for entries in heads.of("manual").values()]
    painter = cache(painter_of)
    shipped = open_bundle(HEAD, kind="head", modality="MR").folder
    known = cache(lambda file: labels_of(shipped, heads.image(heads.named(file))))
    for arm in (SHIPPED,) if QUICK else (SHIPPED, PAINTED, ENHANCED):
        folder = cache(partial(trained, painter, arm) if arm != SHIPPED else lambda: shipped)
        for person in persons[:1] if QUICK else persons:
            make = partial(rows, heads, person, arm, folder, known)
            yield f"{arm} {person['subject']}", make


def painter_of() -> tuple[TrainHeadConfig, Painter]:
    """The recipe of the head, and its painter of scans."""
    recipe = REPOSITORY / "docs" / "recipes" / f"{HEAD}.json"
    config = TrainHeadConfig.from_json(json.loads(recipe.read_text("utf-8")))
    config = replace(config, steps=_STEPS, learning_rate=_RATE, ema=0.99, enhanced_share=_SHARE)
    training, _ = split_maps(config, SHARED_DATA / "label_maps")
    model = open_structures(open_bundle(HEAD, kind="head", modality="MR"))
    volumes = read_maps(training, Monitor())
    maps = [tissue_map(volume, model.anatomy) for volume in volumes]
    space, placements = make_space(maps, model.anatomy, len(maps), Monitor())
    return config, Painter(maps, placements, space, model.anatomy)


def trained(painter: Callable[[], tuple[TrainHeadConfig, Painter]], arm: str) -> Path:
    """Train the corrector further, and write the head; returns its folder."""
    out = folder_of("enhanced_head") / arm.replace(" ", "_")
    config, paint = painter()
    config = replace(config, enhancer=ENHANCER if arm == ENHANCED else "")
    model = open_structures(open_bundle(HEAD, kind="head", modality="MR"))
    network = model.corrector.train().requires_grad_(True)
    network, seconds = train_corrector(
        config, network, paint, "cpu", out, Monitor(), enhancer_of(config)
    )
    model = replace(model, corrector=network)
    return export_structures(out / HEAD, config, model, (18, 0, 0), seconds).folder


def labels_of(head: Path, volume: Volume) -> Any:
    """A head's labels."""
    config = SegmentConfig(model=str(head), device="cpu", force_segmenter=True)
    return np.asarray(segment(volume, config).volume.voxels).astype(np.int32)


def rows(
    heads: Heads,
    person: Any,
    arm: str,
    folder: Callable[[], Path],
    known: Callable[[Any], Any],
) -> Iterator[Row]:
    """Segment a person's scan with each noise.

    Args:
        heads: that have it.
        person: its entry.
        arm: whose head is measured.
        folder: of that head.
        known: labels of the shipped head in the clean scan of a file.
    """
    scan, truth = heads.image(person), heads.drawn(person, "labels")
    top = np.percentile(scan.voxels, 99)
    for sigma in SIGMAS:
        rng = np.random.default_rng(0)
        noisy = rician_noise(scan.voxels, sigma * top, rng) if sigma else scan.voxels
        labels = labels_of(folder(), scan.with_voxels(noisy))
        yield {
            "arm": arm,
            "subject": person["subject"],
            "noise": sigma,
            "dice": fmean(agreement(labels, known(person["file"])).values()),
            "dice_truth": fmean(agreement(labels, truth).values()),
        }


if __name__ == "__main__":
    run("enhanced_head", __doc__, parts, seeds=(0,))
