"""Damaged, encrypted and growing archives: refused with a sentence, within bounds."""

from __future__ import annotations

import collections
import errno
import gzip
import os
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest

from probing.preferences.archives import members, unpacking
from probing.preferences.archives.unpacking import unpack
from tests.preferences.archives.packed import PACKERS, refused, tar, tar_gz, write_parts, zipped


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.tar", tar()[: tar().index(b"[1, 2]") + 512], "two zero blocks at a tar's end are missing"),
        ("x.tar", tar()[:600], "unexpected end of data|does not have the"),
        (
            "x.tar",
            tar().rstrip(b"\0") + bytes(512 - len(tar().rstrip(b"\0")) % 512 + 512),
            "second of the two zero blocks",
        ),
        ("x.tar", tar() + tar(), "more bytes follow its end"),
        ("x.tar", tar() + b"x", "more bytes follow its end"),
        ("x.tar", bytes(10240), "contains no files"),
        ("x.tar", b"", "empty file"),
        ("x.tar", b"<html>not found</html>" * 50, "header"),
        ("x.tgz", tar_gz()[:-1], "Compressed file ended"),
        ("x.tgz", tar_gz()[:-8] + b"\0" * 8, "CRC check failed"),
        ("x.tgz", tar_gz() + b"garbage", "Not a gzipped file"),
        ("x.tgz", tar_gz() + tar_gz(), "more bytes follow its end"),
        ("x.zip", zipped()[:-1], "no zip archive, or its end is cut or has bytes too many"),
        ("x.zip", zipped() + b"x", "no zip archive, or its end is cut or has bytes too many"),
        ("x.zip", b"x" + zipped(), "list of members is not at the position that its end gives"),
        ("x.zip", zipped() + zipped(), "list of members is not at the position that its end gives"),
        ("x.zip", zipped({}), "contains no files"),
        ("x.zip", b"<html>not found</html>", "no zip archive"),
        ("x.zip", b"version https://git-lfs.github.com/spec/v1\n", "pointer of git-lfs.*git lfs pull"),
    ],
)
def test_damage_is_named(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path, rf"{name} cannot be unpacked \(.*({match})")


def test_a_damaged_later_header_of_a_tar_is_found(tmp_path):
    content = bytearray(tar())
    content[content.index(b"images/2.png")] ^= 1
    (tmp_path / "x.tar").write_bytes(content)
    refused(tmp_path, r"x\.tar cannot be unpacked \(the header at byte 1536 is damaged\); delete it and fetch it again")


def flagged_zip(flags=0, method=None):
    """A zip whose headers have other flags or another method."""
    content = bytearray(zipped({"a": b"one"}, zipfile.ZIP_STORED))
    for at in (6, content.index(b"PK\x01\x02") + 8):
        content[at] |= flags
        if method is not None:
            content[at + 2] = method
    return bytes(content)


def test_an_encrypted_zip_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(flagged_zip(flags=1))
    refused(tmp_path, r"x\.zip cannot be unpacked \(its member 'a' is encrypted\); unpack it .* with another tool")


def test_an_unknown_compression_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(flagged_zip(method=9))
    refused(
        tmp_path, r"x\.zip cannot be unpacked \(its member 'a' is compressed by method 9\); unpack it .* another tool"
    )


def test_a_volume_of_a_split_zip_is_refused(tmp_path):
    content = bytearray(zipped())
    content[-18] = 1
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path, r"it is one volume of several\); join the volumes")


def test_a_member_outside_the_list_of_a_zip_is_found(tmp_path):
    """The list without its last entry, with the count and the size that fit."""
    content = zipped({"a": b"1", "b": b"2"})
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = (end - start) // 2
    tail = content[end : end + 8] + struct.pack("<2H2L", 1, 1, entry, start) + b"\0\0"
    (tmp_path / "x.zip").write_bytes(content[: start + entry] + tail)
    refused(tmp_path, "belong to no member")


