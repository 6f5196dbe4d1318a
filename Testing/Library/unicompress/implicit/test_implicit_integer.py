"""The decoder's integers are the same however they are computed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress.codecs.implicit.config import DecoderConfig, TokenConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import OUT_BITS, positions_of
from MedEnhanceLib.unicompress.codecs.implicit.export import (
    Arrays,
    decoder_arrays,
    tables,
    token_arrays,
)
from MedEnhanceLib.unicompress.codecs.implicit.integer import FINE, IntegerDecoder
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks, layers_of

#: The student that ships: what is proved here is proved for its sizes.
STUDENT = DecoderConfig(hidden=64, depth=3, scaled=1)
FACTS = {"heads": "4", "depth": "3", "scaled": "1", "order": "0110"}
SHAPE = (13, 21, 30)


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(0)
    made = Networks(TokenConfig(codes=64, order="0110"), STUDENT, STUDENT)
    for quantizer in made.tokeniser.quantisers:
        quantizer.to_bytes()  # type: ignore[operator]
    return made


@pytest.fixture(scope="module")
def arrays(networks: Networks) -> Arrays:
    return decoder_arrays(networks.student) | token_arrays(networks.tokeniser) | tables()


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 64, (4, 4, 3, 4))


@pytest.fixture(params=[False, True], ids=["thin", "thick"])
def thick(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def decoded(
    arrays: Arrays,
    codes: np.ndarray,
    thick: bool,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    batch: int = 32,
) -> torch.Tensor:
    decoder = IntegerDecoder(arrays, FACTS, dtype=dtype, device=device)
    values = decoder.decode(decoder.latents(codes, 4), SHAPE, thick=thick, batch=batch)
    return values.to("cpu", torch.int64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_floats_and_integers_agree(
    arrays: Arrays, codes: np.ndarray, thick: bool, dtype: torch.dtype
) -> None:
    expected = decoded(arrays, codes, thick)
    assert expected.unique().numel() > 100
    assert torch.equal(decoded(arrays, codes, thick, dtype), expected)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_changes_nothing(
    arrays: Arrays, codes: np.ndarray, thick: bool, batch: int
) -> None:
    assert torch.equal(decoded(arrays, codes, thick, batch=batch), decoded(arrays, codes, thick))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_threads_change_nothing(arrays: Arrays, codes: np.ndarray, thick: bool) -> None:
    torch.set_num_threads(1)
    alone = decoded(arrays, codes, thick)
    torch.set_num_threads(2)
    assert torch.equal(decoded(arrays, codes, thick), alone)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same(arrays: Arrays, codes: np.ndarray, thick: bool) -> None:
    assert torch.equal(decoded(arrays, codes, thick, device="cuda"), decoded(arrays, codes, thick))


def test_a_process_that_allows_coarse_products_gets_the_same(
    arrays: Arrays, codes: np.ndarray
) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert IntegerDecoder(arrays, FACTS).dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)


def test_any_position_is_what_the_grid_gives(
    arrays: Arrays, codes: np.ndarray, thick: bool
) -> None:
    decoder = IntegerDecoder(arrays, FACTS)
    latents = decoder.latents(codes, 4)
    grid = torch.stack(torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij"), dim=-1)
    positions = (positions_of(grid.flatten(0, 2), thick=thick) * FINE).long()
    values = decoder.decode_at(latents, positions).long().view(SHAPE)
    assert torch.equal(values, decoded(arrays, codes, thick))


def test_a_halo_of_one_cell_leaves_no_seam(arrays: Arrays, codes: np.ndarray) -> None:
    """Cells decoded with one more around them give what they give in the whole."""
    decoder = IntegerDecoder(arrays, FACTS)
    whole = decoder.decode(decoder.latents(codes, 4), (32, 24, 32), thick=False)
    part = decoder.decode(decoder.latents(codes[:, :3], 4), (24, 24, 32), thick=False)
    assert torch.equal(part[:16], whole[:16])
    assert not torch.equal(part[16:24], whole[16:24])


def test_the_network_in_floats_is_near(
    networks: Networks, arrays: Arrays, codes: np.ndarray
) -> None:
    """With rounding imitated it is."""
    torch.manual_seed(1)
    tokeniser = networks.tokeniser
    grids = [torch.zeros(1, 64, *codes.shape[1:]) for _ in range(2)]
    for number, (quantizer, layer) in enumerate(layers_of(tokeniser)):
        vectors = quantizer.codebooks[layer][torch.from_numpy(codes[number])]
        grid = grids[tokeniser.config.branches[number]]
        grid += quantizer.up[layer](vectors).permute(3, 0, 1, 2)
    grid = torch.stack(torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij"), dim=-1)
    positions = positions_of(grid.flatten(0, 2), thick=False)[None]
    expected = decoded(arrays, codes, thick=False).float() / 2**OUT_BITS
    networks.student.fixed = True
    with torch.no_grad():
        values = networks.student(grids[0], grids[1], positions).values.view(SHAPE)
    networks.student.fixed = False
    assert torch.mean((values - expected) ** 2).sqrt() < 0.1 * expected.std()


def test_weights_whose_sums_could_be_inexact_are_refused(arrays: Arrays) -> None:
    coarse = arrays | {"out.exponent": np.full_like(arrays["out.exponent"], -8)}
    with pytest.raises(ModelError, match="exact sums"):
        IntegerDecoder(coarse, FACTS)
    lacking = {name: array for name, array in arrays.items() if name != "sine"}
    with pytest.raises(ModelError, match="sine"):
        IntegerDecoder(lacking, FACTS)
