"""A store at a URL: the same bytes as on a disk, read by the same commands, repaired and continued alike."""

from __future__ import annotations

import numpy as np
import pytest

import probing
from probing.errors import UserError
from probing.extract import main as extract_main
from probing.features import plan
from probing.features.store import check, repair
from probing.features.store.leases import Leases
from probing.paths import path_of
from probing.store import main as store_main
from tests.fakes.disk_store import write_store
from tests.fakes.fake_store import make_pairs
from tests.features.user_pairs import make_data

READ = {"sigmas": (0.6,), "t5_length": 12, "batch_size": 2, "device": "cpu", "keep_inputs": 0}


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def bucket(request, tmp_path):
    """The URL of an empty folder: in memory, and on an S3 server."""
    return request.getfixturevalue("s3_bucket") if request.param == "s3" else f"memory://{tmp_path.name}"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_LONGEST_RUN", 2)
    return probing.load_pairs(make_data(tmp_path / "data", count=6))


def contents(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_store_at_a_url_has_the_bytes_of_one_on_the_disk(tiny_folder, data, bucket, tmp_path):
    local = probing.extract(tiny_folder, data, output=tmp_path / "s.zarr", **READ)
    url = f"{bucket}/stores/s.zarr"
    remote = probing.extract(tiny_folder, data, output=url, **READ)
    assert contents(path_of(url)) == contents(local.path) and remote.digest == local.digest
    assert str(remote.path) == url and not Leases(remote.path).folder.exists()
    assert check(url) == [] and remote.complete
    again = probing.FeatureStore.open(url)
    assert np.array_equal(again.read("image", "mean", 0.6, 1), local.read("image", "mean", 0.6, 1))
    assert again.read_pairs().equals(local.read_pairs())
    # Nothing is computed again, and more noise levels are added as to a local one.
    assert probing.plan_extraction(tiny_folder, data, output=url, **READ).run()[1:] == (0, "nothing is new")
    more = {**READ, "sigmas": (0.6, 0.1)}
    for output in (tmp_path / "s.zarr", url):
        probing.extract(tiny_folder, data, output=output, **more)
    assert contents(path_of(url)) == contents(local.path)


def test_a_damaged_and_an_interrupted_store_at_a_url_are_mended(tiny_folder, data, bucket, monkeypatch):
    url = f"{bucket}/s.zarr"
    store = probing.extract(tiny_folder, data, output=url, **READ)
    whole = contents(path_of(url))
    file = path_of(url) / store.spec("features/image/mean").file(1, 0)
    file.write_bytes(b"damaged")
    assert [problem.run for problem in check(url)] == [1]
    with pytest.raises(UserError, match="damaged|cut off"):
        probing.FeatureStore.open(url).read("image", "mean", 0.6, 0)
    repair(url, check(url))
    assert probing.plan_extraction(tiny_folder, data, output=url, **READ).run()[1] == 2
    assert contents(path_of(url)) == whole
    # The root document is written last: without it there is no store, and a new one replaces the rest.
    (path_of(url) / "zarr.json").unlink()
    (path_of(url) / "runs" / "zarr.json").unlink()
    path_of(url).fs.rm((path_of(url) / "runs").path, recursive=True)
    probing.extract(tiny_folder, data, output=url, **READ)
    assert contents(path_of(url)) == whole


def test_the_commands_take_a_url(tiny_folder, data, bucket, tmp_path, capsys):
    url = f"{bucket}/s.zarr"
    options = ["--model", str(tiny_folder), "--data", str(tmp_path / "data" / "pairs.csv"), "--output", url]
    options += ["--sigmas", "0.6", "--t5-length", "12", "--batch-size", "2", "--keep-inputs", "0"]
    assert extract_main(options) == 0
    assert f"Features: {url}\n" in capsys.readouterr().out
    for verb in ("check", "info", "status", "repair"):
        assert store_main([verb, url]) == 0, verb
    said = capsys.readouterr().out
    assert "every file matches the records" in said and "nobody is at work" in said


def test_an_experiment_reads_a_store_at_a_url(bucket, tmp_path):
    pairs = make_pairs()
    local = write_store(tmp_path / "s.zarr", pairs)
    remote = write_store(path_of(f"{bucket}/s.zarr"), pairs)
    read = {"shuffles": 0, "facets": ["quality"], "sites": probing.Sites(("image",), sigmas=(0.6,), blocks=(1, 4))}
    one, other = (
        probing.reward_curve(store, output=tmp_path / f"results{number}", **read)
        for number, store in enumerate((str(local), str(remote)))
    )
    assert one.table.equals(other.table) and len(one.table)


def test_a_place_that_is_no_store_gets_a_sentence(tiny_folder, data, bucket):
    with pytest.raises(UserError, match="There is no feature store at .*/nowhere.zarr"):
        probing.FeatureStore.open(f"{bucket}/nowhere.zarr")
    path_of(f"{bucket}/file").parent.mkdir(parents=True, exist_ok=True)
    path_of(f"{bucket}/file").write_bytes(b"x")
    with pytest.raises(UserError, match="is no folder, and a store is one"):
        probing.extract(tiny_folder, data, output=f"{bucket}/file", **READ)
