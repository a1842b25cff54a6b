"""Bound the tags of a TIFF file or EXIF block before Pillow reads them."""

from __future__ import annotations

import struct
from typing import Literal

MAX_TAG_BYTES = 16 * 2**20
"""Largest total size of the values of all tags. Tags may share bytes, so a small file can have huge tags."""
MAX_TAG_VALUES = 2**20
"""Largest number of values of one numeric tag: each becomes a Python object."""
ORIENTATION = 0x0112
_SUB_DIRECTORIES = {0x8769, 0x8825, 0xA005}
_BYTE_STRINGS = {1, 2, 7}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def check_tags(data: bytes) -> None:
    """Check the first directory of tags and the EXIF, GPS and interoperability directories below it.

    Args:
        data: A TIFF file or the TIFF part of an EXIF block. The decoder refuses other or cut bytes.

    Raises:
        ValueError: The tags are larger than the limits.
    """
    if data[:2] not in (b"II", b"MM") or len(data) < 16:
        return
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    # Pillow reads BigTIFF by this byte alone.
    big = data[2] == 43 or data[3] == 43
    waiting = [_number(data, order, 8, 8) if big else _number(data, order, 4, 4)]
    visited: set[int] = set()
    total = 0
    while waiting:
        start = waiting.pop()
        if start in visited:
            continue
        visited.add(start)
        count = _number(data, order, start, 8 if big else 2)
        width, first = (20, start + 8) if big else (12, start + 2)
        for at in range(first, min(first + width * count, len(data) - width + 1), width):
            tag, kind = struct.unpack_from(order + "HH", data, at)
            values = _number(data, order, at + 4, 8 if big else 4)
            # Pillow reads at most the bytes of the file.
            total += min(values * _SIZES.get(kind, 0), len(data))
            if total > MAX_TAG_BYTES or (kind not in _BYTE_STRINGS and values > MAX_TAG_VALUES):
                raise ValueError(f"its tags are larger than {MAX_TAG_BYTES // 2**20} MiB")
            if tag in _SUB_DIRECTORIES:
                waiting.append(_number(data, order, at + (12 if big else 8), 8 if big else 4))


def _number(data: bytes, order: str, at: int, size: int) -> int:
    """Read an unsigned number; 0 beyond the end."""
    if at + size > len(data):
        return 0
    return int(struct.unpack_from(order + {2: "H", 4: "I", 8: "Q"}[size], data, at)[0])