@pytest.mark.parametrize("pack", [zipped, tar_gz])
def test_archive_bombs_are_refused(tmp_path, pack):
    suffix = {tar_gz: "tgz", zipped: "zip"}[pack]
    (path := tmp_path / f"x.{suffix}").write_bytes(pack({"a": bytes(200_000_000)}))
    assert path.stat().st_size < 200_000
    refused(tmp_path, rf"x\.{suffix} cannot be unpacked \(it grows to more than \d+ bytes, 50 times its size\)")


def test_a_size_in_a_header_is_not_trusted(tmp_path):
    """A zip whose headers give 5 bytes where 200 MB follow."""
    content = bytearray(zipped({"a": bytes(200_000_000)}))
    for at in (22, content.index(b"PK\x01\x02") + 24):
        content[at : at + 4] = struct.pack("<L", 5)
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path, "Bad CRC-32")


def peak_memory(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives_in_parts_are_not_joined_in_memory(tmp_path, kind):
    write_parts(tmp_path, f"x.{kind}", PACKERS[kind]({"a": os.urandom(25_000_000)}), [".0", ".1", ".2"])
    assert peak_memory(lambda: unpack(tmp_path)) < 8_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_without_bounded_reads_is_read_in_small_pieces(tmp_path, method):
    (tmp_path / "x.zip").write_bytes(zipped({"a": bytes(50_000_000)}, method))
    assert peak_memory(lambda: refused(tmp_path, "50 times its size")) < 100_000_000


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_huge_tar_header_is_not_read_into_memory(tmp_path, kind):
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, 10**9
    (tmp_path / "x.tgz").write_bytes(gzip.compress(info.tobuf() + bytes(10**7)))
    refused(tmp_path, "a header has 1000000000 bytes, allowed are 1048576")


def test_zeros_after_the_end_are_bounded(tmp_path):
    (tmp_path / "x.tgz").write_bytes(gzip.compress(tar() + bytes(50_000_000)))
    refused(tmp_path, "50 times its size")


@pytest.mark.parametrize("pack", [tar, zipped])
def test_the_number_and_size_of_members_are_bounded(tmp_path, pack, monkeypatch):
    suffix = {tar: "tar", zipped: "zip"}[pack]
    (tmp_path / f"x.{suffix}").write_bytes(pack())
    monkeypatch.setattr(members, "MAX_MEMBERS", 2)
    refused(tmp_path, "members")
    monkeypatch.undo()
    monkeypatch.setattr(members, "MAX_MEMBER_BYTES", 1000)
    refused(tmp_path, r"its member 'images/[12].png' has \d+ bytes, allowed are 1000")


@pytest.mark.parametrize("kind", PACKERS)
def test_more_than_the_free_disk_is_refused(tmp_path, kind, monkeypatch):
    (tmp_path / f"x.{kind}").write_bytes(PACKERS[kind]())
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    refused(tmp_path, rf"x\.{kind} cannot be unpacked \(it needs more than the 1000 bytes .* free some space")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(tmp_path, number, monkeypatch):
    (tmp_path / "x.zip").write_bytes(zipped())

    def full(*_):
        raise OSError(number, "full")

    monkeypatch.setattr(members._Sink, "_check", full)
    refused(tmp_path, r"^The disk of .*x\.zip is full; free some space and give the same command again\.$")


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (PermissionError(errno.EACCES, "no right"), r"no right.*make its folder writable, or copy it to one that is"),
        (OSError(errno.EIO, "input/output"), r"input/output.*delete it and fetch it again"),
        (MemoryError(), "too little memory"),
        (RecursionError("deep"), "deep"),
        (NotImplementedError("odd"), "odd"),
        (zlib.error("bad"), "bad"),
        (struct.error("short"), "short"),
        (ValueError(), "ValueError"),
    ],
)
def test_every_error_becomes_a_sentence(tmp_path, error, match, monkeypatch):
    (tmp_path / "x.zip").write_bytes(zipped())

    def fail(*_):
        raise error

    monkeypatch.setattr(unpacking, "read_members", fail)
    refused(tmp_path, rf"x\.zip cannot be unpacked \({match}")
