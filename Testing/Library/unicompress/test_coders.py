"""The lossless coders of the library keep the contract."""

from __future__ import annotations

from contracts import CoderTests

from MedEnhanceLib.unicompress.codecs.lossless import CODERS
from MedEnhanceLib.unicompress.codecs.registry import BLOCK_TYPES

from .minimal_reader import INDEX_TYPES

_BY_NAME = {coder.name: coder for coder in CODERS}


class TestConstant(CoderTests):
    coder = _BY_NAME["constant"]
    second = staticmethod(INDEX_TYPES[coder.id])


class TestZstd(CoderTests):
    coder = _BY_NAME["zstd"]
    second = staticmethod(INDEX_TYPES[coder.id])


class TestJpegXl(CoderTests):
    coder = _BY_NAME["jpeg-xl"]
    second = staticmethod(INDEX_TYPES[coder.id])


def test_every_coder_has_its_contract_and_a_block_type_of_its_id() -> None:
    assert {coder.id for coder in CODERS} <= {each.coder.id for each in CoderTests.__subclasses__()}
    assert len({coder.id for coder in CODERS}) == len(CODERS)
    assert all(BLOCK_TYPES[coder.id].name == coder.name for coder in CODERS)
