"""Damaged pictures are decoded or refused by one sentence, whatever the damage."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from probing.errors import UserError
from probing.preferences import prepare
from probing.preferences.images.decoding import decode
from probing.preferences.images.preparation import picture_digest
from tests.preferences.images.encoded_pictures import exif, png, tiff

MANY = 5000
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "F"),
    "AVIF": ("RGB", "RGBA"),
}
MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"RIFF\x20\0\0\0WEBPVP8 ",
    b"RIFF\x20\0\0\0WEBPVP8X",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"\0\0\0\x1cftypavif",
    b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"",
)


@cache
def samples() -> tuple[bytes, ...]:
    """Encode one small picture in each format and mode, with and without EXIF."""
    grey = np.random.default_rng(0).integers(0, 256, (12, 9)).astype(np.uint8)
    colours = Image.fromarray(np.dstack([grey, grey.T.reshape(12, 9), 255 - grey, np.roll(grey, 3)]))
    made = []
    for format, modes in MODES.items():
        if format == "AVIF" and not features.check("avif"):
            continue
        for mode in modes:
            if mode.startswith("I;16"):
                image = Image.frombytes(mode, (9, 12), np.repeat(grey, 2, axis=1).tobytes())
            else:
                image = colours.convert("RGB").convert("L").convert(mode) if mode in ("LA", "F") else colours
                image = image.convert(mode if mode in ("RGBA", "LA", "F") else "RGB").convert(mode)
            for options in ({}, {"exif": exif(6)}):
                if format in ("GIF", "BMP", "TIFF") and options:
                    options = {"compression": "tiff_lzw"} if format == "TIFF" and mode != "YCbCr" else {}
                stream = BytesIO()
                image.save(stream, format, **options)
                made.append(stream.getvalue())
    made += [png(4, 2, 0, [b"\x1b"]), tiff(">", 4, 2, 16, bytes(range(16)))]
    return tuple(made)


@st.composite
def damaged(draw) -> bytes:
    """Flip bits of a picture, cut it, or splice it with another one."""
    data = bytearray(draw(st.sampled_from(samples())))
    for at in draw(st.lists(st.integers(0, 8 * len(data) - 1), max_size=6)):
        data[at // 8] ^= 1 << at % 8
    kind = draw(st.sampled_from(("flip", "cut", "splice", "insert")))
    at = draw(st.integers(0, len(data)))
    if kind == "cut":
        return bytes(data[:at])
    if kind == "splice":
        other = draw(st.sampled_from(samples()))
        return bytes(data[:at]) + other[draw(st.integers(0, len(other))) :]
    if kind == "insert":
        data[at:at] = draw(st.binary(max_size=12))
    return bytes(data)


def random_bytes() -> st.SearchStrategy[bytes]:
    return st.builds(bytes.__add__, st.sampled_from(MAGIC), st.binary(max_size=200))


def check(data: bytes) -> None:
    """Decode to a usable picture, or refuse by one line with the file and the record."""
    try:
        image = decode(data, "folder/a.png", "record7")
    except UserError as error:
        message = str(error)
        assert message.startswith("folder/a.png of record 'record7' cannot be read (") and message.isprintable()
        assert len(message) < 300
        return
    assert image.mode in ("RGB", "RGBA") and image.info == {}
    if max(image.size) < 4096:
        assert prepare(image, 8, "pad").mode == "RGB"
        assert len(picture_digest(image)) == 16


def test_every_sample_is_decoded():
    refused = 0
    for data in samples():
        try:
            assert sorted(decode(data, "a", "r").size) in ([9, 12], [2, 4], [1, 4])
        except UserError:
            refused += 1
    # Floating-point numbers, with and without compression.
    assert refused == 2


@settings(max_examples=200)
@given(damaged())
def test_damaged_pictures(data):
    check(data)


@settings(max_examples=100)
@given(random_bytes())
def test_random_bytes(data):
    check(data)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(damaged())
def test_many_damaged_pictures(data):
    check(data)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(random_bytes())
def test_many_random_bytes(data):
    check(data)


@pytest.mark.parametrize("number", range(len(samples())))
def test_a_cut_picture_is_whole_or_refused(number):
    """Cut by one byte up to everything: never other pixels."""
    data = samples()[number]
    try:
        whole = decode(data, "a", "r")
    except UserError:
        return
    step = 1 if len(data) < 300 else len(data) // 200
    for length in [*range(0, len(data), step), *range(max(0, len(data) - 20), len(data))]:
        try:
            cut = decode(data[:length], "a", "r")
        except UserError:
            continue
        assert cut.tobytes() == whole.tobytes(), length


_MEMORY = """
import resource, struct
from io import BytesIO
from probing.errors import UserError
from probing.preferences import prepare
from probing.preferences.images.decoding import MAX_PIXELS, decode
from probing.preferences.images.preparation import picture_digest
from tests.preferences.images.encoded_pictures import chunk, exif
import zlib
def deflated(width, height, colour, channels):
    packer = zlib.compressobj(1)
    row = bytes(1 + width * channels)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"eXIf", exif(6)[6:]), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\\x89PNG\\r\\n\\x1a\\n" + b"".join(chunks)
largest = decode(deflated(8_000, 8_000, 6, 4), "a", "r")
assert largest.size[0] * largest.size[1] == MAX_PIXELS
assert largest.size == (8_000, 8_000) and largest.mode == "RGBA"
assert prepare(largest, 64).getpixel((0, 0)) == (255, 255, 255)
del largest
try:
    decode(deflated(13_300, 13_300, 2, 3), "a", "r")
    raise SystemExit("13300 x 13300 was decoded")
except UserError:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_largest_picture_takes_less_than_two_gib():
    done = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * 2**20


def test_damage_takes_no_memory():
    """The process, whatever ran in it before, grows by less than the pictures' limit."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in samples():
        for at in range(0, min(len(data), 120), 3):
            check(data[:at] + b"\xff\xff" + data[at + 2 :])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20
