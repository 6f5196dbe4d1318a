"""A budget of fidelity: how strongly a task may teach an enhancer, steered while it learns.

    cost = 10 log10(error of the trained network / error of its twin)      decibels
    left = (budget − cost) / budget                                        within −3 to 1
    log λ = μ + left,   μ ← μ + rate · left

The twin learns from the same batches without the task. The same noise is in both errors, so that
their ratio is known from few batches. μ is the ascent of a Lagrange multiplier, in logarithms; the
proportional part answers at once, without which λ swings: on a quadratic the mean cost was then two
to four times the budget. [ours]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.gradprom.gradients import Gradient, at_least_float32

#: Decay of the running means of errors and norms: they span 20 steps.
_DECAY = 0.95
#: The proportional part at most, while the cost is above the budget.
_LOWEST = -3.0
#: λ relates the gradients' norms: at 1 the task pulls as strongly as the enhancement itself.
_FIRST, _LEAST, _MOST = 0.1, 1e-4, 1e3


class FidelityBudget:
    """λ for a task's gradient, such that the task costs no more fidelity than it may.

    λ is relative: `weight` multiplies it by the ratio of the gradients' norms, so that it does not
    depend on the scale of either loss.

    Args:
        decibels: that the task may cost, 0.005 to 20.
        rate: of the change of μ in a step.
    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, decibels: float = 0.1, *, rate: float = 0.03) -> None:
        check_range("the budget", decibels, 0.005, 20.0)
        check_range("the budget's rate", rate, 0.0, 10.0)
        self.decibels, self.rate = decibels, rate
        # Running sums: squared errors of both networks, norms of both gradients.
        self._sums = [0.0] * 4
        self._slow, self._left = math.log(_FIRST), 0.0
        self._is_fixed = False

    @property
    def relative_weight(self) -> float:
        """λ, the norm of the task's gradient as it is added over that of the main one."""
        return math.exp(max(math.log(_LEAST), min(math.log(_MOST), self._slow + self._left)))

    @property
    def cost(self) -> float:
        """How much fidelity the task costs by now, dB; 0 before the first step."""
        error, twin, *_ = self._sums
        return 10 * math.log10(error / twin) if error > 0 and twin > 0 else 0.0

    def weight(self, main: Sequence[Gradient], task: Sequence[Gradient]) -> float:
        """The factor of the task's gradient in this step; 0 where either gradient is.

        Args:
            main: gradients of the enhancement's loss.
            task: gradients of the task's loss, by the same parameters.
        """
        norms = (_norm(main), _norm(task))
        if all(math.isfinite(norm) for norm in norms):
            for place, norm in enumerate(norms, start=2):
                self._sums[place] = _DECAY * self._sums[place] + norm
        _, _, of_main, of_task = self._sums
        return self.relative_weight * of_main / of_task if of_task > 0 else 0.0

    def observe(self, error: float, twin: float) -> None:
        """Take the squared errors of both networks on one batch, and move λ."""
        if not (math.isfinite(error) and math.isfinite(twin) and error > 0 and twin > 0):
            return
        for place, value in enumerate((error, twin)):
            self._sums[place] = _DECAY * self._sums[place] + value
        if self._is_fixed:
            return
        self._left = max(_LOWEST, min(1.0, (self.decibels - self.cost) / self.decibels))
        self._slow += self.rate * self._left
        self._slow = max(math.log(_LEAST), min(math.log(_MOST), self._slow))

    def fix(self, weight: float) -> None:
        """Keep the relative λ at a value from now on, whatever it costs; for comparisons."""
        self._slow, self._left = math.log(weight), 0.0
        self._is_fixed = True

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"state": torch.tensor([*self._sums, self._slow, self._left], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from such a state."""
        *self._sums, self._slow, self._left = state["state"].tolist()


def _norm(gradients: Sequence[Gradient]) -> float:
    known = [at_least_float32(g).square().sum() for g in gradients if g is not None]
    return math.sqrt(float(torch.stack(known).sum())) if known else 0.0
