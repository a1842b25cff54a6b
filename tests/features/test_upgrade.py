"""Stores of schema 1 are read, and become schema 2 with the same features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from probing.errors import UserError
from probing.features.store import FeatureStore, check, upgrade
from probing.store import main

ITEMS, RUN, SIGMAS, BLOCKS = 5, 2, (0.005, 0.5), (0, 2)


def make_schema_1(path, written=ITEMS):
    """Write what the version before wrote, by zarr alone."""
    rng = np.random.default_rng(0)
    group = zarr.open_group(path, mode="w", zarr_format=3)

    def put(name, values, **how):
        dtype = str if values.dtype == object else values.dtype
        group.create_array(name, shape=values.shape, dtype=dtype, **how)[...] = values
        return values

    put("item_id", np.array([f"i{n}" for n in range(ITEMS)], dtype=object))
    put("prompt_id", np.array([f"p{n // 2}" for n in range(ITEMS)], dtype=object))
    put("sigma", np.array(SIGMAS))
    put("written", np.arange(ITEMS) < written, chunks=(RUN,), fill_value=False)
    features = rng.normal(size=(ITEMS, 2, 2, 3)).astype("float32")
    features[written:] = np.nan
    how = {"compressors": [Crc32cCodec()], "fill_value": float("nan")}
    put("features/image/mean", features, chunks=(RUN, 1, 1, 3), shards=(RUN, 2, 2, 3), **how)
    latents = put(
        "latents/mean", rng.normal(size=(ITEMS, 4)).astype("float32"), chunks=(RUN, 4), shards=(RUN, 4), **how
    )
    put("features/image/block", np.array(BLOCKS))
    put("features/image/depth", (np.array(BLOCKS) + 1) / 3)
    arrays = {"features/image/mean": [list(BLOCKS), [3], "float32"], "latents/mean": [[], [4], "float32"]}
    settings = {
        "model": "m",
        "seed": 0,
        "random_init": False,
        "streams": ["image"],
        "reductions": ["mean"],
        "data": "d",
        "data_fingerprint": "f",
        "sigmas": list(SIGMAS),
        "run_length": RUN,
        "arrays": arrays,
    }
    group.attrs.update({"schema": 1, "num_blocks": 3, "versions": {"zarr": "3"}, "settings": settings, **settings})
    pairs = pd.DataFrame({"pair_id": ["a"], "first": ["i0"], "second": ["i1"], "choice": [1.0]})
    pairs.to_parquet(path.with_suffix(".pairs.parquet"), index=False)
    return features, latents, pairs


def test_schema_1_is_read(tmp_path):
    features, latents, pairs = make_schema_1(tmp_path / "s.zarr")
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert (store.schema, store.num_blocks, store.sigmas, store.blocks_of("image")) == (1, 3, list(SIGMAS), [0, 2])
    np.testing.assert_array_equal(store.read("image", "mean", 0.5, 2), features[:, 1, 1])
    np.testing.assert_array_equal(store.read_latents("mean"), latents)
    assert store.written.all()
    pd.testing.assert_frame_equal(store.read_pairs(), pairs)


def test_damaged_coordinates_of_schema_1_are_found(tmp_path):
    """They had no checksum, and 0 as fill value; the attributes hold a copy."""
    make_schema_1(tmp_path / "s.zarr")
    for name in ("sigma", "features/image/block"):
        file = tmp_path / "s.zarr" / name / "c" / "0"
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(UserError, match="damaged"):
            FeatureStore.open(tmp_path / "s.zarr")
        file.write_bytes(content)


def test_upgrading_keeps_features_and_links_pairs(tmp_path, capsys):
    features, latents, pairs = make_schema_1(tmp_path / "s.zarr")
    old = FeatureStore.open(tmp_path / "s.zarr").digest
    assert main(["upgrade", str(tmp_path / "s.zarr")]) == 0
    assert "s.zarr.schema-1; you can delete it" in capsys.readouterr().out
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.schema == 2 and store.complete and check(store.path) == []
    for s, sigma in enumerate(SIGMAS):
        for b, block in enumerate(BLOCKS):
            np.testing.assert_array_equal(store.read("image", "mean", sigma, block), features[:, s, b])
    np.testing.assert_array_equal(store.read_latents("mean"), latents)
    pd.testing.assert_frame_equal(store.read_pairs(), pairs)
    assert store.attributes["model"] == "m" and store.attributes["data"] == "d"
    assert FeatureStore.open(tmp_path / "s.zarr.schema-1").digest == old
    assert main(["upgrade", str(tmp_path / "s.zarr")]) == 0
    assert "has the current schema already" in capsys.readouterr().out


def test_a_killed_upgrade_continues(tmp_path, monkeypatch):
    features, _, _ = make_schema_1(tmp_path / "s.zarr")
    calls = []

    def stop(runs):
        calls.append(runs)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upgrade(tmp_path / "s.zarr", advance=stop)
    assert FeatureStore.open(tmp_path / "s.zarr").schema == 1
    upgrade(tmp_path / "s.zarr")
    np.testing.assert_array_equal(
        FeatureStore.open(tmp_path / "s.zarr").read("image", "mean", 0.5, 0), features[:, 1, 0]
    )
    # Killed between the two renames.
    (tmp_path / "s.zarr").rename(tmp_path / "s.zarr.schema-2")
    assert upgrade(tmp_path / "s.zarr") == tmp_path / "s.zarr.schema-1"
    assert FeatureStore.open(tmp_path / "s.zarr").schema == 2


def test_an_unfinished_store_is_not_upgraded(tmp_path):
    make_schema_1(tmp_path / "s.zarr", written=3)
    with pytest.raises(UserError, match="is unfinished"):
        upgrade(tmp_path / "s.zarr")
    assert FeatureStore.open(tmp_path / "s.zarr").schema == 1


def test_pairs_of_another_store_are_not_linked(tmp_path):
    make_schema_1(tmp_path / "noise-0.1")
    other = pd.DataFrame({"pair_id": ["a"], "first": ["x0"], "second": ["x1"], "choice": [1.0]})
    other.to_parquet(tmp_path / "noise-0.pairs.parquet", index=False)
    with pytest.raises(UserError, match="may have the pairs of another store: noise-0.1 lacks its item 'x0'"):
        upgrade(tmp_path / "noise-0.1")


def test_pairs_that_two_stores_share_are_refused(tmp_path):
    for name in ("noise-0.1", "noise-0.2"):
        make_schema_1(tmp_path / name)
    for name, other in (("noise-0.1", "noise-0.2"), ("noise-0.2", "noise-0.1")):
        with pytest.raises(UserError, match=f": {other} shares it"):
            FeatureStore.open(tmp_path / name).read_pairs()
