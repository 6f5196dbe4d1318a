"""What a gate decides in each of two processes, written to a file of its own; run by torchrun."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[3]
sys.path += [str(ROOT), str(ROOT / "Testing")]

from Library.gradprom.pair import descend, flat, losses, network  # noqa: E402

from MedEnhanceLib.gradprom import GradientGate  # noqa: E402
from MedEnhanceLib.nets.processes import Processes, join_processes  # noqa: E402


def unlabeled(processes: Processes) -> list[object]:
    """Only the first process has an auxiliary loss."""
    weight = nn.Parameter(torch.ones(1))
    aux = weight.sum() if processes.is_first else torch.zeros(())
    gate = GradientGate(mean=processes.mean)
    (gradient,), report = gate(weight.sum(), aux, [weight])
    return [report.open, float(gradient)]


def spoilt(processes: Processes) -> list[object]:
    """Only in the first process the auxiliary loss is no number; the scaler is not to blame."""
    weight = nn.Parameter(torch.ones(1))
    aux = weight.sum() * (math.nan if processes.is_first else 1)
    gate = GradientGate(mean=processes.mean)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    (gradient,), report = gate(weight.sum(), aux, [weight], scaler=scaler)
    return [report.open, float(gradient)]


def main(out: str) -> None:
    torch.set_num_threads(1)
    with join_processes("cpu") as (processes, _):
        gate, own, model = GradientGate(ema=0.9, mean=processes.mean), GradientGate(), network()
        rows = slice(8 * processes.rank, 8 * processes.rank + 8)
        reports, alone = [], []
        for step in range(30):
            alone.append(own(*losses(model, step, rows), model.parameters())[1].open)
            gradients, report = gate(*losses(model, step, rows), model.parameters())
            reports.append([report.open, report.cosine])
            descend(model, gradients)
        found = {
            "weights": flat(list(model.parameters())).tolist(),
            "reports": reports,
            "own": alone,
            "unlabeled": unlabeled(processes),
            "spoilt": spoilt(processes),
        }
        (Path(out) / f"{processes.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
