"""The store's contract: layout, resume, refusal, damage."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import xarray
import zarr

from probing.errors import UserError
from probing.features.store import SCHEMA, ArraySpec, FeatureStore, to_stored

ITEMS, RUN, SIGMAS = 10, 4, (0.005, 0.5)
ARRAYS = (
    ArraySpec("features/image/mean", (0, 1, 2), (5,), "float32"),
    ArraySpec("features/text/mean_clip", (0, 1), (5,), "float32"),
    ArraySpec("features/image/tokens", (0, 1, 2), (4, 5), "float16"),
    ArraySpec("latents/mean", None, (2,), "float32"),
)


def create(path, **changed):
    arguments = {
        "arrays": ARRAYS,
        "item_ids": [f"item{i}" for i in range(ITEMS)],
        "prompt_ids": [f"prompt{i // 2}" for i in range(ITEMS)],
        "sigmas": SIGMAS,
        "num_blocks": 3,
        "run_length": RUN,
        "settings": {"model": "tiny", "seed": 0},
        "provenance": {"versions": {"torch": "2"}},
    }
    return FeatureStore.create(path, **{**arguments, **changed})


def contents(seed=0):
    rng = np.random.default_rng(seed)
    return {
        a.name: rng.standard_normal(
            (ITEMS, *(() if a.blocks is None else (len(SIGMAS), len(a.blocks))), *a.shape)
        ).astype(a.dtype)
        for a in ARRAYS
    }


def write(store, values, runs=(0, 1, 2)):
    for run in runs:
        store.write_run(run, {name: value[run * RUN : (run + 1) * RUN] for name, value in values.items()})


def test_what_is_written_is_read(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values)
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.written.all()
    assert store.arrays() == [("image", "mean"), ("text", "mean_clip"), ("image", "tokens")]
    assert store.latent_reductions() == ["mean"]
    assert (store.num_blocks, store.blocks, store.blocks_of("text")) == (3, [0, 1, 2], [0, 1])
    for s, sigma in enumerate(SIGMAS):
        for block in store.blocks:
            np.testing.assert_array_equal(
                store.read("image", "mean", sigma, block), values["features/image/mean"][:, s, block]
            )
            np.testing.assert_array_equal(
                store.read("image", "tokens", sigma, block), values["features/image/tokens"][:, s, block]
            )
    np.testing.assert_array_equal(store.read_latents("mean"), values["latents/mean"])


def test_blocks_are_found_by_number_and_not_by_position(tmp_path):
    arrays = (ArraySpec("features/image/mean", (3, 7), (2,), "float32"),)
    store = create(tmp_path / "s.zarr", arrays=arrays, num_blocks=8)
    values = np.arange(ITEMS * 2 * 2 * 2, dtype=np.float32).reshape(ITEMS, 2, 2, 2)
    write(store, {"features/image/mean": values})
    np.testing.assert_array_equal(store.read("image", "mean", 0.5, 7), values[:, 1, 1])
    with pytest.raises(UserError, match="no block 1 .*it has \\[3, 7\\]"):
        store.read("image", "mean", 0.5, 1)


def test_it_opens_without_this_package(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    np.testing.assert_array_equal(group["features/image/mean"][:], values["features/image/mean"])
    assert group["features/image/mean"].metadata.dimension_names == ("item", "sigma", "block", "channel")
    assert group.attrs["model"] == "tiny"
    dataset = xarray.open_zarr(tmp_path / "s.zarr", group="features/image", consolidated=False)
    assert dataset["mean"].dims == ("item", "sigma", "block", "channel")
    np.testing.assert_allclose(dataset["depth"], [1 / 3, 2 / 3, 1])


def test_reading_a_block_touches_its_own_chunk(tmp_path):
    """A chunk is one (sigma, block) of a run, and a shard is a run: damage to one block leaves the others good."""
    store = create(tmp_path / "s.zarr")
    array = zarr.open_group(tmp_path / "s.zarr", mode="r")["features/image/mean"]
    assert array.chunks == (RUN, 1, 1, 5)
    assert array.shards == (RUN, len(SIGMAS), 3, 5)
    values = contents()
    write(store, values)
    shard = tmp_path / "s.zarr" / "features" / "image" / "mean" / "c" / "0" / "0" / "0" / "0"
    damaged = bytearray(shard.read_bytes())
    damaged[3] ^= 0xFF
    shard.write_bytes(damaged)
    touched = [
        (sigma, block) for sigma in SIGMAS for block in (0, 1, 2)
        if _raises(lambda sigma=sigma, block=block: store.read("image", "mean", sigma, block))
    ]  # fmt: skip
    assert len(touched) == 1


def _raises(read):
    try:
        read()
    except UserError:
        return True
    return False


def test_a_truncated_shard_is_named(tmp_path):
    store = create(tmp_path / "s.zarr")
    write(store, contents())
    shard = tmp_path / "s.zarr" / "features" / "image" / "mean" / "c" / "1" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"features/image/mean is damaged or cut off"):
        store.read("image", "mean", 0.005, 0)


def test_writing_a_run_leaves_the_files_of_others_alone(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values, runs=[0])
    shards = [p for a in ARRAYS for p in (tmp_path / "s.zarr" / a.name).rglob("c/**/*") if p.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in shards}
    assert len(before) == len(ARRAYS)
    write(store, values, runs=[1, 2])
    assert all((path.stat().st_mtime_ns, path.stat().st_ino) == stamp for path, stamp in before.items())


def test_written_is_set_after_the_data_it_speaks_for(tmp_path, monkeypatch):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values, runs=[0])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("probing.features.store._sync", full)
    with pytest.raises(UserError, match=r"is full.*after the 4 items"):
        write(store, values, runs=[1])
    monkeypatch.undo()
    again = create(tmp_path / "s.zarr")
    assert again.written.tolist() == [True] * 4 + [False] * 6
    write(again, values, runs=[1, 2])
    np.testing.assert_array_equal(again.read("image", "mean", 0.5, 2), values["features/image/mean"][:, 1, 2])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"model": "tiny", "seed": 1}}, "seed was 0 and is now 1"),
        ({"sigmas": (0.005, 0.6)}, r"sigmas was \[0.005, 0.5\] and is now \[0.005, 0.6\]"),
        ({"item_ids": [f"other{i}" for i in range(ITEMS)]}, "the items are others"),
        ({"run_length": 8}, "run_length was 4 and is now 8"),
        ({"settings": {"model": "tiny", "seed": 0, "new": 1}}, "new was None and is now 1"),
    ],
)
def test_other_settings_are_refused_with_the_difference(tmp_path, changed, said):
    store, values = create(tmp_path / "s.zarr"), contents()
    write(store, values)
    with pytest.raises(UserError, match=said):
        create(tmp_path / "s.zarr", **changed)
    np.testing.assert_array_equal(store.read("image", "mean", 0.5, 2), values["features/image/mean"][:, 1, 2])


def test_a_newer_schema_is_refused(tmp_path):
    create(tmp_path / "s.zarr")
    zarr.open_group(tmp_path / "s.zarr", mode="r+").attrs["schema"] = SCHEMA + 1
    with pytest.raises(UserError, match="upgrade"):
        FeatureStore.open(tmp_path / "s.zarr")


def test_what_is_no_store_is_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match=r"probing\.extract makes one"):
        FeatureStore.open(tmp_path / "nothing.zarr")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "empty.zarr" / "x").write_text("")
    with pytest.raises(UserError, match="no feature store"):
        FeatureStore.open(tmp_path / "empty.zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    with pytest.raises(UserError, match="no feature store of this project"):
        FeatureStore.open(tmp_path / "foreign.zarr")


def test_a_half_made_store_is_made_anew(tmp_path):
    (tmp_path / "s.zarr.partial" / "junk").mkdir(parents=True)
    assert not create(tmp_path / "s.zarr").written.any()
    assert not (tmp_path / "s.zarr.partial").exists()


def test_a_run_has_every_array_in_its_shape(tmp_path):
    store, values = create(tmp_path / "s.zarr"), contents()
    run = {name: value[:RUN] for name, value in values.items()}
    with pytest.raises(ValueError, match="A run has the arrays"):
        store.write_run(0, {"latents/mean": run["latents/mean"]})
    with pytest.raises(ValueError, match="got float32"):
        store.write_run(0, {**run, "latents/mean": run["latents/mean"][:2]})
    with pytest.raises(ValueError, match="got float64"):
        store.write_run(0, {**run, "latents/mean": run["latents/mean"].astype(np.float64)})
    assert not store.written.any()


def test_nothing_is_lost_to_infinity():
    with pytest.raises(UserError, match=r"7e\+04, too large for float16"):
        to_stored(np.array([7e4], dtype=np.float32), "float16", "features/image/tokens")
    with pytest.raises(UserError, match="not finite"):
        to_stored(np.array([np.nan], dtype=np.float32), "float32", "features/image/mean")
    assert to_stored(np.array([6e4], dtype=np.float32), "float16", "x").dtype == np.float16
