"""What each of two processes of a training finds, written to a file of its own; run by torchrun."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.train import Trainer
from MedEnhanceLib.hqg.train.pools import Pools
from MedEnhanceLib.nets.processes import join_processes
from MedEnhanceLib.runtime.progress import Monitor


def digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def thread_names() -> list[str]:
    """Of all threads of this process, the ones of libraries too; none where there is no /proc."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]


def main(config_file: str, data: str, out: str) -> None:
    torch.set_num_threads(1)
    config = TrainConfig.from_json(json.loads(Path(config_file).read_text()))
    pools = Pools.load(config, Path(data), Monitor())
    with join_processes("cpu") as (processes, _):
        weight = torch.nn.Parameter(torch.zeros(2))
        weight.grad = torch.full((2,), processes.rank + 1.0)
        processes.average_gradients([weight])
        trainer = Trainer(config, pools, "cpu", processes=processes)
        for number in range(2):
            trainer.step(number)
        checkpoint = Path(out) / "checkpoint.safetensors"
        trainer.save(checkpoint, 2)
        processes.any([False])  # the file is whole before anybody reads it
        resumed = Trainer(config, pools, "cpu", processes=processes)
        resumed.resume(checkpoint)
        for number in range(2, 4):
            trainer.step(number)
            resumed.step(number)
        assert trainer.critic is not None
        weights = digest(*trainer.networks.state_dict().values())
        found = {
            "weights": weights,
            "resumed": weights == digest(*resumed.networks.state_dict().values()),
            "batch": digest(trainer.batches[0].degraded),
            "past": digest(*trainer.critic.past.images),
            "mean": float(weight.grad[0]),
            "requests": list(processes.any([processes.rank == 1, False])),
        }
    found["threads"] = [name for name in thread_names() if "gloo" in name]
    (Path(out) / f"{processes.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
