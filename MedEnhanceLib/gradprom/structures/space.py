"""The common space of label maps: its priors, and the placement of a volume in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name
from torch.optim.adam import adam

from MedEnhanceLib.core.arrays import Bytes, Doubles
from MedEnhanceLib.gradprom.structures.anatomy import UNLABELED, Anatomy
from MedEnhanceLib.runtime.progress import Monitor

# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: Side of the priors' cells and of nodes of displacements; room around the structures; mm.
CELL_MM, _NODE_MM, _ROOM_MM = 4.0, 12.0, 24.0
#: Share of structures' cells beyond each face of the priors, such as fluid of the spine.
_TRIM = 0.002
#: Rounds of registration of all maps to their mean, and steps of each.
_ROUNDS, _STEPS = 3, 40
#: Share of each class in every cell, so that nothing is excluded.
_FLOOR = 1e-3
#: Weight of the displacements' gradient against the likelihood of a cell.
_STIFFNESS = 0.15
#: Rate of the placements' optimizer; arm of the affine's linear part; mm.
_STEP_MM, _ARM_MM = 0.6, 60.0


@dataclass(frozen=True, eq=False)
class TissueMap:
    """One label map, cropped to what it labels, or with images and whole.

    Attributes:
        tissues: [K, J, I], indices of tissues; the highest bit marks the left side, of air what is
            UNLABELED.
        to_mm: 4 × 4, from indices (i, j, k) to LPS mm.
        images: [K, J, I], 0 to 1, on the same grid; none for a map that is painted.
    """

    tissues: Bytes
    to_mm: Doubles
    images: tuple[Tensor, ...] = ()


@dataclass(frozen=True, eq=False)
class Space:
    """Priors of all classes over cells of 4 mm.

    Attributes:
        prior: [C, K, J, I], shares that add up to 1.
        origin: (x, y, z) of the first cell's center, LPS mm from the center of all structures.
    """

    prior: Tensor
    origin: tuple[float, float, float]

    def at(self, points: Tensor) -> Tensor:
        """Interpolate the priors at points [..., 3] of this space, mm: [C, ...]."""
        sides = torch.tensor(self.prior.shape[:0:-1], dtype=torch.float32)
        return sampled(
            self.prior, (points - torch.tensor(self.origin)) / CELL_MM / (sides - 1) * 2 - 1
        )

    def nodes(self) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Return the grid of a placement's displacements.

        Returns the first node and the mm between nodes, along x, y, z, and their number along k,
        j, i.
        """
        extent = (torch.tensor(self.prior.shape[:0:-1]) - 1) * CELL_MM
        sides = (extent / _NODE_MM).ceil().long() + 1
        return torch.tensor(self.origin), extent / (sides - 1), tuple(sides.flip(0).tolist())


@dataclass(frozen=True, eq=False)
class Placement:
    """Map from mm of a volume to mm of the space: an affine, then smooth displacements.

    Attributes:
        affine: [3, 4].
        field: [3, k, j, i], mm, on nodes in the space.
        low, node: (x, y, z) of the first node, and mm between nodes along x, y, z.
    """

    affine: Tensor
    field: Tensor
    low: Tensor
    node: Tensor

    @classmethod
    def linear(cls, affine: Doubles | Tensor) -> Placement:
        """Make a placement without displacements; affine: [3, 4] at least."""
        matrix = torch.as_tensor(np.asarray(affine)[:3], dtype=torch.float32)
        zero = torch.zeros(3)
        return cls(matrix, torch.zeros(3, 2, 2, 2), zero, zero + 1e6)

    def __call__(self, points: Tensor) -> Tensor:
        """Return the places [..., 3] of points [..., 3]."""
        places = transformed(self.affine, points)
        sides = torch.tensor(self.field.shape[:0:-1], dtype=torch.float32)
        at = (places - self.low) / self.node / (sides - 1) * 2 - 1
        return places + sampled(self.field, at).movedim(0, -1)


def transformed(affine: Tensor, points: Tensor) -> Tensor:
    """Apply an affine [3, 4] to points [..., 3]."""
    return points @ affine[:, :3].T + affine[:, 3]


