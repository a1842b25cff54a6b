"""Benchmarks from the hub: requests, unpacking, and messages without a network."""

from __future__ import annotations

import errno
import io
import shutil
import tarfile
import zipfile

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from probing import preferences
from probing.errors import UserError
from probing.preferences.benchmarks import BENCHMARKS, hub
from tests.preferences.published import png, write


@pytest.fixture
def hubs(tmp_path, monkeypatch):
    """A hub whose data sets are in a folder, with a list of its requests."""
    requests = []

    def snapshot_download(dataset, *, repo_type, allow_patterns):
        requests.append((dataset, repo_type, tuple(allow_patterns)))
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return requests


def test_a_benchmark_without_a_folder_is_fetched(hubs, tmp_path):
    write("hpdv2", tmp_path / "hub")
    for split in ("train", "test"):
        with tarfile.open(tmp_path / "hub" / f"{split}.tar.gz", "w:gz") as packed:
            packed.add(tmp_path / "hub" / split, arcname=split)
        shutil.rmtree(tmp_path / "hub" / split)
    data = preferences.load_pairs("hpdv2")
    assert hubs == [("ymhao/HPDv2", "dataset", ("test.json", "test.tar.gz", "train.json", "train.tar.gz"))]
    assert len(data.missing_images()) == 0


def test_only_the_given_split_is_fetched(hubs, tmp_path):
    write("pickapic-v1", tmp_path / "hub")
    preferences.load_pairs("pickapic-v1", split="test")
    assert hubs == [("pickapic-anonymous/pickapic_v1", "dataset", ("data/test_unique-*.parquet",))]


@pytest.mark.parametrize("name", [name for name, one in BENCHMARKS.items() if one.hub])
def test_every_split_names_its_files(name):
    assert set(BENCHMARKS[name].patterns) == set(BENCHMARKS[name].files)
    assert all(BENCHMARKS[name].patterns.values())


def test_without_a_network_the_message_lists_the_fixes(monkeypatch):
    def fail(*_, **__):
        raise LocalEntryNotFoundError("no network\nand no cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="connect to the network, .* or give --data-root") as error:
        preferences.load_pairs("hpdv3")
    assert "\n" not in str(error.value) and "MizzenAI/HPDv3" in str(error.value)


def test_a_full_disk_while_fetching_is_named(monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="^The disk is full while hpdv3 is fetched; free some space, or set HF_HOME"):
        preferences.load_pairs("hpdv3")


def test_the_message_names_the_source_of_files_off_the_hub():
    with pytest.raises(UserError, match="needs --data-root; its files are at THUDM/ImageReward on GitHub"):
        preferences.load_pairs("imagereward")


def tar_bytes(names, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as packed:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(png(0))
            packed.addfile(info, io.BytesIO(png(0)))
    return stream.getvalue()


@pytest.mark.parametrize("endings", [[""], [".part-aa", ".part-ab", ".part-ac"], [".00", ".01"], [".aa", ".ab"]])
@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_archives_and_their_parts_are_unpacked_once(tmp_path, kind, endings):
    (tmp_path / "deep").mkdir()
    if kind == "zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as packed:
            packed.writestr("images/1.png", png(0))
        whole = stream.getvalue()
    else:
        whole = tar_bytes(["images/1.png"], "w:gz" if kind == "tar.gz" else "w")
    size = -(-len(whole) // len(endings))
    for number, ending in enumerate(endings):
        (tmp_path / "deep" / f"images.{kind}{ending}").write_bytes(whole[number * size : (number + 1) * size])
    hub.unpack(tmp_path)
    unpacked = tmp_path / "deep" / "images" / "1.png"
    assert unpacked.read_bytes() == png(0)
    inode = unpacked.stat().st_ino
    hub.unpack(tmp_path)
    assert unpacked.stat().st_ino == inode
    unpacked.unlink()
    hub.unpack(tmp_path)
    assert unpacked.read_bytes() == png(0)


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "images.tar.gz").write_bytes(tar_bytes(["images/1.png"])[:80])
    with pytest.raises(UserError, match=r"images\.tar\.gz cannot be unpacked"):
        hub.unpack(tmp_path)


def test_an_archive_with_outside_members_is_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "images.tar.gz").write_bytes(tar_bytes(["../outside.png"]))
    with pytest.raises(UserError, match=r"images\.tar\.gz cannot be unpacked"):
        hub.unpack(inside)
    assert not (tmp_path / "outside.png").exists()
