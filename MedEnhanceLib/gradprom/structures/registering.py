"""Affine registration of a scan to the painted priors, by mutual information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.space import CELL_MM
from MedEnhanceLib.runtime.dependencies import require

# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: Bins of the histogram, steps of the optimizer, and its first and last step in mm.
_BINS, _STEPS, _FIRST_MM, _LAST_MM = 32, 60, 2.0, 0.02
#: Sizes over the usual that are likely, and the factor of the others' information.
_SIZES, _UNLIKELY = (0.75, 1.3), 0.7
#: Cells around the structures that count as well.
_AROUND = 2


def register(
    image: Tensor, to_mm: Tensor, starts: Sequence[Tensor], model: StructureModel
) -> tuple[Tensor, float]:
    """Refine affines from a scan to the space; return the best, and its mutual information.

    Only the structures and a rim of 8 mm count, so scalp and neck pull nothing. Information counts
    less for unlikely sizes. Source: Mattes et
    al., IEEE Trans. Med. Imaging 22 (2003) 120, as in SimpleITK.

    Args:
        image: [K, J, I], of about 4 mm.
        to_mm: [3, 4], from its indices to mm; diagonal but for the shift.
        starts: affines [3, 4] from mm to the space.
        model: the head.
    """
    sitk = require("SimpleITK", purpose="Segmenting a volume")
    template, mask = _template(model)
    fixed = _image(sitk, template, [CELL_MM] * 3, model.space.origin)
    inner = sitk.Cast(_image(sitk, mask, [CELL_MM] * 3, model.space.origin), sitk.sitkUInt8)
    moving = _image(sitk, image, torch.diagonal(to_mm[:, :3]).tolist(), to_mm[:, 3].tolist())
    best, best_value = starts[0], 0.0
    for start in starts:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricFixedMask(inner)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(_FIRST_MM, _LAST_MM, _STEPS)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetSmoothingSigmasPerLevel([1.0])
        method.SetShrinkFactorsPerLevel([1])
        back = torch.linalg.inv(torch.cat([start, torch.tensor([[0.0, 0, 0, 1]])]).double())
        initial = sitk.AffineTransform(3)
        initial.SetMatrix(back[:3, :3].flatten().tolist())
        initial.SetTranslation(back[:3, 3].tolist())
        try:
            result = sitk.AffineTransform(_run(sitk, method, initial, fixed, moving))
        except RuntimeError:  # too few voxels overlap
            continue
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(result.GetMatrix()).reshape(3, 3)
        matrix[:3, 3] = result.TransformPoint((0.0, 0.0, 0.0))
        sizes = np.linalg.svd(matrix[:3, :3])[1]
        value = method.GetMetricValue()
        if not _SIZES[0] <= sizes.min() <= sizes.max() <= _SIZES[1]:
            value *= _UNLIKELY
        if value < best_value:
            best, best_value = torch.from_numpy(np.linalg.inv(matrix)[:3]).float(), value
    return best, -best_value


def _run(sitk: Any, method: Any, initial: Any, fixed: Any, moving: Any) -> Any:
    """Run a registration from an initial transform, which stays as it is.

    It has one thread: sums in another order would lead elsewhere. Its metric has no number of
    threads of its own.
    """
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    method.SetInitialTransform(initial, inPlace=False)
    try:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        result = method.Execute(fixed, moving)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return result.GetNthTransform(0) if hasattr(result, "GetNthTransform") else result


def _template(model: StructureModel) -> tuple[Tensor, Tensor]:
    """Paint the priors in the first known contrast; returns them and where they count."""
    anatomy, prior = model.anatomy, model.space.prior
    levels = torch.linspace(0, 1, len(prior))
    if len(anatomy.contrasts):
        means = anatomy.contrasts[0]
        for index in range(1, len(prior)):
            known = means[(anatomy.tissue_classes == index) & np.isfinite(means)]
            levels[index] = float(known[0]) if len(known) else levels[index]
    inner = anatomy.inner(prior)
    rim = F.max_pool3d(inner[None, None], 2 * _AROUND + 1, stride=1, padding=_AROUND)[0, 0]
    return torch.einsum("c,ckji->kji", levels, prior), (rim > 0.5).float()


def _image(sitk: Any, values: Tensor, spacing: Sequence[float], origin: Sequence[float]) -> Any:
    image = sitk.GetImageFromArray(values.numpy())
    image.SetSpacing([float(mm) for mm in spacing])
    image.SetOrigin([float(mm) for mm in origin])
    return image