def sampled(values: Tensor, at: Tensor, *, beyond: str = "border") -> Tensor:
    """Interpolate values at places.

    Args:
        values: [C, K, J, I].
        at: [..., 3], along i, j, k: -1 is the first voxel's center, 1 the last one's.
        beyond: "border" repeats the ends, "zeros" does not.
    Returns [C, ...].
    """
    flat = at.reshape(1, 1, 1, -1, 3)
    result = F.grid_sample(
        values[None], flat, mode="bilinear", padding_mode=beyond, align_corners=True
    )
    return result.reshape(len(values), *at.shape[:-1])


def index_grid(sides: Sequence[int]) -> Tensor:
    """Return the indices (i, j, k) of a grid: [K, J, I, 3]."""
    lines = [torch.arange(n, dtype=torch.float32) for n in sides]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], -1)


def make_space(
    maps: Sequence[TissueMap], anatomy: Anatomy, count: int, monitor: Monitor
) -> tuple[Space, list[Placement]]:
    """Bring label maps into a common space, and average them.

    Affines fit the structures' centers and extents; then displacements make the maps' labels
    likely under the mean of all, some rounds.

    Args:
        maps: with the tissues of `anatomy`.
        anatomy: classes and tissues.
        count: number of the first maps, which are averaged; the others are only placed.
        monitor: progress and cancelling.
    Returns the space, and the placement of each map in it.
    """
    affines = _fit_affines([_landmarks(item, anatomy) for item in maps], count, anatomy)
    placements = [Placement.linear(affine) for affine in affines]
    cells = [_cells(item, anatomy) for item in maps]
    low, sides = _extent(cells[:count], placements[:count], anatomy)
    space = _average(cells[:count], placements[:count], low, sides, anatomy, blur=1.5)
    fitted = [_near(shares, anatomy) for _, shares in cells]
    for number in range(_ROUNDS):
        # What is unlabeled is likely wherever no structure is.
        unlabeled = 1 - anatomy.inner(space.prior)
        goal = Space(torch.cat([space.prior, unlabeled[None]]), space.origin)
        moved = []
        for index, (points, shares) in enumerate(cells):
            monitor.progress((number + index / len(cells)) / _ROUNDS, "aligning the label maps")
            start, some = Placement.linear(affines[index]), fitted[index]
            moved.append(fit_placement(goal, points[some], shares[:, some], start, _STEPS))
        placements = moved
        last = number == _ROUNDS - 1
        blur = 0.6 if last else 1.0
        space = _average(cells[:count], placements[:count], low, sides, anatomy, blur=blur)
    return space, placements


def fit_placement(
    space: Space,
    points: Tensor,
    shares: Tensor,
    start: Placement,
    steps: int,
    *,
    is_affine_fixed: bool = True,
    parts: int = 1,
) -> Placement:
    """Find displacements that make the classes of points likely under the priors.

    Args:
        space: the priors.
        points: [N, 3], mm of the volume.
        shares: [C, N], of the classes at these points.
        start: to begin with.
        steps: of the optimizer (Adam).
        is_affine_fixed: whether the affine of `start` stays.
        parts: steps in which all points are seen once, a part of them in each.
    """
    low, node, sides = space.nodes()
    nodes = index_grid(sides) * node + low
    begin = Placement(torch.eye(3, 4), start.field, start.low, start.node)
    field = (begin(nodes) - nodes).movedim(-1, 0).contiguous().requires_grad_()
    change = torch.zeros(3, 4, requires_grad=not is_affine_fixed)
    optimizer = _Adam([field] if is_affine_fixed else [field, change])
    weight = shares.sum(0).clamp_min(1e-6).sum() / parts
    square = torch.cat([start.affine, torch.tensor([[0.0, 0, 0, 1]])])
    for number in range(steps):
        seen = slice(number % parts, None, parts)
        # Entries of the linear part move places at _ARM_MM from the center as a shift does.
        moved = torch.cat([change[:, :3] / _ARM_MM + torch.eye(3), change[:, 3:]], 1)
        placement = Placement(moved @ square, field, low, node)
        logs = (space.at(placement(points[seen])) + _FLOOR).log()
        likelihood = (shares[:, seen] * logs).sum() / weight
        bending = sum((field.diff(dim=axis) ** 2).mean() for axis in (1, 2, 3))
        optimizer.step(_STIFFNESS * bending / 9 - likelihood)
    return Placement(placement.affine.detach(), field.detach(), low, node)


