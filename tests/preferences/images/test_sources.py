"""Pictures from folders and from inside Parquet files, also by several threads at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probing.errors import UserError
from probing.preferences import DrawnImages, ImageFolder, ParquetImages
from probing.preferences.images.sources import find_prefix
from tests.preferences.published import picture, png


def test_a_folder_opens_pictures_and_lists_missing_ones(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "1.png").write_bytes(png(1))
    source = ImageFolder(tmp_path)
    assert source.open("below/1.png", "r").tobytes() == picture(1).tobytes()
    assert source.missing(["below/1.png", "below/2.png", "nowhere/1.png", "below"]) == [
        "below/2.png",
        "nowhere/1.png",
        "below",
    ]
    assert source.missing([str(tmp_path / "below" / "1.png")]) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "cannot be read"),
        (lambda whole: b"", "it is empty"),
        (lambda whole: b"GIF?" + whole[4:], "it is no picture"),
        (lambda whole: whole[:40], "cannot be read"),
    ],
)
def test_damage_is_named_with_file_and_record(tmp_path, damage, message):
    (tmp_path / "1.png").write_bytes(damage(png(1)))
    with pytest.raises(UserError, match=message) as error:
        ImageFolder(tmp_path).open("1.png", "record7")
    assert "1.png" in str(error.value) and "record7" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.png of record 'r' is missing"):
        ImageFolder(tmp_path).open("absent.png", "r")


@pytest.fixture
def packed(tmp_path):
    for file in range(3):
        rows = [{"jpg": png(100 * file + row), "other": {"bytes": png(1000 + 100 * file + row)}} for row in range(20)]
        pd.DataFrame(rows).to_parquet(tmp_path / f"{file}.parquet", row_group_size=3)
    return tmp_path


def test_threads_get_the_right_picture_in_any_order(packed):
    """More row groups than are cached, opened in random order by eight threads."""
    source = ParquetImages(packed)
    rng = np.random.default_rng(0)
    requests = [(int(f), int(r)) for f, r in zip(rng.integers(0, 3, 400), rng.integers(0, 20, 400), strict=True)]
    with ThreadPoolExecutor(8) as pool:
        opened = list(
            pool.map(lambda one: source.open(ParquetImages.name(f"{one[0]}.parquet", one[1], "jpg"), "r"), requests)
        )
    for (file, row), image in zip(requests, opened, strict=True):
        assert image.tobytes() == picture(100 * file + row).tobytes()
    nested = source.open("2.parquet#4#other", "r")
    assert nested.tobytes() == picture(1204).tobytes()


def test_a_picture_inside_that_is_not_there_is_named(packed):
    source = ParquetImages(packed)
    assert source.missing(["0.parquet#1#jpg", "9.parquet#1#jpg"]) == ["9.parquet#1#jpg"]
    for name in ("9.parquet#1#jpg", "0.parquet#77#jpg", "0.parquet#1#png"):
        with pytest.raises(UserError, match="record 'r'"):
            source.open(name, "r")


def test_drawn_pictures_are_never_missing():
    source = DrawnImages(lambda name: picture(int(name)))
    assert source.open("3", "r").tobytes() == picture(3).tobytes()
    assert source.missing(["3", "4"]) == []


@pytest.mark.parametrize("mode", ["L", "P", "LA", "CMYK", "1"])
def test_every_source_opens_rgb_or_rgba(tmp_path, mode):
    image = picture(3).convert("L").convert(mode)
    image.save(tmp_path / "a", "TIFF" if mode == "CMYK" else "PNG")
    pd.DataFrame({"jpg": [(tmp_path / "a").read_bytes()]}).to_parquet(tmp_path / "a.parquet")
    opened = [
        ImageFolder(tmp_path).open("a", "r"),
        ParquetImages(tmp_path).open("a.parquet#0#jpg", "r"),
        DrawnImages(lambda name: image).open("a", "r"),
    ]
    for one in opened:
        assert one.mode == ("RGBA" if mode == "LA" else "RGB") and one.info == {}
        np.testing.assert_array_equal(np.asarray(one), np.asarray(image.convert(one.mode)))


def test_a_drawn_picture_without_a_stated_range_is_named():
    source = DrawnImages(lambda name: Image.new("F", (2, 2)))
    with pytest.raises(UserError, match=r"Drawn picture 'x' of record 'r' cannot be read .*expected 8 or 16 bits"):
        source.open("x", "r")


def test_names_that_no_file_has_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    source = ImageFolder(tmp_path)
    for name in ("a\0b", "", "pipe", "x" * 999):
        with pytest.raises(UserError, match="of record 'r' (cannot be read|is missing)") as error:
            source.open(name, "r")
        assert str(error.value).isprintable()
        assert source.missing([name]) == [name]


@pytest.mark.parametrize("value", ["text", 7, {"bytes": "text"}, [1, 2]])
def test_values_that_are_no_bytes_are_refused(tmp_path, value):
    pd.DataFrame({"jpg": [value]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"jpg in .*a\.parquet of record 'r' is of type \w+, expected the bytes"):
        ParquetImages(tmp_path).open("a.parquet#0#jpg", "r")


def test_a_damaged_parquet_file_is_named(packed):
    path = packed / "0.parquet"
    whole = path.read_bytes()
    for damage in (b"", b"text", whole[: len(whole) // 2], whole[:4] + bytes(2000) + whole[2004:]):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"jpg in .*0\.parquet of record 'r' cannot be read") as error:
            ParquetImages(packed).open("0.parquet#0#jpg", "r")
        assert "\n" not in str(error.value)


def test_the_stamp_of_a_file_changes_with_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    source = ImageFolder(tmp_path)
    before = source.stamp("a.png")
    assert before == source.stamp("a.png") == ImageFolder(tmp_path).stamp("a.png")
    status = path.stat()
    path.write_bytes(png(1)[:-1] + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    # Same size and time of writing; the time of change cannot be set.
    assert source.stamp("a.png") != before
    assert source.stamp("absent.png") is None and source.stamp("a\0b") is None


def test_the_stamp_of_a_parquet_picture(packed):
    source = ParquetImages(packed)
    names = [f"{file}.parquet#{row}#{column}" for file in (0, 1) for row in (0, 1) for column in ("jpg", "other")]
    stamps = [source.stamp(name) for name in names]
    assert None not in stamps and len(set(stamps)) == len(names)
    os.utime(packed / "0.parquet", ns=(1, 1))
    # A source reads a file's times once.
    assert [source.stamp(name) for name in names] == stamps
    again = [ParquetImages(packed).stamp(name) for name in names]
    assert [one == other for one, other in zip(again, stamps, strict=True)] == [False] * 4 + [True] * 4
    assert source.stamp("absent.parquet#0#jpg") is None


def test_the_stamp_of_a_drawn_picture():
    assert DrawnImages(lambda name: picture(1)).stamp("a") is None
    assert DrawnImages(lambda name: picture(1), "v1").stamp("a") == "v1/a"


def test_the_prefix_is_the_folder_of_the_first_picture(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(0))
    assert find_prefix(tmp_path, ["a.png"], ("", "images/")) == "images/"
    assert find_prefix(tmp_path, ["b.png"], ("", "images/")) == ""
