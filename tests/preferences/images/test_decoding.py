"""Decoded pictures are right or refused, for every colour mode, limit and kind of broken metadata."""

from __future__ import annotations

import struct
import subprocess
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from probing.errors import UserError
from probing.preferences.images import ImageFolder, decoding, prepare
from probing.preferences.images.decoding import decode
from probing.preferences.images.tiff_tags import check_tags
from tests.preferences.images.encoded_pictures import chunk, exif, png, tiff

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def pixels(data: bytes) -> np.ndarray:
    image = decode(data, "a.png", "r")
    assert type(image) is Image.Image and image.info == {}
    return np.asarray(image)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(UserError) as error:
        decode(data, "a.png", "r7")
    message = str(error.value)
    assert message.startswith("a.png of record 'r7' cannot be read (") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_colours_are_exact(format, options):
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(COLOURS), format, **options)), COLOURS)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_as_pillow_decodes_it(mode):
    data = encoded(Image.fromarray(COLOURS).convert(mode), "JPEG", quality=95)
    with Image.open(BytesIO(data)) as opened:
        stored = np.asarray(opened)
    if mode == "CMYK":
        # Each ink takes its share of the light that black leaves.
        ink = stored.astype(int)
        right = np.rint((255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255)
        assert np.abs(pixels(data) - right).max() <= 1
    elif mode == "L":
        np.testing.assert_array_equal(pixels(data), np.repeat(stored[..., None], 3, axis=2))
    else:
        np.testing.assert_array_equal(pixels(data), stored)


def test_ycbcr_tiff_follows_the_standard():
    """Y, Cb, Cr of ITU-R BT.601 without headroom."""
    values = np.stack([RNG.integers(60, 200, (5, 7)), *RNG.integers(100, 156, (2, 5, 7))], axis=2).astype(np.uint8)
    data = encoded(Image.frombytes("YCbCr", (7, 5), values.tobytes()), "TIFF")
    y, cb, cr = np.moveaxis(values.astype(float), 2, 0)
    right = np.stack(
        [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)], axis=2
    )
    assert np.abs(pixels(data) - right.clip(0, 255)).max() <= 1.5


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_is_decoded():
    data = encoded(Image.new("RGB", (16, 8), (200, 30, 90)), "AVIF", quality=100)
    assert np.abs(pixels(data).astype(int) - [200, 30, 90]).max() <= 4


def test_the_first_frame_of_an_animation_is_taken():
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    assert (pixels(encoded(red, "GIF", save_all=True, append_images=[blue])) == [255, 0, 0]).all()


SIXTEEN = np.array([[0, 256, 257, 258], [32896, 65278, 65279, 65535]], dtype=np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_is_divided_by_257(order):
    data = tiff(order, 4, 2, 16, SIXTEEN.astype(f"{order}u2").tobytes())
    assert pixels(data)[..., 0].tolist() == [[0, 0, 1, 1], [128, 254, 254, 255]]


def test_sixteen_bit_tiff_where_white_is_zero():
    data = tiff("<", 4, 2, 16, (65535 - SIXTEEN).astype("<u2").tobytes(), photometric=0)
    assert pixels(data)[..., 0].tolist() == [[0, 0, 1, 1], [128, 254, 254, 255]]


def test_sixteen_bit_png_is_divided_by_257():
    data = png(4, 16, 0, [row.astype(">u2").tobytes() for row in SIXTEEN])
    assert pixels(data)[..., 1].tolist() == [[0, 0, 1, 1], [128, 254, 254, 255]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "kind"), [(32, 1), (32, 2), (16, 2), (32, 3), (12, 1)])
def test_samples_without_a_stated_white_are_refused(order, bits, kind):
    """Values of 0 to 255 in 32-bit integers were read nearly black."""
    values = np.arange(0, 256, 32).astype(f"{order}{'f' if kind == 3 else 'u'}{4 if bits == 32 else 2}")
    content = values.tobytes() if bits != 12 else b"\0" * 12
    message = refusal(tiff(order, 4, 2, bits, content, kind=kind))
    assert "expected 8 or 16 bits" in message or "no picture" in message


def test_one_bit_is_black_and_white():
    assert pixels(png(8, 1, 0, [b"\xa5"]))[0, :, 0].tolist() == [255, 0, 255, 0, 0, 255, 0, 255]


def test_grey_with_alpha():
    right = [[[9, 9, 9, 0], [200, 200, 200, 255], [3, 3, 3, 128]]]
    assert pixels(png(3, 8, 4, [bytes([9, 0, 200, 255, 3, 128])])).tolist() == right


@pytest.mark.parametrize(("depth", "row"), [(1, b"\x50"), (2, b"\x1b"), (4, b"\x01\x23"), (8, b"\0\1\2\3")])
def test_palette_with_transparency(depth, row):
    palette = np.arange(12, dtype=np.uint8) * 20
    alpha = [0, 128, 255][: 2**depth]
    extra = chunk(b"PLTE", palette[: 3 * 2**depth].tobytes()) + chunk(b"tRNS", bytes(alpha))
    index = [0, 1, 0, 1] if depth == 1 else [0, 1, 2, 3]
    right = [[*palette[3 * i : 3 * i + 3].tolist(), [0, 128, 255, 255][i]] for i in index]
    assert pixels(png(4, depth, 3, [row], extra)).tolist() == [right]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png(depth):
    """It is given in samples of the file's depth."""
    highest = 2**depth - 1
    samples = [0, 1, highest - 1, highest] * 2
    bits = "".join(f"{sample:0{depth}b}" for sample in samples)
    row = int(bits, 2).to_bytes(depth, "big")
    for transparent in set(samples):
        image = pixels(png(8, depth, 0, [row], chunk(b"tRNS", struct.pack(">H", transparent))))
        assert image[0, :, 0].tolist() == [sample * 255 // highest for sample in samples]
        assert image[0, :, 3].tolist() == [0 if sample == transparent else 255 for sample in samples]


def test_the_transparent_colour_of_a_png():
    colour = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    assert pixels(png(2, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], colour)).tolist() == [[[1, 2, 3, 0], [4, 5, 6, 255]]]
    assert "transparent colour has 16 bits" in refusal(png(1, 16, 2, [bytes(6)], colour))


