"""Image preparation: one square, right side up, in RGB."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from probing.errors import UserError
from probing.preferences import prepare
from probing.preferences.images.preparation import RESIZES, picture_digest, upright, upright_rgb


def halves(width=64, height=32, mode="RGB"):
    """Left third red, middle green, right third blue."""
    image = Image.new("RGB", (width, height), "green")
    image.paste("red", (0, 0, width // 4, height))
    image.paste("blue", (3 * width // 4, 0, width, height))
    return image.convert(mode)


@given(
    width=st.integers(1, 90), height=st.integers(1, 90), resize=st.sampled_from(RESIZES), side=st.sampled_from([16, 33])
)
def test_every_picture_becomes_an_rgb_square(width, height, resize, side):
    image = prepare(Image.new("L", (width, height)), side, resize)
    assert (image.size, image.mode) == ((side, side), "RGB")


def test_the_three_resize_rules():
    crop, pad, stretch = (np.asarray(prepare(halves(), 32, resize)) for resize in ("center-crop", "pad", "stretch"))
    assert (crop[16, 2] == crop[16, 29]).all() and crop[16, 2, 1] == 128
    assert (pad[2, 16] == 255).all() and pad[16, 2, 0] > 200 and pad[16, 29, 2] > 200
    assert stretch[2, 2, 0] > 200 and stretch[29, 29, 2] > 200


def test_a_picture_of_the_right_size_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(prepare(Image.fromarray(pixels), 16)), pixels)


def test_exif_orientation_is_applied(tmp_path):
    image = halves(32, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: the left edge comes to the top
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "turned.jpg") as opened:
        pixels = np.asarray(prepare(opened, 32)).astype(int)
    assert pixels[2, 16, 0] > 180 and pixels[2, 16, 2] < 80


def test_transparent_parts_become_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert np.asarray(prepare(clear, 8)).min() == 255
    assert np.asarray(prepare(half, 8))[0, 0].tolist() == [127] * 3
    palette = Image.new("P", (8, 8), 0)
    palette.info["transparency"] = 0
    assert np.asarray(prepare(palette, 8)).min() == 255


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "YCbCr"])
def test_other_modes_become_rgb(mode):
    assert (
        prepare(halves(32, 32).convert("L").convert(mode) if mode == "LA" else halves(32, 32, mode), 32).mode == "RGB"
    )


def test_sixteen_bits_are_scaled_and_not_clipped():
    image = Image.fromarray(np.full((8, 8), 32896, dtype=np.uint16))
    assert np.asarray(prepare(image, 8))[0, 0].tolist() == [128] * 3


def test_numbers_without_a_stated_range_are_refused():
    for image in (
        Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)),
        Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)),
        Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)),
    ):
        with pytest.raises(UserError, match="expected 8 or 16 bits each"):
            prepare(image, 8)


def test_unknown_rules_are_refused():
    with pytest.raises(UserError, match="give one of center-crop, pad, stretch"):
        prepare(Image.new("RGB", (8, 8)), 8, "squash")


def noise(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (5, 7, channels)).astype(np.uint8)


def test_the_digest_does_not_depend_on_the_encoding(tmp_path):
    image = Image.fromarray(noise(3))
    digest = picture_digest(image)
    assert len(digest) == 16
    opaque = image.convert("RGBA")
    assert picture_digest(opaque) == digest
    for name, one in (("a.png", image), ("b.bmp", image), ("c.tiff", opaque), ("d.png", opaque)):
        one.save(tmp_path / name)
        with Image.open(tmp_path / name) as opened:
            assert picture_digest(opened) == digest
    turned = Image.Exif()
    turned[0x0112] = 3
    image.rotate(180).save(tmp_path / "e.png", exif=turned)
    with Image.open(tmp_path / "e.png") as opened:
        assert picture_digest(opened) == digest


def test_the_digest_changes_with_size_pixels_and_alpha():
    pixels = noise(4)
    pixels[..., 3] = np.maximum(pixels[..., 3], 1)
    pictures = [pixels, pixels[..., :3].copy(), pixels.reshape(7, 5, 4), pixels[:, ::-1].copy()]
    for channel in range(4):
        changed = pixels.copy()
        changed[2, 3, channel] = changed[2, 3, channel] % 255 + 1
        pictures.append(changed)
    assert len({picture_digest(Image.fromarray(one)) for one in pictures}) == len(pictures)


def test_invisible_colours_do_not_change_the_digest():
    pixels = noise(4)
    pixels[1, 1, 3] = 0
    other = pixels.copy()
    other[1, 1, :3] ^= 255
    images = [Image.fromarray(one) for one in (pixels, other)]
    assert picture_digest(images[0]) == picture_digest(images[1])
    for background in ("white", "gray", "black"):
        assert upright_rgb(images[0], background).tobytes() == upright_rgb(images[1], background).tobytes()


def test_an_upright_picture_is_not_copied():
    image = Image.fromarray(noise(4))
    assert upright(image) is image


@pytest.mark.parametrize("resize", RESIZES)
def test_a_long_thin_picture_is_used(resize):
    line = Image.new("RGB", (65_535, 1), (128, 128, 128))
    square = np.asarray(prepare(line, 64, resize, "black"))
    assert square.shape == (64, 64, 3) and (square[31, 5] == 128).all()
    upright = np.asarray(prepare(line.transpose(Image.Transpose.ROTATE_90), 64, "pad", "black"))
    assert sorted(upright[5, :, 0].tolist()) == [0] * 63 + [128]
