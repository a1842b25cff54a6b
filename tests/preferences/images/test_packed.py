"""Pictures in archives and at URLs: the same as in a folder, without unpacking anything."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pytest
from upath import UPath

import probing
from probing.errors import UserError
from probing.preferences import load_pairs
from probing.preferences.benchmarks import BENCHMARKS
from probing.preferences.images import ImageFolder, remote
from tests.preferences.published import picture, png, write


def pack_tar(path, names, *, parts=1):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for number, name in names.items():
            entry = tarfile.TarInfo(name)
            data = png(number)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    data = stream.getvalue()
    if parts == 1:
        path.write_bytes(data)
    size = -(-len(data) // parts)
    for number in range(parts if parts > 1 else 0):
        path.with_name(f"{path.name}.part{number:02d}").write_bytes(data[number * size : (number + 1) * size])


def pack_zip(path, names, *, parts=1):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, name in names.items():
            packed.writestr(name, png(number))


def listing(folder):
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("pack", "name", "parts"),
    [(pack_tar, "images.tar", 1), (pack_tar, "images.tar", 3), (pack_zip, "images.zip", 1)],
    ids=["tar", "tar in parts", "zip"],
)
def test_members_are_read_as_if_they_were_unpacked_beside_their_archive(tmp_path, pack, name, parts):
    (tmp_path / "sub").mkdir()
    pack(tmp_path / "sub" / name, {1: "a/one.png", 2: "two.png"}, parts=parts)
    before = listing(tmp_path)
    source = ImageFolder(tmp_path)
    for number, member in ((1, "sub/a/one.png"), (2, "sub/two.png"), (1, "sub/./a/one.png")):
        assert source.open(member, "r").tobytes() == picture(number).tobytes()
        assert source.stamp(member) and source.stamp(member) == ImageFolder(tmp_path).stamp(member)
    assert source.stamp("sub/a/one.png") != source.stamp("sub/two.png")
    assert source.missing(["sub/two.png", "two.png", "sub/a/one.png"]) == ["two.png"]
    with pytest.raises(UserError, match=r"two\.png of record 'r' is missing"):
        source.open("two.png", "r")
    assert listing(tmp_path) == before


def test_a_file_counts_before_an_archive_and_a_compressed_tar_not_at_all(tmp_path):
    pack_tar(tmp_path / "images.tar", {1: "one.png"})
    (tmp_path / "one.png").write_bytes(png(5))
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "one.png", "three.png")
    source = ImageFolder(tmp_path)
    assert source.open("one.png", "r").tobytes() == picture(5).tobytes()
    assert source.missing(["three.png"]) == ["three.png"]


def test_a_changed_archive_gives_other_stamps_and_other_pictures(tmp_path):
    pack_tar(tmp_path / "images.tar", {1: "one.png"})
    first = ImageFolder(tmp_path).stamp("one.png")
    pack_tar(tmp_path / "images.tar", {2: "zero.png", 3: "one.png"})
    again = ImageFolder(tmp_path)
    assert again.stamp("one.png") != first
    assert again.open("one.png", "r").tobytes() == picture(3).tobytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:700]), "images.tar is damaged or cut short"),
        (lambda path: path.write_bytes(b"no tar" * 300), "images.tar is damaged or cut short"),
        (lambda path: pack_tar(path, {1: "../one.png"}), "is outside the folder"),
        (lambda path: path.with_name("images.tar.part01").write_bytes(b"x"), "next to the whole archive|missing: "),
    ],
)
def test_damaged_archives_get_a_sentence(tmp_path, damage, message):
    pack_tar(tmp_path / "images.tar", {1: "one.png", 2: "two.png"})
    damage(tmp_path / "images.tar")
    with pytest.raises(UserError, match=message) as error:
        ImageFolder(tmp_path).open("two.png", "r")
    assert "\n" not in str(error.value)


def test_a_benchmark_is_read_from_its_archives(tmp_path):
    whole = write("hpdv3", tmp_path / "whole")
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("train.json", "test.json"):
        shutil.copy(whole / name, packed / name)
    with tarfile.open(packed / "images.tar", "w") as tar:
        tar.add(whole / "images", "images")
    one, other = (load_pairs("hpdv3", root=root) for root in (whole, packed))
    assert one.items.equals(other.items) and len(other.missing_images()) == 0
    for item in one.items["item_id"]:
        assert one.open_image(item).tobytes() == other.open_image(item).tobytes()


@pytest.fixture
def bucket():
    """A bucket in memory, as any of fsspec's protocols."""
    files = fsspec.filesystem("memory")
    for number in range(4):
        files.pipe_file(f"/bucket/pictures/{number}.png", png(number))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("in/9.png", png(9))
    files.pipe_file("/bucket/all.zip", stream.getvalue())
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def pairs_of(path, names):
    rows = [{"prompt": f"a {n}", "chosen": one, "rejected": other} for n, (one, other) in enumerate(names)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_file_of_pairs_can_have_its_pictures_in_a_bucket(bucket, tmp_path):
    file = pairs_of(
        tmp_path / "pairs.jsonl", [("pictures/0.png", "pictures/1.png"), ("pictures/2.png", "pictures/3.png")]
    )
    data = probing.load_pairs(str(file), root=Path(bucket))
    assert len(data.missing_images()) == 0
    for item, name in zip(data.items["item_id"], data.items["image"], strict=True):
        assert data.open_image(item).tobytes() == picture(int(name[9])).tobytes()
        assert data.stamp_of(item)
    named = pairs_of(
        tmp_path / "named.jsonl",
        [(f"{bucket}/pictures/0.png", f"zip://in/9.png::{bucket}/all.zip"), (f"{bucket}/pictures/7.png", "local.png")],
    )
    (tmp_path / "local.png").write_bytes(png(5))
    data = probing.load_pairs(str(named))
    assert data.missing_images()["image"].tolist() == [f"{bucket}/pictures/7.png"]
    by_name = dict(zip(data.items["image"], data.items["item_id"], strict=True))
    assert data.open_image(by_name[f"zip://in/9.png::{bucket}/all.zip"]).tobytes() == picture(9).tobytes()
    assert data.open_image(by_name["local.png"]).tobytes() == picture(5).tobytes()
    with pytest.raises(UserError, match=r"memory://bucket/pictures/7\.png of record .* is missing"):
        data.open_image(by_name[f"{bucket}/pictures/7.png"])


def test_a_failure_that_passes_is_tried_again_and_one_that_lasts_is_a_sentence(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSE", 0.0)
    files, calls = fsspec.filesystem("memory"), []
    read = files.cat_file

    def shaky(path, **how):
        calls.append(path)
        if len(calls) % 3:
            raise OSError("connection reset")
        return read(path, **how)

    monkeypatch.setattr(type(files), "cat_file", lambda self, path, **how: shaky(path, **how))
    source = ImageFolder(Path(bucket))
    assert source.open("pictures/1.png", "r").tobytes() == picture(1).tobytes() and len(calls) == 3
    monkeypatch.setattr(type(files), "cat_file", _always_fail)
    with pytest.raises(UserError, match="cannot be read .connection reset"):
        source.open("pictures/1.png", "r")


def _always_fail(self, path, **how):
    raise OSError("connection reset")


def uploaded(folder, url):
    """Copy a folder to a URL."""
    place = UPath(url)
    for file in folder.rglob("*"):
        if file.is_file():
            copy = place / file.relative_to(folder).as_posix()
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return Path(url)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_read_at_a_url_as_from_a_folder(bucket, tmp_path, name):
    folder = write(name, tmp_path / "whole")
    one, other = (load_pairs(name, root=root) for root in (folder, uploaded(folder, f"{bucket}/{name}")))
    assert one.items.equals(other.items) and one.pairs.equals(other.pairs) and one.fingerprint == other.fingerprint
    for item in one.items["item_id"].iloc[[0, -1]]:
        assert one.open_image(item).tobytes() == other.open_image(item).tobytes()
        assert other.stamp_of(item)
    assert len(other.missing_images()) == len(one.missing_images()) == 0


def test_archives_and_a_file_of_pairs_are_read_at_a_url(bucket, tmp_path):
    folder = tmp_path / "mine"
    (folder / "shards").mkdir(parents=True)
    pack_tar(folder / "shards" / "a.tar", {1: "one.png", 2: "two.png"}, parts=2)
    pack_zip(folder / "shards" / "b.zip", {3: "three.png"})
    pairs_of(folder / "pairs.jsonl", [("shards/one.png", "shards/two.png"), ("shards/three.png", "shards/one.png")])
    uploaded(folder, f"{bucket}/mine")
    data = load_pairs(f"{bucket}/mine/pairs.jsonl")
    assert len(data.missing_images()) == 0 and data.name == "pairs"
    numbers = {"shards/one.png": 1, "shards/two.png": 2, "shards/three.png": 3}
    for item, name in zip(data.items["item_id"], data.items["image"], strict=True):
        assert data.open_image(item).tobytes() == picture(numbers[name]).tobytes()
        assert data.stamp_of(item)
    with pytest.raises(UserError, match="There is no file memory://bucket/mine/others.csv"):
        load_pairs(f"{bucket}/mine/others.csv")
    with pytest.raises(UserError, match="There is no folder memory://bucket/nowhere"):
        load_pairs("hpdv3", root=Path(f"{bucket}/nowhere"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hpdv3", "pickapic-v2", "rapidata"])
def test_benchmarks_are_read_from_an_s3_server(s3_bucket, tmp_path, name):
    folder = write(name, tmp_path / "whole")
    one, other = (load_pairs(name, root=root) for root in (folder, uploaded(folder, f"{s3_bucket}/data/{name}")))
    assert one.fingerprint == other.fingerprint and len(other.missing_images()) == 0
    for item in one.items["item_id"]:
        assert one.open_image(item).tobytes() == other.open_image(item).tobytes()
    stamp = other.stamp_of(one.items["item_id"].iloc[0])
    assert stamp and stamp == load_pairs(name, root=Path(f"{s3_bucket}/data/{name}")).stamp_of(
        one.items["item_id"].iloc[0]
    )
    with pytest.raises(UserError, match=r"There is no folder s3://.*/nowhere"):
        load_pairs(name, root=Path(f"{s3_bucket}/nowhere"))


def test_unknown_protocols_and_missing_libraries_get_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is no URL that can be opened"):
        ImageFolder(tmp_path).open("gopher://a/b.png", "r")
    with pytest.raises(UserError, match="needs a library that is not installed .*gcsfs"):
        ImageFolder(tmp_path).open("gcs://bucket/b.png", "r")
    with pytest.raises(UserError, match="needs a library that is not installed .*gcsfs"):
        load_pairs("hpdv3", root=Path("gcs://bucket/hpdv3"))
    with pytest.raises(UserError, match="gopher://a is no URL that can be opened"):
        load_pairs("hpdv3", root=Path("gopher://a"))

    def refuse(self):
        raise RuntimeError("no credentials")

    monkeypatch.setattr("upath.implementations.memory.MemoryPath.is_dir", refuse)
    with pytest.raises(
        UserError, match=r"memory://a cannot be reached \(RuntimeError: no credentials\); check the URL"
    ):
        load_pairs("hpdv3", root=Path("memory://a"))


def test_an_extraction_from_archives_has_the_bytes_of_one_from_files(tiny_folder, tmp_path):
    whole = write("imagereward", tmp_path / "whole", prompts=3)
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.copy(whole / "test.json", packed / "test.json")
    with tarfile.open(packed / "shard-000.tar", "w") as tar:
        tar.add(whole / "test_images", "test_images")
    how = {"resolution": 16, "t5_length": 12, "device": "cpu", "keep_inputs": 0}
    stores = [
        probing.extract(tiny_folder, load_pairs("imagereward", root=root), output=tmp_path / name, **how)
        for root, name in ((whole, "a.zarr"), (packed, "b.zarr"))
    ]
    assert stores[0].digest == stores[1].digest
