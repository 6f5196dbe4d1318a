"""Codes come back from their bytes; bytes that were never written are refused or mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress.codecs.implicit.codec import Reader
from MedEnhanceLib.unicompress.codecs.implicit.entropy import (
    AnsStack,
    CodeModel,
    code_bits,
    decode_codes,
    encode_codes,
    phases,
)
from MedEnhanceLib.unicompress.models import CodecModel


@pytest.fixture(scope="module")
def model(models: dict[str, CodecModel]) -> CodeModel:
    return Reader(models["implicit"]).entropy


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 4), (5, 1, 7), (4, 9, 2)])
def test_codes_come_back(model: CodeModel, grid: tuple[int, int, int]) -> None:
    codes = np.random.default_rng(0).integers(0, 16, (4, *grid))
    datas = encode_codes(model, codes)
    assert np.array_equal(decode_codes(model, datas, grid), codes)
    for layers in (1, 3):
        some = decode_codes(model, datas[:layers], grid)
        assert np.array_equal(some[:layers], codes[:layers])
        assert not some[layers:].any()
    for data, bits in zip(datas, code_bits(model, codes), strict=True):
        assert len(data) <= bits / 8 + 12


def test_the_stack_has_the_bytes_that_files_have() -> None:
    """As constriction 0.5 wrote them: files are read and written without it."""
    n = np.arange(60)
    weights = ((n[:, None] * 7919 + np.arange(16) * 104729) % 65536 + 1).astype(float)
    weights[::5], weights[::5, 3] = 1, 65536
    symbols = (n * n * 5 + n) % 16
    stack = AnsStack()
    stack.push(symbols[20:], weights[20:])
    stack.push(symbols[:20], weights[:20])
    assert stack.data.hex() == (
        "3ad951a919900c9d88a08747afbba931d3ce715df15fd6bc"
        "543584290acb5f17f878a78e4c7d7f1b89c6497e7f0000a070561d01"
    )
    read = AnsStack(stack.data)
    assert np.array_equal(read.pop(weights[:35]), symbols[:35])
    assert np.array_equal(read.pop(weights[35:]), symbols[35:])


def test_every_cell_has_one_phase() -> None:
    seen = np.zeros((5, 4, 1), int)
    for phase in phases(seen.shape):
        seen[phase] += 1
    assert (seen == 1).all()


def test_weights_are_whole_and_never_nothing(model: CodeModel) -> None:
    size = model.first.shape[2]
    contexts = np.random.default_rng(0).integers(-254, 255, (50, size)).astype(float)
    weights = model.weights(0, contexts)
    assert weights.min() >= 1
    assert np.array_equal(weights, np.floor(weights))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6))
def test_forged_bytes_are_refused_or_mean_nothing(model: CodeModel, datas: list[bytes]) -> None:
    try:
        codes = decode_codes(model, datas, (3, 2, 3))
    except ValueError:
        return
    assert codes.min() >= 0
    assert codes.max() < 16


def test_a_model_without_tables_is_refused(model: CodeModel) -> None:
    with pytest.raises(ModelError, match="entropy"):
        CodeModel({"codebooks": model.books})
