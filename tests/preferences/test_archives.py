"""Unpacking: whole or not at all, verified, bounded, inside its folder, again where something changed."""

from __future__ import annotations

import collections
import errno
import gzip
import io
import json
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest

from probing.errors import UserError
from probing.preferences import archive_members, archives
from probing.preferences.archive_parts import JoinedFiles
from probing.preferences.archives import unpack
from tests.preferences.packed import FILES, PACKERS, tar, tar_gz, unpacked, write_parts, zipped


def refused(folder, match):
    """Assert one sentence and an unchanged folder."""
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    with pytest.raises(UserError, match=match) as error:
        unpack(folder)
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


# --- parts ---

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
    refused(tmp_path, rf"x\.{kind} cannot be unpacked \(missing: x\.{kind}{endings[2]}\); fetch what is missing")
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
        (["", ".1"], "x.zip.1 lies beside the whole archive"),
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


# --- again, or not ---


@pytest.mark.parametrize("kind", PACKERS)
def test_a_deleted_or_cut_file_is_unpacked_again(tmp_path, kind):
    write_parts(tmp_path, f"x.{kind}", PACKERS[kind](), [""])
    unpack(tmp_path)
    (tmp_path / "list.json").unlink()
    (tmp_path / "images/1.png").write_bytes(b"\x89PNG")
    unpack(tmp_path)
    assert unpacked(tmp_path) == FILES


def test_a_replaced_archive_is_unpacked_again(tmp_path):
    write_parts(tmp_path, "x.tar", tar(), [""])
    unpack(tmp_path)
    newer = {"images/1.png": b"other" * 9, "images/3.png": b"third"}
    write_parts(tmp_path, "x.tar", tar(newer), [""])
    unpack(tmp_path)
    assert unpacked(tmp_path) == newer


def test_a_changed_time_alone_unpacks_again(tmp_path):
    (path,) = write_parts(tmp_path, "x.tar", tar({"a": b"one"}), [""])
    unpack(tmp_path)
    write_parts(tmp_path, "x.tar", tar({"a": b"two"}), [""])
    os.utime(path, ns=(1, 1))
    unpack(tmp_path)
    assert unpacked(tmp_path) == {"a": b"two"}


@pytest.mark.parametrize(
    "marker", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"version": 1, "parts": [], "files": {}}', b"null"]
)
def test_a_marker_without_content_counts_as_not_done(tmp_path, marker):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    (tmp_path / "x.zip.unpacked").write_bytes(marker)
    unpack(tmp_path)
    assert unpacked(tmp_path) == FILES
    assert json.loads((tmp_path / "x.zip.unpacked").read_text())["files"] == {k: len(v) for k, v in FILES.items()}


def test_a_marker_deletes_nothing_outside(tmp_path):
    inside = tmp_path / "inside"
    write_parts(inside, "x.zip", zipped(), [""])
    (tmp_path / "mine").write_bytes(b"mine")
    marker = {"version": 1, "parts": [["x.zip", 1, 1]], "files": {"../mine": 4}}
    (inside / "x.zip.unpacked").write_text(json.dumps(marker))
    unpack(inside)
    assert (tmp_path / "mine").read_bytes() == b"mine"


class Killed(BaseException):
    """A kill: nothing after it runs, clean-up included."""


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("before", ["nothing", "a cut file", "another archive"])
def test_a_kill_anywhere_is_mended_by_the_next_call(tmp_path, kind, before, monkeypatch):
    for step in range(100):
        folder = tmp_path / str(step)
        write_parts(folder, f"x.{kind}", PACKERS[kind](), [".0", ".1"])
        if before == "a cut file":
            unpack(folder)
            (folder / "images/1.png").write_bytes(b"\x89")
        if before == "another archive":
            older = PACKERS[kind]({"images/1.png": b"older", "old": b"old"})
            write_parts(folder, f"x.{kind}", older, [".0", ".1"])
            unpack(folder)
            write_parts(folder, f"x.{kind}", PACKERS[kind](), [".0", ".1"])
        count = 0

        def kill(function, step=step):
            def counted(*arguments, **named):
                nonlocal count
                count += 1
                if count == step + 1:
                    monkeypatch.setattr(archives.shutil, "rmtree", lambda *_, **__: None)
                    raise Killed
                return function(*arguments, **named)

            return counted

        with monkeypatch.context() as patch:
            for place, name in [
                (archive_members._Sink, "_check"),
                (archives.os, "replace"),
                (archives.Path, "unlink"),
                (archives.Path, "mkdir"),
                (archives, "write_text"),
            ]:
                patch.setattr(place, name, kill(getattr(place, name)))
            try:
                unpack(folder)
                killed = False
            except Killed:
                killed = True
        monkeypatch.undo()
        unpack(folder)
        assert unpacked(folder) == FILES
        assert not [path for path in folder.iterdir() if ".unpacking-" in path.name]
        if not killed:
            break
    assert 5 < step < 99


