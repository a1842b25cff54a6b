"""Parts of archives: the order of their numbers, what is missing, what fits together."""

from __future__ import annotations

import io

import pytest

from probing.preferences.archives.parts import JoinedFiles
from probing.preferences.archives.unpacking import unpack
from tests.preferences.archives.packed import FILES, PACKERS, refused, unpacked, write_parts, zipped

NUMBERINGS = {
    "000": [".000", ".001", ".002", ".003"],
    "1": [".1", ".2", ".3", ".4"],
    "part1": [".part1", ".part2", ".part3", ".part4"],
    "part-aa": [".part-aa", ".part-ab", ".part-ac", ".part-ad"],
    "aa": [".aa", ".ab", ".ac", ".ad"],
    "-00000": ["-00000", "-00001", "-00002", "-00003"],
    "of": ["-00000-of-00004", "-00001-of-00004", "-00002-of-00004", "-00003-of-00004"],
}


@pytest.mark.parametrize("endings", NUMBERINGS.values(), ids=NUMBERINGS)
@pytest.mark.parametrize("kind", PACKERS)
def test_a_missing_part_is_named(tmp_path, kind, endings):
    paths = write_parts(tmp_path, f"x.{kind}", PACKERS[kind](), endings)
    lost = paths[2].read_bytes()
    paths[2].unlink()
    refused(tmp_path, rf"x\.{kind} cannot be unpacked \(missing: x\.{kind}{endings[2]}\); fetch the missing parts")
    paths[2].write_bytes(lost)
    unpack(tmp_path)
    assert unpacked(tmp_path) == FILES


@pytest.mark.parametrize("endings", NUMBERINGS.values(), ids=NUMBERINGS)
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize("lost", [0, 3])
def test_a_missing_first_or_last_part_is_found(tmp_path, kind, endings, lost):
    paths = write_parts(tmp_path, f"x.{kind}", PACKERS[kind](), endings)
    paths[lost].unlink()
    refused(tmp_path, rf"x\.{kind} cannot be unpacked")


def test_numbers_are_ordered_as_numbers(tmp_path):
    write_parts(tmp_path, "x.zip", zipped(), [f".{number}" for number in range(12)])
    unpack(tmp_path)
    assert unpacked(tmp_path) == FILES


@pytest.mark.parametrize(
    ("endings", "match"),
    [
        (["", ".1"], "x.zip.1 is next to the whole archive"),
        ([".0", ".1", ".aa"], "numbered in different ways"),
        ([".1", ".01"], "have the same number"),
        (["-00000-of-00002", "-00001-of-00003"], "disagree on how many there are"),
        ([".0", ".9"], r"missing: x.zip.1, x.zip.2, x.zip.3 and 5 more"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, endings, match):
    write_parts(tmp_path, "x.zip", zipped(), endings)
    refused(tmp_path, match)


@pytest.mark.parametrize("other", ["x.zip.md5", "x.zip.json", "x.zip.txt", "x.zip.lock", "x.zip.asc", "x.zip.py"])
def test_other_files_are_no_parts(tmp_path, other):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    (tmp_path / other).write_text("other")
    unpack(tmp_path)
    assert {"images/1.png", "images/2.png", "list.json"} <= set(unpacked(tmp_path))


def test_joined_files_read_like_their_concatenation(tmp_path):
    content = bytes(range(256)) * 5
    whole = io.BytesIO(content)
    with JoinedFiles(write_parts(tmp_path, "x", content, [".0", ".1", ".2"])) as joined:
        assert joined.size == len(content)
        reader = io.BufferedReader(joined, 16)
        for offset, whence, count in [
            (0, 0, 7),
            (400, 0, 100),
            (-90, 1, 500),
            (-30, 2, 50),
            (1279, 0, 9),
            (5000, 0, 1),
        ]:
            assert reader.seek(offset, whence) == whole.seek(offset, whence)
            assert reader.read(count) == whole.read(count)
