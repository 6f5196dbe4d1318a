"""The implicit network as a module: its likelihoods are the coder's, its gradients lower them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.unicompress.codecs.implicit.entropy import code_bits, decode_codes
from MedEnhanceLib.unicompress.learned import ImplicitCodec, RateDistortion


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Smooth blocks with some noise, of sides that cells do not fit."""
    axes = [torch.linspace(0, 3, side) for side in (12, 18, 20)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    noise = 0.02 * torch.randn((2, 1, 12, 18, 20), generator=torch.Generator().manual_seed(1))
    return 0.6 * torch.sin(places.sum(dim=0)) * torch.cos(places[1]) + noise


def test_likelihoods_are_those_of_the_coder_and_bytes_come_back(x: Tensor) -> None:
    codec = ImplicitCodec("MR", layers=4)
    with torch.no_grad():
        out = codec(x)
    coded = codec.compress(x)
    found = codec.decompress(**coded)["x_hat"]
    assert found.shape == x.shape
    # The decoder in floats imitates that in integers.
    assert float(((found - out["x_hat"]) ** 2).mean().sqrt()) < 0.1 * float(found.std())
    assert float(((found - x) ** 2).mean()) < 0.01
    rate = float(RateDistortion(1.0)(out, x)["bpv_loss"]) * x.numel()
    entropy = codec._reader.entropy
    codes = [decode_codes(entropy, strings, (2, 3, 3))[:4] for strings in coded["strings"]]
    assert rate == pytest.approx(sum(sum(code_bits(entropy, one)) for one in codes), rel=1e-4)
    taken = 8 * sum(len(layer) for strings in coded["strings"] for layer in strings)
    assert rate <= taken <= rate + 8 * 64
    fewer = codec.decompress([strings[:1] for strings in coded["strings"]], coded["shape"])["x_hat"]
    assert float(((fewer - x) ** 2).mean()) > float(((found - x) ** 2).mean())


@pytest.mark.parametrize(
    ("lmbda", "lr", "what", "gain"), [(0.0, 1e-3, "bpv_loss", 0.95), (3000.0, 3e-5, "mse_loss", 1)]
)
def test_a_few_steps_lower_what_the_loss_asks_for(
    x: Tensor, lmbda: float, lr: float, what: str, gain: float
) -> None:
    codec, loss, block = ImplicitCodec("MR", layers=2), RateDistortion(lmbda), x[:1, :, :8]
    learning = [weight for weight in codec.parameters() if weight.requires_grad]
    optimizer, found = torch.optim.Adam(learning, lr=lr), []
    for _ in range(7):
        terms = loss(codec(block), block)
        found.append(terms[what].item())
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert found[-1] < gain * found[0]
    # What readers have does not learn: a file is read by all of them.
    assert {name.split(".")[1] for name, w in codec.named_parameters() if w.requires_grad} == {
        "encoders"
    }


def test_what_is_no_block_is_refused() -> None:
    with pytest.raises(InputError, match="blocks"):
        ImplicitCodec("CT")(torch.zeros(8, 8, 8))
