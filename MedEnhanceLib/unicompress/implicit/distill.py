"""The student's loss: first the teacher's features, then its outputs and the data.

Source: arXiv 2405.16850 (two-stage distillation); shares and weights are our reconstruction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from MedEnhanceLib.unicompress.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.implicit.losses import reconstruction_loss
from MedEnhanceLib.unicompress.implicit.model import Networks
from MedEnhanceLib.unicompress.implicit.siren import Decoded

_ALPHA_START, _ALPHA_END = 1.0, 0.1


def teacher_weight(share: float, match: float) -> float:
    """α, the weight of the teacher's outputs: 1 while features are matched, then down to 0.1.

    share: of the student's steps that are done, 0 to 1.
    """
    if share <= match:
        return _ALPHA_START
    progress = (share - match) / (1 - match)
    return _ALPHA_START + (_ALPHA_END - _ALPHA_START) * progress


def distillation_loss(
    networks: Networks,
    student: Decoded,
    teacher: Decoded,
    wanted: Tensor,
    share: float,
    config: ImplicitConfig,
) -> dict[str, Tensor]:
    """The terms of a student's step beside its teacher. wanted: voxels [B, N]; share: of its
    steps that are done.
    """
    alpha = teacher_weight(share, config.match)
    weight = config.bands_weight
    terms = {"output": alpha * reconstruction_loss(student.values, teacher.values, weight)}
    if share < config.match:
        fused = torch.mean((student.fused - teacher.fused) ** 2)
        last = torch.mean((networks.lift(student.last) - teacher.last) ** 2)
        terms["features"] = config.match_weight * (fused + last)
    else:
        terms["data"] = reconstruction_loss(student.values, wanted, weight)
    return terms


def learns_jointly(share: float, config: ImplicitConfig) -> bool:
    """Whether encoders and codebooks learn with the student: after its teacher, before integers."""
    return 1 - config.fixed - config.joint <= share < 1 - config.fixed


def in_fixed_point(share: float, config: ImplicitConfig) -> bool:
    """Whether the student computes as its integer decoder does, so near to the end."""
    return share >= 1 - config.fixed
