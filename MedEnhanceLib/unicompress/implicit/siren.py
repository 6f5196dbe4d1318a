"""The conditional implicit network: position and codes → voxel.

Source: arXiv 2405.16850 (one network, conditioned by the codes, in place of one per block);
Sitzmann et al., SIREN, 2020; Perez et al., FiLM, 2018. Reconstructed: sizes, and where they meet.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from MedEnhanceLib.unicompress.implicit import fixed as fx
from MedEnhanceLib.unicompress.implicit.config import FEATURES, DecoderConfig
from MedEnhanceLib.unicompress.implicit.fusion import (
    Fusion,
    global_features,
    linear,
    position_features,
)

_FIRST_OMEGA = 30.0
_TURN = 2 * math.pi


class Decoded(NamedTuple):
    """values [B, N]; fused [B, N, latent] and last [B, N, hidden]: what a student matches."""

    values: Tensor
    fused: Tensor
    last: Tensor


class Decoder(nn.Module):
    """Fusion and conditional SIREN. Weights of sine layers are in radians, phases in turns."""

    def __init__(self, config: DecoderConfig, latent: int) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.fusion = Fusion(config, latent)
        sizes = [FEATURES, *([hidden] * (config.depth - 1))]
        self.waves = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.shifts = nn.ModuleList(nn.Linear(latent, hidden, bias=False) for _ in sizes)
        self.scales = nn.ModuleList(nn.Linear(latent, hidden) for _ in range(config.scaled))
        self.gain = nn.Linear(latent, hidden)
        self.out = nn.Linear(hidden, 1)
        self.fixed = False
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """As SIREN: ω₀ = 30 in the first layer, 1 after; shifts of about a radian."""
        for layer, wave in enumerate(self.waves):
            assert isinstance(wave, nn.Linear)
            size = wave.in_features
            reach = _FIRST_OMEGA / size if layer == 0 else math.sqrt(6 / size)
            nn.init.uniform_(wave.weight, -reach, reach)
            nn.init.uniform_(wave.bias, -math.pi, math.pi)
        # A cell is decoded alike wherever it lies; only what is learned may change that.
        for first in (self.waves[0], self.fusion.query):
            assert isinstance(first, nn.Linear)
            first.weight[:, global_features()] = 0
        for shift in self.shifts:
            assert isinstance(shift, nn.Linear)
            nn.init.normal_(shift.weight, std=1 / math.sqrt(shift.in_features))
        for scale in self.scales:
            assert isinstance(scale, nn.Linear)
            nn.init.normal_(scale.weight, std=0.1 / math.sqrt(scale.in_features))
            nn.init.zeros_(scale.bias)
        nn.init.normal_(self.gain.weight, std=1 / math.sqrt(self.gain.in_features))
        nn.init.zeros_(self.gain.bias)
        nn.init.normal_(self.out.weight, std=0.03 / math.sqrt(self.out.in_features))
        nn.init.zeros_(self.out.bias)

    def forward(self, low: Tensor, high: Tensor, positions: Tensor) -> Decoded:
        """Values at positions [B, N, 3], in units, from latents [B, latent, k, j, i]."""
        fixed = self.fixed
        features = position_features(positions, fixed=fixed)
        fused, signed, cosines = self.fusion(low, high, positions, features, fixed=fixed)
        if not self.config.conditioned:
            fused, signed = torch.zeros_like(fused), torch.zeros_like(signed)
        x = features
        for layer, (wave, shift) in enumerate(zip(self.waves, self.shifts, strict=True)):
            phase = linear(wave, x, fixed, _TURN)
            if layer < self.config.scaled:
                top = fx.SCALE_TOP
                scale = linear(self.scales[layer], fused, fixed)
                scale = fx.on_grid(scale, fx.SCALE_BITS, top, fixed=fixed)
                phase = fx.on_grid(phase, fx.WAVE_BITS, fx.WAVE_TOP, fixed=fixed) * (1 + scale)
            phase = phase + linear(shift, fused, fixed, _TURN)
            x = self._sine(phase)
        # The codes weigh the last sines: what is learned first is a basis, as of a transform.
        gain = linear(self.gain, fused, fixed)
        x = x * fx.on_grid(gain, fx.SCALE_BITS, fx.GAIN_TOP, fixed=fixed)
        # Codes are first of all amplitudes of cosines, so that the sines are left with the rest.
        values = linear(self.out, x, fixed)[..., 0] + (signed * cosines).sum(dim=-1)
        return Decoded(values, fused, x)

    def _sine(self, phase: Tensor) -> Tensor:
        if self.fixed:
            step = 2.0**-fx.TURN_BITS
            phase = phase + (torch.floor(phase / step + 0.5) * step - phase).detach()
        wave = torch.sin(_TURN * phase)
        return fx.on_grid(wave, fx.SINE_BITS, fx.SINE_TOP, fixed=self.fixed)


def count_weights(module: nn.Module) -> int:
    """Numbers that a module learns."""
    return sum(weight.numel() for weight in module.parameters())
