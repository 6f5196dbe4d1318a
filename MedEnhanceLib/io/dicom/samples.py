"""How a stored number sits in its bits, and how it comes out of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]


class DamagedError(ValueError):
    """Pixels or structure that contradict what the header or the standard says; says how."""


@dataclass(frozen=True)
class Layout:
    """One frame of grey pixels as its header describes it.

    bits_allocated: of a cell: 1, 8, 16, 32 or 64. bits_stored, high_bit: the part of the cell
    that is the number. signed: two's complement. floating: FloatPixelData or DoubleFloatPixelData.
    Raises DamagedError for numbers of bits that contradict each other.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool = False
    floating: bool = False

    def __post_init__(self) -> None:
        if self.bits_allocated not in ((32, 64) if self.floating else (1, 8, 16, 32)):
            raise DamagedError(f"BitsAllocated is {self.bits_allocated}, which is not read")
        if not 1 <= self.bits_stored <= self.bits_allocated:
            raise DamagedError(
                f"BitsStored is {self.bits_stored} of {self.bits_allocated} allocated"
            )
        if not self.bits_stored - 1 <= self.high_bit < self.bits_allocated:
            raise DamagedError(
                f"HighBit is {self.high_bit}, with {self.bits_stored} bits stored of "
                f"{self.bits_allocated}"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored numbers, once they are out of their cells."""
        kind = "f" if self.floating else "i" if self.signed else "u"
        return np.dtype(f"{kind}{max(self.bits_allocated // 8, 1)}")


def from_cells(cells: Pixels, layout: Layout) -> Pixels:
    """Numbers from unsigned cells of `bits_allocated` bits, as they lie in uncompressed pixels.

    Bits above HighBit are not the number's (old overlays live there) and are masked. Bits below
    it must be empty.
    """
    if layout.floating or layout.bits_allocated == 1:
        return cells
    low = layout.high_bit + 1 - layout.bits_stored
    if low and (cells & ((1 << low) - 1)).any():
        raise DamagedError(
            f"HighBit is {layout.high_bit} with {layout.bits_stored} bits stored, yet the bits "
            "below are used"
        )
    return sign_extended(cells >> low if low else cells, layout.bits_stored, layout.dtype)


def cuts_bits(cells: Pixels, layout: Layout, overlays: int) -> bool:
    """Whether bits above HighBit, which `from_cells` masks, are neither sign nor overlay.

    overlays: the bits of a cell that hold overlays.
    """
    above = (1 << layout.bits_allocated) - (2 << layout.high_bit) & ~overlays
    if layout.floating or layout.bits_allocated == 1 or not above:
        return False
    found = cells & cells.dtype.type(above)
    if not found.any():
        return False
    is_negative = cells >> layout.high_bit & 1
    return not layout.signed or bool((found != is_negative * cells.dtype.type(above)).any())


def sign_extended(values: Pixels, bits: int, dtype: np.dtype[Any]) -> Pixels:
    """The lowest `bits` of unsigned values, read as two's complement where `dtype` is signed."""
    above = dtype.itemsize * 8 - bits
    numbers = values.astype(f"u{dtype.itemsize}", copy=False)
    if above:
        numbers = numbers << above
        numbers = numbers.view(dtype) >> above
    return numbers.view(dtype)


def from_unsigned(values: Pixels, precision: int, layout: Layout, *, lossy: bool) -> Pixels:
    """Numbers from a codec that knows unsigned ones only, of `precision` bits.

    Signed ones went in as two's complement, of BitsStored or of `precision` bits.
    """
    bits = min(layout.bits_stored, precision)
    _refuse_high_bit(layout)
    highest = int(values.max())
    if not layout.signed:
        if (highest >> layout.bits_stored and not lossy) or highest >> layout.bits_allocated:
            raise DamagedError(f"a pixel is {highest}, beyond {layout.bits_stored} bits stored")
        return values.astype(layout.dtype, copy=False)
    if precision < layout.bits_stored and highest >> (precision - 1):
        raise DamagedError(
            f"signed pixels of {layout.bits_stored} bits in a stream of {precision} bits: their "
            "sign is unclear"
        )
    numbers = sign_extended(values, bits, layout.dtype)
    beyond = values.astype(np.int64) - numbers
    if (beyond[beyond != 0] % (1 << bits)).any() or not _is_sign(values, numbers, bits, precision):
        raise DamagedError(f"pixels go beyond {layout.bits_stored} bits stored")
    return numbers


def _is_sign(values: Pixels, numbers: Pixels, bits: int, precision: int) -> bool:
    """Whether all that lies above `bits` is empty or repeats the sign."""
    above = values.astype(np.int64) >> bits
    filled = (1 << (precision - bits)) - 1
    return bool(((above == 0) | ((numbers < 0) & (above == filled))).all())


def from_signed(values: Pixels, layout: Layout) -> Pixels:
    """Numbers from a codec that knows their sign."""
    _refuse_high_bit(layout)
    lowest, highest = int(values.min()), int(values.max())
    limits = np.iinfo(layout.dtype)
    if lowest < limits.min or highest > limits.max:
        raise DamagedError(
            f"pixels from {lowest} to {highest} do not fit PixelRepresentation "
            f"{int(layout.signed)} with {layout.bits_allocated} bits"
        )
    return values.astype(layout.dtype, copy=False)


def _refuse_high_bit(layout: Layout) -> None:
    if layout.high_bit != layout.bits_stored - 1:
        raise DamagedError(f"HighBit is {layout.high_bit} with {layout.bits_stored} bits stored")