def test_transparent_parts_get_the_background():
    alpha = np.array([[0, 51, 128, 255]], dtype=np.uint8)
    data = encoded(Image.fromarray(np.dstack([np.full((1, 4, 3), 100, np.uint8), alpha])), "PNG")
    for background, value in (("white", 255), ("gray", 128), ("black", 0)):
        laid = np.asarray(prepare(decode(data, "a", "r"), 1, "pad", background)).astype(int)
        assert laid.shape == (1, 1, 3)
        whole = np.asarray(prepare(decode(data, "a", "r").resize((4, 4), 0), 4, background=background))[0, :, 0]
        right = (100 * alpha[0].astype(float) + value * (255.0 - alpha[0])) / 255
        assert np.abs(whole - right).max() <= 1


TURNED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(format, orientation):
    image = Image.fromarray(COLOURS)
    if format == "TIFF":
        data = encoded(image, format, tiffinfo={274: orientation})
    else:
        data = encoded(image, format, exif=exif(orientation), **({"lossless": True} if format == "WEBP" else {}))
    np.testing.assert_array_equal(pixels(data), TURNED[orientation](COLOURS))


@pytest.mark.parametrize(
    "block", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", exif(6)[:-9], exif(77)]
)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_a_broken_exif_block_is_ignored(format, block):
    lossless = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(COLOURS), format, exif=block, **lossless)), COLOURS)


def test_damaged_pixels_of_a_png_are_found():
    """Pillow checks no checksum of pixels."""
    whole = encoded(Image.fromarray(COLOURS), "PNG")
    start = whole.index(b"IDAT") + 4
    for at in range(start, start + 60):
        refusal(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_other_formats_reach_no_decoder(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail("a program was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    for data in (eps, encoded(Image.new("RGB", (4, 4)), "PPM"), encoded(Image.new("RGB", (16, 16)), "ICO"), b"x" * 99):
        assert "it is no picture in PNG, JPEG, WEBP, GIF, BMP, TIFF or AVIF" in refusal(data)


@pytest.mark.parametrize("side", [8_001, 13_300, 60_000])
def test_too_many_pixels_are_refused_before_decoding(side, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    message = refusal(png(side, 8, 2, [b"\0"], height=side))
    assert "64,000,000" in message


def test_too_many_bytes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(decoding, "MAX_BYTES", 2**20)
    assert "limit of 1 MiB" in refusal(bytes(2**20 + 1))
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"a\.png of record 'r' cannot be read \(it is larger than the limit"):
        ImageFolder(tmp_path).open("a.png", "r")


def test_compressed_text_that_grows_is_refused():
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**24)))
    assert "Decompressed data too large" in refusal(png(1, 8, 0, [b"\0"], text))
    many = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20 - 1))) * 80
    refusal(png(1, 8, 0, [b"\0"], many))


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_that_share_bytes_are_refused(order):
    """A thousand tags that each hold the whole file."""
    content = bytes(2**17)
    tags = [(50_000 + i, 7, len(content), 8) for i in range(1000)]
    assert "tags are larger than 16 MiB" in refusal(tiff(order, 1, 1, 8, content, tags=tags))
    assert pixels(tiff(order, 1, 1, 8, content, tags=tags[:9])).tolist() == [[[0, 0, 0]]]


def test_one_tag_of_many_numbers_is_refused():
    content = bytes(5 * 2**20)
    assert "tags are larger" in refusal(tiff("<", 1, 1, 8, content, tags=[(50_000, 4, 2**20 + 1, 8)]))


def test_tags_of_directories_below_count():
    below = struct.pack("<H", 1) + struct.pack("<HHII", 0x9286, 4, 2**21, 0)
    top = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 26) + b"\0" * 4
    with pytest.raises(ValueError, match="tags are larger"):
        check_tags(top + below + bytes(2**23))
    # A directory that contains itself ends.
    check_tags(b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + b"\0" * 4)


ERRORS = (
    RuntimeError("a\nb"),
    SyntaxError("x"),
    MemoryError(),
    KeyError("k"),
    RecursionError(),
    AssertionError(),
    struct.error("s"),
    OverflowError("o" * 999),
)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("method", ["load", "getexif", "convert"])
def test_every_error_is_named(method, error, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile." + method, fail)
    data = encoded(Image.fromarray(COLOURS), "PNG")
    if method == "getexif":
        np.testing.assert_array_equal(pixels(data), COLOURS)
        return
    message = refusal(data)
    assert len(message) < 300
    if isinstance(error, MemoryError):
        assert "it does not fit into memory" in message


def test_odd_file_names_stay_on_one_line():
    with pytest.raises(UserError, match=r"^a\\nb\\udc80\.png of record") as error:
        decode(b"", "a\nb\udc80.png", "r")
    str(error.value).encode("utf-8")


def test_too_long_a_side_is_refused():
    assert "65536 × 1 pixels" in refusal(png(65_536, 8, 2, [b"\0"], height=1))
