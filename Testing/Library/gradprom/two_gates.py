"""What a gate decides in each of two processes, written to a file of its own; run by torchrun."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

ROOT = Path(__file__).resolve().parents[3]
sys.path += [str(ROOT), str(ROOT / "Testing")]

from Library.gradprom.pair import descend, flat, losses, network  # noqa: E402

from MedEnhanceLib.gradprom import GradientGate  # noqa: E402


def mean(values: Tensor) -> Tensor:
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


def unlabeled(rank: int) -> list[object]:
    """Only the first process has an auxiliary loss."""
    weight = nn.Parameter(torch.ones(1))
    aux = weight.sum() if rank == 0 else torch.zeros(())
    gate = GradientGate(mean=mean)
    (gradient,), report = gate(weight.sum(), aux, [weight])
    return [report.open, float(gradient)]


def spoilt(rank: int) -> list[object]:
    """Only in the first process the auxiliary loss is no number; the scaler is not to blame."""
    weight = nn.Parameter(torch.ones(1))
    aux = weight.sum() * (math.nan if rank == 0 else 1)
    gate = GradientGate(mean=mean)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    (gradient,), report = gate(weight.sum(), aux, [weight], scaler=scaler)
    return [report.open, float(gradient)]


def main(out: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    try:
        rank = distributed.get_rank()
        gate, own, model = GradientGate(ema=0.9, mean=mean), GradientGate(), network()
        rows = slice(8 * rank, 8 * rank + 8)
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
            "unlabeled": unlabeled(rank),
            "spoilt": spoilt(rank),
        }
        (Path(out) / f"{rank}.json").write_text(json.dumps(found))
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
