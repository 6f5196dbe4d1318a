"""Options shared by trainings of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MedEnhanceLib.core.options import LARGEST_SEED, WithPresets, option
from MedEnhanceLib.runtime.device import DEVICES


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(WithPresets):
    """Options of every training: the model's name and the data for its card.

    A subclass gives `name` a default.
    """

    name: str = option(
        "",
        help="name of the model; if not given, that of OUT with --high-quality, else by the method",
        is_name=True,
        metavar="N",
    )
    data: tuple[dict[str, str], ...] = option(
        (), help="for the model card: name, subjects, license and source of each collection"
    )
    held_out: tuple[str, ...] = option(
        (),
        help="patterns of volumes to exclude from training and to measure networks on; for a head "
        "all images of their patients are excluded",
    )
    seed: int = option(0, help="random seed", low=0, high=LARGEST_SEED, metavar="N")
    license: str = option("", help="license of the weights, for the card; empty: not stated")


@dataclass(frozen=True, kw_only=True)
class NetworkTrainingConfig(TrainingConfig):
    """Options of a training whose model has a bundle of its own."""

    anatomy: str = option(
        "",
        help='body part in the images, as in "images of the brain"; users are informed of it',
        metavar="TEXT",
    )
    modality: Literal["MR", "CT"] = option("MR", help="of the images; decides scale and noise")
    device: str = option("auto", help=DEVICES, metavar="D")
