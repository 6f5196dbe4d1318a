"""Trains the implicit network: a teacher with encoders and codebooks, then a student of it.

What comes out are two files: what every reader needs, and what writers need besides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from MedEnhanceLib._version import __version__
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.training import run_steps
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.implicit.codec import ROLE, WRITER_ROLE
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks
from MedEnhanceLib.unicompress.codecs.implicit.trainer import Blocks, Trainer, read_sources
from MedEnhanceLib.unicompress.codecs.implicit.weights import (
    LAYOUT,
    Arrays,
    decoder_arrays,
    token_arrays,
)

_METRIC_EVERY = 50
#: From one checkpoint to the next.
_CHECKPOINT_S = 300.0


@without_tf32()
def train(
    config: ImplicitConfig,
    data_files: Sequence[str | Path],
    out: Path,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Train, or go on with a training, and write the models into `out`; their paths.

    Raises Cancelled after writing a checkpoint, InputError where there is nothing to learn from,
    ModelError on divergence or a damaged checkpoint, ConfigError for one of another configuration.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    out.mkdir(parents=True, exist_ok=True)
    sources = read_sources(data_files, config.modality, monitor.part(0.0, 0.03))
    trainer = Trainer(config, Blocks(sources), choice.name)
    # A training goes on only where what decides what is learned is the same.
    learned = config.to_json() | {"device": ""}
    run_steps(
        trainer.step,
        config.steps,
        out,
        {"config": learned, **trainer.parts},
        monitor.part(0.03, 1.0),
        every_s=_CHECKPOINT_S,
        reported_every=_METRIC_EVERY,
    )
    return save_models(trainer.networks, config, out)


def save_models(networks: Networks, config: ImplicitConfig, out: Path) -> list[Path]:
    """Write what readers need, and encoders and projections down as half floats for writers."""
    facts = {
        "layout": LAYOUT,
        "heads": str(config.student.heads),
        "depth": str(config.student.depth),
        "scaled": str(config.student.scaled),
        "order": config.token.order,
        "modality": config.modality,
        "seed": str(config.seed),
        "steps": json.dumps([config.teacher_steps, config.student_steps]),
        "version": __version__,
    }
    encoder = facts | {"token": json.dumps(asdict(config.token))}
    state = networks.tokenizer.state_dict()
    kept = ("encoders.", "quantisers.0.down", "quantisers.1.down")
    halves = {n: t.cpu().numpy().astype(np.float16) for n, t in state.items() if n.startswith(kept)}
    student = decoder_arrays(networks.student) | token_arrays(networks.tokenizer)
    return [_save(out, ROLE, student, facts), _save(out, WRITER_ROLE, halves, encoder)]


def _save(out: Path, role: str, arrays: Arrays, facts: dict[str, str]) -> Path:
    from safetensors.numpy import save_file

    path = out / f"{role}.safetensors"
    with atomic_write(path, overwrite=True) as temporary:
        save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, temporary, facts)
    return path
