"""Fits the model of the codes' probabilities to what the encoders give for training blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.implicit import entropy
from MedEnhanceLib.unicompress.implicit.entropy import CodeModel, context_size, contexts_of, phases
from MedEnhanceLib.unicompress.implicit.model import Networks

if TYPE_CHECKING:
    from MedEnhanceLib.unicompress.implicit.train import ImplicitTraining

Arrays = dict[str, npt.NDArray[Any]]
_HIDDEN = 24
_BLOCKS = {True: 8, False: 200}
_STEPS = {True: 10, False: 400}
_BATCH, _LEARNING_RATE = 512, 5e-3
#: Vectors are bytes; training takes them as parts of this.
_UNIT = 64.0
#: Bits after the point of weights, which are bytes.
_WEIGHT_BITS = 5
_HIDDEN_BITS, _VECTOR_BITS = 6, 6
#: What a code seen nowhere counts as.
_UNSEEN = 0.5


def fit_entropy(training: ImplicitTraining, arrays: Arrays, monitor: Monitor) -> Arrays:
    """The tables that CodeModel reads, beside the codebooks of `arrays`."""
    is_smoke = training.config.token.codes <= 64
    monitor.progress(0.1, "collecting codes")
    codes = collect_codes(training, _BLOCKS[is_smoke])
    books = torch.from_numpy(arrays["codebooks"].astype(np.float32)) / _UNIT
    layers, count, size = books.shape
    fitted: dict[str, list[npt.NDArray[Any]]] = {}
    empty = _tables_of(layers, count, size)
    reader = CodeModel(arrays | empty)
    for row in range(layers):
        monitor.progress(0.2 + 0.8 * row / layers, "fitting the entropy model")
        contexts = np.concatenate(
            [
                contexts_of(reader, one, row, phase)
                for one in codes
                for phase in phases(one.shape[1:])
            ]
        )
        symbols = np.concatenate(
            [one[row][phase].ravel() for one in codes for phase in phases(one.shape[1:])]
        )
        parts = _fit(contexts, symbols, books[row], _STEPS[is_smoke])
        for name, part in parts.items():
            fitted.setdefault(name, []).append(part)
    return empty | {f"entropy.{name}": np.stack(parts) for name, parts in fitted.items()}


@torch.no_grad()
def collect_codes(training: ImplicitTraining, count: int) -> list[npt.NDArray[np.int64]]:
    """Codes [layers, k, j, i] of blocks of training."""
    networks, blocks = training.trainer.networks, training.trainer.blocks
    rng = np.random.default_rng([training.config.seed, 77])
    found = []
    for _ in range(count):
        drawn, thick = blocks.draw(1, rng)
        found.append(codes_of(networks, drawn.to(training.trainer.device), thick=thick))
    return found


def codes_of(networks: Networks, block: Tensor, *, thick: bool) -> npt.NDArray[np.int64]:
    """All codes [layers, k, j, i] of a block [1, 1, K, J, I]."""
    tokeniser = networks.tokeniser
    used = torch.full((1,), tokeniser.refinements, device=block.device)
    found: npt.NDArray[np.int64] = tokeniser(block, used, thick=thick).codes[0].cpu().numpy()
    return found


class _Predictor(nn.Module):
    def __init__(self, book: Tensor, counts: Tensor) -> None:
        super().__init__()
        size = book.shape[1]
        self.register_buffer("book", book)
        self.first = nn.Linear(context_size(size), _HIDDEN)
        self.second = nn.Linear(_HIDDEN, size, bias=False)
        self.bias = nn.Parameter(torch.log2((counts + _UNSEEN) / (counts + _UNSEEN).sum()))

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep weights and biases within what their bytes hold."""
        top = 127 / 2**_WEIGHT_BITS
        self.first.weight.clamp_(-top, top)
        self.second.weight.clamp_(-top, top)
        self.bias.clamp_(-127 * entropy.BIAS_STEP / entropy.STEPS, 0)

    def forward(self, contexts: Tensor) -> Tensor:
        """Binary logarithms of weights."""
        hidden = torch.relu(self.first(contexts)).clamp_max(entropy.HIDDEN_TOP / 2**_HIDDEN_BITS)
        top = entropy.VECTOR_TOP / 2**_VECTOR_BITS
        vector = self.second(hidden).clamp(-top, top)
        logits: Tensor = vector @ self.book.T + self.bias
        return logits


def _fit(
    contexts: npt.NDArray[np.float64], symbols: npt.NDArray[np.int64], book: Tensor, steps: int
) -> Arrays:
    torch.manual_seed(len(symbols))
    inputs = torch.from_numpy(contexts.astype(np.float32)) / _UNIT
    wanted = torch.from_numpy(symbols)
    counts = torch.bincount(wanted, minlength=len(book)).float()
    predictor = _Predictor(book, counts)
    optimiser = torch.optim.Adam(predictor.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        some = torch.randint(len(wanted), (_BATCH,))
        logits = predictor(inputs[some]) * float(np.log(2))
        loss = nn.functional.cross_entropy(logits, wanted[some])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        predictor.clamp()
    return _as_integers(predictor)


def _as_integers(predictor: _Predictor) -> Arrays:
    """Weights as bytes; the shifts that bring sums back to the bits of what they are."""
    unit_bits = int(np.log2(_UNIT))

    def rounded(values: Tensor, bits: int, kind: type[np.signedinteger[Any]]) -> Any:
        scaled = np.floor(values.detach().double().numpy() * 2.0**bits + 0.5)
        limits = np.iinfo(kind)
        return scaled.clip(limits.min, limits.max).astype(kind)

    step_bits, bias_bits = int(np.log2(entropy.STEPS)), int(np.log2(entropy.BIAS_STEP))
    return {
        "first": rounded(predictor.first.weight, _WEIGHT_BITS, np.int8),
        "first_bias": rounded(predictor.first.bias, _HIDDEN_BITS, np.int16),
        "second": rounded(predictor.second.weight, _WEIGHT_BITS, np.int8),
        "bias": rounded(predictor.bias, step_bits - bias_bits, np.int8),
        "shifts": np.array(
            [
                _WEIGHT_BITS + unit_bits - _HIDDEN_BITS,
                _WEIGHT_BITS + _HIDDEN_BITS - _VECTOR_BITS,
                _VECTOR_BITS + unit_bits - step_bits,
            ],
            np.int8,
        ),
    }


def _tables_of(rows: int, codes: int, size: int) -> Arrays:
    return {
        "entropy.first": np.zeros((rows, _HIDDEN, context_size(size)), np.int8),
        "entropy.first_bias": np.zeros((rows, _HIDDEN), np.int16),
        "entropy.second": np.zeros((rows, size, _HIDDEN), np.int8),
        "entropy.bias": np.zeros((rows, codes), np.int8),
        "entropy.shifts": np.zeros((rows, 3), np.int8),
        "entropy.powers": entropy.powers(),
    }
