"""The bi-level scheme: an enhancer θ and a task's head φ that learn from each other.

    stage 1   θ ← enhancement loss
    stage 2   φ ← task loss on x̂ = E_θ(y), split A, θ fixed             (lower step)
              θ ← enhancement loss + λ_d·task loss on split B, φ fixed  (upper step)

The two splits hold different images, so that θ is not trained on images that φ has memorized. The
task's gradient reaches θ through a gate only. Source: arXiv 2307.07829 names the scheme; the solver
is our reconstruction after DARTS (Liu et al., arXiv 1806.09055), and so is the gate.

Head and gate are protocols, as a method does not import another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from MedEnhanceLib.nets.training import DivergenceError

if TYPE_CHECKING:
    from MedEnhanceLib.report.training import GateStory

#: With or without their names.
Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]]
#: |ε·v| of the finite difference, as DARTS has it.
_DIFFERENCE = 0.01


class TaskHead(Protocol):
    """A recognition on enhanced images, such as a segmentation head."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of slabs [B, D, H, W] on the network's scale and labels [B, D, H, W]."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """φ: the parameters that a lower step updates."""

    def train(self, mode: bool = True) -> Any:
        """Whether normalization takes (and updates) its statistics from the batch."""

    def follow(self) -> None:
        """Called after every lower step, for averaged weights."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Its state for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any:
        """Continue from such a state."""


class Report(Protocol):
    """A gate's decision in one step."""

    @property
    def open(self) -> bool:
        """Whether anything of the task's gradient was admitted."""

    @property
    def cosine(self) -> float:
        """The cosine that the decision is based on."""

    @property
    def batch_cosine(self) -> float:
        """The cosine of this step's two gradients."""


class Gate(Protocol):
    """Joins the gradients of two losses of one forward pass."""

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Tensor | None], Report]:
        """One gradient for each parameter, and the decision."""

    def diagnostics(self) -> GateStory:
        """Its decisions in all steps so far."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Its state for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any:
        """Continue from such a state."""


class _Lower(NamedTuple):
    """A lower step as the second-order term needs it: φ before it, x̂ with its graph, labels."""

    head: TaskHead
    images: Tensor
    labels: Tensor


class BilevelTask:
    """Stage 2 of the bi-level scheme: lower steps of the head, gradients for the upper steps.

    Args:
        head: of the task, with parameters φ.
        gate: joins the gradients of the enhancement and the task.
        optimizer: of φ.
        weight: λ_d, of the task loss in the upper step.
        second_order: also account for the effect of θ on φ, as follows.

    With one lower step φ′ = φ − ξ·∇φ L_A(φ, θ) the upper gradient of L_B(φ′, θ) is
    ∇θ L_B − ξ·∇²θφ L_A · v, v = ∇φ′ L_B. The product of Hessian and vector is a central difference
    (DARTS):

        ∇²θφ L_A · v ≈ (∇θ L_A(φ + ε·v) − ∇θ L_A(φ − ε·v)) / 2ε,   ε = 0.01 / |v|

    ξ is the optimizer's rate: exact for plain descent, an approximation for Adam. The graph of the
    lower step's images is kept, and the head runs four times more.
    """

    def __init__(
        self,
        head: TaskHead,
        gate: Gate,
        optimizer: Optimizer,
        *,
        weight: float = 0.1,
        second_order: bool = False,
    ) -> None:
        self.head, self.gate, self.optimizer = head, gate, optimizer
        self.weight, self.second_order = weight, second_order
        self.learning_rate: float = optimizer.param_groups[0]["lr"]
        self._lower: _Lower | None = None

    def lower_step(self, images: Tensor, labels: Tensor, *, teaches: bool = True) -> float:
        """One step of φ on its own loss.

        Args:
            images: enhanced slabs of split A, [B, D, H, W]. They are detached; with second_order
                they need a graph, and the upper step of the same θ must follow.
            labels: [B, D, H, W], indices.
            teaches: whether the upper step follows; else nothing is kept for the second order.
        Returns:
            The loss.
        Raises:
            DivergenceError: the loss is not finite; φ is unchanged.
        """
        if self.second_order and teaches:
            self._lower = _Lower(copy.deepcopy(self.head), images, labels)
        self.head.train(True)
        loss = self.head.loss(images.detach(), labels)
        value = _finite(loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.head.follow()
        return value

    def task_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The task's loss for θ, with φ frozen.

        The head's graph is released before it returns, so its memory is free when the enhancer's
        graph is used twice. With second_order the gradient includes the second-order term, the
        value does not.

        Args:
            images: enhanced slabs of split B with their graph, [B, D, H, W].
            labels: [B, D, H, W], indices.
        Raises:
            DivergenceError: the loss is not finite.
        """
        with _frozen(self.head):
            loss = _without_graph(self.head, images, labels, self.weight)
        _finite(loss)
        if self.second_order:
            term = self._unrolled_term(images.detach(), labels)
            loss = loss + (term - term.detach())
        return loss

    def upper_gradients(
        self, main_loss: Tensor, task_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Tensor | None], Report]:
        """Gradients of θ for its optimizer, and the gate's decision.

        task_loss: from `task_loss`. The graphs of both losses are released; no `grad` is changed.
        """
        return self.gate(main_loss, self.weight * task_loss, parameters)

    def _unrolled_term(self, images: Tensor, labels: Tensor) -> Tensor:
        """A scalar whose gradient by θ is the second-order term."""
        if self._lower is None:
            raise RuntimeError("second_order needs a lower step before each upper step")
        lower, self._lower = self._lower, None
        vector = self._direction(images, labels)
        length = float(torch.stack([part.square().sum() for part in vector]).sum().sqrt())
        if length == 0 or not math.isfinite(length):
            return images.new_zeros(())
        epsilon = _DIFFERENCE / length
        ahead, behind = (
            _displaced(lower.head, vector, step).loss(lower.images, lower.labels)
            for step in (epsilon, -epsilon)
        )
        rate: float = self.optimizer.param_groups[0]["lr"]
        return -rate * (ahead - behind) / (2 * epsilon)

    def _direction(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """v: the gradient of the upper task loss by φ′."""
        self.head.train(False)
        parameters = list(self.head.parameters())
        found = torch.autograd.grad(self.head.loss(images, labels), parameters, allow_unused=True)
        return [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters, found, strict=True)
        ]

    def checkpoint_parts(self) -> dict[str, dict[str, Any]]:
        """Its states for `nets.checkpoint`."""
        return {
            "modules": {"head": self.head, "gate": self.gate},
            "optimizers": {"head_adam": self.optimizer},
        }


