"""Pictures from folders and from inside Parquet files, also by several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from probing.errors import UserError
from probing.preferences import DrawnImages, ImageFolder, ParquetImages
from probing.preferences.image_sources import find_prefix
from tests.preferences.published import picture, png


def test_a_folder_opens_and_misses(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "1.png").write_bytes(png(1))
    source = ImageFolder(tmp_path)
    assert source.open("below/1.png", "r").tobytes() == picture(1).tobytes()
    assert source.missing(["below/1.png", "below/2.png", "nowhere/1.png", "below"]) == [
        "below/2.png", "nowhere/1.png", "below",
    ]  # fmt: skip
    assert source.missing([str(tmp_path / "below" / "1.png")]) == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda whole: whole[: len(whole) // 2], "cannot be read"),
        (lambda whole: b"", "it is empty"),
        (lambda whole: b"GIF?" + whole[4:], "it is no picture"),
        (lambda whole: whole[:40], "cannot be read"),
    ],
)
def test_damage_is_named_with_file_and_record(tmp_path, damage, says):
    (tmp_path / "1.png").write_bytes(damage(png(1)))
    with pytest.raises(UserError, match=says) as error:
        ImageFolder(tmp_path).open("1.png", "record7")
    assert "1.png" in str(error.value) and "record7" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png of record 'r' is missing"):
        ImageFolder(tmp_path).open("gone.png", "r")


@pytest.fixture
def packed(tmp_path):
    for file in range(3):
        rows = [{"jpg": png(100 * file + row), "other": {"bytes": png(1000 + 100 * file + row)}} for row in range(20)]
        pd.DataFrame(rows).to_parquet(tmp_path / f"{file}.parquet", row_group_size=3)
    return tmp_path


def test_threads_get_the_right_picture_in_any_order(packed):
    """More row groups than are kept, asked for at random by eight threads."""
    source = ParquetImages(packed)
    rng = np.random.default_rng(0)
    asked = [(int(f), int(r)) for f, r in zip(rng.integers(0, 3, 400), rng.integers(0, 20, 400), strict=True)]
    with ThreadPoolExecutor(8) as pool:
        opened = list(
            pool.map(lambda one: source.open(ParquetImages.name(f"{one[0]}.parquet", one[1], "jpg"), "r"), asked)
        )
    for (file, row), image in zip(asked, opened, strict=True):
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


def test_the_prefix_is_where_the_first_picture_lies(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(0))
    assert find_prefix(tmp_path, ["a.png"], ("", "images/")) == "images/"
    assert find_prefix(tmp_path, ["b.png"], ("", "images/")) == ""
