"""What a lossless JPEG gave must be what its codes say, whichever way it was coded."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest

from MedEnhanceLib.io.dicom.decoders import Layout, decode
from MedEnhanceLib.io.dicom.streams import read_frame_header, verify_samples
from MedEnhanceLib.io.dicom.structure import DamagedError

LOSSLESS = "1.2.840.10008.1.2.4.57"


def coded(
    samples: np.ndarray, precision: int, predictor: int, rows: int = 0, shift: int = 0
) -> bytes:
    """By the letter of T.81, sample by sample; all codes have five bits.

    rows: between two restart markers, 0 for none. shift: the point transform.
    """
    height, width = samples.shape
    low, pieces = samples.astype(int) >> shift, []
    for top in range(0, height, rows or height):
        bits = ""
        for y in range(top, min(top + (rows or height), height)):
            for x in range(width):
                bits += word(
                    int(low[y, x]) - foretold(low, y, x, top, predictor, precision - shift)
                )
        bits += "1" * (-len(bits) % 8)
        data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
        pieces.append(data.replace(b"\xff", b"\xff\x00"))
    table = b"\x00" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    codes = b"".join(
        piece + (bytes([0xFF, 0xD0 + index % 8]) if piece is not pieces[-1] else b"")
        for index, piece in enumerate(pieces)
    )
    parts = (
        (0xC3, struct.pack(">BHHBBBB", precision, height, width, 1, 1, 0x11, 0)),
        (0xC4, table),
        (0xDD, struct.pack(">H", rows * width)),
        (0xDA, bytes([1, 1, 0, predictor, 0, shift])),
    )
    head = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in parts
    )
    return b"\xff\xd8" + head + codes + b"\xff\xd9"


def foretold(low: np.ndarray, y: int, x: int, top: int, predictor: int, bits: int) -> int:
    if y == top:
        return int(low[y, x - 1]) if x else 1 << (bits - 1)
    if x == 0:
        return int(low[y - 1, 0])
    a, b, c = int(low[y, x - 1]), int(low[y - 1, x]), int(low[y - 1, x - 1])
    return [a, b, c, a + b - c, a + (b - c) // 2, b + (a - c) // 2, (a + b) // 2][predictor - 1]


def word(difference: int) -> str:
    difference = (difference + 32767) % 65536 - 32767
    size = abs(difference).bit_length()
    own = difference if difference > 0 else difference + (1 << size) - 1
    return f"{size:05b}" + (f"{own:0{size}b}" if 0 < size < 16 else "")


def noise(precision: int, shift: int = 0) -> np.ndarray:
    made = np.random.default_rng(precision).integers(0, 1 << precision, (9, 13))
    made[0, :4] = made[4, 4:8] = (0, (1 << precision) - 1, 1 << (precision - 1), 0)
    return (made >> shift << shift).astype(np.uint8 if precision <= 8 else np.uint16)


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("precision", [2, 8, 12, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_whatever_the_standard_allows_is_read(predictor: int, precision: int, rows: int) -> None:
    samples = noise(precision)
    stream = coded(samples, precision, predictor, rows)
    bits = 8 * samples.itemsize
    layout = Layout(*samples.shape, bits, precision, precision - 1)
    assert np.array_equal(decode(stream, LOSSLESS, layout), samples)


def test_point_transform_is_undone() -> None:
    samples = noise(12, 2)
    stream = coded(samples, 12, 4, shift=2)
    assert np.array_equal(decode(stream, LOSSLESS, Layout(9, 13, 16, 12, 11)), samples)


def test_one_number_that_the_codes_do_not_say_is_noticed() -> None:
    samples = noise(12)
    frame = read_frame_header(coded(samples, 12, 1))
    verify_samples(frame, samples)
    for place in (0, 0), (4, 6), (8, 12):
        other = samples.copy()
        other[place] ^= 1
        with pytest.raises(DamagedError):
            verify_samples(frame, other)


def test_codes_that_are_none_are_noticed_though_the_decoder_goes_on() -> None:
    """The code 11111 stands for nothing; the decoder takes it for zero."""
    samples = np.full((9, 13), 1 << 11, np.uint16)
    stream = coded(samples, 12, 1)
    begin = stream.index(b"\xff\xda") + 10
    damaged = stream[: begin + 4] + b"\xfe" + stream[begin + 5 :]
    assert imagecodecs.jpeg8_decode(damaged).shape == samples.shape
    with pytest.raises(DamagedError):
        decode(damaged, LOSSLESS, Layout(9, 13, 16, 12, 11))


def test_rows_are_checked_across_what_is_done_at_once() -> None:
    """A large image is checked in bands."""
    samples = np.random.default_rng(3).integers(0, 4096, (300, 500)).astype(np.uint16)
    stream = bytes(imagecodecs.jpeg8_encode(samples, lossless=True, bitspersample=12, predictor=7))
    layout = Layout(300, 500, 16, 12, 11)
    assert np.array_equal(decode(stream, LOSSLESS, layout), samples)
    with pytest.raises(DamagedError):
        decode(stream[:-2000] + b"\xff\xd9", LOSSLESS, layout)