class _Known(torch.autograd.Function):
    """A loss whose gradient by the images, multiplied by `weight`, is known already."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, value: Tensor, gradient: Tensor, weight: Tensor
    ) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, weight = ctx.saved_tensors
        return (outer[0] / weight) * gradient, None, None, None


def _without_graph(head: TaskHead, images: Tensor, labels: Tensor, weight: float) -> Tensor:
    """The head's loss with a gradient for the images' graph; the head's own graph is released.

    weight: the factor that the loss will be multiplied with. It is applied in the head's backward
    pass, as in an undivided graph, so that gradients are the same bit for bit.
    """
    if not images.requires_grad:
        return head.loss(images, labels)
    seen = images.detach().requires_grad_()
    loss = head.loss(seen, labels)
    if not loss.requires_grad:
        return loss
    outer = torch.full_like(loss, weight or 1.0)
    gradient: Tensor | None = torch.autograd.grad(loss, seen, outer, allow_unused=True)[0]
    if gradient is None:
        return loss.detach()
    known: Tensor = _Known.apply(  # type: ignore[no-untyped-call]
        images, loss.detach(), gradient, outer
    )
    return known


def _finite(loss: Tensor) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DivergenceError(
            f"the task's loss is {value}", "Lower learning_rate of the head, or look at its data."
        )
    return value


@contextmanager
def _frozen(head: TaskHead) -> Iterator[None]:
    """Within it, parameters of the head get no gradient and its statistics stay fixed."""
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    head.train(False)
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _displaced(head: TaskHead, vector: Sequence[Tensor], step: float) -> TaskHead:
    """A copy of the head at φ + step·v, without gradients."""
    moved = copy.deepcopy(head)
    moved.train(True)
    with torch.no_grad():
        for parameter, part in zip(moved.parameters(), vector, strict=True):
            parameter.requires_grad_(False).add_(part, alpha=step)
    return moved
