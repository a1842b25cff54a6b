"""Write pictures byte by byte, so that tests of the decoder do not depend on Pillow's encoders."""

from __future__ import annotations

import struct
import zlib


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, depth: int, colour: int, rows: list[bytes], extra: bytes = b"", height: int | None = None) -> bytes:
    """Write a PNG of unfiltered rows; ``extra`` holds chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows) if height is None else height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(
    order: str,
    width: int,
    height: int,
    bits: int,
    pixels: bytes,
    *,
    kind: int = 1,
    photometric: int = 1,
    tags: list[tuple[int, int, int, int]] | None = None,
) -> bytes:
    """Write an uncompressed grey TIFF.

    Args:
        order: ``<`` or ``>``.
        width: In pixels.
        height: In pixels.
        bits: Of a sample.
        pixels: In the file's byte order.
        kind: SampleFormat: 1 unsigned, 2 signed, 3 floating point.
        photometric: 0 white is zero, 1 black is zero.
        tags: More tags: tag, type, count, value.
    """
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
        (339, 3, 1, kind),
    ]
    entries += tags or []
    directory = struct.pack(order + "H", len(entries))
    for tag, type_, count, value in sorted(entries):
        directory += struct.pack(order + "HHI", tag, type_, count)
        small = type_ == 3 and count == 1
        directory += struct.pack(order + "HH", value, 0) if small else struct.pack(order + "I", value)
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "I", 8 + len(pixels)) + pixels + directory + b"\0" * 4


def exif(orientation: int) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0" * 4