def test_archives_inside_archives_stay_packed(tmp_path):
    inner = zipped({"deep": b"deep"})
    (tmp_path / "x.tar").write_bytes(tar({"inner.zip": inner}))
    for _ in range(3):
        unpack(tmp_path)
        assert (tmp_path / "inner.zip").read_bytes() == inner and not (tmp_path / "deep").exists()


def test_a_finished_unpacking_is_read_from_a_read_only_folder(tmp_path, monkeypatch):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    unpack(tmp_path)
    monkeypatch.setattr(archives.tempfile, "mkdtemp", lambda **_: pytest.fail("writes"))
    monkeypatch.setattr(archives, "write_text", lambda *_: pytest.fail("writes"))
    unpack(tmp_path)


# --- files of another origin ---


def test_a_file_with_other_content_is_not_overwritten(tmp_path):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    (tmp_path / "list.json").write_bytes(b"mine")
    refused(tmp_path, r"x\.zip cannot be unpacked \(.*list\.json is there with other content\); move that file away")


def test_a_file_with_the_same_content_is_kept(tmp_path):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    (tmp_path / "list.json").write_bytes(FILES["list.json"])
    inode = (tmp_path / "list.json").stat().st_ino
    unpack(tmp_path)
    assert (tmp_path / "list.json").stat().st_ino == inode


def test_two_archives_with_one_path(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"same": b"1", "p": b"first"}))
    (tmp_path / "b.tar").write_bytes(tar({"same": b"1", "p": b"second"}))
    with pytest.raises(UserError, match=r"b\.tar cannot be unpacked \(.*/p is there with other content"):
        unpack(tmp_path)
    assert unpacked(tmp_path) == {"same": b"1", "p": b"first"}
    (tmp_path / "b.tar").write_bytes(tar({"same": b"1", "q": b"second"}))
    unpack(tmp_path)
    assert unpacked(tmp_path) == {"same": b"1", "p": b"first", "q": b"second"}
    # A replaced archive does not replace what the other one also holds.
    (tmp_path / "b.tar").write_bytes(tar({"same": b"2", "q": b"second"}))
    with pytest.raises(UserError, match=r"b\.tar cannot be unpacked \(.*/same is there with other content"):
        unpack(tmp_path)


def test_a_link_to_another_folder_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    write_parts(tmp_path / "inside", "x.zip", zipped(), [""])
    (tmp_path / "inside" / "images").symlink_to(tmp_path / "outside")
    refused(tmp_path / "inside", "is a link to another folder")
    assert not list((tmp_path / "outside").iterdir())


def test_a_file_where_a_folder_is_needed(tmp_path):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    (tmp_path / "images").write_bytes(b"mine")
    refused(tmp_path, "images is a file where it has a folder")


# --- members ---


@pytest.mark.parametrize("pack", [tar, tar_gz, zipped])
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("/etc/x", "absolute path"),
        ("C:/x", "absolute path"),
        ("../x", "outside the folder"),
        ("a/../../x", "outside the folder"),
        ("a\\b", "a backslash"),
        ("a\nb", "a control character"),
        ("y.zip.unpacked", "reserved"),
        (".y.zip.unpacking-1/x", "reserved"),
    ],
)
def test_odd_names_are_refused(tmp_path, pack, name, match):
    suffix = {tar: "tar", tar_gz: "tgz", zipped: "zip"}[pack]
    write_parts(tmp_path / "inside", f"x.{suffix}", pack({"good": b"good", name: b"bad"}), [""])
    refused(tmp_path / "inside", match)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_zero_byte_in_a_name_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped({"aXb": b"1"}).replace(b"aXb", b"a\0b"))
    refused(tmp_path, r"x\.zip cannot be unpacked \(its member 'a\\x00b' has")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar_with_name(b"caf\xe9.png"))
    refused(tmp_path, "bytes that are not UTF-8")


def tar_with_name(name):
    info = tarfile.TarInfo(name.decode("latin-1"))
    return info.tobuf(tarfile.GNU_FORMAT, "latin-1") + bytes(10240 - 512)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S"])
def test_a_tar_member_that_is_no_file_is_refused(tmp_path, kind):
    (tmp_path / "x.tar").write_bytes(tar({"a": b""}, type=kind, linkname="/etc/passwd"))
    refused(tmp_path, "its member 'a' is no regular file or folder")


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        info = zipfile.ZipInfo("a")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    refused(tmp_path, "its member 'a' is no regular file or folder")


def test_modes_are_not_taken_over(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar({"a": b"1"}, mode=0o6777))
    unpack(tmp_path)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o6111 == 0


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_member_that_is_there_twice(tmp_path, kind):
    def twice(*contents):
        stream = io.BytesIO()
        if kind == "zip":
            with zipfile.ZipFile(stream, "w") as packed:
                packed.writestr("a", contents[0])
                for content in contents[1:]:
                    with pytest.warns(UserWarning, match="Duplicate name"):
                        packed.writestr("a", content)
        else:
            with tarfile.open(fileobj=stream, mode="w") as packed:
                for content in contents:
                    info = tarfile.TarInfo("a")
                    info.size = len(content)
                    packed.addfile(info, io.BytesIO(content))
        return stream.getvalue()

    (tmp_path / f"x.{kind}").write_bytes(twice(b"one", b"two"))
    refused(tmp_path, "its member 'a' is there twice with different content")
    (tmp_path / f"x.{kind}").write_bytes(twice(b"one", b"one", b"one"))
    unpack(tmp_path)
    assert unpacked(tmp_path) == {"a": b"one"}


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_file_that_is_also_a_folder(tmp_path, pack, names):
    suffix = {tar: "tar", zipped: "zip"}[pack]
    (tmp_path / f"x.{suffix}").write_bytes(pack(dict.fromkeys(names, b"1")))
    refused(tmp_path, "both a file and a folder|needs a folder where it has a file")


