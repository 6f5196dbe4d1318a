"""The lossless coders of the library keep the contract."""

from __future__ import annotations

from contracts import CoderTests

from MedEnhanceLib.unicompress.codecs.block_types import BLOCK_TYPES
from MedEnhanceLib.unicompress.codecs.lossless import CODERS

from .minimal_reader import INDEX_TYPES


class TestConstant(CoderTests):
    name = "constant"


class TestZstd(CoderTests):
    name = "zstd"


class TestJpegXl(CoderTests):
    name = "jpeg-xl"


def test_every_coder_has_its_contract_a_block_type_and_a_second_reader() -> None:
    assert {coder.name for coder in CODERS} <= {each.name for each in CoderTests.__subclasses__()}
    assert len({coder.id for coder in CODERS}) == len(CODERS)
    assert {coder.id for coder in CODERS} <= set(INDEX_TYPES)
    assert all(BLOCK_TYPES[coder.id].name == coder.name for coder in CODERS)