class _Adam:
    """The optimizer; `torch.optim.Adam` imports PyTorch's compiler first, which takes 1.3 s."""

    def __init__(self, values: list[Tensor]) -> None:
        self._values = values
        self._means, self._squares = ([torch.zeros_like(v) for v in values] for _ in range(2))
        self._counts = [torch.tensor(0.0) for _ in values]

    def step(self, loss: Tensor) -> None:
        """Change the values a little, so that the loss becomes less."""
        gradients = list(torch.autograd.grad(loss, self._values))
        with torch.no_grad():
            adam(
                self._values, gradients, self._means, self._squares, [], self._counts,
                foreach=False, amsgrad=False, beta1=0.9, beta2=0.999, lr=_STEP_MM,
                weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip


def _landmarks(item: TissueMap, anatomy: Anatomy) -> Doubles:
    """Return center and center ± σ along x, y, z of each structure and side: [N, 7, 3] mm."""
    classes = anatomy.tissue_classes[item.tissues & 127]
    inner = np.nonzero((classes > 0) & (classes <= len(anatomy.structures)))
    groups = classes[inner] + len(anatomy.classes) * (item.tissues[inner] >> 7).astype(np.int64)
    places = item.to_mm[:3, :3] @ np.stack(inner[::-1]) + item.to_mm[:3, 3:]
    count = 2 * len(anatomy.classes)
    total = np.maximum(np.bincount(groups, minlength=count), 1)
    center = np.stack([np.bincount(groups, line, count) / total for line in places], -1)
    square = np.stack([np.bincount(groups, line**2, count) / total for line in places], -1)
    sigma = np.sqrt(np.maximum(square - center**2, 0))
    ways = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    marks: Doubles = center[:, None] + ways * sigma[:, None]
    marks[np.bincount(groups, minlength=count) < 30] = np.nan
    return marks


def _solve(source: Doubles, target: Doubles) -> Doubles:
    """Fit the affine [4, 4] that maps landmarks [N, 7, 3] to others, without those missing."""
    known = np.isfinite(source).all((1, 2)) & np.isfinite(target).all((1, 2))
    a, b = source[known].reshape(-1, 3), target[known].reshape(-1, 3)
    rows = np.linalg.lstsq(np.c_[a, np.ones(len(a))], b, rcond=None)[0].T
    result: Doubles = np.r_[rows, [[0, 0, 0, 1]]]
    return result


def _moved(affine: Doubles, marks: Doubles) -> Doubles:
    result: Doubles = marks @ affine[:3, :3].T + affine[:3, 3]
    return result


def _mean_known(values: list[Doubles]) -> Doubles:
    """Average arrays without what is NaN; NaN where it is in all."""
    stack = np.stack(values)
    known = np.isfinite(stack)
    total = np.where(known, stack, 0).sum(0)
    result: Doubles = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
    return result


def _fit_affines(marks: list[Doubles], count: int, anatomy: Anatomy) -> list[Doubles]:
    """Map each list of landmarks to the mean of the first, which keeps their size and direction."""
    averaged, goal = marks[:count], marks[0]
    for _ in range(4):
        goal = _mean_known([_moved(_solve(item, goal), item) for item in averaged])
        mean = np.mean([_solve(item, goal) for item in averaged], 0)
        goal = _moved(np.linalg.inv(mean), goal)
        goal = goal - np.nanmean(goal[:, 0], 0)
        if anatomy.has_sides:  # symmetric about x = 0
            half = len(anatomy.classes)
            mirrored = goal[:, [0, 4, 2, 3, 1, 5, 6]] * [-1, 1, 1]
            lonely = np.isnan(goal[half:, 0, 0])
            swapped = np.concatenate([mirrored[half:], mirrored[:half]])
            swapped[:half][lonely], swapped[half:][lonely] = mirrored[:half][lonely], np.nan
            goal = (goal + swapped) / 2
    return [_solve(item, goal) for item in marks]


def _cells(item: TissueMap, anatomy: Anatomy) -> tuple[Tensor, Tensor]:
    """Average a map over cells of about 4 mm.

    Returns points [k, j, i, 3], mm, and shares [C + 1, k, j, i]: the last of what is unlabeled.
    """
    mm = np.linalg.norm(item.to_mm[:3, :3], axis=0)
    steps = tuple(max(1, round(CELL_MM / side)) for side in mm[::-1])
    sides = tuple(
        max(1, side // step) for side, step in zip(item.tissues.shape, steps, strict=True)
    )
    inside = tuple(slice(0, side * step) for side, step in zip(sides, steps, strict=True))
    tissues, kinds = item.tissues[inside], len(anatomy.classes) + 1
    classes = np.where(tissues == UNLABELED, kinds - 1, anatomy.tissue_classes[tissues & 127])
    cells = np.arange(np.prod(sides)).reshape(sides)
    for axis, step in enumerate(steps):
        cells = cells.repeat(step, axis)
    counts = np.bincount((cells * kinds + classes).ravel(), minlength=kinds * np.prod(sides))
    shares = torch.from_numpy(counts / np.prod(steps)).float().reshape(*sides, kinds)
    places = [(np.arange(n) + 0.5) * step - 0.5 for n, step in zip(sides, steps, strict=True)]
    index = np.stack(np.meshgrid(*places, indexing="ij")[::-1], -1)
    points = index @ item.to_mm[:3, :3].T + item.to_mm[:3, 3]
    return torch.from_numpy(points).float(), shares.movedim(-1, 0).contiguous()


def _near(shares: Tensor, anatomy: Anatomy) -> Tensor:
    """Mark a quarter of the cells within about 20 mm of a structure, [k, j, i].

    Those whose indices are all even or all odd say as much as all of them.
    """
    inner = anatomy.inner(shares)
    near = F.max_pool3d(inner[None, None], 11, stride=1, padding=5)[0, 0] > 0.5
    parity = index_grid(tuple(near.shape)) % 2
    return near & (parity.amin(-1) == parity.amax(-1))


def _extent(
    cells: list[tuple[Tensor, Tensor]], placements: list[Placement], anatomy: Anatomy
) -> tuple[Tensor, tuple[int, ...]]:
    """Return the first cell's center and the sides of a grid around all structures."""
    lows, highs = [], []
    for (points, shares), placement in zip(cells, placements, strict=True):
        inner = placement(points[anatomy.inner(shares) > 0.5])
        lows.append(inner.quantile(_TRIM, 0))
        highs.append(inner.quantile(1 - _TRIM, 0))
    low, high = (
        torch.stack(lows).min(0).values - _ROOM_MM,
        torch.stack(highs).max(0).values + _ROOM_MM,
    )
    if anatomy.has_sides:
        low[0] = min(low[0], -high[0])
        high[0] = -low[0]
    sides = ((high - low) / CELL_MM).ceil().long() + 1
    low = (low + high) / 2 - (sides - 1) * CELL_MM / 2
    return low, tuple(sides.flip(0).tolist())


def _average(
    cells: list[tuple[Tensor, Tensor]],
    placements: list[Placement],
    low: Tensor,
    sides: tuple[int, ...],
    anatomy: Anatomy,
    *,
    blur: float,
) -> Space:
    """Average the classes of all maps in the cells of the space; blur: σ in cells."""
    total = torch.zeros(sides[0] * sides[1] * sides[2], len(anatomy.classes))
    for (points, shares), placement in zip(cells, placements, strict=True):
        place = (placement(points).reshape(-1, 3) - low) / CELL_MM
        flat = shares[:-1].flatten(1).T.contiguous()
        base = place.floor()
        for corner in range(8):
            step = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], dtype=torch.float32)
            i, j, k = (base + step).long().unbind(-1)
            share = (1 - (place - base - step).abs()).prod(-1)
            known = (
                (i >= 0) & (j >= 0) & (k >= 0) & (i < sides[2]) & (j < sides[1]) & (k < sides[0])
            )
            index = ((k * sides[1] + j) * sides[2] + i)[known]
            total.index_add_(0, index, (flat * share[:, None])[known])
    prior = total.T.reshape(-1, *sides)
    for axis in (1, 2, 3):
        prior = smooth(prior, blur, axis)
    if anatomy.has_sides:
        prior = (prior + prior.flip(3)) / 2
    prior[0] += 1e-4
    prior = prior / prior.sum(0)
    return Space(prior, (float(low[0]), float(low[1]), float(low[2])))


def smooth(values: Tensor, sigma: float, axis: int) -> Tensor:
    """Convolve with a Gaussian; ends are repeated.

    Args:
        values: of any shape.
        sigma: in cells; under 0.15 nothing is done.
        axis: along which to convolve.
    """
    if sigma < 0.15:
        return values
    radius = max(1, int(np.ceil(2.5 * sigma)))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    moved = values.movedim(axis, -1)
    lines = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (radius, radius), mode="replicate")
    return (
        F.conv1d(lines, (taps / taps.sum()).view(1, 1, -1)).reshape(moved.shape).movedim(-1, axis)
    )