def test_usual_archives_are_read(tmp_path):
    """Folders, ``./``, other cases, long and foreign names, each method, descriptors, zip64, joined gzip streams."""
    files = {"./a/x": b"1", "./A/X": b"2", "日本/" + "é" * 90 + "/" + "n" * 120: b"3", "empty": b""}
    wanted = {name.removeprefix("./"): content for name, content in files.items()}
    plain = tar(files)
    cases = {
        "a.tar": plain,
        "b.tgz": gzip.compress(plain[:700]) + gzip.compress(plain[700:]),
        "c.tar.gz": tar_gz(files),
    }
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        cases[f"{method}.zip"] = zipped(files, method)
    cases["stream.zip"] = streamed_zip(files)
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as packed:
        packed.writestr("folder/", b"")
        for name, content in files.items():
            with packed.open(name, "w", force_zip64=True) as member:
                member.write(content)
    cases["zip64.zip"] = stream.getvalue()
    for number, (name, content) in enumerate(cases.items()):
        (folder := tmp_path / str(number)).mkdir()
        (folder / name).write_bytes(content)
        unpack(folder)
        assert unpacked(folder) == wanted, name


def streamed_zip(files):
    """A zip with data descriptors: written to what cannot seek."""

    class Stream(io.RawIOBase):
        def __init__(self):
            self.content = b""

        def writable(self):
            return True

        def write(self, data):
            self.content += bytes(data)
            return len(data)

    with zipfile.ZipFile(stream := Stream(), "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.content


def test_a_zip_with_64_bit_list_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    content = zipped()
    monkeypatch.undo()
    assert b"PK\x06\x06" in content
    (tmp_path / "x.zip").write_bytes(content)
    unpack(tmp_path)
    assert unpacked(tmp_path) == FILES


# --- damage ---


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.tar", tar()[: tar().index(b"[1, 2]") + 512], "two zero blocks at a tar's end are missing"),
        ("x.tar", tar()[:600], "unexpected end of data|has not the"),
        (
            "x.tar",
            tar().rstrip(b"\0") + bytes(512 - len(tar().rstrip(b"\0")) % 512 + 512),
            "second of the two zero blocks",
        ),
        ("x.tar", tar() + tar(), "more bytes follow its end"),
        ("x.tar", tar() + b"x", "more bytes follow its end"),
        ("x.tar", bytes(10240), "holds no files"),
        ("x.tar", b"", "empty file"),
        ("x.tar", b"<html>not found</html>" * 50, "header"),
        ("x.tgz", tar_gz()[:-1], "Compressed file ended"),
        ("x.tgz", tar_gz()[:-8] + b"\0" * 8, "CRC check failed"),
        ("x.tgz", tar_gz() + b"garbage", "Not a gzipped file"),
        ("x.tgz", tar_gz() + tar_gz(), "more bytes follow its end"),
        ("x.zip", zipped()[:-1], "no zip archive, or its end is cut or has bytes too many"),
        ("x.zip", zipped() + b"x", "no zip archive, or its end is cut or has bytes too many"),
        ("x.zip", b"x" + zipped(), "list of members is not where its end gives it"),
        ("x.zip", zipped() + zipped(), "list of members is not where its end gives it"),
        ("x.zip", zipped({}), "holds no files"),
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


# --- bounds ---


@pytest.mark.parametrize("pack", [zipped, tar_gz])
def test_what_grows_beyond_its_size_is_refused(tmp_path, pack):
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
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 2)
    refused(tmp_path, "members")
    monkeypatch.undo()
    monkeypatch.setattr(archive_members, "MAX_MEMBER_BYTES", 1000)
    refused(tmp_path, r"its member 'images/[12].png' has \d+ bytes, allowed are 1000")


@pytest.mark.parametrize("kind", PACKERS)
def test_more_than_the_free_disk_is_refused(tmp_path, kind, monkeypatch):
    (tmp_path / f"x.{kind}").write_bytes(PACKERS[kind]())
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    refused(tmp_path, rf"x\.{kind} cannot be unpacked \(it needs more than the 1000 bytes .* free some space")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_its_own_sentence(tmp_path, number, monkeypatch):
    (tmp_path / "x.zip").write_bytes(zipped())

    def full(*_):
        raise OSError(number, "full")

    monkeypatch.setattr(archive_members._Sink, "_check", full)
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

    monkeypatch.setattr(archives, "read_members", fail)
    refused(tmp_path, rf"x\.zip cannot be unpacked \({match}")
