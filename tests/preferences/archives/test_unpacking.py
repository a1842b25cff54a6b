"""Unpacking: whole or not at all, inside its folder, again where something changed."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from probing.errors import UserError
from probing.preferences.archives import members, unpacking
from probing.preferences.archives.unpacking import unpack
from tests.preferences.archives.packed import FILES, PACKERS, refused, tar, tar_gz, unpacked, write_parts, zipped


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
def test_a_marker_without_content_is_ignored(tmp_path, marker):
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
def test_the_next_call_repairs_any_kill(tmp_path, kind, before, monkeypatch):
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
                    monkeypatch.setattr(unpacking.shutil, "rmtree", lambda *_, **__: None)
                    raise Killed
                return function(*arguments, **named)

            return counted

        with monkeypatch.context() as patch:
            for owner, name in [
                (members._Sink, "_check"),
                (unpacking.os, "replace"),
                (unpacking.Path, "unlink"),
                (unpacking.Path, "mkdir"),
                (unpacking, "write_text"),
            ]:
                patch.setattr(owner, name, kill(getattr(owner, name)))
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


def test_leftovers_of_kills_are_removed(tmp_path):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    write_parts(tmp_path / ".x.zip.unpacking-1", "y.zip", b"half", [""])
    (tmp_path / ".x.zip.unpacked.abc.partial").write_bytes(b"half")
    unpack(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "list.json", "x.zip", "x.zip.unpacked"]


def test_two_at_once_unpack_once(tmp_path, monkeypatch):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    read, calls = unpacking.read_members, []

    def counted(*arguments):
        calls.append(arguments)
        time.sleep(0.1)
        return read(*arguments)

    monkeypatch.setattr(unpacking, "read_members", counted)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(unpack, [tmp_path] * 3))
    assert len(calls) == 1 and unpacked(tmp_path) == FILES


def test_archives_inside_archives_stay_packed(tmp_path):
    inner = zipped({"deep": b"deep"})
    (tmp_path / "x.tar").write_bytes(tar({"inner.zip": inner}))
    for _ in range(3):
        unpack(tmp_path)
        assert (tmp_path / "inner.zip").read_bytes() == inner and not (tmp_path / "deep").exists()


def test_a_finished_unpacking_is_read_from_a_read_only_folder(tmp_path, monkeypatch):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    unpack(tmp_path)
    monkeypatch.setattr(unpacking.tempfile, "mkdtemp", lambda **_: pytest.fail("writes"))
    monkeypatch.setattr(unpacking, "write_text", lambda *_: pytest.fail("writes"))
    unpack(tmp_path)


def test_a_file_with_other_content_is_not_overwritten(tmp_path):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    (tmp_path / "list.json").write_bytes(b"mine")
    refused(tmp_path, r"x\.zip cannot be unpacked \(.*list\.json exists with other content\); move that file away")


def test_a_file_with_the_same_content_is_kept(tmp_path):
    write_parts(tmp_path, "x.zip", zipped(), [""])
    (tmp_path / "list.json").write_bytes(FILES["list.json"])
    inode = (tmp_path / "list.json").stat().st_ino
    unpack(tmp_path)
    assert (tmp_path / "list.json").stat().st_ino == inode


def test_two_archives_with_one_path(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"same": b"1", "p": b"first"}))
    (tmp_path / "b.tar").write_bytes(tar({"same": b"1", "p": b"second"}))
    with pytest.raises(UserError, match=r"b\.tar cannot be unpacked \(.*/p exists with other content"):
        unpack(tmp_path)
    assert unpacked(tmp_path) == {"same": b"1", "p": b"first"}
    (tmp_path / "b.tar").write_bytes(tar({"same": b"1", "q": b"second"}))
    unpack(tmp_path)
    assert unpacked(tmp_path) == {"same": b"1", "p": b"first", "q": b"second"}
    # A replaced archive does not replace what the other one also holds.
    (tmp_path / "b.tar").write_bytes(tar({"same": b"2", "q": b"second"}))
    with pytest.raises(UserError, match=r"b\.tar cannot be unpacked \(.*/same exists with other content"):
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


def test_modes_of_members_are_ignored(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar({"a": b"1"}, mode=0o6777))
    unpack(tmp_path)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o6111 == 0


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_repeated_member(tmp_path, kind):
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
    refused(tmp_path, "its member 'a' is repeated with different content")
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
