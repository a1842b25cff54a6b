"""Pictures' bytes to pixels: each format and mode against NumPy, and whatever is damaged against one sentence."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from probing.errors import UserError
from probing.preferences import DrawnImages, ImageFolder, ParquetImages
from probing.preferences.decoding import MAX_PIXELS, decode
from probing.preferences.images import picture_digest, prepare, upright_rgb

pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(upright_rgb(decode(data, "x.png", "r")))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_formats_without_loss_give_the_very_pixels(kind, options):
    np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(PIXELS), kind, **options)), PIXELS)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("AVIF", {"quality": 90}), ("WEBP", {})])
def test_formats_with_loss_give_nearly_the_pixels(kind, options):
    smooth = np.repeat(np.repeat(PIXELS[:3, :3], 16, 0), 16, 1)
    found = pixels_of(encoded(Image.fromarray(smooth), kind, **options)).astype(int)
    assert np.abs(found - smooth).mean() < 6


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(pixels_of(data).astype(int) - 10).max() <= 1


def test_modes_of_eight_bits():
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(grey))), np.repeat(grey[..., None], 3, 2))
    black_white = (grey > 127).astype(np.uint8) * 255
    np.testing.assert_array_equal(
        pixels_of(encoded(Image.fromarray(black_white).convert("1"))), np.repeat(black_white[..., None], 3, 2)
    )
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(pixels_of(encoded(palette)), np.asarray(palette.convert("RGB")))
    ink = Image.fromarray(RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8), "CMYK")
    cyan, magenta, yellow, black = np.moveaxis(np.asarray(ink).astype(int), 2, 0)
    expected = np.stack([(255 - one) * (255 - black) / 255 for one in (cyan, magenta, yellow)], axis=2)
    assert np.abs(pixels_of(encoded(ink, "TIFF")) - expected).max() <= 1


def test_transparency_is_laid_on_the_background():
    colours, alpha = PIXELS.astype(float), RNG.integers(0, 256, (12, 10), dtype=np.uint8)
    data = encoded(Image.fromarray(np.dstack([PIXELS, alpha])))
    picture = decode(data, "x", "r")
    assert picture.mode == "RGBA"
    for background, value in (("white", 255.0), ("black", 0.0)):
        share = alpha[..., None] / 255
        expected = colours * share + value * (1 - share)
        assert np.abs(np.asarray(upright_rgb(picture, background)) - expected).max() <= 1.01
    grey_alpha = encoded(Image.fromarray(np.dstack([PIXELS[..., 0], alpha]), "LA"))
    assert np.abs(pixels_of(grey_alpha)[..., 0] - (PIXELS[..., 0] * (alpha / 255) + 255 - alpha)).max() <= 1.01


def tiff_of(values: np.ndarray, order: str, bits: int, sample_format: int = 1) -> bytes:
    """Write an uncompressed grey TIFF by hand, in either byte order."""
    height, width = values.shape
    data = values.astype(f"{order}{'u' if sample_format == 1 else 'i'}{bits // 8}").tobytes()
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
               (278, 4, height), (279, 4, len(data)), (339, 3, sample_format)]  # fmt: skip
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        packed = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
        directory += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    return header + data + directory + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_are_scaled_in_either_byte_order(order):
    values = RNG.integers(0, 65536, (9, 7))
    found = pixels_of(tiff_of(values, order, 16))[..., 0].astype(float)
    assert np.abs(found - values / 257).max() <= 1


def test_sixteen_bits_of_a_png_are_scaled():
    values = RNG.integers(0, 65536, (9, 7)).astype(np.uint16)
    assert np.abs(pixels_of(encoded(Image.fromarray(values)))[..., 0] - values / 257).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_thirty_two_bits_are_refused_for_nothing_says_which_value_is_white(order):
    values = RNG.integers(0, 256, (9, 7))
    with pytest.raises(
        UserError, match=r"x\.tif of record 'r' cannot be read \(its samples of type I;32.* have no stated white"
    ):
        decode(tiff_of(values, order, 32, 2), "x.tif", "r")


def test_fractions_are_refused():
    with pytest.raises(UserError, match="mode F with values from"):
        decode(encoded(Image.fromarray(RNG.random((8, 8), dtype=np.float32)), "TIFF"), "x.tif", "r")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = np.zeros((32, 48, 3), np.uint8)
    smooth[:, :24] = (200, 0, 0)
    picture = decode(encoded(Image.fromarray(smooth), kind, exif=exif), "x", "r")
    assert picture.size == (32, 48)
    top, bottom = np.asarray(picture)[4, 16].astype(int), np.asarray(picture)[44, 16].astype(int)
    assert top[0] > 150 and bottom[0] < 60
    assert not picture.info and not picture.getexif()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_exif_block_leaves_the_picture(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    whole = encoded(Image.fromarray(PIXELS), kind, **options)
    broken = encoded(Image.fromarray(PIXELS), kind, exif=b"Exif\0\0not a block at all", **options)
    np.testing.assert_array_equal(pixels_of(broken), pixels_of(whole))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n1 setgray\nshowpage\n%%EOF\n"


def test_other_formats_are_not_tried_whatever_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("another program was started"))
    (tmp_path / "x.png").write_bytes(EPS)
    with pytest.raises(UserError, match=r"x\.png of record 'r' cannot be read \(it is no picture in PNG, JPEG"):
        ImageFolder(tmp_path).open("x.png", "r")
    for kind in ("ICO", "PPM", "TGA", "PCX"):
        with pytest.raises(UserError, match="no picture in PNG, JPEG"):
            decode(encoded(Image.fromarray(PIXELS), kind), "x", "r")


def test_too_many_pixels_are_refused_before_they_take_memory():
    side = 13_300
    blank = Image.new("1", (side, side))
    data = encoded(blank)
    assert side**2 > MAX_PIXELS
    del blank
    tracemalloc.start()
    with pytest.raises(UserError, match=r"13300 × 13300 pixels, the limit is 64,000,000"):
        decode(data, "x.png", "r")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="it is no file"):
        ImageFolder(tmp_path).open("folder.png", "r")
    with pytest.raises(UserError, match="record 'r'"):
        ImageFolder(tmp_path).open("a\0b.png", "r")


def test_the_digest_is_of_pixels_and_not_of_bytes():
    image = Image.fromarray(PIXELS)
    same = [image, decode(encoded(image), "x", "r"), decode(encoded(image, "BMP"), "x", "r"), image.convert("RGBA")]
    assert len({picture_digest(one) for one in same}) == 1
    changed = PIXELS.copy()
    changed[-1, -1, -1] ^= 1
    others = [Image.fromarray(changed), Image.fromarray(PIXELS.reshape(10, 12, 3)), image.rotate(180)]
    assert len({picture_digest(one) for one in [image, *others]}) == 4
    see_through = image.convert("RGBA")
    see_through.putalpha(200)
    assert picture_digest(see_through) != picture_digest(image)


def test_stamps_change_with_the_file(tmp_path):
    import os

    source, file = ImageFolder(tmp_path), tmp_path / "x.png"
    file.write_bytes(encoded(Image.fromarray(PIXELS)))
    before, found = source.stamp("x.png"), file.stat()
    assert before == source.stamp("x.png") is not None
    file.write_bytes(encoded(Image.fromarray(PIXELS[::-1].copy())))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert source.stamp("x.png") != before
    assert source.stamp("none.png") is None
    assert DrawnImages(lambda name: None).stamp("a") is None
    assert DrawnImages(lambda name: None, version="1").stamp("a") != DrawnImages(lambda name: None, version="2").stamp(
        "a"
    )


def test_a_column_that_holds_no_bytes_is_named(tmp_path):
    import pandas as pd

    pd.DataFrame({"jpg": ["text", "more"]}).to_parquet(tmp_path / "0.parquet")
    source = ParquetImages(tmp_path)
    with pytest.raises(UserError, match="jpg in .* of record 'r' is of type str, expected the bytes of a picture"):
        source.open("0.parquet#0#jpg", "r")
    assert source.stamp("0.parquet#0#jpg") != source.stamp("0.parquet#1#jpg") is not None


SAMPLES = [
    encoded(image, kind, **options)
    for image in (Image.fromarray(PIXELS), Image.fromarray(PIXELS[..., 0]), Image.fromarray(PIXELS).quantize(8),
                  Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]])))
    for kind, options in (("PNG", {}), ("WEBP", {}), ("GIF", {}), ("TIFF", {"compression": "tiff_deflate"}),
                          ("BMP", {}), ("AVIF", {}), ("JPEG", {}))
    if not (kind == "JPEG" and image.mode in ("RGBA", "P"))
]  # fmt: skip


def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        how = draw(st.sampled_from(["flip", "cut", "splice", "insert"]))
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "splice":
            other = draw(st.sampled_from(SAMPLES))
            data[at:] = other[draw(st.integers(0, len(other))) :]
        else:
            data[at:at] = draw(st.binary(max_size=12))
    return bytes(data)


_DAMAGED = st.one_of(st.binary(max_size=200), st.composite(damaged)())


def picture_or_sentence(data: bytes) -> None:
    try:
        image = decode(data, "file.png", "item7")
    except UserError as error:
        message = str(error)
        assert "file.png" in message and "item7" in message and "\n" not in message
        return
    assert image.mode in ("RGB", "RGBA")
    assert prepare(image, 8).size == (8, 8)
    assert len(picture_digest(image)) == 16


@settings(max_examples=150)
@given(_DAMAGED)
def test_damaged_pictures(data):
    picture_or_sentence(data)


@pytest.mark.slow
@settings(max_examples=6000)
@given(_DAMAGED)
def test_many_damaged_pictures(data):
    picture_or_sentence(data)
